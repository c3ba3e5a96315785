"""A still picture with its caption."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image

from dashboard.components.base import make_data_url


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
    """A picture without loss; `fit` is natural, wide or small, and `file` names what "Save PNG" saves.

    A `grid` of rows and columns is drawn upon it, and `rows` are what there is to know besides, folded away.
    """
    return {
        "picture": make_data_url(picture),
        "caption": caption,
        "alt": alt,
        "fit": fit,
        "file": file,
        "grid": list(grid),
        "rows": [{"name": name, "said": said} for name, said in (rows or {}).items()],
    }
