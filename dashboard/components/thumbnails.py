"""Small maps as buttons; a click emits the clicked one's `key` as the choice that the property `choice_key` names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from dashboard.components.data_encoding import encode_bytes, encode_palette, encode_photo_and_box
from vizlib.core.geometry import Geometry

MAX_CELLS = 56  # a small map needs no more along a side


def build_thumbnail(
    key: str, name: str, values: np.ndarray | None, limits: tuple[float, float], *, signed=False, smooth=True, hint=""
) -> dict[str, Any]:
    """Return one of the thumbnails; without `values` it has a placeholder instead of a map."""
    return {
        "key": key,
        "name": name,
        "hint": hint,
        "map": None if values is None else encode_bytes(downsample_map(values)),
        "limits": list(limits),
        "signed": signed,
        "smooth": smooth,
    }


def build_thumbnails(
    items: Sequence[dict[str, Any]],
    chosen: str | None,
    *,
    label: str,
    heading: str = "",
    photo: Image.Image | None = None,
    geometry: Geometry | None = None,
    small: bool = False,
    of: str = "",
) -> dict[str, Any]:
    """Return the value of a group of thumbnails: small maps as buttons.

    Args:
        items: The buttons, from `build_thumbnail`.
        chosen: The key of the selected one.
        label: What a screen reader calls the group.
        heading: The heading above the buttons.
        photo: The photo under the maps, if any.
        geometry: Where on it the model's input lies.
        small: Whether the buttons are small.
        of: What the items belong to, such as a layer; a choice includes it.
    """
    base = encode_photo_and_box(photo, geometry, side=200) if photo is not None and geometry is not None else {}
    return {
        **base,
        "items": list(items),
        "chosen": chosen,
        "label": label,
        "of": of,
        "heading": heading,
        "size": "small" if small else "large",
        "palette": encode_palette(False),
        "signedPalette": encode_palette(True),
    }


def downsample_map(values: np.ndarray, cells: int = MAX_CELLS) -> np.ndarray:
    """Return a map for a thumbnail, with at most `cells` values along each side, by average pooling."""
    height, width = values.shape
    if max(height, width) <= cells:
        return values
    size = (min(height, cells), min(width, cells))
    return F.adaptive_avg_pool2d(torch.as_tensor(values, dtype=torch.float32)[None, None], size)[0, 0].numpy()
