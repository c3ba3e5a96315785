"""Coordinate transform between a photo and the model input that preprocessing makes of it.

The model input is a resized and cropped (or padded) version of the photo. `Geometry.from_timm_transform` repeats the
integer rounding of timm's evaluation transform, so that a heat map can be drawn on the exact pixels of the photo that
it belongs to.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, Real
from torch import Tensor

CROP_MODES = ("center", "squash", "border")


@dataclass(frozen=True)
class Geometry:
    """Affine transform from photo to model input: input = photo * scale + offset, on each axis.

    Coordinates are continuous and in the order (y, x): pixel i covers [i, i + 1), its centre is i + 0.5.

    Attributes:
        photo_size: (height, width) of the upright photo in pixels.
        input_size: (height, width) of the model input in pixels.
        scale: Input pixels per photo pixel, (y, x).
        offset: Position of the photo's top-left corner in the input, (y, x); negative where the photo is cropped.

    >>> geometry = Geometry.from_timm_transform((375, 500), (224, 224), crop_pct=0.875, crop_mode="center")
    >>> geometry.to_input(187.5, 250.0)  # the middle of the photo is the middle of the input, to half a pixel
    (112.0, 112.5)
    >>> round(geometry.visible_fraction, 2)
    0.57
    """

    photo_size: tuple[int, int]
    input_size: tuple[int, int]
    scale: tuple[float, float]
    offset: tuple[float, float]

    @classmethod
    def from_timm_transform(
        cls, photo_size: tuple[int, int], input_size: tuple[int, int], *, crop_pct: float, crop_mode: str
    ) -> Geometry:
        """Return the geometry of timm's evaluation transform, exact to the pixel.

        Args:
            photo_size: (height, width) of the photo.
            input_size: (height, width) of the model input.
            crop_pct: Fraction of the resized edge that the central crop keeps.
            crop_mode: `center` resizes the shorter edge and crops, `squash` ignores the aspect ratio, `border` resizes
                the longer edge and pads.

        Raises:
            ValueError: For another crop mode, or a photo so long and thin that one side would be resized to 0.
        """
        resized = _resized(photo_size, input_size, crop_pct, crop_mode)
        if min(resized) < 1:
            raise ValueError(f"a photo of {photo_size} (height, width) shrinks to {resized} for an input {input_size}")
        (height, width), (new_height, new_width) = photo_size, resized
        return cls(
            photo_size=(int(height), int(width)),
            input_size=(int(input_size[0]), int(input_size[1])),
            scale=(new_height / height, new_width / width),
            offset=(_margin(new_height, input_size[0]), _margin(new_width, input_size[1])),
        )

    def to_input(self, y: Any, x: Any) -> tuple[Any, Any]:
        """Return the model-input coordinates of photo coordinates; numbers or arrays, not clipped.

        Args:
            y: Rows in pixels of the photo.
            x: Columns in pixels of the photo.

        Returns:
            Rows and columns in pixels of the model input.
        """
        return y * self.scale[0] + self.offset[0], x * self.scale[1] + self.offset[1]

    def to_photo(self, y: Any, x: Any) -> tuple[Any, Any]:
        """Return the photo coordinates of model-input coordinates; numbers or arrays, not clipped.

        Args:
            y: Rows in pixels of the model input.
            x: Columns in pixels of the model input.

        Returns:
            Rows and columns in pixels of the photo.
        """
        return (y - self.offset[0]) / self.scale[0], (x - self.offset[1]) / self.scale[1]

    @property
    def visible_box(self) -> tuple[float, float, float, float]:
        """Box (y0, x0, y1, x1) of the photo that is inside the model input."""
        return self._box_on_photo(0.0, 0.0, float(self.input_size[0]), float(self.input_size[1]))

    @property
    def visible_fraction(self) -> float:
        """Fraction of the photo's area that is inside the model input, from 0 to 1."""
        y0, x0, y1, x1 = self.visible_box
        return (y1 - y0) * (x1 - x0) / (self.photo_size[0] * self.photo_size[1])

    def find_cell(self, y: float | int, x: float | int, grid: tuple[int, int]) -> tuple[int, int] | None:
        """Return the (row, column) of the grid cell that holds the centre of the photo pixel at (y, x).

        It is the cell whose value `project_to_photo(..., smooth=False)` draws at that pixel.

        Args:
            y: Row of the pixel on the photo: its index or any position inside it.
            x: Column, likewise.
            grid: (rows, columns) of a grid over the model input.

        Returns:
            (row, column), or None for a pixel outside the model input.
        """
        if not (0 <= y < self.photo_size[0] and 0 <= x < self.photo_size[1]):
            return None
        indices = []
        positions = self.to_input(math.floor(y) + 0.5, math.floor(x) + 0.5)
        for position, size, cells in zip(positions, self.input_size, grid, strict=True):
            if not 0 <= position < size:
                return None
            indices.append(min(int(position * (cells / size)), cells - 1))
        return indices[0], indices[1]

    def project_to_photo(
        self, heat: Real[np.ndarray | Tensor, "h w"], size: tuple[int, int] | None = None, *, smooth: bool = True
    ) -> Float32[np.ndarray, "H W"]:
        """Return a heat map of the model input resampled to the pixels of the photo.

        Args:
            heat: Map of shape (h, w) that spans the whole model input; its values must be finite.
            size: (height, width) of the result, for a smaller version of the photo; the photo's own by default.
            smooth: Interpolate bilinearly between the centres of the map's cells, with the map's edge values beyond
                them. Where a pixel covers more than one cell (a tiny photo, a small `size`), average over these cells,
                as single samples would miss fine detail. If False, take the value of the cell that holds the pixel's
                centre.

        Returns:
            Array of shape (H, W) in the unit of `heat`; NaN outside the model input.
        """
        cells = heat.detach().cpu().float().numpy() if isinstance(heat, Tensor) else np.asarray(heat, dtype=np.float32)
        if cells.ndim != 2:
            raise ValueError(f"a heat map is (height, width), not {cells.shape}")
        height, width = size or self.photo_size
        photo = np.full((height, width), np.nan, dtype=np.float32)
        rows, row_positions = self._cell_positions(0, height, cells.shape[0])
        cols, col_positions = self._cell_positions(1, width, cells.shape[1])
        if smooth:
            row_radius = self._tent_radius(0, height, cells.shape[0])
            col_radius = self._tent_radius(1, width, cells.shape[1])
            row_weights = _pixel_to_cell_weights(row_positions, row_radius, cells.shape[0])  # (visible rows, h)
            col_weights = _pixel_to_cell_weights(col_positions, col_radius, cells.shape[1])  # (visible columns, w)
            photo[rows, cols] = (
                row_weights @ cells @ col_weights.T
            )  # two products of thin matrices: 12 megapixels in about 0.2 s
        else:
            row_cells = np.minimum(row_positions.astype(int), cells.shape[0] - 1)
            col_cells = np.minimum(col_positions.astype(int), cells.shape[1] - 1)
            photo[rows, cols] = cells[row_cells[:, None], col_cells]
        return photo

    def _cell_positions(self, axis: int, pixels: int, cells: int) -> tuple[slice, Float[np.ndarray, " visible"]]:
        """Return which of `pixels` along the photo are in the model input, and their centres on the map, in cells."""
        centres = (np.arange(pixels) + 0.5) * (self.photo_size[axis] / pixels)
        positions = centres * self.scale[axis] + self.offset[axis]
        inside = np.flatnonzero((positions >= 0) & (positions < self.input_size[axis]))
        visible = slice(inside[0], inside[-1] + 1) if len(inside) else slice(0, 0)
        return visible, positions[visible] * (cells / self.input_size[axis])

    def _tent_radius(self, axis: int, pixels: int, cells: int) -> float:
        """Return the radius in cells that is averaged for a pixel: 1 (bilinear), or as many cells as it covers."""
        return max(1.0, self.photo_size[axis] / pixels * self.scale[axis] * cells / self.input_size[axis])

    def _box_on_photo(self, y0: float, x0: float, y1: float, x1: float) -> tuple[float, float, float, float]:
        """Return a box of the model input in coordinates of the photo, clipped to it."""
        (y0, x0), (y1, x1) = self.to_photo(y0, x0), self.to_photo(y1, x1)
        height, width = float(self.photo_size[0]), float(self.photo_size[1])
        return min(max(y0, 0.0), height), min(max(x0, 0.0), width), min(max(y1, 0.0), height), min(max(x1, 0.0), width)


