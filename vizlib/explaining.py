"""Ask a model why: one method, all that one pass can feed, one photo or many, at once or getting better and better."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, overload

import torch
from PIL import Image
from torch import Tensor

from vizlib.capture import gradients
from vizlib.errors import MethodError, TargetError
from vizlib.images import open_image
from vizlib.methods.attention import maps
from vizlib.methods.base import ONE_PASS, Evidence, Method, Needs, Partial, Score, Settings
from vizlib.methods.notes import notes_on
from vizlib.methods.registry import METHODS, method_for, methods
from vizlib.model import Model
from vizlib.passes import Passes
from vizlib.results import Attribution, Run, Step

RUNNER_UP = "runner-up"  # against the likeliest class besides the target

Class = int | str | None  # by index or label; None is the likeliest


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
    asked = _asked(model, method, knobs)
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
    asked = _one_pass(model)
    if isinstance(photo, (list, tuple)):
        _no_run(run)
        found = _batches(model, photo, asked, target, against)
        return [{answer.method: answer for answer in answers} for answers in found]
    seen = _run(model, photo, _union(model, asked)) if run is None else run
    return {answer.method: answer for answer in _answers(model, seen, asked, target, against)}


def run_for_all(model: Model, photo) -> Run:
    """One forward pass that holds all that `explain_all` reads."""
    needs = _union(model, _one_pass(model))
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
    asked = _asked(model, method, knobs)
    seen = _run(model, photo, asked.needs(model)) if run is None else run
    question = _Question.of(model, seen.logits, target, against)
    evidence = _evidence(model, seen, question, [asked])
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


@dataclass(frozen=True)
class _Asked:
    """A method, and where its knobs stand."""

    method: Method
    knobs: dict[str, Any]
    everywhere: bool = False  # whether it is shown at all other layers too

    def needs(self, model: Model) -> Needs:
        own = self.method.needs(model, self.knobs)
        every = model.stages if self.everywhere and own.layers else ()
        return replace(own, layers=tuple(dict.fromkeys((*own.layers, *every))))

    def layers(self, evidence: Evidence) -> tuple[str, ...]:
        """The layers it can be shown at, from what the run holds."""
        return evidence.model.stages if self.needs(evidence.model).layers else tuple(maps(evidence))


@dataclass(frozen=True)
class _Question:
    """The class that is explained, and the one it is set against."""

    target: int
    against: int | None

    @classmethod
    def of(cls, model: Model, logits: Tensor, target: Class, against: Class) -> _Question:
        index = model.target(target, logits)
        if against is None:
            return cls(index, None)
        if isinstance(against, str) and against == RUNNER_UP and RUNNER_UP not in model.labels:
            order = logits[0].argsort(descending=True).tolist()
            return cls(index, next(other for other in order if other != index))
        return cls(index, model.target(against, logits))

    def score(self, kind: object) -> Score:
        """The number that is explained: of the logits, or of the probabilities; a difference in a contrast."""

        def score(logits: Tensor) -> Tensor:
            values = logits.softmax(-1) if kind == "probability" else logits
            return values[:, self.target] if self.against is None else values[:, self.target] - values[:, self.against]

        return score


def _asked(model: Model, method: str, knobs: Settings) -> _Asked:
    chosen = method_for(model, method)
    return _Asked(chosen, chosen.settings(model, knobs))


def _one_pass(model: Model) -> list[_Asked]:
    rows = [METHODS[name] for name in methods(model)]
    return [_Asked(row, row.settings(model, {}), row.everywhere) for row in rows if row.cost == ONE_PASS]


def _no_run(run: Run | None) -> None:
    if run is not None:
        raise MethodError("a run is of one photo; leave it out when explaining a list of photos")


def _union(model: Model, asked: Sequence[_Asked]) -> Needs:
    needs = [one.needs(model) for one in asked]
    return Needs(
        image_gradient=any(need.image_gradient for need in needs),
        guided_gradient=any(need.guided_gradient for need in needs),
        layers=tuple(dict.fromkeys(layer for need in needs for layer in need.layers)),
        layer_gradients=any(need.layers and need.layer_gradients for need in needs),
        attention=any(need.attention for need in needs),
        attention_gradients=any(need.attention_gradients for need in needs),
        local_gradients=any(need.local_gradients for need in needs),
    )


def _run(model: Model, photo, needs: Needs) -> Run:
    return model.run(photo, needs.layers, needs.attention, **_how(needs))


def _how(needs: Needs) -> dict[str, bool]:
    """A graph that nobody asks would hold as much memory as a batch of passes."""
    return {"rules": needs.guided_gradient, "graph": needs.gradients}


def _answers(model: Model, run: Run, asked: Sequence[_Asked], target: Class, against: Class) -> list[Attribution]:
    question = _Question.of(model, run.logits, target, against)
    evidence = _evidence(model, run, question, asked)
    return [_answer(evidence, one, question) for one in asked]


def _batches(model: Model, photos: Sequence, asked: Sequence[_Asked], target, against) -> Iterator[list[Attribution]]:
    """The answers for each photo; the passes they share are made for several photos together."""
    opened = [open_image(photo) for photo in photos]  # a wrong photo is told before any work is done
    targets, rivals = _each(target, len(opened), "target"), _each(against, len(opened), "against")
    needs = _union(model, asked)
    size = Passes(model).batch(gradient=True)
    for at in range(0, len(opened), size):
        part = opened[at : at + size]
        tensors = torch.cat([model.tensor(photo) for photo in part])
        image, logits, seen = model.see(tensors, needs.layers, needs.attention, **_how(needs))
        wanted = zip(targets[at : at + size], rivals[at : at + size], strict=True)
        questions = [_Question.of(model, logits[i : i + 1], *each) for i, each in enumerate(wanted)]
        scores = [question.score(_kind(asked)) for question in questions]

        def total(found: Tensor, scores=scores) -> Tensor:
            return torch.cat([score(found[i : i + 1]) for i, score in enumerate(scores)])

        whole = Run(
            image, logits, seen.activations, seen.attention, model.preprocessing.geometry(part[0]), part[0], (), seen
        )
        found = _gradients(model, whole, total, needs)
        for i, (photo, question, score) in enumerate(zip(part, questions, scores, strict=True)):
            evidence = _one_of(model, whole, found, i, photo, score)
            yield [_answer(evidence, one, question) for one in asked]


def _each(given, count: int, what: str) -> list[Class]:
    """One class a photo, from one for all or a list of them."""
    if not isinstance(given, (list, tuple)):
        return [given] * count
    if len(given) != count:
        raise TargetError(f"{what} holds {len(given)} classes for {count} photos; give one for each, or one for all")
    return list(given)


def _kind(asked: Sequence[_Asked]) -> object:
    return asked[0].knobs.get("score", "logit")


def _evidence(model: Model, run: Run, question: _Question, asked: Sequence[_Asked]) -> Evidence:
    """The run, and all the gradients the methods read, from one backward pass (another for guided backpropagation)."""
    needs = _union(model, asked)
    if lacking := [name for name in needs.layers if name not in run.activations]:
        raise MethodError(f"the given run does not hold {', '.join(lacking)}; make it with layers= or run_for_all()")
    if needs.attention and not run.attention:
        raise MethodError("the given run does not hold attention; make it with attention=True or run_for_all()")
    score = question.score(_kind(asked))
    return Evidence(model, run, score, **_gradients(model, run, score, needs))


def _gradients(model: Model, run: Run, score: Score, needs: Needs) -> dict[str, Any]:
    """`Evidence`'s gradients of a score."""
    layers = needs.layers if needs.layer_gradients else ()
    attention = run.attention if needs.attention_gradients else {}
    wanted = {
        **({"image": run.image} if needs.image_gradient else {}),
        **{("layer", name): run.activations[name] for name in layers},
        **{("attention", name): weights for name, weights in attention.items()},
    }
    found = dict(zip(wanted, run.gradients(score, of=list(wanted.values())), strict=True)) if wanted else {}
    guided = run.gradients(score, of=[run.image], rule="guided")[0] if needs.guided_gradient else None
    return {
        "image_gradient": found.get("image"),
        "guided_gradient": guided,
        "layer_gradients": {name: found["layer", name] for name in layers},
        "attention_gradients": {name: found["attention", name] for name in attention},
        "local_gradients": _local_gradients(model, run, score) if needs.local_gradients else {},
    }


