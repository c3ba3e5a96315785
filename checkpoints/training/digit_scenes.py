"""Scenes composed of coloured MNIST digits, with captions of which it is known whether they are true of a scene.

A scene has two to four digits, each in one quadrant and in one colour; no two have both the same digit and colour.
A caption names one to four of them, with or without their place, or only the digit or the colour of one. Some
combinations of digit and colour are held out: a network that names them must have learnt digits and colours separately.
"""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import torch
from torch import Tensor

from vizlib.models.clip.word_tokenizer import WordTokenizer

SIDE = 48  # pixels of a scene
DIGIT_SIDE = 22  # pixels of MNIST's 28 that are kept in the middle; a digit fills a box of 20
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
COLORS = {
    "red": (1.0, 0.15, 0.1),
    "green": (0.1, 0.85, 0.2),
    "blue": (0.2, 0.35, 1.0),
    "yellow": (1.0, 0.9, 0.1),
    "pink": (1.0, 0.4, 0.9),
    "white": (1.0, 1.0, 1.0),
}
COMBINATIONS = tuple(product(COLORS, DIGITS))
HELD_OUT = (
    *(("red", "three"), ("green", "zero"), ("blue", "two")),
    *(("yellow", "seven"), ("pink", "five"), ("white", "nine")),
)
PLACES = ("top left", "top right", "bottom left", "bottom right")
PROMPTS = tuple(f"a {color} {digit}" for color, digit in COMBINATIONS)
WORDS = ("a", "an", "and", ",", "at", "the", "top", "bottom", "left", "right", "digit", *COLORS, *DIGITS)
CONTEXT_LENGTH = 20
MEAN, STD = (0.15, 0.15, 0.15), (0.25, 0.25, 0.25)
ANYWHERE, ANY_COLOR, ANY_DIGIT = len(PLACES), len(COLORS), len(DIGITS)  # of a claim that names none
MAX_DIGITS = len(PLACES)


@dataclass(frozen=True)
class Scenes:
    """A batch of scenes.

    Attributes:
        images: RGB "n 3 48 48", from 0 to 1.
        combinations: Index in `COMBINATIONS` of the digit in each quadrant "n 4"; -1 where there is none.
        masks: Opacity of the digit in each quadrant "n 4 48 48", from 0 to 1.
    """

    images: Tensor
    combinations: Tensor
    masks: Tensor


class DigitImages:
    """The images of MNIST, sorted by their digit.

    Args:
        folder: Folder of MNIST's four files as published, gzipped.
        part: "train" or "t10k".
    """

    def __init__(self, folder: str | Path, part: str) -> None:
        images = _read_idx(Path(folder) / f"{part}-images-idx3-ubyte.gz")
        labels = _read_idx(Path(folder) / f"{part}-labels-idx1-ubyte.gz")
        border = (images.shape[-1] - DIGIT_SIDE) // 2
        self.images = images[labels.argsort(stable=True), border:-border, border:-border]
        self.counts = labels.long().bincount(minlength=len(DIGITS))
        self.starts = self.counts.cumsum(0) - self.counts

    def draw(self, digits: Tensor, generator: torch.Generator) -> Tensor:
        """Return a random image "n 22 22" of each digit "n", from 0 to 1."""
        random = torch.rand(digits.shape, generator=generator)
        return self.images[self.starts[digits] + (random * self.counts[digits]).long()].float() / 255


