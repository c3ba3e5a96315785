"""Images that are no photos: noise, one colour, text and line drawings, to measure the note on unfamiliar images."""

from __future__ import annotations

import string
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont, ImageOps

SIDE = 224  # of the images in pixels


def draw_unfamiliar_images(photos: Sequence[Image.Image], count: int, seed: int = 0) -> dict[str, list[Image.Image]]:
    """Return RGB images of each kind, `count` of each: "noise", "one colour", "text" and "line drawings".

    Args:
        photos: Photos, of which the line drawings are made.
        count: Number of images of each kind.
        seed: Of the random choices.
    """
    rng = np.random.default_rng(seed)
    return {
        "noise": [draw_noise(rng) for _ in range(count)],
        "one colour": [draw_colour(rng) for _ in range(count)],
        "text": [draw_text(rng) for _ in range(count)],
        "line drawings": [draw_lines(photos[index]) for index in rng.choice(len(photos), count, replace=False)],
    }


def draw_noise(rng: np.random.Generator) -> Image.Image:
    """Return independent values of random squares of 1 to 16 pixels, in colours or grey."""
    side = SIDE // int(rng.choice([1, 2, 4, 8, 16]))
    values = rng.integers(0, 256, (side, side, 3 if rng.random() < 0.5 else 1), dtype=np.uint8)
    image = Image.fromarray(np.broadcast_to(values, (side, side, 3)).copy())
    return image.resize((SIDE, SIDE), Image.Resampling.NEAREST)


def draw_colour(rng: np.random.Generator) -> Image.Image:
    """Return an image of one random colour, or of a linear transition between two."""
    first, second = rng.integers(0, 256, (2, 3))
    share = np.linspace(0, 1, SIDE)[:, None, None] if rng.random() < 0.5 else np.zeros((SIDE, 1, 1))
    values = np.broadcast_to(first + share * (second - first), (SIDE, SIDE, 3))
    return Image.fromarray(values.round().astype(np.uint8))


def draw_text(rng: np.random.Generator) -> Image.Image:
    """Return lines of random words, dark on light or light on dark."""
    dark, light = tuple(rng.integers(0, 80, 3).tolist()), tuple(rng.integers(200, 256, 3).tolist())
    colour, background = (dark, light) if rng.random() < 0.7 else (light, dark)
    image, size = Image.new("RGB", (SIDE, SIDE), background), int(rng.integers(10, 32))
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(size)
    letters = np.array(list(string.ascii_letters))
    for top in range(int(rng.integers(2, 20)), SIDE - size, round(1.4 * size)):
        words = ["".join(rng.choice(letters, rng.integers(2, 10))) for _ in range(12)]
        draw.text((8, top), " ".join(words), colour, font)
    return image


def draw_lines(photo: Image.Image) -> Image.Image:
    """Return the outlines in a photo as black lines on white."""
    grey = photo.convert("L").resize((SIDE, SIDE), Image.Resampling.BICUBIC).filter(ImageFilter.GaussianBlur(1.5))
    edges = grey.filter(ImageFilter.FIND_EDGES).crop((2, 2, SIDE - 2, SIDE - 2)).resize((SIDE, SIDE))
    return ImageOps.invert(ImageOps.autocontrast(edges, cutoff=(0, 2))).convert("RGB")