def _local_gradients(model: Model, run: Run, score: Score) -> dict[str, Tensor]:
    """How each block's attention moves the score of that block's mean token (LeGrad); no other block is passed."""
    assert model.family is not None
    assert model.family.classify is not None
    found = {}
    for layer in model.stages:
        weights = {name: one for name, one in run.attention.items() if name.startswith(f"{layer}.")}
        with torch.inference_mode(False), torch.enable_grad():
            logits = model.family.classify(model.evaluated(), run.activations[layer].mean(1))
            found |= zip(weights, gradients(score(logits).sum(), list(weights.values())), strict=True)
    return found


def _one_of(model: Model, whole: Run, found: dict[str, Any], i: int, photo: Image.Image, score: Score) -> Evidence:
    """What one photo of a batch showed."""
    count = len(whole.image)

    def part(tensor: Tensor | None) -> Tensor | None:
        """Its rows: one, or one a window where attention is windowed."""
        return None if tensor is None else tensor.detach().unflatten(0, (count, -1))[i]

    def parts(tensors) -> dict[str, Any]:
        return {name: part(tensor) for name, tensor in tensors.items()}

    logits = whole.logits[i : i + 1].detach()
    run = Run(
        image=whole.image[i : i + 1].detach(),
        logits=logits,
        activations=parts(whole.activations),
        attention=parts(whole.attention),
        geometry=model.preprocessing.geometry(photo),
        photo=photo,
        notes=model.notes_on(photo, logits),
    )
    of: dict[str, Any] = {name: parts(one) if isinstance(one, dict) else part(one) for name, one in found.items()}
    return Evidence(model, run, score, **of)


def _answer(evidence: Evidence, asked: _Asked, question: _Question) -> Attribution:
    """One method's attribution, and the same at its other layers where those were asked for."""
    *_, last = _steps(evidence, asked, question)
    if not asked.everywhere:
        return last.attribution
    others = {
        layer: next(_steps(evidence, _Asked(asked.method, {**asked.knobs, "layer": layer}), question)).attribution
        for layer in asked.layers(evidence)
    }
    return replace(last.attribution, by_layer=others)


def _steps(evidence: Evidence, asked: _Asked, question: _Question) -> Iterator[Step]:
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
