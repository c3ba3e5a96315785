"""Photos to begin with, as buttons; `select` tells the place of the one that was clicked as its `index`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import ImageOps

from dashboard.components.base import make_data_url
from vizlib import open_image


def build_examples(photos: Mapping[str, str | Path]) -> dict[str, Any]:
    """Small photos as buttons, by what a person is told of each."""
    return {
        "photos": [
            {"name": name, "picture": make_data_url(ImageOps.fit(open_image(path), (128, 128)), "JPEG")}
            for name, path in photos.items()
        ]
    }
