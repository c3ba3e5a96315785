"""Effective receptive fields: how strongly one position of a layer depends on each pixel of a photo."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from vizlib.capture import compute_gradients
from vizlib.core.errors import ModelError
from vizlib.core.images import PhotoSource
from vizlib.models.model import Model
from vizlib.models.run import Run

# Threshold of the effective receptive field, as a fraction of the largest gradient: 4.55 % is the probability mass of a
# Gaussian beyond two standard deviations (Luo et al. 2016).
VISIBLE_FRACTION = 0.0455


@dataclass(frozen=True, eq=False)
class EffectiveReceptiveField:
    """An effective receptive field: how strongly one position of a layer depends on each pixel of the input.

    Attributes:
        heat: Absolute gradient at each pixel of the model's input, summed over the colour channels; not negative.

    References:
        Luo, Li, Urtasun, Zemel: Understanding the effective receptive field in deep convolutional neural networks,
        NeurIPS 2016, arXiv:1701.04128.

    Example:
        >>> import torch, vizlib
        >>> field = vizlib.EffectiveReceptiveField(torch.eye(4))
        >>> field.size
        2.0
        >>> field.fraction_inside((0, 0, 2, 2))
        0.5
    """

    heat: Float[Tensor, "h w"]

    @property
    def size(self) -> float:
        """Square root of the number of pixels whose gradient exceeds 4.55 % of the largest (Luo et al. 2016)."""
        return math.sqrt((self.heat > VISIBLE_FRACTION * self.heat.max()).sum().item())

    def fraction_inside(self, box: Sequence[float | int]) -> float:
        """Return the fraction of the total gradient of the effective field inside a box.

        Args:
            box: (top, left, bottom, right) in pixels of the model's input; clipped to the input.

        Returns:
            A fraction from 0 to 1.
        """
        height, width = self.heat.shape
        sides = height, width, height, width
        top, left, bottom, right = (round(min(max(edge, 0), side)) for edge, side in zip(box, sides, strict=True))
        return (self.heat[top:bottom, left:right].sum() / self.heat.sum().clamp(min=1e-38)).item()


def effective_receptive_field(
    model: Model, photo: PhotoSource, layer: str, cell: tuple[int, int], *, run: Run | None = None
) -> EffectiveReceptiveField:
    """Return the effective receptive field: how strongly one position of a layer depends on each pixel of a photo.

    It is the gradient, with respect to the model's input, of the sum of the layer's channels at that position.

    Args:
        model: The classifier.
        photo: A path, bytes, array or PIL image (see `open_image`).
        layer: Name of a layer whose output has spatial positions.
        cell: (row, column) of the position in the layer's output.
        run: A run of this photo that holds the layer; saves the forward pass.

    Raises:
        ImageError: If the photo cannot be read.
        ModelError: For an unknown layer or position, or a layer without positions.

    References:
        Luo, Li, Urtasun, Zemel: Understanding the effective receptive field in deep convolutional neural networks,
        NeurIPS 2016, arXiv:1701.04128.

    Example:
        >>> import numpy as np, vizlib
        >>> model = vizlib.load("resnet18-imagenette")
        >>> photo = np.random.default_rng(0).integers(0, 256, (160, 160, 3), np.uint8)
        >>> field = vizlib.effective_receptive_field(model, photo, "layer2", (10, 10))
        >>> field.heat.shape
        torch.Size([192, 192])
        >>> field.size < vizlib.receptive_field(model, "layer2").size[0]
        True
    """
    run = model.run(photo, layers=[layer]) if run is None else run
    with torch.inference_mode(False), torch.enable_grad():
        spatial_map = model.spatial_map(run.activations[layer])
        if spatial_map is None:
            raise ModelError(f"the output of {layer} has no spatial positions; use one of {', '.join(model.stages)}")
        (rows, columns), (row, column) = spatial_map.shape[1:], cell
        if not (0 <= row < rows and 0 <= column < columns):
            raise ModelError(
                f"{layer} has {rows} × {columns} positions, so there is none at row {row}, column {column}"
            )
        (gradient,) = compute_gradients(spatial_map[:, row, column].sum(), [run.image])
    return EffectiveReceptiveField(gradient[0].abs().sum(0).float().cpu())
