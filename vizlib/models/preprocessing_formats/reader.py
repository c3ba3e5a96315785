"""Read preprocessing in whatever form it is given, and compare it with the object it was read from."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vizlib.core.errors import ModelError
from vizlib.core.text import Note
from vizlib.models.preprocessing import Preprocessing
from vizlib.models.preprocessing_formats.image_processors import is_image_processor, read_image_processor
from vizlib.models.preprocessing_formats.mappings import RecordedConfig, read_mapping
from vizlib.models.preprocessing_formats.resize_crop import ResizeCropPreprocessing
from vizlib.models.preprocessing_formats.transforms import is_transform, read_transforms

TOLERANCE = 1e-4  # of the comparison with the given object, where white is 1; one 8-bit level is 4e-3
_PHOTO_SHAPES = ((1.3, 2.1), (2.3, 1.1))  # height and width of the compared photos, relative to the input


class ReadPreprocessing(NamedTuple):
    """A preprocessing as it was read.

    Attributes:
        preprocessing: The preprocessing.
        notes: What was converted or assumed.
    """

    preprocessing: Preprocessing
    notes: tuple[Note, ...] = ()


def read_preprocessing(given: Any, recorded: RecordedConfig | None = None) -> ReadPreprocessing:
    """Return the preprocessing in one of these forms.

    Transforms and image processors are read into sizes, crops and numbers, and the result is compared with the object
    itself on two photos, so that a subclass or setting with another effect is refused instead of ignored.

    Args:
        given: An object with the members of `Preprocessing`, which is returned as it is; a mapping, see
            `mappings.read_mapping`; a dataclass with the same names as fields (timm's `PretrainedCfg`, open_clip's
            `PreprocessCfg`); transforms of torchvision, timm or open_clip, see `transforms.read_transforms`; an image
            processor of transformers.
        recorded: What the network records itself, for what a mapping does not state.

    Raises:
        ModelError: For any other object, for parts whose effect is not known, and for an object whose result on a photo
            differs from what was read.
    """
    if isinstance(given, Preprocessing):
        return ReadPreprocessing(given)
    if isinstance(given, Mapping):
        return ReadPreprocessing(*read_mapping(given, recorded))
    if dataclasses.is_dataclass(given) and not isinstance(given, type):
        fields = {field.name: getattr(given, field.name) for field in dataclasses.fields(given)}
        return ReadPreprocessing(*read_mapping(fields, recorded))
    if is_image_processor(given):
        processor: Any = getattr(given, "image_processor", given)
        if is_transform(transforms := getattr(processor, "val_transforms", None)):  # TimmWrapperImageProcessor
            return read_preprocessing(transforms)
        read = read_image_processor(processor)
        _compare(read, lambda photo: processor(images=photo, return_tensors="pt")["pixel_values"], processor)
        return ReadPreprocessing(read.simplify())
    if is_transform(given):
        read = read_transforms(given)
        _compare(read, lambda photo: _apply_transforms(given, photo), given)
        return ReadPreprocessing(read.simplify())
    raise ModelError(
        f"preprocessing is a {type(given).__name__}; expected a mapping such as {{'input_size': (3, 224, 224)}}, "
        "transforms of torchvision, an image processor of transformers, or an object with the members of "
        "vizlib.Preprocessing"
    )


def _apply_transforms(transforms: Any, photo: Image.Image) -> Tensor:
    """Return the tensor "1 3 h w" that transforms make of a photo."""
    result: Any = photo
    for part in transforms if isinstance(transforms, (list, tuple)) else [transforms]:
        result = part(result)
    return torch.as_tensor(result).unsqueeze(0)


def _compare(read: ResizeCropPreprocessing, apply: Any, given: object) -> None:
    """Raise a `ModelError` if an object makes other tensors of photos than the preprocessing that was read from it."""
    name, generator = type(given).__name__, np.random.default_rng(0)
    std = torch.tensor(read.std, device="cpu").view(1, 3, 1, 1)
    for height, width in _PHOTO_SHAPES:
        size = round(height * read.input_size[0]), round(width * read.input_size[1])
        photo = Image.fromarray(generator.integers(0, 256, (*size, 3), dtype=np.uint8))
        try:
            with torch.device("cpu"):
                expected = apply(photo)
        except Exception as error:  # third-party code may raise anything
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise ModelError(f"the preprocessing {name} fails on a photo of {size[1]} × {size[0]}: {reason}") from error
        actual = read.tensor(photo)
        if expected.shape != actual.shape:
            shapes = f"of shape {tuple(expected.shape)}, but its settings say {tuple(actual.shape)}"
            raise ModelError(
                f"the preprocessing {name} makes a tensor {shapes}; pass an object with the members of "
                "vizlib.Preprocessing"
            )
        if not bool((((expected - actual) * std).abs() <= TOLERANCE).all()):
            raise ModelError(
                f"the preprocessing {name} makes another tensor of a photo than its settings say; pass an object with "
                "the members of vizlib.Preprocessing"
            )
