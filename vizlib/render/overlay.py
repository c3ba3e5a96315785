"""From raw values to pictures: the only file that rescales or colours."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw

from vizlib.core.errors import VizlibError, did_you_mean

Limits = tuple[float, float]
SEQUENTIAL, DIVERGING = "inferno", "RdBu_r"  # perceptually uniform; never jet, whose bands are not in the data
ROBUST = 99.5  # per cent of the values that fit on the scale: one hot pixel must not darken all others
UNSEEN = 0.35  # brightness of what the model never saw
GAP = 2  # pixels between the pictures of a grid


@cache
def palette(name: str) -> UInt8[np.ndarray, "256 3"]:
    """A matplotlib colour map as a table of 256 colours.

    Raises: VizlibError for a name matplotlib does not know.
    """
    from matplotlib import colormaps  # here, so that `import vizlib` stays quick

    if name not in colormaps:
        raise VizlibError(f"matplotlib has no colour map {name!r}; {did_you_mean(name, colormaps)}")
    shares = np.linspace(0, 1, 256)  # not 0 to 255: a map of few colours would be read past its end
    table = (colormaps[name](shares)[:, :3] * 255).round().astype(np.uint8)
    table.setflags(write=False)  # it is handed out again
    return table


def limits_of(values: np.ndarray, *, signed: bool) -> Limits:
    """The values at the two ends of the colour map; symmetric about 0 for signed values, NaN left out.

    The top end is the 99.5th percentile, so that a single hot pixel does not darken all others.
    """
    values = values[np.isfinite(values)]
    if not len(values):
        return (-1.0, 1.0) if signed else (0.0, 1.0)
    if signed:
        top = float(np.percentile(np.abs(values), ROBUST)) or float(np.abs(values).max()) or 1.0
        return -top, top
    low, top = float(values.min()), float(np.percentile(values, ROBUST))
    if top <= low:
        top = float(values.max())
    return (low, top) if top > low else (low, low + max(1.0, abs(low)))  # 1e20 + 1 is 1e20 again


def scaled(values: np.ndarray, limits: Limits) -> Float[np.ndarray, "..."]:
    """Values as 0..1 between the limits; what lies beyond is clipped, NaN stays NaN.

    Raises: VizlibError for limits that are no range.
    """
    low, high = (float(end) for end in limits)
    if not low < high:
        raise VizlibError(f"the limits of a colour scale are its low end, then a higher one, not {low:g} and {high:g}")
    return np.clip((values - low) / (high - low), 0, 1)


def coloured(
    values: Float[np.ndarray, "h w"], *, signed: bool, colormap: str | None = None, limits: Limits | None = None
) -> UInt8[np.ndarray, "h w 3"]:
    """A map in false colours; NaN in grey.

    Raises: VizlibError for an unknown colour map, or limits that are no range.
    """
    limits = limits or limits_of(values, signed=signed)
    share = scaled(values, limits)
    table = palette(colormap or (DIVERGING if signed else SEQUENTIAL))
    colours = table[np.nan_to_num(share * 255).round().astype(np.uint8)]
    colours[np.isnan(share)] = 128
    return colours


def overlay(
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
    limits = limits or limits_of(heat, signed=signed)
    share = scaled(heat, limits)
    strength = np.abs(2 * share - 1) if signed else share
    cover = (opacity * np.nan_to_num(strength) ** 0.6)[..., None].astype(np.float32)
    pixels = np.asarray(photo, dtype=np.float32)
    picture = pixels * (1 - cover) + coloured(heat, signed=signed, colormap=colormap, limits=limits) * cover
    unseen = np.isnan(heat)
    picture[unseen] = pixels[unseen].mean(-1, keepdims=True) * UNSEEN
    return Image.fromarray(picture.round().astype(np.uint8))


def figure(
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

    low, high = limits = limits or limits_of(heat, signed=signed)
    picture = overlay(photo, heat, signed=signed, opacity=opacity, colormap=colormap, limits=limits)
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
    scale = ScalarMappable(Normalize(low, high), colormap or (DIVERGING if signed else SEQUENTIAL))
    said = "raw values (below 0: against)" if signed else "raw values"
    beside = axes.inset_axes((1.025, 0, 0.15 / factor / photo.width, 1))  # as high as the photo
    board.colorbar(scale, cax=beside, extend=extend, label=said).ax.tick_params(labelsize=8)
    return board


def outlined(picture: Image.Image, box: tuple[float, float, float, float], colour: str = "#ffffff") -> Image.Image:
    """The picture with a frame around a box given as top, left, bottom, right in pixels."""
    top, left, bottom, right = box
    width = max(1, round(min(picture.size) / 200))
    copy = picture.copy()
    draw = ImageDraw.Draw(copy)
    right, bottom = max(right - 1, left), max(bottom - 1, top)  # a patch of a tiny photo is less than a pixel
    draw.rectangle((left - width, top - width, right + width, bottom + width), outline="#000000", width=width)
    draw.rectangle((left, top, right, bottom), outline=colour, width=width)
    return copy


def sheet(
    maps: Float[np.ndarray, "n h w"],
    *,
    signed: bool = False,
    shared: bool = True,
    cell: int = 96,
    columns: int | None = None,
    colormap: str | None = None,
) -> Image.Image:
    """Many maps side by side, on one scale, or with `shared=False` each on its own.

    `cell` is about a map's side in pixels.
    """
    common = limits_of(maps, signed=signed) if shared else None
    return tiles([coloured(one, signed=signed, limits=common, colormap=colormap) for one in maps], cell, columns)


def kernel_sheet(weights: Float[np.ndarray, "n c h w"], *, cell: int = 48, columns: int | None = None) -> Image.Image:
    """Kernels as pictures on one scale: a kernel over three colours in those colours, where grey is 0.

    A kernel over other channels is shown as their mean in false colours, where white is 0.
    """
    top = float(np.abs(weights).max()) or 1.0
    if weights.shape[1] != 3:
        return sheet(weights.mean(1), signed=True, cell=cell, columns=columns)
    colours = scaled(weights, (-top, top)).transpose(0, 2, 3, 1) * 255
    return tiles(list(colours.round().astype(np.uint8)), cell, columns)


def tiles(pictures: list[UInt8[np.ndarray, "h w 3"]], cell: int, columns: int | None = None) -> Image.Image:
    """Small pictures on a grid about as wide as it is high, each enlarged without smoothing to about `cell` pixels.

    They are enlarged by a whole number and never made smaller; between them the board is clear.

    Raises: VizlibError where there is no picture.
    """
    if not pictures:
        raise VizlibError("there is nothing to show: not one picture was given")
    columns = min(max(columns or math.ceil(math.sqrt(len(pictures))), 1), len(pictures))
    height, width = pictures[0].shape[:2]
    factor = max(1, round(cell / max(height, width)))
    height, width = height * factor, width * factor
    rows = math.ceil(len(pictures) / columns)
    board = np.zeros((rows * (height + GAP) - GAP, columns * (width + GAP) - GAP, 4), dtype=np.uint8)  # clear gaps
    for i, picture in enumerate(pictures):
        top, left = (i // columns) * (height + GAP), (i % columns) * (width + GAP)
        board[top : top + height, left : left + width, :3] = picture.repeat(factor, 0).repeat(factor, 1)
        board[top : top + height, left : left + width, 3] = 255
    return Image.fromarray(board)


def scale_bar(*, signed: bool = False, colormap: str | None = None, width: int = 256, height: int = 12) -> Image.Image:
    """The colour map from its low end to its high end."""
    ramp = np.linspace(0, 1, width, dtype=np.float32)[None].repeat(height, 0)
    return Image.fromarray(coloured(ramp, signed=signed, colormap=colormap, limits=(0.0, 1.0)))
