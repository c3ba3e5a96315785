"""A map on the photo, with its colour bar, its opacity and the raw value under the mouse."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from dashboard.components.base import colours, drawn_on, exact
from vizlib import Attribution, render
from vizlib.geometry import Geometry


def heat(
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
    base = drawn_on(photo, geometry)
    shown = geometry.lift(values, (base["height"], base["width"]), smooth=smooth)
    return {
        **base,
        "map": exact(values),
        "limits": list(render.limits_of(shown, signed=signed)),
        "signed": signed,
        "smooth": smooth,
        "palette": colours(signed),
        "alt": alt,
        "file": file,
        "ends": ends,
    }


def of_attribution(answer: Attribution, photo: Image.Image, alt: str) -> dict[str, Any]:
    """An attribution as the browser draws it."""
    file = f"{answer.model}_{answer.method}_{answer.target}.png".replace("/", "-")
    return heat(
        answer.heat.numpy(),
        photo,
        answer.geometry,
        signed=answer.signed,
        smooth=not answer.patches,
        alt=alt,
        file=file,
        ends=("against", "for") if answer.signed else ("", ""),
    )
