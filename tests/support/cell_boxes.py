"""Boxes of grid cells on a photo, for tests that click or point at a cell."""

from __future__ import annotations

from vizlib.core.geometry import Geometry


def compute_cell_box(
    geometry: Geometry, row: int, column: int, grid: tuple[int, int]
) -> tuple[float, float, float, float]:
    """Return the box (top, left, bottom, right) on the photo of one cell of a grid over the model's input."""
    height, width = geometry.input_size[0] / grid[0], geometry.input_size[1] / grid[1]
    top, left = geometry.to_photo(row * height, column * width)
    bottom, right = geometry.to_photo((row + 1) * height, (column + 1) * width)
    photo_height, photo_width = geometry.photo_size
    return (
        min(max(top, 0.0), photo_height),
        min(max(left, 0.0), photo_width),
        min(max(bottom, 0.0), photo_height),
        min(max(right, 0.0), photo_width),
    )
