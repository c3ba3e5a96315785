"""Read transforms of torchvision, timm and open_clip: presets of weights, `Compose` and single transforms."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import nn

from vizlib.core.errors import ModelError
from vizlib.models.preprocessing_formats.resize_crop import CenterCrop, Fit, Resize, ResizeCropPreprocessing, Size, Step

LIBRARIES = ("torchvision", "timm", "open_clip")
# Transforms that change nothing about an RGB photo.
IDENTITIES = ("Identity", "MaybeConvertMode", "RGB", "ToPureTensor", "_convert_to_rgb")
RANDOM = ("AugMix", "AutoAugment", "ColorJitter", "ElasticTransform", "GaussianNoise", "RandAugment", "TrivialAugment")


@dataclass
class _Pipeline:
    """The state of pixel values while a list of transforms is read.

    Attributes:
        values: "pillow" for a Pillow image, "uint8" and "float32" for tensors.
        white: Value of a white pixel in the tensor.
        mean: Mean that was subtracted, in the unit of the tensor, once it is normalised.
        std: Standard deviation that was divided by.
        steps: Resizes and crops.
    """

    values: Literal["pillow", "uint8", "float32"] = "pillow"
    white: float = 255.0
    mean: np.ndarray = field(default_factory=lambda: np.zeros(3))
    std: np.ndarray = field(default_factory=lambda: np.ones(3))
    normalised: bool = False
    steps: list[Step] = field(default_factory=list)


def is_transform(source: object) -> bool:
    """Return whether an object is a transform, or a list of them, of a library whose transforms can be read."""
    if isinstance(source, (list, tuple)):
        return bool(source) and all(callable(part) for part in source)
    return isinstance(source, nn.Sequential) or bool(_find_name(source))


def read_transforms(source: Any) -> ResizeCropPreprocessing:
    """Return the preprocessing that equals transforms of evaluation.

    Args:
        source: torchvision's `ImageClassification` preset, or a `Compose`, `nn.Sequential` or list of transforms.

    Raises:
        ModelError: For a transform whose effect is not known, such as a `Lambda`, or a random one; the message names it
            and those that are known.
    """
    pipeline = _Pipeline()
    for transform in _flatten(source):
        name = _find_name(transform)
        read = _READERS.get(name)
        if read is None:
            raise ModelError(_describe_unknown(transform, name))
        if pipeline.normalised and name in ("Resize", "ResizeKeepRatio", "CenterCrop", "CenterCropOrPad"):
            raise ModelError(f"the preprocessing has {name} after Normalize; put Normalize last")
        read(transform, pipeline)
    if pipeline.values != "float32":
        raise ModelError(
            "the preprocessing ends with pixels that are no floating-point tensor; add ToTensor, or ToImage and "
            "ToDtype(torch.float32, scale=True)"
        )
    mean, std = (tuple((values / pipeline.white).tolist()) for values in (pipeline.mean, pipeline.std))
    return ResizeCropPreprocessing(tuple(pipeline.steps), mean, std)


def read_interpolation(value: Any) -> str:
    """Return the name of an interpolation given as a name, a mode of torchvision or a number of Pillow.

    Raises:
        ModelError: For a number that is none of Pillow's.
    """
    if isinstance(value, enum.Enum) and isinstance(value.value, str):
        return value.value
    if isinstance(value, int):
        try:
            return Image.Resampling(value).name.lower()
        except ValueError:
            known = ", ".join(f"{mode.value} ({mode.name.lower()})" for mode in Image.Resampling)
            raise ModelError(f"interpolation is {value}, expected one of {known}") from None
    return str(value).lower()


def _flatten(source: Any) -> Iterator[Any]:
    """Yield the transforms in a `Compose`, `nn.Sequential`, list or preset, in the order they are applied."""
    name = _find_name(source)
    if isinstance(source, (list, tuple, nn.Sequential)):
        parts: Sequence[Any] = list(source)
    elif name == "Compose":
        parts = source.transforms
    else:
        yield source
        return
    for part in parts:
        yield from _flatten(part)


def _find_definition(transform: Any) -> Any:
    """Return a transform's class in one of `LIBRARIES`, or itself if it is a function there; `None` for all others."""
    if isinstance(transform, type):  # a class that was not instantiated
        return None
    definitions = (transform,) if hasattr(transform, "__qualname__") else type(transform).__mro__
    for part in definitions:
        if str(part.__module__).split(".")[0] in LIBRARIES and part.__name__ not in ("Transform", "RandomTransforms"):
            return part
    return None


