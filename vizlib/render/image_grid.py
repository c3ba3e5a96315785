"""Draw many small images on one grid: maps and kernels."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from vizlib.core.errors import VizlibError
from vizlib.render.color_scale import apply_colormap, compute_limits, normalize_values

GRID_GAP_PIXELS = 2  # between the images of a grid


def draw_map_grid(
    maps: Float[np.ndarray, "n h w"],
    *,
    signed: bool = False,
    shared: bool = True,
    cell: int = 96,
    columns: int | None = None,
    colormap: str | None = None,
) -> Image.Image:
    """Return an image with a grid of maps in false colours.

    Args:
        maps: Raw maps of shape (n, h, w).
        signed: Use a diverging colour map with limits symmetric about 0.
        shared: Use one colour scale for all maps; if False, one for each.
        cell: Approximate side of a map in the grid, in pixels.
        columns: Number of columns; by default the grid is about as wide as high.
        colormap: Name of a matplotlib colour map.
    """
    limits = compute_limits(maps, signed=signed) if shared else None
    images = [apply_colormap(values, signed=signed, limits=limits, colormap=colormap) for values in maps]
    return draw_image_grid(images, cell, columns)


def draw_kernel_grid(
    weights: Float[np.ndarray, "n c h w"], *, cell: int = 48, columns: int | None = None
) -> Image.Image:
    """Return an image with a grid of kernels on one scale symmetric about 0.

    Kernels over three channels are drawn as RGB, where grey is 0. Of kernels over another number of channels, the mean
    over the channels is drawn in false colours, where white is 0.

    Args:
        weights: Kernels of shape (n, c, h, w).
        cell: Approximate side of a kernel in the grid, in pixels.
        columns: Number of columns; by default the grid is about as wide as high.
    """
    high = float(np.abs(weights).max()) or 1.0
    if weights.shape[1] != 3:
        return draw_map_grid(weights.mean(1), signed=True, cell=cell, columns=columns)
    colors = normalize_values(weights, (-high, high)).transpose(0, 2, 3, 1) * 255
    return draw_image_grid(list(colors.round().astype(np.uint8)), cell, columns)


def draw_image_grid(images: list[UInt8[np.ndarray, "h w 3"]], cell: int, columns: int | None = None) -> Image.Image:
    """Return an image with a grid of small images and transparent gaps.

    Each image is enlarged by the whole factor that brings its longer side closest to `cell` pixels, without smoothing;
    no image is made smaller.

    Raises:
        VizlibError: If there is no image.
    """
    if not images:
        raise VizlibError("there is nothing to draw: the list of images is empty")
    columns = min(max(columns or math.ceil(math.sqrt(len(images))), 1), len(images))
    height, width = images[0].shape[:2]
    factor = max(1, round(cell / max(height, width)))
    height, width = height * factor, width * factor
    rows = math.ceil(len(images) / columns)
    shape = rows * (height + GRID_GAP_PIXELS) - GRID_GAP_PIXELS, columns * (width + GRID_GAP_PIXELS) - GRID_GAP_PIXELS
    grid = np.zeros((*shape, 4), dtype=np.uint8)  # transparent
    for i, image in enumerate(images):
        top, left = (i // columns) * (height + GRID_GAP_PIXELS), (i % columns) * (width + GRID_GAP_PIXELS)
        grid[top : top + height, left : left + width, :3] = image.repeat(factor, 0).repeat(factor, 1)
        grid[top : top + height, left : left + width, 3] = 255
    return Image.fromarray(grid)
