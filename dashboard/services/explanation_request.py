"""A request for an explanation: all that the attribution map of a photo depends on."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from PIL import Image

from dashboard.services.photo_key import compute_photo_key

DEFAULT_METHOD = "grad-cam"  # supports every family of networks
ClassName = int | str | None  # a class by index or label; None or "" is the most probable one


@dataclass(frozen=True, eq=False)
class ExplanationRequest:
    """A photo, a model, a target class, a contrast class, and a method with its parameters.

    Attributes:
        photo: Upright RGB photo.
        model: Name of a model of the catalog.
        target: Class to explain, by index or label; `None` or `""` is the most probable one.
        against: Class the target is contrasted with, by index or label, or `"runner-up"`; `None` or `""` is none.
        method: Name of an attribution method.
        parameters: Parameters of the method that differ from their defaults.
    """

    photo: Image.Image
    model: str
    target: ClassName = None
    against: ClassName = None
    method: str = DEFAULT_METHOD
    parameters: Mapping[str, Any] = field(default_factory=dict)

    @property
    def class_key(self) -> tuple[Hashable, ...]:
        """Photo, model, target and contrast class as a cache key: what all one-pass methods depend on."""
        return compute_photo_key(self.photo), self.model, self.target, self.against

    @property
    def key(self) -> tuple[Hashable, ...]:
        """The whole request for an explanation as a cache key."""
        return *self.class_key, self.method, repr(sorted(self.parameters.items()))

    def with_method(self, method: str, parameters: Mapping[str, Any] | None = None) -> ExplanationRequest:
        """Return the same request for an explanation by another method with its parameters."""
        return replace(self, method=method, parameters=dict(parameters or {}))
