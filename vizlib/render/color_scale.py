"""Colour scales: the limits of a map's values, and the colours of the values between them."""

from __future__ import annotations

from functools import cache

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from vizlib.core.errors import VizlibError, suggest_names

Limits = tuple[float, float]
SEQUENTIAL_COLORMAP, DIVERGING_COLORMAP = (
    "inferno",
    "RdBu_r",
)  # perceptually uniform; never jet, whose bands are not in the data
CLIP_PERCENTILE = 99.5  # per cent of the values that fit on the scale: one hot pixel must not darken all others


@cache
def load_colormap(name: str) -> UInt8[np.ndarray, "256 3"]:
    """A matplotlib colour map as a table of 256 colours.

    Raises: VizlibError for a name matplotlib does not know.
    """
    from matplotlib import colormaps  # here, so that `import vizlib` stays quick

    if name not in colormaps:
        raise VizlibError(f"matplotlib has no colour map {name!r}; {suggest_names(name, colormaps)}")
    shares = np.linspace(0, 1, 256)  # not 0 to 255: a map of few colours would be read past its end
    table = (colormaps[name](shares)[:, :3] * 255).round().astype(np.uint8)
    table.setflags(write=False)  # it is handed out again
    return table


def compute_limits(values: np.ndarray, *, signed: bool) -> Limits:
    """The values at the two ends of the colour map; symmetric about 0 for signed values, NaN left out.

    The top end is the 99.5th percentile, so that a single hot pixel does not darken all others.
    """
    values = values[np.isfinite(values)]
    if not len(values):
        return (-1.0, 1.0) if signed else (0.0, 1.0)
    if signed:
        top = float(np.percentile(np.abs(values), CLIP_PERCENTILE)) or float(np.abs(values).max()) or 1.0
        return -top, top
    low, top = float(values.min()), float(np.percentile(values, CLIP_PERCENTILE))
    if top <= low:
        top = float(values.max())
    return (low, top) if top > low else (low, low + max(1.0, abs(low)))  # 1e20 + 1 is 1e20 again


def normalize_values(values: np.ndarray, limits: Limits) -> Float[np.ndarray, "..."]:
    """Values as 0..1 between the limits; what lies beyond is clipped, NaN stays NaN.

    Raises: VizlibError for limits that are no range.
    """
    low, high = (float(end) for end in limits)
    if not low < high:
        raise VizlibError(f"the limits of a colour scale are its low end, then a higher one, not {low:g} and {high:g}")
    return np.clip((values - low) / (high - low), 0, 1)


def apply_colormap(
    values: Float[np.ndarray, "h w"], *, signed: bool, colormap: str | None = None, limits: Limits | None = None
) -> UInt8[np.ndarray, "h w 3"]:
    """A map in false colours; NaN in grey.

    Raises: VizlibError for an unknown colour map, or limits that are no range.
    """
    limits = limits or compute_limits(values, signed=signed)
    share = normalize_values(values, limits)
    table = load_colormap(colormap or (DIVERGING_COLORMAP if signed else SEQUENTIAL_COLORMAP))
    colours = table[np.nan_to_num(share * 255).round().astype(np.uint8)]
    colours[np.isnan(share)] = 128
    return colours


def draw_color_bar(
    *, signed: bool = False, colormap: str | None = None, width: int = 256, height: int = 12
) -> Image.Image:
    """The colour map from its low end to its high end."""
    ramp = np.linspace(0, 1, width, dtype=np.float32)[None].repeat(height, 0)
    return Image.fromarray(apply_colormap(ramp, signed=signed, colormap=colormap, limits=(0.0, 1.0)))
