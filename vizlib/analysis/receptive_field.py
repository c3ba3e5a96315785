"""Receptive fields: which part of the photo one place of a layer can see, and which part it really goes by."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from vizlib.attribution.result import Run
from vizlib.capture import gradients, watch
from vizlib.capture.receptive_field_tracer import Follower, ReceptiveField
from vizlib.core.errors import ModelError
from vizlib.models.model import Model

VISIBLE = 0.0455  # of the greatest gradient: what lies beyond two standard deviations of a Gaussian (Luo et al. 2016)


@dataclass(frozen=True, eq=False)
class EffectiveField:
    """How strongly one place of a layer depends on each pixel of the model's input, for one photo."""

    heat: Float[Tensor, "h w"]  # sum over the colours of the gradient's absolute value

    @property
    def size(self) -> float:
        """The side of a square as large as all pixels above 4.55 % of the greatest value together (Luo et al. 2016)."""
        return math.sqrt((self.heat > VISIBLE * self.heat.max()).sum().item())

    def within(self, box: Sequence[float | int]) -> float:
        """The share of the whole that lies in a box (top, left, bottom, right) of pixels, 0 to 1."""
        height, width = self.heat.shape
        sides = height, width, height, width
        top, left, bottom, right = (round(min(max(edge, 0), side)) for edge, side in zip(box, sides, strict=True))
        return (self.heat[top:bottom, left:right].sum() / self.heat.sum().clamp(min=1e-38)).item()


def receptive_field(model: Model, layer: str) -> ReceptiveField:
    """Which pixels one place of a layer can depend on at all, followed through every operation before it.

    Padding belongs to it: the field of a place near the edge reaches beyond the input. After attention or a mean over
    all places it is the whole input, and its size is infinity.

    Raises: ModelError for a layer that is not there, has no places, or lies behind something that cannot be followed.

    >>> receptive_field(load("resnet18-imagenette"), "layer1").size  # doctest: +SKIP
    (43.0, 43.0)
    """
    found = _followed(model, [layer])[layer]
    if isinstance(found, ModelError):
        raise found
    return found


def receptive_fields(model: Model, layers: Sequence[str]) -> dict[str, ReceptiveField]:
    """The same of several layers, from one pass, up to the first whose field is not known; none if one does not run."""
    try:
        every = _followed(model, layers)
    except ModelError:
        return {}
    known: dict[str, ReceptiveField] = {}
    for layer, field in every.items():
        if isinstance(field, ModelError):
            break
        known[layer] = field
    return known


def _followed(model: Model, layers: Sequence[str]) -> dict[str, ReceptiveField | ModelError]:
    module, image = model.evaluated(), model.like().new_zeros(1, 3, *model.preprocessing.input_size)
    with (
        model.plain_errors(),
        torch.inference_mode(False),
        torch.no_grad(),
        Follower(image) as follower,
        watch(module, layers) as seen,
    ):
        module(image)
    return {layer: _field_of(model, layer, seen.activations[layer], follower) for layer in layers}


def _field_of(model: Model, layer: str, output: Tensor, follower: Follower) -> ReceptiveField | ModelError:
    if model.picture(output) is None:
        return ModelError(f"the output of {layer} has shape {tuple(output.shape[1:])}, with no places in it")
    found = follower.known.get(output)
    if found is None:
        return ModelError(f"the receptive field of {layer} is not known: nothing of the photo reaches it")
    if found.lost:
        return ModelError(f"the receptive field of {layer} is not known: {found.lost} cannot be followed")
    return found.field


def effective_field(
    model: Model, photo, layer: str, cell: tuple[int, int], *, run: Run | None = None
) -> EffectiveField:
    """How strongly one place of a layer depends on each pixel of this photo: most on those in the middle.

    `cell` is (row, column). The gradient of the sum of the layer's channels in that place, with respect to the model's
    input; a `run` that holds the layer saves the forward pass.

    Source: Luo, Li, Urtasun, Zemel: Understanding the effective receptive field, NeurIPS 2016.
    Raises: ImageError, ModelError for a layer or a place that is not there.
    """
    run = model.run(photo, layers=[layer]) if run is None else run
    with torch.inference_mode(False), torch.enable_grad():
        picture = model.picture(run.activations[layer])
        if picture is None:
            raise ModelError(f"the output of {layer} has no places in it; use one of {', '.join(model.stages)}")
        (rows, columns), (row, column) = picture.shape[1:], cell
        if not (0 <= row < rows and 0 <= column < columns):
            raise ModelError(f"{layer} has {rows} × {columns} places, so there is none at row {row}, column {column}")
        (found,) = gradients(picture[:, row, column].sum(), [run.image])
    return EffectiveField(found[0].abs().sum(0).float().cpu())
