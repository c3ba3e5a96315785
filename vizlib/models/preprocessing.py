"""A model's own way from a photo to its input tensor, with the geometry to find the way back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import torch
from jaxtyping import Float
from PIL import Image
from timm.data.config import resolve_data_config
from timm.data.transforms_factory import create_transform
from torch import Tensor

from vizlib.core.errors import ImageError, ModelError
from vizlib.core.geometry import CROP_MODES, Geometry

INTERPOLATIONS = tuple(mode.name.lower() for mode in Image.Resampling)  # timm's names are Pillow's


@dataclass(frozen=True)
class TimmPreprocessing:
    """A model's own way from a photo to its input tensor: timm's evaluation transform, and its geometry."""

    input_size: tuple[int, int]  # (height, width)
    interpolation: str
    crop_pct: float
    crop_mode: str
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> TimmPreprocessing:
        """Read a timm data config, a timm `pretrained_cfg` or a checkpoint's sidecar; missing keys are timm's defaults.

        `input_size` is (channels, height, width) or (height, width). Raises: ModelError for values no photo survives.

        >>> Preprocessing.from_config({"input_size": [3, 160, 160], "crop_pct": 1.0}).interpolation
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

    def __post_init__(self) -> None:
        if self.crop_mode not in CROP_MODES:  # timm would take an unknown mode for "center" without a word
            raise ModelError(f"crop_mode is {self.crop_mode!r}, expected one of {', '.join(CROP_MODES)}")
        if self.interpolation not in INTERPOLATIONS:
            raise ModelError(f"interpolation is {self.interpolation!r}, expected one of {', '.join(INTERPOLATIONS)}")
        if min(self.input_size) < 1 or self.crop_pct <= 0:
            raise ModelError(f"input_size {self.input_size} and crop_pct {self.crop_pct} must be positive")
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise ModelError(f"mean is {self.mean} and std {self.std}, expected three numbers each, std above 0")

    def to_config(self) -> dict[str, Any]:
        """The sidecar's form, ready for JSON; `from_config` reads it back."""
        return {
            "input_size": [3, *self.input_size],
            "interpolation": self.interpolation,
            "crop_pct": self.crop_pct,
            "crop_mode": self.crop_mode,
            "mean": list(self.mean),
            "std": list(self.std),
        }

    def tensor(self, photo: Image.Image) -> Float[Tensor, "1 3 h w"]:
        """The normalised model input for a photo from `open_image`, exactly as timm's evaluation makes it."""
        self.geometry(photo)  # refuses in a sentence what the transform would refuse with a riddle
        return self._transform(photo).unsqueeze(0)

    def geometry(self, photo: Image.Image) -> Geometry:
        """Where this model's input lies on the photo. Raises: ImageError if nothing of the photo would be left."""
        if photo.mode != "RGB":
            raise ImageError(f"expected an upright RGB photo as open_image returns it, not one in mode {photo.mode}")
        size = (photo.height, photo.width)
        try:
            return Geometry.from_timm_transform(size, self.input_size, crop_pct=self.crop_pct, crop_mode=self.crop_mode)
        except ValueError as error:
            raise ImageError(f"the photo is too long and thin for this model: {error}") from None

    def denormalise(self, tensor: Float[Tensor, "1 3 h w"] | Float[Tensor, "3 h w"]) -> Image.Image:
        """What the model really saw, as a picture: a model input with its normalisation taken back."""
        pixels = tensor.detach().cpu().float().reshape(3, *tensor.shape[-2:])
        pixels = pixels * torch.tensor(self.std).view(3, 1, 1) + torch.tensor(self.mean).view(3, 1, 1)
        return Image.fromarray((pixels * 255).round().clamp(0, 255).byte().permute(1, 2, 0).numpy())

    @cached_property
    def _transform(self) -> Callable[[Image.Image], Tensor]:
        transform = create_transform(**{**self.to_config(), "input_size": (3, *self.input_size)})
        return cast(Callable[[Image.Image], Tensor], transform)  # of its several return types ours is the plain one
