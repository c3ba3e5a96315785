"""Example photos as buttons; `select` has the place of the clicked one as its `index`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import ImageOps

from dashboard.components.data_encoding import encode_data_url
from vizlib import open_image


def build_examples(photos: Mapping[str, str | Path]) -> dict[str, Any]:
    """Return the value of the buttons of example photos: small copies of the photos, by their descriptions."""
    return {
        "photos": [
            {"name": name, "picture": encode_data_url(ImageOps.fit(open_image(path), (128, 128)), "JPEG")}
            for name, path in photos.items()
        ]
    }
