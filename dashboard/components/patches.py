"""A photo on a grid of patches where each patch has maps of its own: point at one and see them, all in the browser."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from PIL import Image

from dashboard.components.base import colours, drawn_on, rough
from vizlib.core.geometry import Geometry

LOOKS, LIKE = "looks", "like"
BUDGET = 3_000_000  # bytes of maps sent at once, one a value: a ViT-Tiny's heads are 1.4 MB, a ViT-Base's 5.6 MB


def patches(
    maps: Float[np.ndarray, "layers heads tokens rows columns"],
    photo: Image.Image,
    geometry: Geometry,
    *,
    names: Sequence[str] = (),
    signed: bool = False,
    label: str,
    says: str = LOOKS,
    places: Float[np.ndarray, "patches rows columns"] | None = None,
    key: str = "",
    layer: int | None = None,
) -> dict[str, Any]:
    """One map per layer, head and token; `names` are those of the tokens that come before the first patch.

    `says` is what the sentence tells of the other patch whose value is the largest, which it names: that this one looks
    at it, or is like it. `places` are similarities of the patches' places, -1 to 1. With the same `key` as before, what
    is pointed at and pinned stays. `layer` is the one whose heads are sent where not all can be, the last if left out.
    """
    rows, columns = maps.shape[-2:]
    return {
        **drawn_on(photo, geometry),
        **within_budget(maps, layer),
        "names": list(names),
        "patch": [rows // 2, columns // 2],
        "signed": signed,
        "palette": colours(signed),
        "label": label,
        "says": says,
        "places": None if places is None else rough(places),
        "placesPalette": colours(True) if places is not None else "",
        "key": key,
    }


def within_budget(
    maps: Float[np.ndarray, "layers heads tokens rows columns"], layer: int | None = None, budget: int | None = None
) -> dict[str, Any]:
    """All maps where they fit into the budget of bytes; else the mean over the heads in every layer, and the heads of
    one layer, the last unless another is asked for."""
    if maps.size <= (BUDGET if budget is None else budget):
        return {"maps": rough(maps)}
    layer = len(maps) - 1 if layer is None or not 0 <= layer < len(maps) else layer
    return {"maps": rough(maps.mean(1, keepdims=True)), "heads": rough(maps[layer]), "of": layer}
