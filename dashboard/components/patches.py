"""A photo on a grid of patches where each patch has maps of its own: point at one and see them, all in the browser."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from PIL import Image

from dashboard.components.base import encode_palette, encode_photo_and_box, pack_bytes
from vizlib.core.geometry import Geometry

ATTENTION, SIMILARITY = "looks", "like"
MAX_MAP_BYTES = 3_000_000  # bytes of maps sent at once, one a value: a ViT-Tiny's heads are 1.4 MB, a ViT-Base's 5.6 MB


def build_patches(
    maps: Float[np.ndarray, "layers heads tokens rows columns"],
    photo: Image.Image,
    geometry: Geometry,
    *,
    names: Sequence[str] = (),
    signed: bool = False,
    label: str,
    sentence: str = ATTENTION,
    position_similarity: Float[np.ndarray, "patches rows columns"] | None = None,
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
        **encode_photo_and_box(photo, geometry),
        **fit_to_budget(maps, layer),
        "names": list(names),
        "patch": [rows // 2, columns // 2],
        "signed": signed,
        "palette": encode_palette(signed),
        "label": label,
        "says": sentence,
        "places": None if position_similarity is None else pack_bytes(position_similarity),
        "placesPalette": encode_palette(True) if position_similarity is not None else "",
        "key": key,
    }


def fit_to_budget(
    maps: Float[np.ndarray, "layers heads tokens rows columns"], layer: int | None = None, budget: int | None = None
) -> dict[str, Any]:
    """All maps where they fit into the budget of bytes; else the mean over the heads in every layer, and the heads of
    one layer, the last unless another is asked for."""
    if maps.size <= (MAX_MAP_BYTES if budget is None else budget):
        return {"maps": pack_bytes(maps)}
    layer = len(maps) - 1 if layer is None or not 0 <= layer < len(maps) else layer
    return {"maps": pack_bytes(maps.mean(1, keepdims=True)), "heads": pack_bytes(maps[layer]), "of": layer}
