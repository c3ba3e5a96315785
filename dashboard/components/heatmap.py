"""A map over the photo with a colour bar, the value under the pointer, and controls for opacity and colours."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from dashboard.components.data_encoding import encode_floats, encode_palettes, encode_photo_and_box
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
    """Return the component's value.

    Args:
        values: The raw map "h w" over the model's input.
        photo: The photo.
        geometry: Where on the photo the model's input lies.
        signed: Whether the values have a sign.
        smooth: Whether to interpolate between the values.
        alt: The text alternative.
        file: The name of the saved file.
        ends: What a value at each end of the colour scale means.
    """
    base = encode_photo_and_box(photo, geometry)
    shown = geometry.project_to_photo(values, (base["height"], base["width"]), smooth=smooth)
    return {
        **base,
        "map": encode_floats(values),
        "limits": list(compute_limits(shown, signed=signed)),
        "signed": signed,
        "smooth": smooth,
        "palettes": encode_palettes(signed),
        "alt": alt,
        "file": file,
        "ends": ends,
    }


def build_photo_only(photo: Image.Image, geometry: Geometry, *, alt: str) -> dict[str, Any]:
    """Return the component's value for a photo without a map."""
    return {**encode_photo_and_box(photo, geometry), "alt": alt}


def build_attribution_heatmap(
    attribution: Attribution, photo: Image.Image, alt: str, against: str = ""
) -> dict[str, Any]:
    """Return the component's value for an attribution; `against` is the label of the contrast class, if any."""
    ends = (
        (shorten_label(against), shorten_label(attribution.label))
        if against
        else (translate("common.against"), translate("common.for"))
    )
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
