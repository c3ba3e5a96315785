"""An image with its caption."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image

from dashboard.components.data_encoding import encode_data_url


def build_figure(
    picture: Image.Image,
    caption: str,
    *,
    alt: str,
    fit: str = "natural",
    file: str = "",
    grid: Sequence[int] = (),
    rows: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Return the value of a figure: an image with its caption.

    Args:
        picture: The image, encoded without loss.
        caption: The text below it.
        alt: The text alternative.
        fit: The width: "natural", "wide" or "small".
        file: The name of the file that "Save PNG" saves; empty for no link.
        grid: The number of rows and columns of lines drawn over the image.
        rows: Further facts by name, in a closed list.
    """
    return {
        "picture": encode_data_url(picture),
        "caption": caption,
        "alt": alt,
        "fit": fit,
        "file": file,
        "grid": list(grid),
        "rows": [{"name": name, "text": text} for name, text in (rows or {}).items()],
    }
