"""Convert pixel values of any depth to the 8 bits of a photo."""

from __future__ import annotations

import numpy as np
from PIL import Image

from vizlib.core.text import Note, make_note

BLOCK_ROWS = 256  # rows that are scaled at once: their numbers in double precision are all the memory that it takes


def to_image(
    colors: np.ndarray, alpha: np.ndarray | None = None, *, white: int | None = None, opaque: float = 1.0
) -> Image.Image:
    """Return pixel values as an 8-bit image.

    Args:
        colors: Finite values of shape (H, W) or (H, W, 3).
        alpha: Opacity of each pixel "H W"; it is scaled by its own range, not by that of the colours.
        white: As in `to_eight_bits`.
        opaque: The alpha of an opaque pixel.

    Returns:
        An image in mode L or RGB, with `alpha` LA or RGBA; `info["notes"]` says how the values were scaled.
    """
    pixels, notes = to_eight_bits(colors, white)
    image = Image.fromarray(np.ascontiguousarray(pixels))
    if alpha is not None:
        image.putalpha(Image.fromarray(scale_to_uint8(alpha, 0.0, opaque)))
    image.info["notes"] = notes
    return image


def to_eight_bits(values: np.ndarray, white: int | None = None) -> tuple[np.ndarray, tuple[Note, ...]]:
    """Return finite pixel values as uint8, and a note if they were scaled.

    Deep values are scaled so that the lowest becomes black and the highest white. Colours that use the upper half of
    their range keep that range, as it is their brightness and not only their order that means something: 0 becomes
    black and the largest number of the format white.

    Args:
        values: Of shape (H, W) or (H, W, 3), of any type.
        white: The largest number that the format of the values allows; by default that of an unsigned type.
    """
    kind, bytes_each = values.dtype.kind, values.dtype.itemsize
    if values.dtype == np.uint8:
        return values, ()
    if kind == "b":
        return values.astype(np.uint8) * 255, ()
    low, high = float(values.min()), float(values.max())
    if kind == "f" and low >= 0 and high <= 1:
        return scale_to_uint8(values, 0.0, 1.0), (make_note("image.unit-floats"),)
    if kind in "iu" and bytes_each > 2 and low >= 0 and high <= 255:
        return values.astype(np.uint8), ()  # an 8-bit image that a sum or cast has widened
    if kind == "u" and white is None:
        white = int(np.iinfo(values.dtype).max)
    if values.ndim == 3 and white is not None and low >= 0 and high > white // 2:
        low, high = 0.0, float(white)
    bits = 8 * bytes_each if white is None else white.bit_length()
    name = "float" if kind == "f" else f"{bits}-bit"
    note = make_note("image.scaled", kind=name, low=f"{low:g}", high=f"{high:g}")
    return scale_to_uint8(values, low, high), (note,)


def scale_to_uint8(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Return pixel values from `low` to `high` as uint8 from 0 to 255, rounded and clipped; 0 for an empty range."""
    factor = 255 / (high - low) if high > low else 0.0
    result = np.empty(values.shape, dtype=np.uint8)
    for start in range(0, len(values), BLOCK_ROWS):
        block = (values[start : start + BLOCK_ROWS].astype(np.float64) - low) * factor
        result[start : start + BLOCK_ROWS] = np.clip(np.rint(block), 0, 255)
    return result