def compose_scenes(
    images: DigitImages,
    count: int,
    generator: torch.Generator,
    combinations: tuple[tuple[str, str], ...] = tuple(pair for pair in COMBINATIONS if pair not in HELD_OUT),
    digits: tuple[int, int] = (2, MAX_DIGITS),
) -> Scenes:
    """Return random scenes.

    Args:
        images: The digits.
        count: Number of scenes.
        generator: Source of all randomness.
        combinations: The colours and digits to choose among.
        digits: Least and largest number of digits of a scene.
    """
    allowed = torch.tensor([COMBINATIONS.index(pair) for pair in combinations])
    drawn = torch.rand(count, len(allowed), generator=generator).argsort(1)[:, :MAX_DIGITS]
    present = allowed[drawn]  # "n 4", all different
    least, largest = digits
    number = torch.randint(least, largest + 1, (count, 1), generator=generator)
    rank = torch.rand(count, MAX_DIGITS, generator=generator).argsort(1)
    present = present.masked_fill(rank >= number, -1)
    opacity = images.draw(present.clamp_min(0) % len(DIGITS), generator) * (present >= 0)[..., None, None]
    masks = torch.zeros(count, MAX_DIGITS, SIDE, SIDE)
    jitter = SIDE // 2 - DIGIT_SIDE + 1
    shifts = torch.randint(0, jitter, (count, MAX_DIGITS, 2), generator=generator)
    for quadrant in range(MAX_DIGITS):
        top, left = SIDE // 2 * (quadrant // 2), SIDE // 2 * (quadrant % 2)
        for y, x in product(range(jitter), repeat=2):
            chosen = (shifts[:, quadrant] == torch.tensor([y, x])).all(1)
            rows, columns = slice(top + y, top + y + DIGIT_SIDE), slice(left + x, left + x + DIGIT_SIDE)
            masks[chosen, quadrant, rows, columns] = opacity[chosen, quadrant]
    palette = torch.tensor(list(COLORS.values()))
    brightness = 0.7 + 0.3 * torch.rand(count, MAX_DIGITS, 1, generator=generator)
    colors = palette[present.clamp_min(0) // len(DIGITS)] * brightness
    background = 0.15 * torch.rand(count, 3, 1, 1, generator=generator)
    covered = masks.sum(1, keepdim=True)  # the digits do not overlap
    pictures = torch.einsum("nqhw,nqc->nchw", masks, colors) + (1 - covered) * background
    return Scenes(pictures, present, masks)


@dataclass(frozen=True)
class Captions:
    """A batch of captions, each a list of claims that some digit is in the scene.

    Attributes:
        texts: The captions.
        claims: Color, digit and place of each claim "m 4 3", as indices or `ANY_COLOR`, `ANY_DIGIT` and `ANYWHERE`; -1
            where a caption has fewer claims.
    """

    texts: list[str]
    claims: Tensor


def write_captions(scenes: Scenes, generator: torch.Generator) -> Captions:
    """Return one random true caption for each scene: of one digit, of two with their places, or of all.

    Half of the captions are of one digit, as prompts are. Of these, 25 % leave out its colour and 15 % the digit.
    """
    count = len(scenes.combinations)
    order = torch.rand(count, MAX_DIGITS, generator=generator)
    order = (order + (scenes.combinations < 0)).argsort(1)  # the occupied quadrants first, in random order
    present = (scenes.combinations >= 0).sum(1)
    of_one, with_place, left_out = torch.rand(3, count, generator=generator)
    is_placed = with_place < 0.4
    named = torch.where(of_one < 0.5, 1, torch.where(is_placed, 2, present))  # two with places fill the context length
    combinations = scenes.combinations.gather(1, order)
    colors, digits = combinations // len(DIGITS), combinations % len(DIGITS)
    colors[:, 0] = torch.where((of_one < 0.5) & (left_out < 0.25), ANY_COLOR, colors[:, 0])
    digits[:, 0] = torch.where((of_one < 0.5) & (left_out > 0.85), ANY_DIGIT, digits[:, 0])
    places = torch.where(is_placed[:, None], order, ANYWHERE)
    is_used = torch.arange(MAX_DIGITS) < named[:, None]
    claims = torch.where(is_used[..., None], torch.stack([colors, digits, places], 2), -1)
    texts = [join_claims([describe_digit(*claim) for claim in rows if claim[0] >= 0]) for rows in claims.tolist()]
    return Captions(texts, claims)


def describe_digit(color: int, digit: int, place: int = ANYWHERE) -> str:
    """Return the words for a digit, such as "a red seven at the top left", "a seven" or "a red digit"."""
    words = [*list(COLORS)[color : color + 1], (*DIGITS, "digit")[digit]]
    article = "an" if words[0] == "eight" else "a"
    return " ".join([article, *words]) + (f" at the {PLACES[place]}" if place != ANYWHERE else "")


def join_claims(claims: list[str]) -> str:
    """Return claims as one phrase, such as "a red seven, a blue two and a green one"."""
    return " and ".join([", ".join(claims[:-1]), claims[-1]]) if len(claims) > 1 else claims[0]


def compute_truth(scenes: Scenes, captions: Captions) -> Tensor:
    """Return whether each caption is true of each scene, boolean "scenes captions"."""
    count = len(scenes.combinations)
    # One row of facts for each scene; an index that names nothing stands for any. The last column is always true.
    facts = torch.zeros(count, len(COLORS) + 1, len(DIGITS) + 1, len(PLACES) + 1, dtype=torch.bool)
    rows = torch.arange(count)
    for place in range(MAX_DIGITS):
        is_present = scenes.combinations[:, place] >= 0
        found = scenes.combinations[is_present, place]
        for color, digit, where in product(
            (found // len(DIGITS), ANY_COLOR), (found % len(DIGITS), ANY_DIGIT), (place, ANYWHERE)
        ):
            facts[rows[is_present], color, digit, where] = True
    facts = torch.cat([facts.flatten(1), torch.ones(count, 1, dtype=torch.bool)], 1)
    color, digit, place = captions.claims.unbind(2)
    needed = (color * (len(DIGITS) + 1) + digit) * (len(PLACES) + 1) + place
    return facts[:, torch.where(color >= 0, needed, facts.shape[1] - 1)].all(2)


def create_tokenizer() -> WordTokenizer:
    """Return the tokenizer of the captions."""
    return WordTokenizer(WORDS, CONTEXT_LENGTH)


def normalise(images: Tensor) -> Tensor:
    """Return images "n 3 h w" from 0 to 1 as the network expects them."""
    return (images - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]


def _read_idx(path: Path) -> Tensor:
    """Return the array of an idx file with bytes, as MNIST is published."""
    data = gzip.decompress(path.read_bytes())
    sizes = [int.from_bytes(data[4 + 4 * axis : 8 + 4 * axis], "big") for axis in range(data[3])]
    return torch.frombuffer(bytearray(data[4 + 4 * len(sizes) :]), dtype=torch.uint8).view(sizes)
