"""Activations and gradients of a layer as matrices of channels by spatial positions, for class activation maps."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from vizlib.core.errors import MethodError
from vizlib.models.model import Model


@dataclass(frozen=True, eq=False)
class SpatialFeatures:
    """Activations and gradients of one layer for one image, with cached quantities that several methods share.

    Attributes:
        activation_maps: Output of the layer.
        gradient_maps: Gradient of the explained score at that output; `None` where no method needs it.
    """

    activation_maps: Float[Tensor, "channels rows columns"]
    gradient_maps: Float[Tensor, "channels rows columns"] | None

    @cached_property
    def activations(self) -> Float[Tensor, "channels positions"]:
        """The activation maps, flattened, in single precision at least."""
        return _flatten_positions(self.activation_maps)

    @cached_property
    def gradients(self) -> Float[Tensor, "channels positions"]:
        """The gradient maps, flattened, in single precision at least."""
        assert self.gradient_maps is not None  # a method that reads gradients requests them
        return _flatten_positions(self.gradient_maps)

    @cached_property
    def positive_gradients(self) -> Float[Tensor, "channels positions"]:
        """The gradients, with negative values set to 0."""
        return self.gradients.clamp(min=0)

    @cached_property
    def contributions(self) -> Float[Tensor, "channels positions"]:
        """Activation times gradient: the first-order contribution of each channel at each position to the score."""
        return self.activations * self.gradients

    @cached_property
    def contribution_sums(self) -> Float[Tensor, " positions"]:
        """The contributions, summed over channels."""
        return self.contributions.sum(0)

    @cached_property
    def activation_sums(self) -> Float[Tensor, " channels"]:
        """The activations, summed over positions."""
        return self.activations.sum(1)

    def reshape_to_map(self, values: Float[Tensor, " positions"]) -> Float[Tensor, "rows columns"]:
        """Return one value per position as a map."""
        return values.unflatten(0, self.activation_maps.shape[1:])

    def weighted_sum(self, weights: Float[Tensor, " channels"]) -> Float[Tensor, "rows columns"]:
        """Return the sum of the activation maps, each multiplied by the weight of its channel."""
        return self.reshape_to_map(weights.to(self.activations) @ self.activations)


def extract_spatial_features(layer: str, activation: Tensor, gradient: Tensor | None, model: Model) -> SpatialFeatures:
    """Return the output of a layer, and its gradient, as maps of channels by rows by columns.

    Args:
        layer: Name of the layer, for the error message.
        activation: Output of the layer for a batch of one image.
        gradient: Gradient at that output, of the same shape, or `None`.
        model: The model that holds the layer.

    Raises:
        MethodError: If the output has no spatial positions.
    """
    maps = model.spatial_map(activation)
    if maps is None:
        shape = tuple(activation.shape[1:])
        stages = f"use one of {', '.join(model.stages)}"
        raise MethodError(f"the output of {layer} has shape {shape}, which has no spatial positions; {stages}")
    return SpatialFeatures(maps, None if gradient is None else model.spatial_map(gradient))


def _flatten_positions(maps: Float[Tensor, "channels rows columns"]) -> Float[Tensor, "channels positions"]:
    """Flatten rows and columns, in single precision at least."""
    # Half precision is too coarse to sum thousands of positions, or to square a gradient.
    return maps.flatten(1).to(torch.promote_types(maps.dtype, torch.float32))
