"""Maps of one photo beside each other: point at a place on one, and every other tells its value there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from PIL import Image

from dashboard.components.base import PHOTO_SIDE_PX, encode_palette, encode_photo, pack_floats
from vizlib.render.color_scale import Limits

LINKED_SIDE_PX = PHOTO_SIDE_PX // 2  # longest side of the photo under each map, in pixels


@dataclass(frozen=True)
class ColourScale:
    """A colour scale and its legend: the ends of the colours for each step, and what they stand for."""

    name: str
    limits: Sequence[Limits]  # one, or one a step
    signed: bool = False
    ends: tuple[str, str] = ("", "")


def build_item(
    name: str,
    maps: Float[np.ndarray, "steps h w"],
    box: Sequence[float],
    scale: int,
    *,
    alt: str,
    text: str = "",
    smooth: bool = True,
    factors: Sequence[float] = (),
) -> dict[str, Any]:
    """One picture: a map, or one for each step, which lies on the photo within `box` (top, left,
    bottom, right as shares of its sides) and is coloured by a scale.

    Values are shown times `factors`, one a step.
    """
    told = {"name": name, "alt": alt, "text": text, "smooth": smooth}
    return {**told, "maps": pack_floats(maps), "box": list(box), "scale": scale, "factors": list(factors)}


def build_linked_heatmaps(
    rows: Sequence[tuple[str, Sequence[dict[str, Any] | None]]],
    scales: Sequence[ColourScale],
    photo: Image.Image,
    *,
    label: str,
    steps: Sequence[str] = (),
    follows: str = "",
) -> dict[str, Any]:
    """Rows of items, each with its heading, and the scales they share.

    The step of all maps is chosen among `steps`, where they have a name, or follows another part of the page.
    """
    return {
        **encode_photo(photo, LINKED_SIDE_PX),
        "rows": [{"heading": heading, "items": list(items)} for heading, items in rows],
        "scales": [
            {"name": one.name, "limits": [list(ends) for ends in one.limits], "signed": one.signed, "ends": one.ends}
            for one in scales
        ],
        "palette": encode_palette(False),
        "signedPalette": encode_palette(True),
        "label": label,
        "steps": list(steps),
        "follows": follows,
    }
