"""A layer's output and gradient as every class activation map reads them: channels by places, worked out once."""

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
    """One layer, seen by one photo: what several methods need of it is computed by the first that asks."""

    activation_maps: Float[Tensor, "channels rows columns"]
    gradient_maps: (
        Float[Tensor, "channels rows columns"] | None
    )  # the gradient of the explained score; None if not asked for

    @property
    def required_gradient_maps(self) -> Float[Tensor, "channels rows columns"]:
        """The gradient; only methods that said they need it ask."""
        assert self.gradient_maps is not None
        return self.gradient_maps

    @cached_property
    def activations(self) -> Float[Tensor, "channels places"]:
        """The activation with its places in a row."""
        return _flatten_positions(self.activation_maps)

    @cached_property
    def gradients(self) -> Float[Tensor, "channels places"]:
        """The gradient with its places in a row."""
        return _flatten_positions(self.required_gradient_maps)

    @cached_property
    def positive_gradients(self) -> Float[Tensor, "channels places"]:
        """The gradient where it is positive, else 0."""
        return self.gradients.clamp(min=0)

    @cached_property
    def contributions(self) -> Float[Tensor, "channels places"]:
        """Activation times gradient: what each channel contributes in each place, to first order."""
        return self.activations * self.gradients

    @cached_property
    def contribution_sums(self) -> Float[Tensor, " places"]:
        """What all channels together contribute in each place."""
        return self.contributions.sum(0)

    @cached_property
    def activation_sums(self) -> Float[Tensor, " channels"]:
        """Each channel's sum over all places."""
        return self.activations.sum(1)

    def reshape_to_map(self, values: Float[Tensor, " places"]) -> Float[Tensor, "rows columns"]:
        """One value a place, as a map."""
        return values.unflatten(0, self.activation_maps.shape[1:])

    def weighted_sum(self, weights: Float[Tensor, " channels"]) -> Float[Tensor, "rows columns"]:
        """The sum of the channels, each with its weight."""
        return self.reshape_to_map(weights.to(self.activations) @ self.activations)


def extract_spatial_features(layer: str, activation: Tensor, gradient: Tensor | None, model: Model) -> SpatialFeatures:
    """A layer's output laid out on the photo. Raises: MethodError where it has no places."""
    picture = model.picture(activation)
    if picture is None:
        shape = tuple(activation.shape[1:])
        stages = f"use one of {', '.join(model.stages)}"
        raise MethodError(f"the output of {layer} has shape {shape}, with no places in it; {stages}")
    return SpatialFeatures(picture, None if gradient is None else model.picture(gradient))


def _flatten_positions(picture: Float[Tensor, "channels rows columns"]) -> Float[Tensor, "channels places"]:
    """In single precision at least: half of it is too coarse to sum thousands of places, or to square a gradient."""
    return picture.flatten(1).to(torch.promote_types(picture.dtype, torch.float32))
