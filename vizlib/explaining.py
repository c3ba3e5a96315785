"""Ask a model why: one method, all that one pass can feed, one photo or many, at once or getting better and better."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, overload

import torch
from PIL import Image
from torch import Tensor

from vizlib.errors import MethodError
from vizlib.gathering import evidence_of, gradients_of, how, one_of
from vizlib.images import open_image
from vizlib.methods.base import Evidence, Method, Needs, Partial
from vizlib.methods.notes import notes_on
from vizlib.model import Model
from vizlib.passes import Passes
from vizlib.questions import Asked, Class, Question, asked_of, kind, one_each, one_pass, union
from vizlib.results import Attribution, Run, Step


@overload
def explain(model: Model, photo: list | tuple, *args: Any, **knobs: Any) -> list[Attribution]: ...
@overload
def explain(model: Model, photo: Any, *args: Any, **knobs: Any) -> Attribution: ...
def explain(
    model: Model,
    photo,
    method: str = "grad-cam",
    target=None,
    against=None,
    *,
    run: Run | None = None,
    **knobs,
):
    """Show how much each place in the photo spoke for a class.

    `target` is a class by index or label, the likeliest one if left out. With `against` the picture answers why the
    target and not that class: the score that is explained is the difference of the two, so what spoke for the other
    class is negative; `"runner-up"` is the likeliest class besides the target. A `run` that already holds what the
    method reads saves the forward pass.

    Given a list of photos, a list of attributions comes back; `target` and `against` are one for all, or a list.

    Raises: ImageError, TargetError, MethodError (an unknown method or knob, or one that does not fit this model).

    >>> model = load("resnet18-imagenette")
    >>> explain(model, "church.jpg", method="grad-cam", target="church").save("why.png")  # doctest: +SKIP
    """
    asked = asked_of(model, method, knobs)
    if isinstance(photo, (list, tuple)):
        _no_run(run)
        return [answers[0] for answers in _batches(model, photo, [asked], target, against)]
    seen = _run(model, photo, asked.needs(model)) if run is None else run
    return _answers(model, seen, [asked], target, against)[0]


@overload
def explain_all(
    model: Model, photo: list | tuple, target: Any = None, against: Any = None, *, run: None = None
) -> list[dict[str, Attribution]]: ...
@overload
def explain_all(
    model: Model, photo: Any = None, target: Any = None, against: Any = None, *, run: Run | None = None
) -> dict[str, Attribution]: ...
def explain_all(model: Model, photo=None, target=None, against=None, *, run: Run | None = None):
    """Every method that one forward and one backward pass can feed, by name.

    Of a method that looks at one layer, `by_layer` of its attribution holds the same at every stage (of raw attention,
    at every attention layer), from the same pass. Given a `run` made by `run_for_all`, the forward pass is not
    repeated: another class costs one backward pass.

    Given a list of photos, a list of such dictionaries comes back; `target` and `against` are one for all, or a list.

    Raises: ImageError, TargetError, MethodError.
    """
    asked = one_pass(model)
    if isinstance(photo, (list, tuple)):
        _no_run(run)
        found = _batches(model, photo, asked, target, against)
        return [{answer.method: answer for answer in answers} for answers in found]
    seen = _run(model, photo, union(model, asked)) if run is None else run
    return {answer.method: answer for answer in _answers(model, seen, asked, target, against)}


def run_for_all(model: Model, photo) -> Run:
    """One forward pass that holds all that `explain_all` reads."""
    needs = union(model, one_pass(model))
    return model.run(photo, needs.layers, needs.attention)  # with rules: whoever keeps it may ask for any method


def explain_stream(
    model: Model, photo, method: str = "rise", target=None, against=None, *, run: Run | None = None, **knobs
) -> Iterator[Step]:
    """The same as `explain`, as a map that gets better and better: one step after each batch of passes.

    The last step's attribution is `explain`'s. Stop asking whenever the map is good enough: nothing runs between two
    steps. A method of one pass has a single step.

    Raises: as `explain` does, before the first pass.

    >>> for step in explain_stream(model, "church.jpg", "rise"):  # doctest: +SKIP
    ...     print(f"{step.done} of {step.total}")
    """
    asked = asked_of(model, method, knobs)
    seen = _run(model, photo, asked.needs(model)) if run is None else run
    question = Question.of(model, seen.logits, target, against)
    evidence = evidence_of(model, seen, question, [asked])
    return _steps(evidence, asked, question)


def estimate(model: Model, method: str = "grad-cam", photo=None, **knobs) -> float:
    """About how many seconds `explain` takes on this machine, measured by its first two batches of passes.

    Without a `photo` noise is looked at; how many passes a method needs can depend on the photo, so the answer is a
    guide, and the first call on a model is slower than the next.

    Raises: MethodError.
    """
    if photo is None:
        height, width = model.preprocessing.input_size
        noise = torch.randint(0, 256, (height, width, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
        photo = Image.fromarray(noise.numpy())
    before = time.perf_counter()
    steps = explain_stream(model, photo, method, **knobs)
    first = next(steps)
    middle = time.perf_counter()
    second = next(steps, None)
    if second is None:
        return middle - before
    each = (time.perf_counter() - middle) / (second.done - first.done)
    return middle - before + each * (first.total - first.done)


def _no_run(run: Run | None) -> None:
    if run is not None:
        raise MethodError("a run is of one photo; leave it out when explaining a list of photos")


def _run(model: Model, photo, needs: Needs) -> Run:
    return model.run(photo, needs.layers, needs.attention, **how(needs))


def _answers(model: Model, run: Run, asked: Sequence[Asked], target: Class, against: Class) -> list[Attribution]:
    question = Question.of(model, run.logits, target, against)
    evidence = evidence_of(model, run, question, asked)
    return [_answer(evidence, one, question) for one in asked]


def _batches(model: Model, photos: Sequence, asked: Sequence[Asked], target, against) -> Iterator[list[Attribution]]:
    """The answers for each photo; the passes they share are made for several photos together."""
    opened = [open_image(photo) for photo in photos]  # a wrong photo is told before any work is done
    targets, rivals = one_each(target, len(opened), "target"), one_each(against, len(opened), "against")
    needs = union(model, asked)
    size = Passes(model, many=False).batch(gradient=True)  # these run on the network itself
    for at in range(0, len(opened), size):
        part = opened[at : at + size]
        tensors = torch.cat([model.tensor(photo) for photo in part])
        image, logits, seen = model.see(tensors, needs.layers, needs.attention, **how(needs))
        wanted = zip(targets[at : at + size], rivals[at : at + size], strict=True)
        questions = [Question.of(model, logits[i : i + 1], *each) for i, each in enumerate(wanted)]
        scores = [question.score(kind(asked)) for question in questions]

        def total(found: Tensor, scores=scores) -> Tensor:
            return torch.cat([score(found[i : i + 1]) for i, score in enumerate(scores)])

        whole = Run(
            image, logits, seen.activations, seen.attention, model.preprocessing.geometry(part[0]), part[0], (), seen
        )
        found = gradients_of(model, whole, total, needs)
        for i, (photo, question, score) in enumerate(zip(part, questions, scores, strict=True)):
            evidence = one_of(model, whole, found, i, photo, score)
            yield [_answer(evidence, one, question) for one in asked]


def _answer(evidence: Evidence, asked: Asked, question: Question) -> Attribution:
    """One method's attribution, and the same at its other layers where those were asked for."""
    *_, last = _steps(evidence, asked, question)
    if not asked.everywhere:
        return last.attribution
    others = {
        layer: next(_steps(evidence, Asked(asked.method, {**asked.knobs, "layer": layer}), question)).attribution
        for layer in asked.layers(evidence)
    }
    return replace(last.attribution, by_layer=others)


