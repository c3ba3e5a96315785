"""The one table of methods, and the one way to run them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from vizlib.errors import MethodError, did_you_mean
from vizlib.methods import attention, cam, gradient
from vizlib.methods.base import Evidence, Method, Needs, Settings
from vizlib.methods.notes import notes_on
from vizlib.model import Model
from vizlib.results import Attribution, Run

METHODS: Mapping[str, Method] = {
    method.name: method for method in (*gradient.METHODS, *cam.METHODS, *attention.METHODS)
}


def methods(model: Model | None = None) -> list[str]:
    """The names of all methods, or of those that fit a model."""
    return [name for name, method in METHODS.items() if model is None or method.fits(model) is None]


def method_for(model: Model, name: str) -> Method:
    """The row of a method that fits this model.

    Raises: MethodError for an unknown name, or for a method that does not fit, saying why.
    """
    if name not in METHODS:
        raise MethodError(f"there is no method {name!r}; {did_you_mean(str(name), METHODS)}")
    reason = METHODS[name].fits(model)
    if reason is not None:
        raise MethodError(f"{name} does not fit {model.name}: {reason}; these do: {', '.join(methods(model))}")
    return METHODS[name]


def explain(
    model: Model,
    photo,
    method: str = "grad-cam",
    target: int | str | None = None,
    against: int | str | None = None,
    *,
    run: Run | None = None,
    **knobs,
) -> Attribution:
    """Show how much each place in the photo spoke for a class.

    `target` is a class by index or label, the likeliest one if left out. With `against` the picture answers why the
    target and not that class. A `run` that already holds what the method reads saves the forward pass.

    Raises: ImageError, TargetError, MethodError (an unknown method or knob, or one that does not fit this model).

    >>> model = load("resnet18-imagenette")
    >>> explain(model, "church.jpg", method="grad-cam", target="church").save("why.png")  # doctest: +SKIP
    """
    chosen = method_for(model, method)
    asked = _Asked(chosen, chosen.settings(model, knobs))
    return _explain(model, photo, [asked], target, against, run)[0]


def explain_all(
    model: Model,
    photo=None,
    target: int | str | None = None,
    against: int | str | None = None,
    *,
    run: Run | None = None,
) -> dict[str, Attribution]:
    """Every method that one forward and one backward pass can feed, by name.

    Given a `run` made by `run_for_all`, the forward pass is not repeated: another class costs one backward pass.
    """
    asked = _one_pass(model)
    answers = _explain(model, photo, asked, target, against, run)
    return {answer.method: answer for answer in answers}


def run_for_all(model: Model, photo) -> Run:
    """One forward pass that holds all that `explain_all` reads."""
    return _run(model, photo, _union(model, _one_pass(model)))


@dataclass(frozen=True)
class _Asked:
    method: Method
    knobs: Settings

    def needs(self, model: Model) -> Needs:
        return self.method.needs(model, self.knobs)


def _one_pass(model: Model) -> list[_Asked]:
    rows = (METHODS[name] for name in methods(model))
    asked = [_Asked(row, row.settings(model, {})) for row in rows]
    return [one for one in asked if one.needs(model).rule is None]


def _union(model: Model, asked: Sequence[_Asked]) -> Needs:
    needs = [one.needs(model) for one in asked]
    return Needs(
        image_gradient=any(need.image_gradient for need in needs),
        layers=tuple(dict.fromkeys(layer for need in needs for layer in need.layers)),
        attention=any(need.attention for need in needs),
        attention_gradients=any(need.attention_gradients for need in needs),
        rule=needs[0].rule,
    )


def _run(model: Model, photo, needs: Needs) -> Run:
    return model.run(photo, layers=needs.layers, attention=needs.attention)


def _explain(model: Model, photo, asked: Sequence[_Asked], target, against, run: Run | None) -> list[Attribution]:
    needs = _union(model, asked)
    if run is None:
        run = _run(model, photo, needs)
    elif lacking := [name for name in needs.layers if name not in run.activations]:
        raise MethodError(f"the given run does not hold {', '.join(lacking)}; make it with layers= or run_for_all()")
    elif needs.attention and not run.attention:
        raise MethodError("the given run does not hold attention; make it with attention=True or run_for_all()")
    index = model.target(target, run.logits)
    other = None if against is None else model.target(against, run.logits)
    score = _score(index, other, asked[0].knobs.get("score", "logit"))
    evidence = _evidence(model, run, score, needs)
    chance = run.logits[0].detach().float().softmax(-1)[index].item()
    answers = []
    for one in asked:
        heat = one.method.heat(evidence, **one.knobs).detach().float().cpu()
        answers.append(
            Attribution(
                heat=heat,
                target=index,
                label=model.labels[index],
                method=one.method.name,
                knobs=one.knobs if other is None else {**one.knobs, "against": other},
                signed=one.method.signed or one.knobs.get("relu") is False,
                geometry=run.geometry,
                photo=run.photo,
                model=model.name,
                probability=chance,
                notes=run.notes + notes_on(heat, evidence, one.method, one.knobs, index, other),
                patches=one.method.patches,
            )
        )
    return answers


def _score(index: int, other: int | None, kind: object) -> Callable[[Tensor], Tensor]:
    """The number whose gradient is taken: of the logits, or of the probabilities; a difference in a contrast."""

    def score(logits: Tensor) -> Tensor:
        values = logits[0].softmax(-1) if kind == "probability" else logits[0]
        return values[index] if other is None else values[index] - values[other]

    return score


def _evidence(model: Model, run: Run, score, needs: Needs) -> Evidence:
    """All the gradients the methods read, from one backward pass."""
    attention = dict(run.attention) if needs.attention_gradients else {}
    wanted = {
        **({"image": run.image} if needs.image_gradient else {}),
        **{("layer", name): run.activations[name] for name in needs.layers},
        **{("attention", name): weights for name, weights in attention.items()},
    }
    found = {}
    if wanted:
        found = dict(zip(wanted, run.gradients(score, of=list(wanted.values()), rule=needs.rule), strict=True))
    return Evidence(
        model=model,
        run=run,
        image_gradient=found.get("image"),
        layer_gradients={name: found["layer", name] for name in needs.layers},
        attention_gradients={name: found["attention", name] for name in attention},
    )
