"""Draw a heat map on its photo, with or without a colour bar, and a box on an image."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageDraw

from vizlib.core.errors import VizlibError
from vizlib.render.color_scale import (
    DIVERGING_COLORMAP,
    SEQUENTIAL_COLORMAP,
    Limits,
    apply_colormap,
    compute_limits,
    normalize_values,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

OUTSIDE_BRIGHTNESS = 0.35  # of the part of the photo that was not in the model input


def overlay_heat(
    photo: Image.Image,
    heat: Float[np.ndarray, "H W"],
    *,
    signed: bool = False,
    opacity: float = 0.75,
    colormap: str | None = None,
    limits: Limits | None = None,
) -> Image.Image:
    """Return the photo with the heat map drawn on it.

    The map's opacity at a pixel is `opacity` times the strength of its value to the power of 0.6. The strength is the
    position of the value on the colour scale, from 0 to 1; of a signed value, the distance from the middle. Weak values
    thus leave the photo visible. Pixels that were not in the model input (NaN) are dimmed and grey.

    Args:
        photo: The photo in mode RGB.
        heat: Raw map with the photo's height and width.
        signed: Use a diverging colour map with limits symmetric about 0.
        opacity: Of the strongest values, from 0 to 1.
        colormap: Name of a matplotlib colour map.
        limits: Values at the ends of the colour map; `compute_limits` by default.

    Returns:
        An RGB image of the photo's size.

    Raises:
        VizlibError: For an opacity outside 0 to 1, an unknown colour map, or limits that are not a range.
    """
    if not 0 <= opacity <= 1:
        raise VizlibError(f"opacity is {opacity:g}, expected 0 (only the photo) to 1 (strong values hide the photo)")
    limits = limits or compute_limits(heat, signed=signed)
    fractions = normalize_values(heat, limits)
    strength = np.abs(2 * fractions - 1) if signed else fractions
    alpha = (opacity * np.nan_to_num(strength) ** 0.6)[..., None].astype(np.float32)
    pixels = np.asarray(photo, dtype=np.float32)
    blended = pixels * (1 - alpha) + apply_colormap(heat, signed=signed, colormap=colormap, limits=limits) * alpha
    outside = np.isnan(heat)
    blended[outside] = pixels[outside].mean(-1, keepdims=True) * OUTSIDE_BRIGHTNESS
    return Image.fromarray(blended.round().astype(np.uint8))


def draw_figure(
    photo: Image.Image,
    heat: Float[np.ndarray, "H W"],
    *,
    title: str = "",
    signed: bool = False,
    opacity: float = 0.75,
    colormap: str | None = None,
    limits: Limits | None = None,
) -> Figure:
    """Return a matplotlib `Figure` of the overlay and a colour bar of the raw values.

    An end of the colour bar is pointed where values exceed the limits.

    Args:
        photo: The photo in mode RGB.
        heat: Raw map with the photo's height and width.
        title: Title of the figure.
        signed: As in `overlay_heat`, like the parameters below.
        opacity: Of the strongest values, from 0 to 1.
        colormap: Name of a matplotlib colour map.
        limits: Values at the ends of the colour map.

    Raises:
        VizlibError: As `overlay_heat`.
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

    low, high = limits = limits or compute_limits(heat, signed=signed)
    overlay = overlay_heat(photo, heat, signed=signed, opacity=opacity, colormap=colormap, limits=limits)
    finite = heat[np.isfinite(heat)]
    exceeds = bool((finite < low).any()), bool((finite > high).any())
    extend = {(True, True): "both", (True, False): "min", (False, True): "max", (False, False): "neither"}[exceeds]
    inches_per_pixel = 6 / max(photo.size)
    size = (photo.width * inches_per_pixel + 1, photo.height * inches_per_pixel + 0.5)
    figure = Figure(size, dpi=200, layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(overlay)
    axes.set_axis_off()
    # A label may hold dollar signs, which matplotlib would read as mathematics.
    axes.set_title(" ".join(title.split()), loc="left", fontsize=10, parse_math=False)
    scale = ScalarMappable(Normalize(low, high), colormap or (DIVERGING_COLORMAP if signed else SEQUENTIAL_COLORMAP))
    label = "raw values (below 0: against)" if signed else "raw values"
    bar_axes = axes.inset_axes((1.025, 0, 0.15 / inches_per_pixel / photo.width, 1))  # as high as the photo
    figure.colorbar(scale, cax=bar_axes, extend=extend, label=label).ax.tick_params(labelsize=8)
    return figure


def draw_box(image: Image.Image, box: tuple[float, float, float, float], color: str = "#ffffff") -> Image.Image:
    """Return a copy of the image with a box drawn over it.

    Args:
        image: Any RGB image.
        box: (top, left, bottom, right) in pixels.
        color: Of the frame, which has a black border.
    """
    top, left, bottom, right = box
    width = max(1, round(min(image.size) / 200))
    copy = image.copy()
    draw = ImageDraw.Draw(copy)
    right, bottom = max(right - 1, left), max(bottom - 1, top)  # a box may be smaller than a pixel
    draw.rectangle((left - width, top - width, right + width, bottom + width), outline="#000000", width=width)
    draw.rectangle((left, top, right, bottom), outline=color, width=width)
    return copy
