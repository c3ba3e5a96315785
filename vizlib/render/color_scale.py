"""Colour scales: the limits of a map's values, and the colours of the values between them."""

from __future__ import annotations

from functools import cache

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from vizlib.core.errors import VizlibError, suggest_names

Limits = tuple[float, float]  # the values at the low and high end of a colour map
SEQUENTIAL_COLORMAP, DIVERGING_COLORMAP = "inferno", "RdBu_r"  # perceptually uniform, unlike jet
CLIP_PERCENTILE = 99.5  # the upper limit: a single extreme value must not darken all others


@cache
def load_colormap(name: str) -> UInt8[np.ndarray, "256 3"]:
    """Return a matplotlib colour map as a read-only table of 256 RGB colours.

    Raises:
        VizlibError: If matplotlib has no colour map of that name.
    """
    from matplotlib import colormaps  # here, as `import vizlib` must not load matplotlib

    if name not in colormaps:
        raise VizlibError(f"matplotlib has no colour map {name!r}; {suggest_names(name, colormaps)}")
    fractions = np.linspace(0, 1, 256)  # integers from 0 to 255 would exceed a colour map of fewer colours
    table = (colormaps[name](fractions)[:, :3] * 255).round().astype(np.uint8)
    table.setflags(write=False)  # the cached table is returned again
    return table


def compute_limits(values: np.ndarray, *, signed: bool) -> Limits:
    """Return the limits of a map's colour scale: the values at the two ends of the colour map.

    The upper limit is the 99.5th percentile, of signed values that of their absolute values. NaN and infinite values
    are ignored.

    Args:
        values: Array of any shape.
        signed: Make the limits symmetric about 0.

    Returns:
        (low, high) with low < high.
    """
    values = values[np.isfinite(values)]
    if not len(values):
        return (-1.0, 1.0) if signed else (0.0, 1.0)
    if signed:
        high = float(np.percentile(np.abs(values), CLIP_PERCENTILE)) or float(np.abs(values).max()) or 1.0
        return -high, high
    low, high = float(values.min()), float(np.percentile(values, CLIP_PERCENTILE))
    if high <= low:
        high = float(values.max())
    return (low, high) if high > low else (low, low + max(1.0, abs(low)))  # not low + 1: 1e20 + 1 == 1e20


def normalize_values(values: np.ndarray, limits: Limits) -> Float[np.ndarray, "..."]:
    """Return values scaled linearly so that the limits of the colour scale become 0 and 1, and clipped; NaN stays NaN.

    Raises:
        VizlibError: If the lower limit is not below the upper one.
    """
    low, high = (float(limit) for limit in limits)
    if not low < high:
        raise VizlibError(f"the limits of a colour scale must be a low and a higher value, not {low:g} and {high:g}")
    return np.clip((values - low) / (high - low), 0, 1)


def apply_colormap(
    values: Float[np.ndarray, "h w"], *, signed: bool, colormap: str | None = None, limits: Limits | None = None
) -> UInt8[np.ndarray, "h w 3"]:
    """Return a map as RGB colours; NaN becomes grey.

    Args:
        values: The raw map.
        signed: Use a diverging colour map and limits symmetric about 0 by default.
        colormap: Name of a matplotlib colour map; by default `inferno`, or `RdBu_r` for signed values.
        limits: Values at the ends of the colour map; `compute_limits` by default.

    Raises:
        VizlibError: For an unknown colour map, or limits that are not a range.
    """
    limits = limits or compute_limits(values, signed=signed)
    fractions = normalize_values(values, limits)
    table = load_colormap(colormap or (DIVERGING_COLORMAP if signed else SEQUENTIAL_COLORMAP))
    colors = table[np.nan_to_num(fractions * 255).round().astype(np.uint8)]
    colors[np.isnan(fractions)] = 128
    return colors


def draw_color_bar(
    *, signed: bool = False, colormap: str | None = None, width: int = 256, height: int = 12
) -> Image.Image:
    """Return an image of the colour map from its low end (left) to its high end (right)."""
    ramp = np.linspace(0, 1, width, dtype=np.float32)[None].repeat(height, 0)
    return Image.fromarray(apply_colormap(ramp, signed=signed, colormap=colormap, limits=(0.0, 1.0)))
