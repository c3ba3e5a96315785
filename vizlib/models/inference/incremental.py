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
from vizlib.models.inference.batched_inference import BatchedInference

Span = tuple[int, int]  # first and last-but-one, of pixels or of places


@dataclass(frozen=True)
class CropAxis:
    """One axis of a crop: what it shows of the map before, and which places of the layer's output a window reaches."""

    input_span: Span
    output_span: Span  # places of the whole map
    local_span: Span  # the same places, of what the layer makes of the crop

    @property
    def length(self) -> int:
        """How many places it shows."""
        return self.input_span[1] - self.input_span[0]


@dataclass(frozen=True)
class IncrementalStage:
    """The layers from one map to the next, which are shown a crop of the first around each window."""

    layer: str  # the last of them
    rows: Sequence[CropAxis]  # one for each row of windows; all crops are of one size
    columns: Sequence[CropAxis]

    def crop_at(self, window: int) -> tuple[CropAxis, CropAxis]:
        """The crop for a window, by its number."""
        return self.rows[window // len(self.columns)], self.columns[window % len(self.columns)]


def relative_field(before: ReceptiveField, after: ReceptiveField) -> ReceptiveField:
    """How far the places of a layer see, counted in the places of an earlier one."""
    size, jump, centre = [], [], []
    for axis, unit in enumerate(before.jump):
        size.append((after.size[axis] - before.size[axis]) / unit + 1)
        jump.append(after.jump[axis] / unit)
        centre.append((after.centre[axis] - before.centre[axis]) / unit + 0.5)
    return ReceptiveField((size[0], size[1]), (jump[0], jump[1]), (centre[0], centre[1]))


def plan_crops(field: ReceptiveField, axis: int, spans: Sequence[Span], side: int) -> list[CropAxis] | None:
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
        axes.append(CropAxis((start, start + length), (low, high), (low - start // step, high - start // step)))
    return axes


class IncrementalWindows:
    """One photo with a window of it changed, again and again, of which only what the window reaches is computed."""

    def __init__(self, image: Float[Tensor, "1 3 h w"], steps: Sequence[IncrementalStage]) -> None:
        self._image, self._steps = image, steps
        self._wholes: WeakKeyDictionary[BatchedInference, dict[str, Tensor]] = (
            WeakKeyDictionary()
        )  # of the photo itself

    def logits(
        self, inference: BatchedInference, images: Float[Tensor, "n 3 h w"], window_indices: Sequence[int]
    ) -> Tensor:
        """The logits of some changed photos, of which the window of each is known by its number."""
        wholes = self._wholes_of(inference)
        first, *others = self._steps
        changes: dict[str, Callable[[Tensor], Tensor]] = {}
        for step, after in zip(self._steps, (*others, None), strict=True):
            changes[step.layer] = _put_into(wholes[step.layer], step, after, window_indices)
        shown = [
            image[:, slice(*row.input_span), slice(*column.input_span)]
            for image, (row, column) in zip(images, map(first.crop_at, window_indices), strict=True)
        ]
        return inference.logits_with_altered_layers(torch.stack(shown), changes)

    def _wholes_of(self, passes: BatchedInference) -> dict[str, Tensor]:
        if passes not in self._wholes:  # each has a precision of its own
            found: dict[str, Tensor] = {}

            def keep(layer: str) -> Callable[[Tensor], Tensor]:
                return lambda own: found.setdefault(layer, own.detach())

            passes.logits_with_altered_layers(self._image, {step.layer: keep(step.layer) for step in self._steps})
            self._wholes[passes] = found
        return self._wholes[passes]


def _put_into(
    whole: Float[Tensor, "1 channels rows columns"],
    step: IncrementalStage,
    after: IncrementalStage | None,
    places: Sequence[int],
) -> Callable[[Tensor], Tensor]:
    """What makes of a step's outputs the inputs of the next: crops of the whole map with the reached places put in."""
    everything = tuple(CropAxis((0, side), (0, side), (0, side)) for side in whole.shape[2:])

    def put_in(own: Float[Tensor, "n channels rows columns"]) -> Tensor:
        boxes = [after.crop_at(place) if after else everything for place in places]
        size = len(places), whole.shape[1], *(axis.length for axis in boxes[0])
        outputs = torch.empty(size, dtype=own.dtype, device=own.device, memory_format=torch.channels_last)
        for output, part, place, box in zip(outputs, own, places, boxes, strict=True):
            output.copy_(whole[0, :, slice(*box[0].input_span), slice(*box[1].input_span)])
            into, out_of = zip(*map(_overlap, step.crop_at(place), box), strict=True)
            output[(slice(None), *into)] = part[(slice(None), *out_of)]
        return outputs

    return put_in


def _overlap(axis: CropAxis, box: CropAxis) -> tuple[slice, slice]:
    """Where the reached places lie in a box, and where in what was computed."""
    low, high = max(axis.output_span[0], box.input_span[0]), min(axis.output_span[1], box.input_span[1])
    high = max(low, high)
    shift = axis.local_span[0] - axis.output_span[0]
    return slice(low - box.input_span[0], high - box.input_span[0]), slice(low + shift, high + shift)
