"""A map on the photo, with its colour bar, the raw value under the mouse, and how it is shown: all in the browser."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from dashboard.components.base import encode_palettes, encode_photo_and_box, pack_floats
from dashboard.i18n.translate import translate
from vizlib import Attribution
from vizlib.core.geometry import Geometry
from vizlib.core.text import shorten_label
from vizlib.render.color_scale import compute_limits


def build_heatmap(
    values: np.ndarray,
    photo: Image.Image,
    geometry: Geometry,
    *,
    signed: bool,
    smooth: bool,
    alt: str,
    file: str,
    ends: tuple[str, str] = ("", ""),
) -> dict[str, Any]:
    """Raw values "h w" over the model's input, as the browser draws them on the photo.

    The ends of the colour map are the library's, taken over what the photo shows of the map; `ends` says what they
    stand for.
    """
    base = encode_photo_and_box(photo, geometry)
    shown = geometry.project_to_photo(values, (base["height"], base["width"]), smooth=smooth)
    return {
        **base,
        "map": pack_floats(values),
        "limits": list(compute_limits(shown, signed=signed)),
        "signed": signed,
        "smooth": smooth,
        "palettes": encode_palettes(signed),
        "alt": alt,
        "file": file,
        "ends": ends,
    }


def build_photo_only(photo: Image.Image, geometry: Geometry, *, alt: str) -> dict[str, Any]:
    """The photo as it is drawn upon, while there is no map yet."""
    return {**encode_photo_and_box(photo, geometry), "alt": alt}


def build_attribution_heatmap(attribution: Attribution, photo: Image.Image, alt: str, against: str = "") -> dict[str, Any]:
    """An attribution as the browser draws it; `rival` is the label of the class it is set against, if any."""
    ends = (shorten_label(against), shorten_label(attribution.label)) if against else (translate("common.against"), translate("common.for"))
    return build_heatmap(
        attribution.heat.numpy(),
        photo,
        attribution.geometry,
        signed=attribution.signed,
        smooth=not attribution.patch_values,
        alt=alt,
        file=f"{attribution.file_stem}.png",
        ends=ends if attribution.signed else ("", ""),
    )
