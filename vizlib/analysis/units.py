"""Contributions of channels and attention heads to a class, and predictions with some of them ablated."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from vizlib.attribution.evidence import Evidence
from vizlib.attribution.result import ExplainedRecord
from vizlib.attribution.target import ClassSelector, ClassWeights, TargetSpec
from vizlib.capture import alter_output, record_pass
from vizlib.core.errors import ModelError, suggest_names
from vizlib.core.images import PhotoSource, open_image
from vizlib.core.text import format_number
from vizlib.models.model import Model
from vizlib.models.run import Prediction, Run

UnitIndices = Mapping[str, Sequence[int]]  # layer name -> indices of channels or heads, from 0


@dataclass(frozen=True, eq=False)
class Contributions:
    """What each unit, channel or attention head, adds to a class's logit, to first order.

    Positive values are evidence for the class, negative values evidence against it. With a contrast class, all values
    refer to the difference of the two logits.

    Attributes:
        target: Index of the class, or what else an `Attribution` records as its target.
        label: Label of the class.
        against: Index of the contrast class; `None` without one.
        against_label: Label of the contrast class; empty without one.
        logit: The class's logit, or its difference to the contrast class's; where the network returns no logits, the
            output itself.
        channels: Layer name -> contribution of each of its channels, in logits.
        heads: Name of the attention layer -> contribution of each of its heads, in logits.

    Example:
        >>> import numpy as np, vizlib
        >>> model = vizlib.load("vit_tiny-imagenette")
        >>> result = vizlib.contributions(model, np.zeros((200, 300, 3), np.uint8), "church", layers=["norm"])
        >>> result.label, result.channels["norm"].shape, len(result.heads)
        ('church', torch.Size([192]), 12)
    """

    target: ExplainedRecord
    label: str
    against: ExplainedRecord
    logit: float
    channels: Mapping[str, Float[Tensor, " channels"]]
    heads: Mapping[str, Float[Tensor, " heads"]]
    against_label: str = ""

    def __repr__(self) -> str:
        contrast = f" against {self.against_label}" if self.against_label else ""
        contents = f"channels of {len(self.channels)} layers, heads of {len(self.heads)}"
        return f"<Contributions to {self.label}{contrast}: logit {format_number(self.logit)}; {contents}>"


def contributions(
    model: Model,
    photo: PhotoSource,
    target: ClassSelector | ClassWeights = None,
    against: ClassSelector = None,
    *,
    layers: Sequence[str] | None = None,
    heads: bool = True,
    run: Run | None = None,
) -> Contributions:
    """Return what every unit, channel or attention head, adds to a class's logit, from one backward pass.

    A channel's contribution is its activation times the gradient of the logit, summed over all positions: to first
    order, the decrease of the logit if the channel were set to zero. It is exact where all following layers are linear,
    as after the last stage of a ResNet; elsewhere `ablate` measures the true effect. A head's contribution is its
    attention weights times their gradient, summed: the first-order share of the head's output.

    Args:
        model: The classifier.
        photo: A path, bytes, array or PIL image (see `open_image`).
        target: Class index or label, or weights of classes, as in `explain`; by default the likeliest class.
        against: Contrast class: contributions to the difference of the two logits.
        layers: Layers whose channels are measured; the stages by default.
        heads: Whether the heads of every attention layer are measured.
        run: A run of this photo that already holds the layers and attention; saves the forward pass.

    Returns:
        The contributions in single precision at least, on the CPU.

    Raises:
        ImageError: If the photo cannot be read.
        TargetError: For an unknown class.
        ModelError: For an unknown layer, or one that `run` does not hold.

    References:
        Molchanov, Tyree, Karras, Aila, Kautz: Pruning convolutional neural networks for resource efficient inference,
        ICLR 2017, arXiv:1611.06440 (activation times gradient of a channel).
        Michel, Levy, Neubig: Are sixteen heads really better than one?, NeurIPS 2019, arXiv:1905.10650 (heads).

    Example:
        >>> import numpy as np, vizlib
        >>> model = vizlib.load("resnet18-imagenette")
        >>> result = vizlib.contributions(model, np.zeros((200, 300, 3), np.uint8), "church")
        >>> list(result.channels)
        ['layer1', 'layer2', 'layer3', 'layer4']
        >>> result.channels["layer4"].argsort(descending=True)[:5].shape
        torch.Size([5])
    """
    layers = tuple(model.stages if layers is None else layers)
    if run is None:
        run = model.run(photo, layers=layers, attention=heads, rules=False)
    if missing := [layer for layer in layers if layer not in run.activations]:
        raise ModelError(f"the given run does not hold {', '.join(missing)}; make it with layers=")
    spec = TargetSpec.resolve(model, run.logits, target, against)
    score = spec.make_score(model.output_row.scores[0])
    activations = {layer: run.activations[layer] for layer in layers}
    attention = run.attention if heads else {}
    gradients = iter(run.gradients(score, of=[*activations.values(), *attention.values()]))
    return Contributions(
        **_record_classes(spec),
        logit=score(run.logits.detach())[0].item(),
        channels={
            name: _sum_contributions(activation, next(gradients), model.channel_axis(activation))
            for name, activation in activations.items()
        },
        heads={name: _sum_contributions(weights, next(gradients), 1) for name, weights in attention.items()},
    )


def contributions_from_evidence(evidence: Evidence, spec: TargetSpec) -> Contributions:
    """Return the contributions at every layer and attention layer whose gradients are at hand, without another pass.

    Args:
        evidence: One run and the gradients of the score of a class, or of its lead over another one.
        spec: The classes of that score.
    """
    run, model = evidence.run, evidence.model
    return Contributions(
        **_record_classes(spec),
        logit=evidence.score(run.logits.detach())[0].item(),
        channels={
            name: _sum_contributions(run.activations[name], gradient, model.channel_axis(gradient))
            for name, gradient in evidence.layer_gradients.items()
        },
        heads={
            name: _sum_contributions(run.attention[name], gradient, 1)
            for name, gradient in evidence.attention_gradients.items()
        },
    )


def _record_classes(spec: TargetSpec) -> dict[str, Any]:
    """Return the fields of contributions that name their classes."""
    record, label, against, against_label = (
        part
        for side in (spec.target, spec.against)
        for part in ((None, "") if side is None else (side.record, side.label))
    )
    return {"target": record, "label": label, "against": against, "against_label": against_label}


def ablate(
    model: Model,
    photo: PhotoSource,
    *,
    channels: UnitIndices | None = None,
    heads: UnitIndices | None = None,
) -> list[Prediction]:
    """Return the predictions of the model with some units, channels or attention heads, set to zero.

    An ablated channel outputs 0 at every position. The attention weights of an ablated head are 0, so its output is 0.
    The model itself is not changed.

    Args:
        model: The classifier.
        photo: A path, bytes, array or PIL image (see `open_image`).
        channels: Layer name -> indices of the channels to ablate.
        heads: Name of the attention layer -> indices of the heads to ablate.

    Returns:
        Every class, most probable first.

    Raises:
        ImageError: If the photo cannot be read.
        ModelError: For an unknown layer, channel or head.

    References:
        Morcos, Barrett, Rabinowitz, Botvinick: On the importance of single directions for generalization, ICLR 2018,
        arXiv:1803.06959.

    Example:
        >>> import numpy as np, vizlib
        >>> model = vizlib.load("resnet18-imagenette")
        >>> predictions = vizlib.ablate(model, np.zeros((200, 300, 3), np.uint8), channels={"layer4": [3, 17]})
        >>> len(predictions)
        10
    """
    channels, heads = channels or {}, heads or {}
    if unknown := [layer for layer in heads if layer not in model.attention_layers]:
        hint = suggest_names(unknown[0], model.attention_layers) if model.attention_layers else "it has none"
        raise ModelError(f"{model.name} computes no attention in {unknown[0]!r}; {hint}")
    module, image = model.eval_module(), model.tensor(open_image(photo))
    hooked_model = replace(model, module=module)  # the hooks are on this module, so this module must run
    with contextlib.ExitStack() as hooks:
        hooks.enter_context(model.network_context())
        for layer, indices in channels.items():
            hooks.enter_context(alter_output(module, layer, _make_channel_ablation(model, layer, indices)))
        if heads:
            hooks.enter_context(record_pass(module, attention=True, ablated_heads=heads))
        logits = hooked_model.logits(image)
    return model.rank_classes(logits, logits.shape[1])


def _sum_contributions(values: Tensor, gradient: Tensor, axis: int) -> Tensor:
    """Return each unit's contribution: values times gradient, summed over other axes, in single precision or more."""
    product = values.detach() * gradient
    unit_axis = axis % product.ndim
    summed_axes = [i for i in range(product.ndim) if i != unit_axis]
    return product.to(torch.promote_types(product.dtype, torch.float32)).sum(summed_axes).cpu()


def _make_channel_ablation(model: Model, layer: str, indices: Sequence[int]) -> Callable[[Tensor], Tensor]:
    """Return the function that sets some units, channels of a layer's output, to 0."""

    def ablate_channels(output: Tensor) -> Tensor:
        """Return a layer's output with some units, channels, set to 0."""
        axis = model.channel_axis(output)
        count = output.shape[axis]
        if invalid := [index for index in indices if not 0 <= index < count]:
            raise ModelError(f"{layer} has no channel {invalid[0]}; its channels are 0 to {count - 1}")
        return output.index_fill(axis, torch.tensor(list(indices), dtype=torch.long, device=output.device), 0)

    return ablate_channels
