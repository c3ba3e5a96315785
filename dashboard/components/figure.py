"""A still picture with its caption."""

from __future__ import annotations

from typing import Any

from PIL import Image

from dashboard.components.base import data_url


def figure(picture: Image.Image, caption: str, *, alt: str, fit: str = "natural", file: str = "") -> dict[str, Any]:
    """A picture without loss; `fit` is natural, wide or small, and `file` names what "Save PNG" saves."""
    return {"picture": data_url(picture), "caption": caption, "alt": alt, "fit": fit, "file": file}
