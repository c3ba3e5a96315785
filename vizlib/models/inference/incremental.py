"""Where only a window of the photo changes, only what sees the window is computed again.

Up to some layer a convolutional network is local: what lies beyond a place's receptive field cannot change it. So the
first layers are shown a crop around each window, and what they make of it is put into what they made of the whole
photo. The next layers are shown a crop of that, as much larger as their places see more, and so on; what follows the
last such step runs on whole maps. The answers are the same but for rounding.

Source: Nakandala, Kumar, Papakonstantinou: Incremental and Approximate Inference for Faster Occlusion-based Deep CNN
Explanations, SIGMOD 2019.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor

from vizlib.capture.receptive_field_tracer import ReceptiveField
from vizlib.models.inference.batched_inference import Passes

Span = tuple[int, int]  # first and last-but-one, of pixels or of places


@dataclass(frozen=True)
class Axis:
    """One axis of a crop: what it shows of the map before, and which places of the layer's output a window reaches."""

    shown: Span
    reached: Span  # places of the whole map
    within: Span  # the same places, of what the layer makes of the crop

    @property
    def length(self) -> int:
        """How many places it shows."""
        return self.shown[1] - self.shown[0]


@dataclass(frozen=True)
class Step:
    """The layers from one map to the next, which are shown a crop of the first around each window."""

    layer: str  # the last of them
    rows: Sequence[Axis]  # one for each row of windows; all crops are of one size
    columns: Sequence[Axis]

    def at(self, window: int) -> tuple[Axis, Axis]:
        """The crop for a window, by its number."""
        return self.rows[window // len(self.columns)], self.columns[window % len(self.columns)]


def beyond(before: ReceptiveField, after: ReceptiveField) -> ReceptiveField:
    """How far the places of a layer see, counted in the places of an earlier one."""
    size, jump, centre = [], [], []
    for axis, unit in enumerate(before.jump):
        size.append((after.size[axis] - before.size[axis]) / unit + 1)
        jump.append(after.jump[axis] / unit)
        centre.append((after.centre[axis] - before.centre[axis]) / unit + 0.5)
    return ReceptiveField((size[0], size[1]), (jump[0], jump[1]), (centre[0], centre[1]))


def crops(field: ReceptiveField, axis: int, spans: Sequence[Span], side: int) -> list[Axis] | None:
    """One crop for each span along an axis of so many places, all of a length; `None` where they do not align.

    `field` is how far a place of the output sees, in places of the input.
    """
    size, jump, centre = (pair[axis] for pair in (field.size, field.jump, field.centre))
    if jump != int(jump) or side % int(jump):
        return None
    step, found = int(jump), []
    for first, last in spans:
        first = min(first, last - 1)  # of a window past the edge, which changes nothing
        low = max(math.floor((first - centre - size / 2) / jump) + 1, 0)
        high = min(math.ceil((last - centre + size / 2) / jump), side // step)
        begin = max(centre + low * jump - size / 2, 0)
        end = min(centre + (high - 1) * jump + size / 2, side)
        found.append((low, high, math.floor(begin / step) * step, math.ceil(end)))
    length = min(max(math.ceil((end - begin) / step) * step for _, _, begin, end in found), side)
    axes = []
    for low, high, begin, _ in found:
        start = min(begin, side - length)
        axes.append(Axis((start, start + length), (low, high), (low - start // step, high - start // step)))
    return axes


class Windows:
    """One photo with a window of it changed, again and again, of which only what the window reaches is computed."""

    def __init__(self, image: Float[Tensor, "1 3 h w"], steps: Sequence[Step]) -> None:
        self._image, self._steps = image, steps
        self._wholes: WeakKeyDictionary[Passes, dict[str, Tensor]] = WeakKeyDictionary()  # of the photo itself

    def logits(self, passes: Passes, images: Float[Tensor, "n 3 h w"], places: Sequence[int]) -> Tensor:
        """The logits of some changed photos, of which the window of each is known by its number."""
        wholes = self._wholes_of(passes)
        first, *others = self._steps
        changes: dict[str, Callable[[Tensor], Tensor]] = {}
        for step, after in zip(self._steps, (*others, None), strict=True):
            changes[step.layer] = _put_into(wholes[step.layer], step, after, places)
        shown = [
            image[:, slice(*row.shown), slice(*column.shown)]
            for image, (row, column) in zip(images, map(first.at, places), strict=True)
        ]
        return passes.logits_with_altered_layers(torch.stack(shown), changes)

    def _wholes_of(self, passes: Passes) -> dict[str, Tensor]:
        if passes not in self._wholes:  # each has a precision of its own
            found: dict[str, Tensor] = {}

            def keep(layer: str) -> Callable[[Tensor], Tensor]:
                return lambda own: found.setdefault(layer, own.detach())

            passes.logits_with_altered_layers(self._image, {step.layer: keep(step.layer) for step in self._steps})
            self._wholes[passes] = found
        return self._wholes[passes]


def _put_into(
    whole: Float[Tensor, "1 channels rows columns"], step: Step, after: Step | None, places: Sequence[int]
) -> Callable[[Tensor], Tensor]:
    """What makes of a step's outputs the inputs of the next: crops of the whole map with the reached places put in."""
    everything = tuple(Axis((0, side), (0, side), (0, side)) for side in whole.shape[2:])

    def put_in(own: Float[Tensor, "n channels rows columns"]) -> Tensor:
        boxes = [after.at(place) if after else everything for place in places]
        size = len(places), whole.shape[1], *(axis.length for axis in boxes[0])
        outputs = torch.empty(size, dtype=own.dtype, device=own.device, memory_format=torch.channels_last)
        for output, part, place, box in zip(outputs, own, places, boxes, strict=True):
            output.copy_(whole[0, :, slice(*box[0].shown), slice(*box[1].shown)])
            into, out_of = zip(*map(_overlap, step.at(place), box), strict=True)
            output[(slice(None), *into)] = part[(slice(None), *out_of)]
        return outputs

    return put_in


def _overlap(axis: Axis, box: Axis) -> tuple[slice, slice]:
    """Where the reached places lie in a box, and where in what was computed."""
    low, high = max(axis.reached[0], box.shown[0]), min(axis.reached[1], box.shown[1])
    high = max(low, high)
    shift = axis.within[0] - axis.reached[0]
    return slice(low - box.shown[0], high - box.shown[0]), slice(low + shift, high + shift)
