"""Training batches of augmented photos, which depend only on the seed and the number of the step."""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from checkpoints.training.imagenette import MEAN, STD

CROP_AREA = (0.2, 1.0)  # of a photo
CROP_RATIO = 4 / 3  # largest ratio of the sides of a crop
COLOUR_JITTER = 0.3  # largest change of brightness, contrast and saturation, as a fraction


class PhotoCollection(Protocol):
    """RGB photos "height width 3" of different sizes; a list, or a `PhotoCache`."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> NDArray[np.uint8]: ...


def draw_batch(photos: PhotoCollection, size: int, count: int, mixed: float, rng: np.random.Generator) -> Tensor:
    """Return a normalised batch "count 3 size size" of different photos: random crops, flips, colours and mixtures.

    Args:
        photos: The photos to choose from.
        size: Side of the images in pixels.
        count: Number of images, at most the number of photos.
        mixed: Probability that an image is a mixture of two: in equal parts CutMix and mixup.
        rng: The source of every random choice.
    """
    indices = rng.choice(len(photos), count, replace=False)
    pixels = np.stack([_crop_photo(photos[index], size, rng) for index in indices])
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    images = _mix_images(_change_colours(images, rng), mixed, rng)
    return (images - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


def _crop_photo(photo: NDArray[np.uint8], size: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    height, width = photo.shape[:2]
    area = rng.uniform(*CROP_AREA) * height * width
    ratio = CROP_RATIO ** rng.uniform(-1, 1)
    columns, rows = min(width, math.sqrt(area * ratio)), min(height, math.sqrt(area / ratio))
    left, top = rng.uniform(0, width - columns), rng.uniform(0, height - rows)
    box = (left, top, left + columns, top + rows)
    crop = np.asarray(Image.fromarray(photo).resize((size, size), Image.Resampling.BICUBIC, box))
    return crop[:, ::-1] if rng.random() < 0.5 else crop


def _change_colours(images: Tensor, rng: np.random.Generator) -> Tensor:
    """Change brightness, contrast and saturation of each image by random factors; values stay within 0 and 1."""
    factors = 1 + COLOUR_JITTER * rng.uniform(-1, 1, (3, len(images), 1, 1, 1))
    brightness, contrast, saturation = torch.from_numpy(factors).float()
    images = brightness * images
    images = images.mean((1, 2, 3), keepdim=True).lerp(images, contrast)
    return images.mean(1, keepdim=True).lerp(images, saturation).clamp(0, 1)


def _mix_images(images: Tensor, mixed: float, rng: np.random.Generator) -> Tensor:
    """Replace some images: by a blend with the previous one of the batch, or by a copy with a rectangle of it."""
    others, result, size = images.roll(1, 0), images.clone(), images.shape[-1]
    for index in np.flatnonzero(rng.random(len(images)) < mixed):
        if rng.random() < 0.5:
            result[index].lerp_(others[index], rng.uniform(0.2, 0.8))
        else:
            rows, columns = np.sort(rng.integers(0, size + 1, (2, 2)), axis=1)
            result[index, :, slice(*rows), slice(*columns)] = others[index, :, slice(*rows), slice(*columns)]
    return result
