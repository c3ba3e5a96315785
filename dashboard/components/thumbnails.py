"""Small maps side by side, each a button; a click chooses the `key` of one, as what the part is made with says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from dashboard.components.base import encode_palette, encode_photo_and_box, pack_bytes
from vizlib.core.geometry import Geometry

MAX_CELLS = 56  # a small map needs no more along a side


def build_thumbnail(
    key: str, name: str, values: np.ndarray | None, limits: tuple[float, float], *, signed=False, smooth=True, hint=""
) -> dict[str, Any]:
    """One button; without `values` it has no picture yet."""
    return {
        "key": key,
        "name": name,
        "hint": hint,
        "map": None if values is None else pack_bytes(downsample_map(values)),
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
    """Buttons in a grid, drawn on a small copy of the photo where one is given; `label` names the group
    to those who cannot see it, and the `heading` stands above it. A click tells what they are `of`, too."""
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
    """A map of at most `cells` a side: averages over what falls together."""
    height, width = values.shape
    if max(height, width) <= cells:
        return values
    size = (min(height, cells), min(width, cells))
    return F.adaptive_avg_pool2d(torch.as_tensor(values, dtype=torch.float32)[None, None], size)[0, 0].numpy()
