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
    """Return the value of a heat map: raw values over the photo.

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
    """Return the value of a heat map component that shows the photo without a map."""
    return {**encode_photo_and_box(photo, geometry), "alt": alt}


def build_attribution_heatmap(
    attribution: Attribution, photo: Image.Image, alt: str, against: str = ""
) -> dict[str, Any]:
    """Return the value of the heat map of an attribution; `against` is the label of the contrast class, if any."""
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


def build_heatmap_alt_text(attribution: Attribution) -> str:
    """Return the text alternative of a heat map: the method, the class, and where the map has its maximum."""
    rows, columns = attribution.heat.shape
    row, column = divmod(int(attribution.heat.argmax()), columns)
    vertical = ("top", "middle", "bottom")[min(3 * row // rows, 2)]
    horizontal = ("left", "centre", "right")[min(3 * column // columns, 2)]
    place = translate(f"common.{vertical}-{horizontal}")
    facts = {"method": attribution.method, "class": shorten_label(attribution.label), "place": place}
    return translate("common.strongest", **facts)
