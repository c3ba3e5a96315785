"""Preprocessing: from a photo to the input tensor of a network, with the geometry that maps results back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, cast, runtime_checkable

import torch
from jaxtyping import Float
from PIL import Image
from timm.data.config import resolve_data_config
from timm.data.transforms_factory import create_transform
from torch import Tensor

from vizlib.core.errors import ImageError, ModelError
from vizlib.core.geometry import CROP_MODES, Geometry

INTERPOLATIONS = tuple(mode.name.lower() for mode in Image.Resampling)  # timm uses Pillow's names


@runtime_checkable
class Preprocessing(Protocol):
    """What `Model` needs from a transform of photos; `TimmPreprocessing` is the built-in implementation.

    Any object with these members can be passed to `vizlib.wrap`, for example an adapter of transforms that
    `vizlib.models.preprocessing_formats` cannot read.
    """

    @property
    def input_size(self) -> tuple[int, int]:
        """Height and width of the input tensor in pixels."""
        ...

    @property
    def mean(self) -> tuple[float, ...]:
        """Mean of each channel that normalisation subtracts, for pixel values from 0 to 1."""
        ...

    @property
    def std(self) -> tuple[float, ...]:
        """Standard deviation of each channel that normalisation divides by."""
        ...

    def tensor(self, photo: Image.Image) -> Float[Tensor, "1 3 h w"]:
        """Return the normalised input tensor of an upright RGB photo.

        Args:
            photo: Photo from `open_image`.

        Returns:
            Tensor in single precision, normalised by `mean` and `std`.

        Raises:
            ImageError: If the photo cannot be transformed.
        """
        ...

    def geometry(self, photo: Image.Image) -> Geometry:
        """Return how the input tensor is placed on the photo.

        Args:
            photo: Photo from `open_image`.

        Raises:
            ImageError: If the photo cannot be transformed.
        """
        ...

    def denormalise(self, tensor: Float[Tensor, "1 3 h w"] | Float[Tensor, "3 h w"]) -> Image.Image:
        """Return an input tensor as an 8-bit image.

        Args:
            tensor: Normalised input; values outside the range of colours are clipped.
        """
        ...


@dataclass(frozen=True)
class TimmPreprocessing:
    """timm's evaluation transform and its geometry.

    Attributes:
        input_size: Height and width of the input tensor in pixels.
        interpolation: One of `INTERPOLATIONS`.
        crop_pct: Side of the crop divided by the side of the resized photo.
        crop_mode: One of `vizlib.core.geometry.CROP_MODES`.
        mean: Mean of each of the three channels, for pixel values from 0 to 1.
        std: Standard deviation of each of the three channels.
    """

    input_size: tuple[int, int]
    interpolation: str
    crop_pct: float
    crop_mode: str
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> TimmPreprocessing:
        """Return the preprocessing of a timm data config, a timm `pretrained_cfg` or a checkpoint's sidecar.

        Args:
            config: timm's keys; `input_size` is (channels, height, width) or (height, width). Missing keys have timm's
                defaults.

        Raises:
            ModelError: For values of another type or out of range.

        >>> TimmPreprocessing.from_config({"input_size": [3, 160, 160], "crop_pct": 1.0}).interpolation
        'bicubic'
        """
        try:
            size = tuple(int(side) for side in config.get("input_size") or (3, 224, 224))
            full = resolve_data_config(pretrained_cfg={**config, "input_size": size})
            mean, std = (tuple(float(value) for value in full[key]) for key in ("mean", "std"))
            crop_pct = float(full["crop_pct"])
        except (TypeError, ValueError) as error:
            raise ModelError(f"the model's preprocessing cannot be read: {error}") from None
        if len(size) not in (2, 3) or (len(size) == 3 and size[0] != 3):
            raise ModelError(f"input_size is {list(size)}, expected [3, height, width] or [height, width]")
        return cls(
            input_size=(size[-2], size[-1]),
            interpolation=full["interpolation"],
            crop_pct=crop_pct,
            crop_mode=full["crop_mode"],
            mean=mean * 3 if len(mean) == 1 else mean,
            std=std * 3 if len(std) == 1 else std,
        )

    @classmethod
    def from_torchvision(cls, transforms: Any) -> TimmPreprocessing:
        """Return the preprocessing that equals torchvision's `ImageClassification` transforms."""
        crop, resize = transforms.crop_size[0], transforms.resize_size[0]
        return cls.from_config(
            {
                "input_size": (3, crop, crop),
                "crop_pct": crop / (resize + 0.5),  # timm computes floor(crop / crop_pct), which must give `resize`
                "interpolation": transforms.interpolation.value,
                "mean": transforms.mean,
                "std": transforms.std,
            }
        )

    def __post_init__(self) -> None:
        """Refuse values that timm's evaluation transform does not accept."""
        if self.crop_mode not in CROP_MODES:  # timm silently treats an unknown mode as "center"
            raise ModelError(f"crop_mode is {self.crop_mode!r}, expected one of {', '.join(CROP_MODES)}")
        if self.interpolation not in INTERPOLATIONS:
            raise ModelError(f"interpolation is {self.interpolation!r}, expected one of {', '.join(INTERPOLATIONS)}")
        if min(self.input_size) < 1 or self.crop_pct <= 0:
            raise ModelError(f"input_size {self.input_size} and crop_pct {self.crop_pct} must be positive")
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise ModelError(f"mean is {self.mean} and std {self.std}, expected three numbers each, std above 0")

    def to_config(self) -> dict[str, Any]:
        """Return timm's config with JSON types, as sidecars hold it; the inverse of `from_config`."""
        return {
            "input_size": [3, *self.input_size],
            "interpolation": self.interpolation,
            "crop_pct": self.crop_pct,
            "crop_mode": self.crop_mode,
            "mean": list(self.mean),
            "std": list(self.std),
        }

    def tensor(self, photo: Image.Image) -> Float[Tensor, "1 3 h w"]:
        """Return the normalised input of a photo from `open_image`, equal to that of timm's evaluation transform.

        Raises:
            ImageError: If the photo is not RGB, or too narrow for the crop.
        """
        self.geometry(photo)  # raises a readable error where the transform would raise an obscure one
        with torch.device("cpu"):  # torchvision makes tensors on the default device
            pixels = torch.as_tensor(self._transform(photo))
        # Not with torchvision's ToTensor, which gives the caller's default dtype: bfloat16 has no 8 bits of a colour.
        pixels = pixels.to(torch.float32).div_(255)
        mean, std = (torch.tensor(v, dtype=torch.float32, device="cpu").view(3, 1, 1) for v in (self.mean, self.std))
        return pixels.sub_(mean).div_(std).unsqueeze(0)

    def geometry(self, photo: Image.Image) -> Geometry:
        """Return how the input tensor is placed on the photo.

        Raises:
            ImageError: If the photo is not RGB, or too narrow for the crop.
        """
        if photo.mode != "RGB":
            raise ImageError(f"expected an upright RGB photo as open_image returns it, not one in mode {photo.mode}")
        size = (photo.height, photo.width)
        try:
            return Geometry.from_timm_transform(size, self.input_size, crop_pct=self.crop_pct, crop_mode=self.crop_mode)
        except ValueError as error:
            raise ImageError(f"the photo is too long and thin for this model: {error}") from None

    def denormalise(self, tensor: Float[Tensor, "1 3 h w"] | Float[Tensor, "3 h w"]) -> Image.Image:
        """Return an input tensor as an 8-bit RGB image."""
        return denormalise_tensor(tensor, self.mean, self.std)

    @cached_property
    def _transform(self) -> Callable[[Image.Image], Any]:
        """Timm's evaluation transform of a photo without normalisation, to 8-bit pixels "3 h w", a tensor or array."""
        config = {**self.to_config(), "input_size": (3, *self.input_size)}
        transform = create_transform(**config, use_prefetcher=True)  # which leaves normalisation to a data loader
        return cast(Callable[[Image.Image], Any], transform)  # create_transform is declared to return several types


def denormalise_tensor(
    tensor: Float[Tensor, "1 3 h w"] | Float[Tensor, "3 h w"], mean: Sequence[float], std: Sequence[float]
) -> Image.Image:
    """Return a tensor normalised with a mean and standard deviation of each channel as an 8-bit RGB image."""
    pixels = tensor.detach().cpu().float().reshape(3, *tensor.shape[-2:])
    scale, shift = (torch.tensor(v, dtype=torch.float32, device="cpu").view(3, 1, 1) for v in (std, mean))
    pixels = pixels * scale + shift
    return Image.fromarray((pixels * 255).round().clamp(0, 255).byte().permute(1, 2, 0).numpy())
