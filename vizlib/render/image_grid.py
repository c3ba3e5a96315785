"""Draw many small images on one grid: maps, kernels."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from vizlib.core.errors import VizlibError
from vizlib.render.color_scale import apply_colormap, compute_limits, normalize_values

GRID_GAP_PIXELS = 2  # pixels between the pictures of a grid


def draw_map_grid(
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
    common = compute_limits(maps, signed=signed) if shared else None
    return draw_image_grid(
        [apply_colormap(one, signed=signed, limits=common, colormap=colormap) for one in maps], cell, columns
    )


def draw_kernel_grid(
    weights: Float[np.ndarray, "n c h w"], *, cell: int = 48, columns: int | None = None
) -> Image.Image:
    """Kernels as pictures on one scale: a kernel over three colours in those colours, where grey is 0.

    A kernel over other channels is shown as their mean in false colours, where white is 0.
    """
    top = float(np.abs(weights).max()) or 1.0
    if weights.shape[1] != 3:
        return draw_map_grid(weights.mean(1), signed=True, cell=cell, columns=columns)
    colours = normalize_values(weights, (-top, top)).transpose(0, 2, 3, 1) * 255
    return draw_image_grid(list(colours.round().astype(np.uint8)), cell, columns)


def draw_image_grid(pictures: list[UInt8[np.ndarray, "h w 3"]], cell: int, columns: int | None = None) -> Image.Image:
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
    board = np.zeros(
        (rows * (height + GRID_GAP_PIXELS) - GRID_GAP_PIXELS, columns * (width + GRID_GAP_PIXELS) - GRID_GAP_PIXELS, 4),
        dtype=np.uint8,
    )  # clear gaps
    for i, picture in enumerate(pictures):
        top, left = (i // columns) * (height + GRID_GAP_PIXELS), (i % columns) * (width + GRID_GAP_PIXELS)
        board[top : top + height, left : left + width, :3] = picture.repeat(factor, 0).repeat(factor, 1)
        board[top : top + height, left : left + width, 3] = 255
    return Image.fromarray(board)
