"""Where a model's input lies on the photo it was cut from, and how a heat map gets back there.

A model never sees the photo: it sees a resized and cropped (or padded) version of a fixed size. `Geometry.fit` repeats
the integer rounding of timm's evaluation transform, so that every map can be drawn where the model really looked.
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
    """Where the model's input lies on the photo: input = photo * scale + offset, on each axis.

    Coordinates are continuous and in the order (y, x): pixel i covers [i, i + 1), its centre is i + 0.5.

    >>> geometry = Geometry.from_timm_transform((375, 500), (224, 224), crop_pct=0.875, crop_mode="center")
    >>> geometry.to_input(187.5, 250.0)  # the middle of the photo is the middle of the input, to half a pixel
    (112.0, 112.5)
    >>> round(geometry.visible_fraction, 2)
    0.57
    """

    photo_size: tuple[int, int]  # (height, width) of the upright photo
    input_size: tuple[int, int]  # (height, width) of the model input
    scale: tuple[float, float]  # input pixels per photo pixel
    offset: tuple[float, float]  # where the photo's top-left corner lies in the input; negative where it is cropped

    @classmethod
    def from_timm_transform(
        cls, photo_size: tuple[int, int], input_size: tuple[int, int], *, crop_pct: float, crop_mode: str
    ) -> Geometry:
        """The geometry of timm's evaluation transform, to the pixel.

        `center` fits the shorter edge and crops, `squash` gives up the aspect ratio, `border` fits the longer edge and
        pads; each then cuts the middle `crop_pct` of the edge.

        Raises: ValueError for another crop mode, or a photo so long and thin that it would be resized to nothing.
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
        """The place in the model input of a place on the photo; numbers or arrays, not clipped."""
        return y * self.scale[0] + self.offset[0], x * self.scale[1] + self.offset[1]

    def to_photo(self, y: Any, x: Any) -> tuple[Any, Any]:
        """The place on the photo of a place in the model input; numbers or arrays, not clipped."""
        return (y - self.offset[0]) / self.scale[0], (x - self.offset[1]) / self.scale[1]

    @property
    def visible_box(self) -> tuple[float, float, float, float]:
        """The box (y0, x0, y1, x1) on the photo that the model saw."""
        return self._box_on_photo(0.0, 0.0, float(self.input_size[0]), float(self.input_size[1]))

    @property
    def visible_fraction(self) -> float:
        """How much of the photo's area the model saw, from 0 to 1."""
        y0, x0, y1, x1 = self.visible_box
        return (y1 - y0) * (x1 - x0) / (self.photo_size[0] * self.photo_size[1])

    def find_cell(self, y: float | int, x: float | int, grid: tuple[int, int]) -> tuple[int, int] | None:
        """Which (row, column) of a grid over the input holds the centre of the photo pixel at (y, x).

        `y` and `x` may be the pixel's index or any place within it. None where the model did not look. What it finds
        is what `lift(..., smooth=False)` draws at that pixel.
        """
        if not (0 <= y < self.photo_size[0] and 0 <= x < self.photo_size[1]):
            return None
        found = []
        places = self.to_input(math.floor(y) + 0.5, math.floor(x) + 0.5)
        for place, size, cells in zip(places, self.input_size, grid, strict=True):
            if not 0 <= place < size:
                return None
            found.append(min(int(place * (cells / size)), cells - 1))
        return found[0], found[1]

    def cell_box(self, row: int, col: int, grid: tuple[int, int]) -> tuple[float, float, float, float]:
        """The box (y0, x0, y1, x1) on the photo of one cell of a grid over the input; flat if it is all padding."""
        height, width = self.input_size[0] / grid[0], self.input_size[1] / grid[1]
        return self._box_on_photo(row * height, col * width, (row + 1) * height, (col + 1) * width)

    def project_to_photo(
        self, heat: Real[np.ndarray | Tensor, "h w"], size: tuple[int, int] | None = None, *, smooth: bool = True
    ) -> Float32[np.ndarray, "H W"]:
        """Draw a map that spans the whole model input on the photo, NaN where the model did not look.

        Each photo pixel takes the value at its centre: interpolated bilinearly between the centres of the map's cells
        and held at the map's edge, or with `smooth=False` the value of the cell that it lies in. Where a pixel covers
        more than one cell (a tiny photo, a small `size`), `smooth` averages over them, or fine detail would fall
        between the pixels and vanish. Values stay the map's own and must be finite.

        `size` (height, width) draws on a smaller version of the photo.
        """
        cells = heat.detach().cpu().float().numpy() if isinstance(heat, Tensor) else np.asarray(heat, dtype=np.float32)
        if cells.ndim != 2:
            raise ValueError(f"a heat map is (height, width), not {cells.shape}")
        height, width = size or self.photo_size
        photo = np.full((height, width), np.nan, dtype=np.float32)
        rows, row_places = self._places(0, height, cells.shape[0])
        cols, col_places = self._places(1, width, cells.shape[1])
        if smooth:
            row_reach, col_reach = self._reach(0, height, cells.shape[0]), self._reach(1, width, cells.shape[1])
            row_weights = _tent(row_places, row_reach, cells.shape[0])  # (seen rows, h)
            col_weights = _tent(col_places, col_reach, cells.shape[1])  # (seen columns, w)
            photo[rows, cols] = row_weights @ cells @ col_weights.T  # two thin products: 12 megapixels in about 0.2 s
        else:
            row_cells = np.minimum(row_places.astype(int), cells.shape[0] - 1)
            col_cells = np.minimum(col_places.astype(int), cells.shape[1] - 1)
            photo[rows, cols] = cells[row_cells[:, None], col_cells]
        return photo

    def _places(self, axis: int, pixels: int, cells: int) -> tuple[slice, Float[np.ndarray, " visible_box"]]:
        """Which of `pixels` along the photo the model saw, and where their centres lie on the map, in cells."""
        centres = (np.arange(pixels) + 0.5) * (self.photo_size[axis] / pixels)
        places = centres * self.scale[axis] + self.offset[axis]
        seen = np.flatnonzero((places >= 0) & (places < self.input_size[axis]))
        within = slice(seen[0], seen[-1] + 1) if len(seen) else slice(0, 0)
        return within, places[within] * (cells / self.input_size[axis])

    def _reach(self, axis: int, pixels: int, cells: int) -> float:
        """How many cells to either side speak for a pixel: the neighbours, or all that it covers."""
        return max(1.0, self.photo_size[axis] / pixels * self.scale[axis] * cells / self.input_size[axis])

    def _box_on_photo(self, y0: float, x0: float, y1: float, x1: float) -> tuple[float, float, float, float]:
        (y0, x0), (y1, x1) = self.to_photo(y0, x0), self.to_photo(y1, x1)
        height, width = float(self.photo_size[0]), float(self.photo_size[1])
        return min(max(y0, 0.0), height), min(max(x0, 0.0), width), min(max(y1, 0.0), height), min(max(x1, 0.0), width)


def _resized(
    photo_size: tuple[int, int], input_size: tuple[int, int], crop_pct: float, crop_mode: str
) -> tuple[int, int]:
    """The photo's (height, width) after timm's resize and before its crop; each mode rounds in its own way."""
    if crop_mode not in CROP_MODES:
        raise ValueError(f"no crop mode {crop_mode!r}; there are {', '.join(CROP_MODES)}")
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


def _margin(resized: int, wanted: int) -> float:
    """Where the resized photo starts in the input on one axis: CenterCrop pads the odd pixel after, crops half to even.

    torchvision's CenterCrop and timm's CenterCropOrPad agree on this.
    """
    return float((wanted - resized) // 2 if wanted > resized else -round((resized - wanted) / 2))


def _tent(places: Float[np.ndarray, " pixels"], reach: float, cells: int) -> Float32[np.ndarray, "pixels cells"]:
    """Each pixel's weights over the cells: bilinear for a reach of one, wider tents average; rows sum to one.

    Beyond the outer cell centres one cell alone has weight, so the map is held at its edge.
    """
    distance = np.abs(places[:, None] - (np.arange(cells) + 0.5))
    weights = np.clip(1 - distance / reach, 0, None)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
