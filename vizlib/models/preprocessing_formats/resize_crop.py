"""Preprocessing by a sequence of resizes and a central crop, with the rounding and resampling of several libraries."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as functional_v1
from torchvision.transforms.v2 import functional

from vizlib.core.errors import ImageError, ModelError
from vizlib.core.geometry import Geometry
from vizlib.models.preprocessing import INTERPOLATIONS, TimmPreprocessing, denormalise_tensor

Size = tuple[int, int]  # height, width
Fit = Literal["exact", "shorter", "cover", "contain"]
Kernel = Literal["pillow", "uint8", "rounded", "float32"]

TORCH_INTERPOLATIONS = tuple(mode.value for mode in InterpolationMode)
_TYPICAL_PHOTOS = ((375, 500), (500, 333), (97, 301), (301, 97), (224, 224))


@dataclass(frozen=True)
class Resize:
    """Resize a photo.

    Attributes:
        size: (height, width) to reach; for the fit "shorter" the shorter edge, twice.
        fit: "exact" resizes to `size`; "shorter" resizes the shorter edge and cuts the longer one to an integer, as
            torchvision does; "cover" and "contain" keep the aspect ratio so that the result covers `size` or lies in
            it, and round half to even, as timm and open_clip do.
        interpolation: Name of an `InterpolationMode` of torchvision.
        kernel: "pillow" is Pillow's resize; "uint8" is torchvision's v2 on an 8-bit tensor; "rounded" is torchvision's
            v1 on an 8-bit tensor, resampled in float and rounded; "float32" is torchvision's on floating-point values.
        antialias: Whether a kernel on tensors averages when it reduces; Pillow always does.
        max_size: Largest longer edge of the fit "shorter".
    """

    size: Size
    fit: Fit
    interpolation: str
    kernel: Kernel = "pillow"
    antialias: bool = True
    max_size: int | None = None

    def __post_init__(self) -> None:
        if self.interpolation not in TORCH_INTERPOLATIONS:
            expected = ", ".join(TORCH_INTERPOLATIONS)
            raise ModelError(f"interpolation is {self.interpolation!r}, expected one of {expected}")
        if min(self.size) < 1:
            raise ModelError(f"the photo would be resized to {self.size[0]} × {self.size[1]}, expected positive sides")

    def resized(self, photo_size: Size) -> Size:
        """Return the (height, width) that a photo of a (height, width) is resized to."""
        height, width = photo_size
        if self.fit == "exact":
            return self.size
        if self.fit == "shorter":
            short, long = min(photo_size), max(photo_size)
            new_short, new_long = self.size[0], int(self.size[0] * long / short)
            if self.max_size is not None and new_long > self.max_size:
                new_short, new_long = int(self.max_size * new_short / new_long), self.max_size
            return (new_long, new_short) if width <= height else (new_short, new_long)
        ratios = height / self.size[0], width / self.size[1]
        ratio = min(ratios) if self.fit == "cover" else max(ratios)
        return round(height / ratio), round(width / ratio)

    def apply(self, image: Image.Image | Tensor) -> Image.Image | Tensor:
        """Return the resized image or tensor."""
        height, width = image.shape[-2:] if isinstance(image, Tensor) else (image.height, image.width)
        size, mode = list(self.resized((height, width))), InterpolationMode(self.interpolation)
        if self.kernel == "rounded":
            return functional_v1.resize(cast(Tensor, image), size, mode, antialias=self.antialias)
        resized: Image.Image | Tensor = functional.resize(cast(Tensor, image), size, mode, antialias=self.antialias)
        return resized


@dataclass(frozen=True)
class CenterCrop:
    """Crop the centre of a photo; where it is smaller than the crop, pad it.

    Attributes:
        size: (height, width) of the result.
        rounding: How half a pixel is rounded where the margins differ: "even", as torchvision does, or "down".
        odd_padding: Side that gets the odd pixel of padding: "end" (bottom or right) or "start".
        fill: 8-bit colour of the padding.
    """

    size: Size
    rounding: Literal["even", "down"] = "even"
    odd_padding: Literal["end", "start"] = "end"
    fill: tuple[int, int, int] = (0, 0, 0)

    def __post_init__(self) -> None:
        if min(self.size) < 1:
            raise ModelError(f"the crop is {self.size[0]} × {self.size[1]}, expected positive sides")

    def offset(self, side: int, axis: int) -> int:
        """Return the position in the crop, on one axis, of the start of a photo with this side; negative if cut."""
        excess = side - self.size[axis]
        if excess <= 0:
            return (1 - excess) // 2 if self.odd_padding == "start" else -excess // 2
        return -(round(excess / 2) if self.rounding == "even" else excess // 2)

    def apply(self, image: Image.Image | Tensor) -> Image.Image | Tensor:
        """Return the cropped and padded image or tensor."""
        height, width = image.shape[-2:] if isinstance(image, Tensor) else (image.height, image.width)
        top, left = self.offset(height, 0), self.offset(width, 1)
        if top > 0 or left > 0:
            bottom, right = self.size[0] - height - top, self.size[1] - width - left
            padding = [max(left, 0), max(top, 0), max(right, 0), max(bottom, 0)]
            image = functional.pad(cast(Tensor, image), padding, fill=list(self.fill))
        return functional.crop(cast(Tensor, image), max(-top, 0), max(-left, 0), *self.size)


Step = Resize | CenterCrop


@dataclass(frozen=True)
class ResizeCropPreprocessing:
    """Preprocessing by steps, on Pillow images or tensors as the library that describes them does it.

    Attributes:
        steps: Resizes and at most one central crop, in the order they are applied.
        mean: Mean of each of the three channels, for pixel values from 0 to 1.
        std: Standard deviation of each of the three channels.
        channels: Order of the colours in the tensor.
    """

    steps: tuple[Step, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    channels: Literal["RGB", "BGR"] = "RGB"

    def __post_init__(self) -> None:
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise ModelError(f"mean is {self.mean} and std {self.std}, expected three numbers each, std above 0")
        if sum(isinstance(step, CenterCrop) for step in self.steps) > 1:  # padding could follow what was cut
            raise ModelError("the preprocessing crops twice, expected one central crop")
        if self._find_fixed_size() is None:
            raise ModelError(
                "the size of the model's input depends on the photo, as it is neither resized to a height and width "
                "nor cropped to one; add a central crop"
            )

    @property
    def input_size(self) -> Size:
        """Height and width of the input tensor in pixels."""
        size = self._find_fixed_size()
        assert size is not None  # __post_init__ has checked it
        return size

    def tensor(self, photo: Image.Image) -> Float[Tensor, "1 3 h w"]:
        """Return the normalised input of a photo from `open_image`.

        Raises:
            ImageError: If the photo is not RGB, or too narrow for the crop.
        """
        self.geometry(photo)  # raises a readable error where a step would raise an obscure one
        image: Image.Image | Tensor = photo
        for step in self.steps:
            if isinstance(step, Resize) and step.kernel != "pillow":
                image = _to_tensor(image)
                if step.kernel == "float32":
                    image = _to_unit_range(image)
            image = step.apply(image)
        pixels = self._swap_colours(_to_unit_range(_to_tensor(image)))
        return functional.normalize(pixels, list(self.mean), list(self.std)).unsqueeze(0)

    def geometry(self, photo: Image.Image) -> Geometry:
        """Return how the input tensor is placed on the photo.

        Raises:
            ImageError: If the photo is not RGB, or too narrow for the crop.
        """
        if photo.mode != "RGB":
            raise ImageError(f"expected an upright RGB photo as open_image returns it, not one in mode {photo.mode}")
        size = photo_size = (photo.height, photo.width)
        scale, offset = (1.0, 1.0), (0.0, 0.0)
        for step in self.steps:
            if isinstance(step, Resize):
                resized = step.resized(size)
                if min(resized) < 1:
                    raise ImageError(
                        f"the photo is too long and thin for this model: {photo.width} × {photo.height} pixels are "
                        f"resized to {resized[1]} × {resized[0]}"
                    )
                factor = resized[0] / size[0], resized[1] / size[1]
                scale = scale[0] * factor[0], scale[1] * factor[1]
                offset = offset[0] * factor[0], offset[1] * factor[1]
                size = resized
            else:
                offset = offset[0] + step.offset(size[0], 0), offset[1] + step.offset(size[1], 1)
                size = step.size
        return Geometry(photo_size, size, scale, offset)

    def denormalise(self, tensor: Float[Tensor, "1 3 h w"] | Float[Tensor, "3 h w"]) -> Image.Image:
        """Return an input tensor as an 8-bit RGB image."""
        step = 1 if self.channels == "RGB" else -1
        return denormalise_tensor(self._swap_colours(tensor), self.mean[::step], self.std[::step])

    def simplify(self) -> TimmPreprocessing | ResizeCropPreprocessing:
        """Return the equal preprocessing of timm if there is one, else this one.

        timm's has a crop mode and a crop percentage, which are shown, and can be written into a sidecar.
        """
        photos = [Image.new("RGB", (width, height)) for height, width in _TYPICAL_PHOTOS]
        for candidate in self._timm_candidates():
            if all(candidate.geometry(photo) == self.geometry(photo) for photo in photos):
                return candidate
        return self

    def _timm_candidates(self) -> Iterator[TimmPreprocessing]:
        """Yield timm's preprocessings that equal this one if their geometries do."""
        resize, crop = (*self.steps, None, None)[:2]
        if not isinstance(resize, Resize) or len(self.steps) > 2 or self.channels != "RGB":
            return
        if resize.kernel != "pillow" or resize.max_size is not None or resize.interpolation not in INTERPOLATIONS:
            return
        fill = (0, 0, 0)
        if isinstance(crop, CenterCrop):
            fill = crop.fill
            if (crop.rounding, crop.odd_padding) != ("even", "end"):
                return
        elif crop is not None:
            return
        mode = {"exact": "squash", "shorter": "center", "cover": "center", "contain": "border"}[resize.fit]
        if fill != ((0, 0, 0) if mode != "border" else tuple(round(255 * value) for value in self.mean)):
            return
        size = self.input_size
        for resized in (resize.size[0], resize.size[0] + 0.5):  # timm floors the division of the input by crop_pct
            yield TimmPreprocessing(size, resize.interpolation, size[0] / resized, mode, self.mean, self.std)

    def _swap_colours(self, tensor: Tensor) -> Tensor:
        """Return a tensor "... 3 h w" with the order of its channels changed between RGB and that of the network."""
        return tensor if self.channels == "RGB" else tensor.flip(-3)

    def _find_fixed_size(self) -> Size | None:
        """Return the size after the steps, `None` if it depends on the photo."""
        size: Size | None = None
        for step in self.steps:
            if isinstance(step, CenterCrop):
                size = step.size
            elif step.fit == "exact" or size is not None:
                size = step.resized(size or step.size)
        return size


def _to_tensor(image: Image.Image | Tensor) -> Tensor:
    """Return an image as an 8-bit tensor on the CPU, whatever the default device is; a tensor is returned unchanged."""
    if isinstance(image, Tensor):
        return image
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


def _to_unit_range(image: Tensor) -> Tensor:
    """Return 8-bit pixel values as float32 values from 0 to 1; other tensors are returned unchanged."""
    return image.to(torch.float32) / 255 if image.dtype == torch.uint8 else image
