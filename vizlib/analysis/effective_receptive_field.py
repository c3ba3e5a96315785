"""Receptive fields: which part of the photo one place of a layer can see, and which part it really goes by."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from vizlib.capture import compute_gradients
from vizlib.core.errors import ModelError
from vizlib.models.model import Model
from vizlib.models.run import Run

VISIBLE_FRACTION = (
    0.0455  # of the greatest gradient: what lies beyond two standard deviations of a Gaussian (Luo et al. 2016)
)


@dataclass(frozen=True, eq=False)
class EffectiveReceptiveField:
    """How strongly one place of a layer depends on each pixel of the model's input, for one photo."""

    heat: Float[Tensor, "h w"]  # sum over the colours of the gradient's absolute value

    @property
    def size(self) -> float:
        """The side of a square as large as all pixels above 4.55 % of the greatest value together (Luo et al. 2016)."""
        return math.sqrt((self.heat > VISIBLE_FRACTION * self.heat.max()).sum().item())

    def fraction_inside(self, box: Sequence[float | int]) -> float:
        """The share of the whole that lies in a box (top, left, bottom, right) of pixels, 0 to 1."""
        height, width = self.heat.shape
        sides = height, width, height, width
        top, left, bottom, right = (round(min(max(edge, 0), side)) for edge, side in zip(box, sides, strict=True))
        return (self.heat[top:bottom, left:right].sum() / self.heat.sum().clamp(min=1e-38)).item()


def effective_receptive_field(
    model: Model, photo, layer: str, cell: tuple[int, int], *, run: Run | None = None
) -> EffectiveReceptiveField:
    """How strongly one place of a layer depends on each pixel of this photo: most on those in the middle.

    `cell` is (row, column). The gradient of the sum of the layer's channels in that place, with respect to the model's
    input; a `run` that holds the layer saves the forward pass.

    Source: Luo, Li, Urtasun, Zemel: Understanding the effective receptive field, NeurIPS 2016.
    Raises: ImageError, ModelError for a layer or a place that is not there.
    """
    run = model.run(photo, layers=[layer]) if run is None else run
    with torch.inference_mode(False), torch.enable_grad():
        picture = model.spatial_map(run.activations[layer])
        if picture is None:
            raise ModelError(f"the output of {layer} has no places in it; use one of {', '.join(model.stages)}")
        (rows, columns), (row, column) = picture.shape[1:], cell
        if not (0 <= row < rows and 0 <= column < columns):
            raise ModelError(f"{layer} has {rows} × {columns} places, so there is none at row {row}, column {column}")
        (found,) = compute_gradients(picture[:, row, column].sum(), [run.image])
    return EffectiveReceptiveField(found[0].abs().sum(0).float().cpu())
