"""HTML of results in the output of a notebook cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

from vizlib.core.text import format_number
from vizlib.render.color_scale import Limits, draw_color_bar
from vizlib.render.html import TEMPLATES, inline_image, render_template

MAX_SIDE_PIXELS = 480  # of the photo; a notebook file stores every output
GRID_SIDE_PIXELS = 180  # of a map in a grid
KERNEL_SIDE_PIXELS = 28
GRADIENT_STOPS = 17  # colours of the colour bar; an odd number, so that the middle is one of them
TEMPLATE = TEMPLATES / "notebook.html"


def render_attribution(overlay: Image.Image, title: str, notes: Sequence[str], *, limits: Limits, signed: bool) -> str:
    """Return HTML of a map for a notebook: overlay, colour bar with the raw values at its ends, title and notes."""
    ramp = draw_color_bar(signed=signed, width=GRADIENT_STOPS, height=1)
    return render_template(
        TEMPLATE,
        kind="attribution",
        overlay=inline_image(overlay, lossless=False),
        title=title,
        notes=notes,
        colors=["#" + color.tobytes().hex() for color in np.asarray(ramp)[0]],
        low=format_number(limits[0]),
        high=format_number(limits[1]),
        signed=signed,
        max_width=MAX_SIDE_PIXELS,
    )


def render_attribution_grid(overlays: Mapping[str, Image.Image], title: str, notes: Sequence[str]) -> str:
    """Return HTML of several maps of one photo side by side, for a notebook.

    Args:
        overlays: Name -> overlay.
        title: Title of all.
        notes: Notes that hold for all.
    """
    images = {name: inline_image(overlay, lossless=False) for name, overlay in overlays.items()}
    return render_template(TEMPLATE, kind="grid", overlays=images, title=title, notes=notes)


def render_image(image: Image.Image, title: str) -> str:
    """Return HTML of one image for a notebook, embedded without loss, and its title."""
    return render_template(TEMPLATE, kind="image", overlay=inline_image(image, lossless=True), title=title, notes=())
