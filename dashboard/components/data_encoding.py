"""Encoding of arrays, colour maps and images as text, in the values of components that the browser decodes."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from PIL import Image

from vizlib.core.geometry import Geometry
from vizlib.render.color_scale import DIVERGING_COLORMAP, SEQUENTIAL_COLORMAP, load_colormap

PHOTO_SIDE_PX = 840  # longest side of a photo under a map, the largest that the page shows
PALETTES = {  # by signed: perceptually uniform ones; diverging ones that the colour-blind can distinguish
    False: (SEQUENTIAL_COLORMAP, "viridis", "cividis"),
    True: (DIVERGING_COLORMAP, "PuOr_r", "BrBG_r"),
}


def encode_floats(values: np.ndarray) -> dict[str, Any]:
    """Encode an array of any shape as base64 of 32-bit floats."""
    return {"shape": list(values.shape), "floats": _encode_base64(np.ascontiguousarray(values, dtype="<f4"))}


def encode_bytes(values: np.ndarray) -> dict[str, Any]:
    """Encode maps "... h w" as base64 with one byte per value: 256 steps from the minimum to the maximum of each map.

    Returns:
        The shape, the bytes, and for each map its minimum and maximum ("ends") as 32-bit floats, both in base64.
    """
    low, high = values.min((-2, -1), keepdims=True), values.max((-2, -1), keepdims=True)
    span = np.where(high > low, high - low, 1)
    steps = ((values - low) / span * 255).round().astype(np.uint8)
    ends = np.concatenate([low, low + span], -1).reshape(-1, 2)
    return {"shape": list(values.shape), "bytes": _encode_base64(steps), "ends": _encode_base64(ends.astype("<f4"))}


def encode_photo_and_box(photo: Image.Image, geometry: Geometry, side: int = PHOTO_SIDE_PX) -> dict[str, Any]:
    """Encode a photo as `encode_photo` does, with the model's input on it as a box."""
    return {**encode_photo(photo, side), "box": encode_input_box(geometry)}


def encode_photo(photo: Image.Image, side: int = PHOTO_SIDE_PX) -> dict[str, Any]:
    """Encode a photo as a data URL, with the size in pixels to draw it at, whose longest side is `side`."""
    cache_key = f"data url at {side} pixels"
    if cache_key not in photo.info:  # cached with the photo, which several tabs draw
        small = photo.copy()
        small.thumbnail((side, side))
        photo.info[cache_key] = encode_data_url(small, "JPEG")
    factor = side / max(photo.size)  # a small photo is enlarged, or the map over it would be coarse
    width, height = (max(1, round(length * factor)) for length in photo.size)
    return {"photo": photo.info[cache_key], "width": width, "height": height}


def encode_input_box(geometry: Geometry) -> list[float]:
    """Encode the box of a model's input on the photo: top, left, bottom, right as shares of the photo's sides.

    With padding, the box is larger than the photo.
    """
    (top, left), (bottom, right) = geometry.to_photo(0, 0), geometry.to_photo(*geometry.input_size)
    height, width = geometry.photo_size
    return [top / height, left / width, bottom / height, right / width]


def encode_palette(signed: bool) -> str:
    """Encode the default colour map for signed or unsigned maps: 256 RGB colours as base64."""
    return _encode_base64(load_colormap(PALETTES[signed][0]))


def encode_palettes(signed: bool) -> list[dict[str, str]]:
    """Encode every colour map that can be selected, with its name, the default first."""
    return [{"name": name, "colours": _encode_base64(load_colormap(name))} for name in PALETTES[signed]]


def encode_data_url(picture: Image.Image, kind: str = "PNG") -> str:
    """Encode an image as a `data:` URL."""
    file = io.BytesIO()
    picture.save(file, kind, **({"quality": 90} if kind == "JPEG" else {"compress_level": 4}))
    return f"data:image/{kind.lower()};base64," + base64.b64encode(file.getvalue()).decode()


def _encode_base64(values: np.ndarray) -> str:
    """Encode the bytes of an array as text."""
    return base64.b64encode(values.tobytes()).decode()