def _resized(
    photo_size: tuple[int, int], input_size: tuple[int, int], crop_pct: float, crop_mode: str
) -> tuple[int, int]:
    """Return the (height, width) of the resized photo that the geometry of timm's transform has before its crop."""
    if crop_mode not in CROP_MODES:
        raise ValueError(f"there is no crop mode {crop_mode!r}; there are {', '.join(CROP_MODES)}")
    height, width = photo_size
    target = (math.floor(input_size[0] / crop_pct), math.floor(input_size[1] / crop_pct))
    if crop_mode == "squash":
        return target
    if crop_mode == "center" and target[0] == target[1]:  # torchvision's Resize(int): the longer edge is cut to int
        short, long = min(photo_size), max(photo_size)
        new_short, new_long = target[0], int(target[0] * long / short)
        return (new_long, new_short) if width <= height else (new_short, new_long)
    ratios = height / target[0], width / target[1]  # timm's ResizeKeepRatio: both edges are rounded half to even
    ratio = max(ratios) if crop_mode == "border" else min(ratios)
    return round(height / ratio), round(width / ratio)


def _margin(resized: int, input_side: int) -> float:
    """Return the offset of the resized photo in the model input on one axis, for the geometry.

    Padding puts the odd pixel at the end, cropping rounds half to even, as torchvision's CenterCrop and timm's
    CenterCropOrPad do.
    """
    return float((input_side - resized) // 2 if input_side > resized else -round((resized - input_side) / 2))


def _pixel_to_cell_weights(
    positions: Float[np.ndarray, " pixels"], radius: float, cells: int
) -> Float32[np.ndarray, "pixels cells"]:
    """Return the weights that project a heat map's cells to each photo pixel, a tent function; rows sum to 1.

    With a radius of 1 this is bilinear interpolation, with a larger one an average. Beyond the centres of the outer
    cells only the outer cell has weight.
    """
    distance = np.abs(positions[:, None] - (np.arange(cells) + 0.5))
    weights = np.clip(1 - distance / radius, 0, None)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
