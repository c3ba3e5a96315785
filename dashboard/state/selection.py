"""The selection of the page: photo, model and classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from PIL import Image

from dashboard.services.explanation_request import DEFAULT_METHOD, ExplanationRequest


class PhotoAndModel(NamedTuple):
    """The part of a selection that views without a class depend on."""

    photo: str  # key of the photo
    model: str


class Selection(NamedTuple):
    """Photo, model and classes that the page shows; it changes as a whole, and every tab draws again when it does."""

    photo: str  # key of the photo, so that a new photo is a new selection
    model: str
    target: int
    against: int | None = None  # contrast class: "why the target and not this class"

    @property
    def photo_and_model(self) -> PhotoAndModel:
        """The selection without its classes."""
        return PhotoAndModel(self.photo, self.model)

    def make_request(
        self, photo: Image.Image, method: str = DEFAULT_METHOD, parameters: Mapping[str, Any] | None = None
    ) -> ExplanationRequest:
        """Return the request for an explanation of the selected class; `photo` is the one the key stands for."""
        return ExplanationRequest(photo, self.model, self.target, self.against, method, dict(parameters or {}))
