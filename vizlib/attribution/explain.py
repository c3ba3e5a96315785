"""Ask a model why: one method, all that one pass can feed, one photo or many, at once or getting better and better."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, overload

import torch
from PIL import Image
from torch import Tensor

from vizlib.attribution.evidence import evidence_of, gradients_of, how, one_of
from vizlib.attribution.methods.base import Evidence, Needs, Partial
from vizlib.attribution.methods.diagnostics import notes_on
from vizlib.attribution.request import Asked, Class, Question, asked_of, kind, one_each, one_pass, union
from vizlib.attribution.result import Answers, Attribution, Step
from vizlib.core.errors import MethodError
from vizlib.core.images import open_image
from vizlib.models.inference.batched_inference import BatchedInference
from vizlib.models.model import Model
from vizlib.models.run import Run


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
) -> list[Answers]: ...
@overload
def explain_all(
    model: Model, photo: Any = None, target: Any = None, against: Any = None, *, run: Run | None = None
) -> Answers: ...
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
        return [_by_method(answers) for answers in found]
    seen = _run(model, photo, union(model, asked)) if run is None else run
    return _by_method(_answers(model, seen, asked, target, against))


def run_for_all(model: Model, photo, layers: Sequence[str] = ()) -> Run:
    """Run one forward pass that records all that `explain_all` reads, and the outputs of further `layers`."""
    needs = union(model, one_pass(model))
    every = dict.fromkeys((*needs.layers, *layers))
    return model.run(photo, tuple(every), needs.attention)  # with backward rules, as guided backpropagation needs them


@dataclass(frozen=True, eq=False)
class GatheredEvidence:
    """All that the one-pass methods read for one class: evidence, the methods and the class."""

    evidence: Evidence
    calls: Sequence[Asked]
    spec: Question


def gather_for_all(model: Model, run: Run, target: Class = None, against: Class = None) -> GatheredEvidence:
    """Gather the evidence of every one-pass method from one backward pass of a run made by `run_for_all`.

    `attributions_from` turns it into maps, `vizlib.analysis.units.contributions_from_evidence` into contributions.

    Raises: TargetError, MethodError.
    """
    calls, spec = one_pass(model), Question.of(model, run.logits, target, against)
    return GatheredEvidence(evidence_of(model, run, spec, calls), calls, spec)


def attributions_from(gathered: GatheredEvidence) -> Answers:
    """Return the attribution of every one-pass method, by name, as `explain_all` does."""
    return _by_method(_answered(gathered.evidence, gathered.calls, gathered.spec))


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


def _by_method(answers: Sequence[Attribution]) -> Answers:
    return Answers({answer.method: answer for answer in answers})


def _run(model: Model, photo, needs: Needs) -> Run:
    return model.run(photo, needs.layers, needs.attention, **how(needs))


def _answers(model: Model, run: Run, asked: Sequence[Asked], target: Class, against: Class) -> list[Attribution]:
    question = Question.of(model, run.logits, target, against)
    return _answered(evidence_of(model, run, question, asked), asked, question)


def _batches(model: Model, photos: Sequence, asked: Sequence[Asked], target, against) -> Iterator[list[Attribution]]:
    """The answers for each photo; the passes they share are made for several photos together."""
    opened = [open_image(photo) for photo in photos]  # a wrong photo is told before any work is done
    targets, rivals = one_each(target, len(opened), "target"), one_each(against, len(opened), "against")
    needs = union(model, asked)
    size = BatchedInference(model, use_folded_copy=False).batch_size(gradient=True)  # these run on the network itself
    for at in range(0, len(opened), size):
        part = opened[at : at + size]
        tensors = torch.cat([model.tensor(photo) for photo in part])
        image, logits, seen = model.forward(tensors, needs.layers, needs.attention, **how(needs))
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
            yield _answered(one_of(model, whole, found, i, photo, score), asked, question)


def _answered(evidence: Evidence, asked: Sequence[Asked], question: Question) -> list[Attribution]:
    """Each method's attribution, and the same at its other layers where those were asked for."""
    every = [[(_same(view, evidence), view) for view in (one, *_elsewhere(one, evidence))] for one in asked]
    drawn: dict[tuple, Partial] = {}
    for same, view in chain.from_iterable(every):
        if same not in drawn:
            *_, drawn[same] = _partials(evidence, view, question)
    heats = dict(zip(drawn, _on_processor([partial.heat for partial in drawn.values()]), strict=True))
    found = []
    for views in every:
        answer, *others = (
            _attribution(evidence, view, question, heats[same], drawn[same].notes) for same, view in views
        )
        found.append(replace(answer, by_layer={str(other.knobs["layer"]): other for other in others}))
    return found


def _same(asked: Asked, evidence: Evidence) -> tuple:
    """What two views have in common that are one map: a layer may be named, or be the one that is meant anyway."""
    own = asked.method.needs(evidence.model, asked.knobs).layers
    return asked.method.name, own or asked.knobs.get("layer")


def _elsewhere(asked: Asked, evidence: Evidence) -> list[Asked]:
    """The same method at each layer it can be shown at, where that was asked for."""
    layers = asked.layers(evidence) if asked.everywhere else ()
    return [Asked(asked.method, {**asked.knobs, "layer": layer}) for layer in layers]


def _steps(evidence: Evidence, asked: Asked, question: Question) -> Iterator[Step]:
    """The attribution, or for a method of many passes one after each batch of them."""
    for partial in _partials(evidence, asked, question):
        (heat,) = _on_processor([partial.heat])
        yield Step(_attribution(evidence, asked, question, heat, partial.notes), partial.done, partial.total)


def _partials(evidence: Evidence, asked: Asked, question: Question) -> Iterator[Partial]:
    method, knobs = asked.method, _settled(asked, question)
    if method.stream is not None:
        yield from method.stream(evidence, **knobs)
    else:
        assert method.heat is not None
        yield Partial(method.heat(evidence, **knobs), 1, 1)


def _settled(asked: Asked, question: Question) -> dict[str, Any]:
    """The knobs; what is left open as the question needs it."""
    if asked.knobs.get("relu", False) is not None:
        return asked.knobs
    return {**asked.knobs, "relu": question.against is None}  # what speaks for the other class is half of a contrast


def _on_processor(heats: Sequence[Tensor]) -> list[Tensor]:
    """Maps in single precision where anybody can read them; from a GPU in one copy, as each has to be waited for."""
    plain = [heat.detach().float() for heat in heats]
    if all(heat.is_cpu for heat in plain):
        return plain
    parts = torch.cat([heat.flatten() for heat in plain]).cpu().split([heat.numel() for heat in plain])
    return [part.view(heat.shape).clone() for part, heat in zip(parts, plain, strict=True)]  # each with its own memory


def _attribution(
    evidence: Evidence, asked: Asked, question: Question, heat: Tensor, notes: tuple[str, ...]
) -> Attribution:
    method, knobs, model, run = asked.method, _settled(asked, question), evidence.model, evidence.run
    contrast = {} if question.against is None else {"against": question.against}
    return Attribution(
        heat=heat,
        target=question.target,
        label=model.labels[question.target],
        method=method.name,
        knobs={**knobs, **contrast},
        signed=method.signed or knobs.get("relu") is False,
        geometry=run.geometry,
        photo=run.photo,
        model=model.name,
        probability=evidence.chances[question.target],
        notes=run.notes + notes_on(heat, evidence, method, knobs, question.target, question.against) + notes,
        patches=method.patches,
    )
