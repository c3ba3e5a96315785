"""Maps of one photo beside each other: point at a place on one, and every other tells its value there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from PIL import Image

from dashboard.components.base import PHOTO_SIDE, colours, exact, under
from vizlib.render import overlay as render

SIDE = PHOTO_SIDE // 2  # longest side of the photo under each map, in pixels


@dataclass(frozen=True)
class Scale:
    """A colour scale and its legend: the ends of the colours for each step, and what they stand for."""

    name: str
    limits: Sequence[render.Limits]  # one, or one a step
    signed: bool = False
    ends: tuple[str, str] = ("", "")


def item(
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
    return {**told, "maps": exact(maps), "box": list(box), "scale": scale, "factors": list(factors)}


def linked(
    rows: Sequence[tuple[str, Sequence[dict[str, Any] | None]]],
    scales: Sequence[Scale],
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
        **under(photo, SIDE),
        "rows": [{"heading": heading, "items": list(items)} for heading, items in rows],
        "scales": [
            {"name": one.name, "limits": [list(ends) for ends in one.limits], "signed": one.signed, "ends": one.ends}
            for one in scales
        ],
        "palette": colours(False),
        "signedPalette": colours(True),
        "label": label,
        "steps": list(steps),
        "follows": follows,
    }
