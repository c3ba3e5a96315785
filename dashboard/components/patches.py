"""A photo under a grid of patches where each patch has its own maps, which the browser shows under the pointer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from PIL import Image

from dashboard.components.data_encoding import encode_bytes, encode_palette, encode_photo_and_box
from vizlib.core.geometry import Geometry

ATTENTION, SIMILARITY = "attention", "similarity"
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
    """Return the value of the patch grid: a photo under patches, of which each has its own maps of attention.

    Args:
        maps: One map for each layer, head and token.
        photo: The photo.
        geometry: Where on the photo the model's input lies.
        names: The names of the tokens before the first patch.
        signed: Whether the values have a sign.
        label: What a screen reader calls the grid.
        sentence: What the sentence about the largest value states: `ATTENTION` or `SIMILARITY`.
        position_similarity: The similarity of each patch's position embedding to that of every patch, -1 to 1.
        key: With the same key as before, the selected and pinned tokens stay.
        layer: The layer whose heads are sent where those of all layers are too large; the last by default.
    """
    rows, columns = maps.shape[-2:]
    return {
        **encode_photo_and_box(photo, geometry),
        **fit_maps_to_budget(maps, layer),
        "names": list(names),
        "patch": [rows // 2, columns // 2],
        "signed": signed,
        "palette": encode_palette(signed),
        "label": label,
        "sentence": sentence,
        "positionSimilarity": None if position_similarity is None else encode_bytes(position_similarity),
        "similarityPalette": encode_palette(True) if position_similarity is not None else "",
        "key": key,
    }


def fit_maps_to_budget(
    maps: Float[np.ndarray, "layers heads tokens rows columns"], layer: int | None = None, budget: int | None = None
) -> dict[str, Any]:
    """Return all maps of the patches if they fit into a budget of bytes; else means over heads, and one layer's heads.

    An index that is no layer, which a forged request may hold, selects the last one.
    """
    if maps.size <= (MAX_MAP_BYTES if budget is None else budget):
        return {"maps": encode_bytes(maps)}
    layer = len(maps) - 1 if layer is None or not 0 <= layer < len(maps) else layer
    return {"maps": encode_bytes(maps.mean(1, keepdims=True)), "heads": encode_bytes(maps[layer]), "of": layer}
