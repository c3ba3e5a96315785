"""Where only a window of the photo changes, only what sees the window is computed again.

Up to some layer a convolutional network is local: what lies beyond a place's receptive field cannot change it. So those
layers are shown a crop around each window, and their output is put into that for the whole photo; what follows runs as
ever. The answers are the same but for rounding. For a window of 32 pixels the first stage of a ResNet-50, where the
activations are largest, is shown a fifth of the photo.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor

from vizlib.errors import ModelError
from vizlib.fields import receptive_field
from vizlib.following import ReceptiveField
from vizlib.model import Model
from vizlib.passes import Passes

WORTH = 0.05  # of a pass's operations must be saved at least
ALIKE = 1e-4  # of the largest logit: how far the two ways may lie apart in single precision

Span = tuple[int, int]  # first and last-but-one, of pixels or of places


@dataclass(frozen=True)
class Axis:
    """One axis of a crop: the pixels it shows, and which places of the layer a window reaches."""

    pixels: Span
    reached: Span  # places of the whole photo
    within: Span  # the same places, of the crop

    @property
    def length(self) -> int:
        """How many pixels it shows."""
        return self.pixels[1] - self.pixels[0]


@dataclass(frozen=True)
class Reach:
    """A layer, and how far the places of its output see along an axis of the input."""

    layer: str
    field: ReceptiveField

    def crops(self, axis: int, spans: Sequence[Span], pixels: int) -> list[Axis] | None:
        """One crop for each window along an axis of so many pixels, all of a length; `None` where they do not align."""
        size, jump, centre = (pair[axis] for pair in (self.field.size, self.field.jump, self.field.centre))
        if jump != int(jump) or pixels % int(jump):
            return None
        step, found = int(jump), []
        for first, last in spans:
            first = min(first, last - 1)  # of a window past the edge, which changes nothing
            low = max(math.floor((first - centre - size / 2) / jump) + 1, 0)
            high = min(math.ceil((last - centre + size / 2) / jump), pixels // step)
            begin = max(centre + low * jump - size / 2, 0)
            end = min(centre + (high - 1) * jump + size / 2, pixels)
            found.append((low, high, math.floor(begin / step) * step, math.ceil(end)))
        length = min(max(math.ceil((end - begin) / step) * step for _, _, begin, end in found), pixels)
        axes = []
        for low, high, begin, _ in found:
            start = min(begin, pixels - length)
            axes.append(Axis((start, start + length), (low, high), (low - start // step, high - start // step)))
        return axes


class Windows:
    """One photo with a window of it changed, again and again, of which only what the window reaches is computed."""

    def __init__(
        self,
        reach: Reach,
        image: Float[Tensor, "1 3 h w"],
        rows: Sequence[Axis],
        columns: Sequence[Axis],
    ) -> None:
        self.layer = reach.layer
        self._image, self._rows, self._columns = image, rows, columns
        self._whole: WeakKeyDictionary[Passes, Tensor] = WeakKeyDictionary()  # the layer's output for the photo itself

    def logits(self, passes: Passes, images: Float[Tensor, "n 3 h w"], places: Sequence[int]) -> Tensor:
        """The logits of some changed photos, of which the window of each is known by its number."""
        across = len(self._columns)
        boxes = [(self._rows[place // across], self._columns[place % across]) for place in places]
        whole = self._whole_of(passes)

        def put_in(own: Tensor) -> Tensor:
            outputs = whole.expand(len(own), -1, -1, -1).clone(memory_format=torch.channels_last)
            for output, part, (row, column) in zip(outputs, own, boxes, strict=True):
                into, out_of = (row.reached, column.reached), (row.within, column.within)
                output[:, slice(*into[0]), slice(*into[1])] = part[:, slice(*out_of[0]), slice(*out_of[1])]
            return outputs

        crops = [
            image[:, slice(*row.pixels), slice(*column.pixels)]
            for image, (row, column) in zip(images, boxes, strict=True)
        ]
        return passes.altered(torch.stack(crops), self.layer, put_in)

    def _whole_of(self, passes: Passes) -> Tensor:
        if passes not in self._whole:  # each has a precision of its own

            def keep(own: Tensor) -> Tensor:
                self._whole[passes] = own.detach()
                return own

            passes.altered(self._image, self.layer, keep)
        return self._whole[passes]


def windows_of(
    model: Model, image: Float[Tensor, "1 3 h w"], rows: Sequence[Span], columns: Sequence[Span]
) -> Windows | None:
    """The windows at all these rows and columns of a photo, numbered row by row; `None` where crops would save little.

    That the answers are the same is tried out, once for each model and set of windows.
    """
    candidates = []
    for reach, share in _reaches(model):
        down, across = reach.crops(0, rows, image.shape[2]), reach.crops(1, columns, image.shape[3])
        if down is None or across is None:
            continue
        area = down[0].length * across[0].length / image[0, 0].numel()
        if share * (1 - area) > WORTH:
            candidates.append((share * (1 - area), Windows(reach, image, down, across)))
    for _, found in sorted(candidates, key=lambda one: -one[0]):
        key = "windows", tuple(rows), tuple(columns), found.layer
        if key not in model.costs:
            model.costs[key] = _alike(model, found, image, rows, columns)
        if model.costs[key]:
            return found
    return None


def _reaches(model: Model) -> list[tuple[Reach, float]]:
    """The stages whose places do not see everything, each with the share of a pass's operations up to its end."""
    if "reaches" not in model.costs:
        names = [layer.name for layer in model.layers]
        leaves = [not after.startswith(f"{name}.") for name, after in zip(names, [*names[1:], ""], strict=True)]
        flops = [leaf * layer.flops for leaf, layer in zip(leaves, model.layers, strict=True)]
        found: list[tuple[Reach, float]] = []
        for stage in model.stages:
            try:
                field = receptive_field(model, stage)
            except ModelError:  # it cannot be followed so far
                break
            if math.inf in field.size:
                break
            end = max(at for at, name in enumerate(names) if f"{name}.".startswith(f"{stage}."))
            found.append((Reach(stage, field), sum(flops[: end + 1]) / max(sum(flops), 1)))
        model.costs["reaches"] = found
    return model.costs["reaches"]


def _alike(model: Model, windows: Windows, image: Tensor, rows: Sequence[Span], columns: Sequence[Span]) -> bool:
    """Whether a network answers the same about noise in the first window, one in the middle and the last."""
    places = [0, len(rows) // 2 * len(columns) + len(columns) // 2, len(rows) * len(columns) - 1]
    noise = torch.rand(image.shape, generator=torch.Generator().manual_seed(0)).to(image)
    images = image.repeat(len(places), 1, 1, 1)
    for one, place in zip(images, places, strict=True):
        (top, bottom), (left, right) = rows[place // len(columns)], columns[place % len(columns)]
        one[:, top:bottom, left:right] = noise[0, :, top:bottom, left:right]
    passes = Passes(model, many=False)
    try:
        found = windows.logits(passes, images, places)
    except ModelError:  # something else hands on a crop, past the layer
        return False
    plain = passes.logits(images)
    return bool((found - plain).abs().max() <= ALIKE * plain.abs().max())
