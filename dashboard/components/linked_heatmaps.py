"""Maps of one photo beside each other; the pointer over one shows the values of all maps at the same place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from PIL import Image

from dashboard.components.data_encoding import PHOTO_SIDE_PX, encode_floats, encode_palette, encode_photo
from vizlib.render.color_scale import Limits

LINKED_SIDE_PX = PHOTO_SIDE_PX // 2  # longest side of the photo under each map, in pixels


@dataclass(frozen=True)
class ColourScale:
    """A colour scale and its legend: its limits, and what a value at each end means."""

    name: str
    limits: Sequence[Limits]  # one, or one a step
    signed: bool = False
    ends: tuple[str, str] = ("", "")


def build_linked_item(
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
    """Return one item in a row of linked heat maps.

    Args:
        name: The name above the map.
        maps: The map, or one for each step.
        box: Where the map lies on the photo: top, left, bottom, right as shares of its sides.
        scale: The index of its colour scale.
        alt: The text alternative.
        text: A sentence below the map.
        smooth: Whether to interpolate between the values.
        factors: For each step, what the shown values are multiplied by.
    """
    return {
        "name": name,
        "alt": alt,
        "text": text,
        "smooth": smooth,
        "maps": encode_floats(maps),
        "box": list(box),
        "scale": scale,
        "factors": list(factors),
    }


def build_linked_heatmaps(
    rows: Sequence[tuple[str, Sequence[dict[str, Any] | None]]],
    scales: Sequence[ColourScale],
    photo: Image.Image,
    *,
    label: str,
    steps: Sequence[str] = (),
    follows: str = "",
) -> dict[str, Any]:
    """Return the value of linked heat maps: rows of maps of one photo beside each other.

    Args:
        rows: Headings, and the items of each row; None leaves a cell empty.
        scales: The colour scales of the items.
        photo: The photo under all maps.
        label: What a screen reader calls the group.
        steps: The names of the steps, if the user selects the step here.
        follows: "layer" if the step is the layer that another component shows.
    """
    return {
        **encode_photo(photo, LINKED_SIDE_PX),
        "rows": [{"heading": heading, "items": list(items)} for heading, items in rows],
        "scales": [
            {
                "name": scale.name,
                "limits": [list(limits) for limits in scale.limits],
                "signed": scale.signed,
                "ends": scale.ends,
            }
            for scale in scales
        ],
        "palette": encode_palette(False),
        "signedPalette": encode_palette(True),
        "label": label,
        "steps": list(steps),
        "follows": follows,
    }
