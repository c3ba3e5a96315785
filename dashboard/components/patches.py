"""A photo on a grid of patches where each patch has maps of its own: point at one and see them, all in the browser."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from PIL import Image

from dashboard.components.base import colours, drawn_on, rough
from vizlib.geometry import Geometry


def patches(
    maps: Float[np.ndarray, "layers heads tokens rows columns"],
    photo: Image.Image,
    geometry: Geometry,
    *,
    names: Sequence[str] = (),
    signed: bool = False,
    label: str,
    verb: str,
) -> dict[str, Any]:
    """One map per layer, head and token; `names` are those of the tokens that come before the first patch.

    `verb` completes the sentence "the patch in row 3, column 4 ... row 5, column 6", which names the other patch whose
    value is the largest.
    """
    rows, columns = maps.shape[-2:]
    return {
        **drawn_on(photo, geometry),
        "maps": rough(maps),
        "names": list(names),
        "patch": [rows // 2, columns // 2],
        "signed": signed,
        "palette": colours(signed),
        "label": label,
        "verb": verb,
    }