def _steps(evidence: Evidence, asked: Asked, question: Question) -> Iterator[Step]:
    """The attribution, or for a method of many passes one after each batch of them."""
    method, knobs, model = asked.method, dict(asked.knobs), evidence.model
    if knobs.get("relu", False) is None:
        knobs["relu"] = question.against is None  # in a contrast what speaks for the other class is half of the answer
    run = evidence.run
    contrast = {} if question.against is None else {"against": question.against}
    for partial in _partials(evidence, method, knobs):
        heat = partial.heat.detach().float().cpu()
        answer = Attribution(
            heat=heat,
            target=question.target,
            label=model.labels[question.target],
            method=method.name,
            knobs={**knobs, **contrast},
            signed=method.signed or knobs.get("relu") is False,
            geometry=run.geometry,
            photo=run.photo,
            model=model.name,
            probability=evidence.chances[question.target].item(),
            notes=run.notes
            + notes_on(heat, evidence, method, knobs, question.target, question.against)
            + partial.notes,
            patches=method.patches,
        )
        yield Step(answer, partial.done, partial.total)


def _partials(evidence: Evidence, method: Method, knobs: dict[str, Any]) -> Iterator[Partial]:
    if method.stream is not None:
        yield from method.stream(evidence, **knobs)
    else:
        assert method.heat is not None
        yield Partial(method.heat(evidence, **knobs), 1, 1)
