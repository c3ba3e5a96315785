"""The units of a network: what each channel and each head contributes to a class, and the answer without some."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from vizlib.attribution.methods.base import Evidence
from vizlib.capture import alter_output, record_pass
from vizlib.core.errors import ModelError, suggest_names
from vizlib.core.images import open_image
from vizlib.core.text import number
from vizlib.models.model import Model
from vizlib.models.run import Prediction, Run

UnitIndices = Mapping[str, Sequence[int]]  # layer name -> numbers of channels or heads, from 0


@dataclass(frozen=True, eq=False)
class Contributions:
    """What each unit adds to a class's logit; negative speaks against the class.

    Set against another class, all numbers are of the difference of the two logits.
    """

    target: int
    label: str
    against: int | None
    logit: float
    channels: Mapping[str, Float[Tensor, " channels"]]  # layer -> its channels
    heads: Mapping[str, Float[Tensor, " heads"]]  # attention layer -> its heads

    def __repr__(self) -> str:
        rival = "" if self.against is None else f" against class {self.against}"
        held = f"channels of {len(self.channels)} layers, heads of {len(self.heads)}"
        return f"<Contributions to {self.label}{rival}: logit {number(self.logit)}; {held}>"


def contributions(
    model: Model,
    photo,
    target: int | str | None = None,
    against: int | str | None = None,
    *,
    layers: Sequence[str] | None = None,
    heads: bool = True,
    run: Run | None = None,
) -> Contributions:
    """How much every channel and every attention head adds to a class's logit, from one backward pass.

    A channel's contribution is its activation times the gradient of the logit there, summed over all places: by how
    much the logit would fall if the channel were scaled to zero, to first order. It is exact where all that follows is
    linear, as after the last stage of a ResNet; elsewhere `switch_off` has the last word. A head's is the same of its
    attention weights, which is what its output alone adds.

    With `against` it is what each adds to the lead of the target over that class. `layers` are the stages unless told
    otherwise; `heads` takes in every attention layer. A `run` that already holds them saves the forward pass.

    Raises: ImageError, TargetError, ModelError for an unknown layer.

    >>> found = contributions(load("resnet18-imagenette"), "church.jpg", "church")  # doctest: +SKIP
    >>> found.channels["layer4"].argsort(descending=True)[:5]  # doctest: +SKIP
    """
    wanted = tuple(model.stages if layers is None else layers)
    if run is None:
        run = model.run(photo, layers=wanted, attention=heads, rules=False)
    if lacking := [layer for layer in wanted if layer not in run.activations]:
        raise ModelError(f"the given run does not hold {', '.join(lacking)}; make it with layers=")
    index = model.resolve_target(target, run.logits)
    other = None if against is None else model.resolve_target(against, run.logits)

    def score(logits: Tensor) -> Tensor:
        return logits[0, index] if other is None else logits[0, index] - logits[0, other]

    activations = {layer: run.activations[layer] for layer in wanted}
    attention = run.attention if heads else {}
    found = iter(run.gradients(score, of=[*activations.values(), *attention.values()]))
    return Contributions(
        target=index,
        label=model.labels[index],
        against=other,
        logit=score(run.logits).item(),
        channels={name: _added(one, next(found), model.channel_axis(one)) for name, one in activations.items()},
        heads={name: _added(one, next(found), 1) for name, one in attention.items()},
    )


def contributions_from_evidence(evidence: Evidence, target: int, against: int | None = None) -> Contributions:
    """Return the contributions at every layer and attention layer whose gradients are at hand, without another pass.

    Args:
        evidence: One run and the gradients of the score of `target`, or of its lead over `against`.
        target: Class index.
        against: Index of the class that the evidence sets the target against.
    """
    run, model = evidence.run, evidence.model
    return Contributions(
        target=target,
        label=model.labels[target],
        against=against,
        logit=evidence.score(run.logits.detach())[0].item(),
        channels={
            name: _added(run.activations[name], gradient, model.channel_axis(gradient))
            for name, gradient in evidence.layer_gradients.items()
        },
        heads={
            name: _added(run.attention[name], gradient, 1) for name, gradient in evidence.attention_gradients.items()
        },
    )


def ablate(
    model: Model, photo, *, channels: UnitIndices | None = None, heads: UnitIndices | None = None
) -> list[Prediction]:
    """What the model would answer with some of its units silent: every class, likeliest first.

    A silent channel hands on 0 in every place; a silent head's attention weights are 0, so its output is. `channels`
    names them by layer and `heads` by attention layer, as many at once as you like. The model itself is not changed.

    Raises: ImageError, ModelError for a layer, channel or head that is not there.

    >>> switch_off(load("resnet18-imagenette"), "church.jpg", channels={"layer4": [3, 17]})  # doctest: +SKIP
    """
    channels, heads = channels or {}, heads or {}
    if unknown := [layer for layer in heads if layer not in model.attention_layers]:
        there = suggest_names(unknown[0], model.attention_layers) if model.attention_layers else "it has none"
        raise ModelError(f"{model.name} computes no attention in {unknown[0]!r}; {there}")
    module, image = model.eval_module(), model.tensor(open_image(photo))
    with contextlib.ExitStack() as undo:
        undo.enter_context(model.translate_errors())
        for layer, numbers in channels.items():
            undo.enter_context(alter_output(module, layer, _silencer(model, layer, numbers)))
        if heads:
            undo.enter_context(record_pass(module, attention=True, ablated_heads=heads))
        logits = model.logits(image)
    return model.rank_classes(logits, logits.shape[1])


def _added(value: Tensor, gradient: Tensor, axis: int) -> Tensor:
    """Value times gradient, summed over every axis but one, in single precision at least."""
    product = value.detach() * gradient
    kept = axis % product.ndim
    others = [i for i in range(product.ndim) if i != kept]
    return product.to(torch.promote_types(product.dtype, torch.float32)).sum(others).cpu()


def _silencer(model: Model, layer: str, numbers: Sequence[int]) -> Callable[[Tensor], Tensor]:
    def silenced(output: Tensor) -> Tensor:
        axis = model.channel_axis(output)
        count = output.shape[axis]
        if wrong := [number for number in numbers if not 0 <= number < count]:
            raise ModelError(f"{layer} has no channel {wrong[0]}; its channels are 0 to {count - 1}")
        return output.index_fill(axis, torch.tensor(list(numbers), dtype=torch.long, device=output.device), 0)

    return silenced
