"""What every photo must satisfy before it is decoded and afterwards: its size, and values that are numbers."""

from __future__ import annotations

import numpy as np

from vizlib.core.errors import ImageError
from vizlib.core.text import make_note

MAX_PIXELS = 40_000_000  # a 40-megapixel photo takes 120 MB once decoded
MIN_SIDE_PIXELS = 8
MAX_ASPECT_RATIO = 50  # a longer strip would be resized to a huge image before the model's crop
MAX_DECODED_MB = 480  # of all bands of a file: 40 megapixels of three colours in single precision

FORMAT_NAMES = "JPEG, PNG, WebP, GIF, BMP or TIFF"  # what error messages recommend
EXPECTED = f"expected a photo as {FORMAT_NAMES}"


def check_size(width: int, height: int, name: str) -> None:
    """Raise an `ImageError` for a photo that is too small, too large, or too long and thin."""
    size = f"{width} × {height}"
    if min(width, height) < MIN_SIDE_PIXELS:
        raise ImageError(make_note("image.too-small", file=name, size=size, limit=MIN_SIDE_PIXELS))
    if width * height > MAX_PIXELS:
        facts = {"megapixels": f"{width * height / 1e6:.0f}", "limit": MAX_PIXELS // 1_000_000}
        raise ImageError(make_note("image.too-large", file=name, size=size, **facts))
    if max(width, height) > MAX_ASPECT_RATIO * min(width, height):
        raise ImageError(make_note("image.too-long", file=name, size=size, limit=MAX_ASPECT_RATIO))


def check_finite(values: np.ndarray, name: str) -> None:
    """Raise an `ImageError` for pixel values with NaN or infinity."""
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise ImageError(make_note("image.not-finite", file=name))