def _find_name(transform: Any) -> str:
    """Return the name of a transform in its library; empty if it is of none."""
    return getattr(_find_definition(transform), "__name__", "")


def _describe_unknown(transform: Any, name: str) -> str:
    if isinstance(transform, type):
        return f"the preprocessing has the class {transform.__name__}, expected an instance: {transform.__name__}(...)"
    shown = name or getattr(transform, "__qualname__", None) or type(transform).__name__
    if name.startswith(("Random", *RANDOM)):
        return f"the preprocessing has {shown}, which is random, as for training; give the transforms of evaluation"
    known = ", ".join(sorted(known for known in _READERS if not known.startswith("_")))
    return (
        f"the preprocessing has {shown}, whose effect is not known; known are {known}; leave {shown} out if it changes "
        "nothing about an RGB photo, or pass an object with the members of vizlib.Preprocessing"
    )


# ---------------------------------------------------------------------------------- one function per kind of transform


def _read_resize(transform: Any, pipeline: _Pipeline) -> None:
    size = [transform.size] if isinstance(transform.size, int) else list(transform.size or ())
    if not size:
        raise ModelError("the preprocessing has Resize without a size, expected one integer or (height, width)")
    _add_resize(transform, pipeline, size, "exact" if len(size) == 2 else "shorter", max_size=transform.max_size)


def _read_resize_keeping_ratio(transform: Any, pipeline: _Pipeline) -> None:
    if transform.random_scale_prob or transform.random_aspect_prob:
        raise ModelError("the preprocessing has ResizeKeepRatio with a random scale; give the transforms of evaluation")
    if transform.longest not in (0, 1):
        raise ModelError(f"the preprocessing has ResizeKeepRatio with longest={transform.longest}, expected 0 or 1")
    _add_resize(transform, pipeline, transform.size, "contain" if transform.longest else "cover")


def _add_resize(
    transform: Any, pipeline: _Pipeline, size: Sequence[int], fit: Fit, max_size: int | None = None
) -> None:
    if isinstance(transform.interpolation, (tuple, list)):
        raise ModelError("the preprocessing resizes with a random interpolation; give the transforms of evaluation")
    kernel = pipeline.values
    if kernel == "uint8" and ".v2." not in _find_definition(transform).__module__:
        kernel = "rounded"
    interpolation = read_interpolation(transform.interpolation)
    antialias = bool(getattr(transform, "antialias", True))
    pipeline.steps.append(Resize((int(size[0]), int(size[-1])), fit, interpolation, kernel, antialias, max_size))


def _read_crop(transform: Any, pipeline: _Pipeline) -> None:
    if getattr(transform, "padding_mode", "constant") != "constant":
        raise ModelError(f"the preprocessing pads with the mode {transform.padding_mode!r}, expected 'constant'")
    fill = getattr(transform, "fill", 0)
    colour = tuple(int(value) for value in (fill if isinstance(fill, (tuple, list)) else [fill] * 3))
    if any(colour) and pipeline.values != "pillow":
        raise ModelError("the preprocessing pads a tensor with a colour, expected to pad before ToTensor")
    pipeline.steps.append(CenterCrop(_to_size(transform.size), fill=colour))  # type: ignore[arg-type]


