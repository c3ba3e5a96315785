"""A map on the photo, with its colour bar, the raw value under the mouse, and how it is shown: all in the browser."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from dashboard.components.base import drawn_on, exact, palettes
from dashboard.i18n.translate import translate
from vizlib import Attribution
from vizlib.core.geometry import Geometry
from vizlib.core.text import short
from vizlib.render import overlay as render


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
        "palettes": palettes(signed),
        "alt": alt,
        "file": file,
        "ends": ends,
    }


def bare(photo: Image.Image, geometry: Geometry, *, alt: str) -> dict[str, Any]:
    """The photo as it is drawn upon, while there is no map yet."""
    return {**drawn_on(photo, geometry), "alt": alt}


def of_attribution(answer: Attribution, photo: Image.Image, alt: str, rival: str = "") -> dict[str, Any]:
    """An attribution as the browser draws it; `rival` is the label of the class it is set against, if any."""
    ends = (short(rival), short(answer.label)) if rival else (translate("tell.against"), translate("tell.for"))
    return heat(
        answer.heat.numpy(),
        photo,
        answer.geometry,
        signed=answer.signed,
        smooth=not answer.patches,
        alt=alt,
        file=f"{answer.stem}.png",
        ends=ends if answer.signed else ("", ""),
    )
