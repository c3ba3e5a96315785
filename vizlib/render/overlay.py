"""Draw a map on its photo, with or without a colour bar, and mark a box on an image."""

from __future__ import annotations

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

OUTSIDE_BRIGHTNESS = 0.35  # brightness of what the model never saw


def overlay_heat(
    photo: Image.Image,
    heat: Float[np.ndarray, "H W"],
    *,
    signed: bool = False,
    opacity: float = 0.75,
    colormap: str | None = None,
    limits: Limits | None = None,
) -> Image.Image:
    """The photo with the heat upon it, at the photo's own size; what the model never saw (NaN) is dimmed and grey.

    Strong values cover the photo, weak ones let it through, so what is cold stays recognisable: a pixel is covered by
    `opacity` times its strength to the power of 0.6, where strength is its place on the scale, 0 to 1 (of signed values
    the distance from the middle).

    Raises: VizlibError for an opacity outside 0 to 1, an unknown colour map, or limits that are no range.
    """
    if not 0 <= opacity <= 1:
        raise VizlibError(
            f"opacity is {opacity:g}, expected 0 (only the photo) to 1 (only the heat where it is strongest)"
        )
    limits = limits or compute_limits(heat, signed=signed)
    share = normalize_values(heat, limits)
    strength = np.abs(2 * share - 1) if signed else share
    cover = (opacity * np.nan_to_num(strength) ** 0.6)[..., None].astype(np.float32)
    pixels = np.asarray(photo, dtype=np.float32)
    picture = pixels * (1 - cover) + apply_colormap(heat, signed=signed, colormap=colormap, limits=limits) * cover
    unseen = np.isnan(heat)
    picture[unseen] = pixels[unseen].mean(-1, keepdims=True) * OUTSIDE_BRIGHTNESS
    return Image.fromarray(picture.round().astype(np.uint8))


def draw_figure(
    photo: Image.Image,
    heat: Float[np.ndarray, "H W"],
    *,
    title: str = "",
    signed: bool = False,
    opacity: float = 0.75,
    colormap: str | None = None,
    limits: Limits | None = None,
):
    """The overlay beside a colour bar of the raw values, as a matplotlib `Figure`.

    An end of the bar is pointed where values lie beyond it.

    Raises: VizlibError as `overlay` does.
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

    low, high = limits = limits or compute_limits(heat, signed=signed)
    picture = overlay_heat(photo, heat, signed=signed, opacity=opacity, colormap=colormap, limits=limits)
    seen = heat[np.isfinite(heat)]
    beyond = bool((seen < low).any()), bool((seen > high).any())
    extend = {(True, True): "both", (True, False): "min", (False, True): "max", (False, False): "neither"}[beyond]
    factor = 6 / max(photo.size)  # inches
    board = Figure((photo.width * factor + 1, photo.height * factor + 0.5), dpi=200, layout="constrained")
    axes = board.add_subplot()
    axes.imshow(picture)
    axes.set_axis_off()
    # A label is text, not mathematics, whatever dollar signs it holds.
    axes.set_title(" ".join(title.split()), loc="left", fontsize=10, parse_math=False)
    scale = ScalarMappable(Normalize(low, high), colormap or (DIVERGING_COLORMAP if signed else SEQUENTIAL_COLORMAP))
    said = "raw values (below 0: against)" if signed else "raw values"
    beside = axes.inset_axes((1.025, 0, 0.15 / factor / photo.width, 1))  # as high as the photo
    board.colorbar(scale, cax=beside, extend=extend, label=said).ax.tick_params(labelsize=8)
    return board


def draw_box(picture: Image.Image, box: tuple[float, float, float, float], colour: str = "#ffffff") -> Image.Image:
    """The picture with a frame around a box given as top, left, bottom, right in pixels."""
    top, left, bottom, right = box
    width = max(1, round(min(picture.size) / 200))
    copy = picture.copy()
    draw = ImageDraw.Draw(copy)
    right, bottom = max(right - 1, left), max(bottom - 1, top)  # a patch of a tiny photo is less than a pixel
    draw.rectangle((left - width, top - width, right + width, bottom + width), outline="#000000", width=width)
    draw.rectangle((left, top, right, bottom), outline=colour, width=width)
    return copy