def _to_size(size: Any) -> Size:
    sides = [size] if isinstance(size, int) else list(size)
    return int(sides[0]), int(sides[-1])


def _read_to_tensor(transform: Any, pipeline: _Pipeline) -> None:
    if pipeline.values == "uint8":
        raise ModelError(f"the preprocessing has {type(transform).__name__} for a tensor, expected ToDtype")
    if pipeline.values == "pillow":
        scaled = not hasattr(transform, "dtype")  # timm's own ToTensor converts to a dtype without scaling
        pipeline.values, pipeline.white = "float32", 1.0 if scaled else 255.0


def _read_to_uint8_tensor(transform: Any, pipeline: _Pipeline) -> None:
    if pipeline.values == "pillow":
        pipeline.values = "uint8"


def _read_dtype(transform: Any, pipeline: _Pipeline) -> None:
    name = _find_name(transform)
    dtype = transform.dtype
    if dtype not in (torch.float32, torch.float64):
        raise ModelError(f"the preprocessing has {name} to {dtype}, expected torch.float32")
    if pipeline.values == "pillow":
        raise ModelError(f"the preprocessing has {name} before there is a tensor; put ToImage or PILToTensor before it")
    if pipeline.values == "uint8":
        scaled = getattr(transform, "scale", True)  # ConvertImageDtype always scales
        pipeline.values, pipeline.white = "float32", 1.0 if scaled else 255.0


def _read_normalize(transform: Any, pipeline: _Pipeline) -> None:
    if pipeline.values != "float32":
        raise ModelError("the preprocessing has Normalize before there is a floating-point tensor; put ToTensor first")
    mean, std = (_to_numbers(values) for values in (transform.mean, transform.std))
    if len(mean) not in (1, 3) or len(std) not in (1, 3):
        raise ModelError(f"Normalize has {len(mean)} means and {len(std)} standard deviations, expected 3 each")
    pipeline.mean = pipeline.mean + mean * pipeline.std
    pipeline.std = pipeline.std * std
    pipeline.normalised = True


def _to_numbers(values: Any) -> np.ndarray:
    """Return numbers in double precision; single-precision ones, as timm has, as the decimal numbers they stand for."""
    numbers = np.asarray(values).reshape(-1)
    if numbers.dtype == np.float32:
        return np.array([float(str(number)) for number in numbers])
    return numbers.astype(float)


def _read_preset(transform: Any, pipeline: _Pipeline) -> None:
    """Read torchvision's `ImageClassification`: its steps are those of version 1 on a Pillow image."""
    resize = list(transform.resize_size)
    _add_resize(transform, pipeline, resize, "exact" if len(resize) == 2 else "shorter")
    pipeline.steps.append(CenterCrop(_to_size(transform.crop_size)))
    pipeline.values, pipeline.white = "float32", 1.0
    _read_normalize(transform, pipeline)


def _skip(transform: Any, pipeline: _Pipeline) -> None:
    mode = getattr(transform, "mode", "RGB")
    if mode not in ("RGB", None):
        raise ModelError(f"the preprocessing converts photos to the mode {mode}, expected RGB")


_READERS: dict[str, Callable[[Any, _Pipeline], None]] = {
    "Resize": _read_resize,
    "ResizeKeepRatio": _read_resize_keeping_ratio,
    "CenterCrop": _read_crop,
    "CenterCropOrPad": _read_crop,
    "ToTensor": _read_to_tensor,
    "MaybeToTensor": _read_to_tensor,
    "PILToTensor": _read_to_uint8_tensor,
    "MaybePILToTensor": _read_to_uint8_tensor,
    "ToImage": _read_to_uint8_tensor,
    "ToDtype": _read_dtype,
    "ConvertImageDtype": _read_dtype,
    "Normalize": _read_normalize,
    "ImageClassification": _read_preset,
    **dict.fromkeys(IDENTITIES, _skip),
}
