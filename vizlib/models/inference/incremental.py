"""Compute the logits of photos that differ from one photo only inside a window, recomputing only what changes.

Up to some layer a convolutional network is local: pixels outside the receptive field of a position cannot change it.
The first layers therefore run on a crop around each window, and their output is pasted into their output for the whole
photo. The next layers run on a crop of that, larger by their receptive field, and so on; the layers after the last such
stage run on whole feature maps. The logits are those of a full pass, to rounding.

References:
    Nakandala, Kumar, Papakonstantinou: Incremental and approximate inference for faster occlusion-based deep CNN
    explanations, SIGMOD 2019.
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

Span = tuple[int, int]  # start and end (exclusive) along one axis, in pixels or positions


@dataclass(frozen=True)
class CropAxis:
    """One axis of a crop that incremental inference runs on, and the output positions that a window can change.

    Attributes:
        input_span: The crop, in positions of the stage's input.
        output_span: The positions of the stage's whole output that depend on the window.
        local_span: The same positions, within the stage's output for the crop.
    """

    input_span: Span
    output_span: Span
    local_span: Span

    @property
    def length(self) -> int:
        """Length of the crop in positions."""
        return self.input_span[1] - self.input_span[0]


@dataclass(frozen=True)
class IncrementalStage:
    """One stage of incremental inference: layers that run on a crop of their input around each window.

    Attributes:
        layer: Name of the last of these layers.
        rows: The crop for each row of windows; all crops have the same length.
        columns: The crop for each column of windows.
    """

    layer: str
    rows: Sequence[CropAxis]
    columns: Sequence[CropAxis]

    def crop_at(self, window: int) -> tuple[CropAxis, CropAxis]:
        """Return the crop (rows, columns) of a window; windows are numbered row by row."""
        return self.rows[window // len(self.columns)], self.columns[window % len(self.columns)]


def relative_field(before: ReceptiveField, after: ReceptiveField) -> ReceptiveField:
    """Return what a stage of incremental inference reads: a layer's field in units of an earlier layer's positions.

    Args:
        before: Field of the earlier layer, in pixels.
        after: Field of the later layer, in pixels.
    """
    size, jump, centre = [], [], []
    for axis, unit in enumerate(before.jump):
        size.append((after.size[axis] - before.size[axis]) / unit + 1)
        jump.append(after.jump[axis] / unit)
        centre.append((after.centre[axis] - before.centre[axis]) / unit + 0.5)
    return ReceptiveField((size[0], size[1]), (jump[0], jump[1]), (centre[0], centre[1]))


def compute_crops(field: ReceptiveField, axis: int, spans: Sequence[Span], side: int) -> list[CropAxis] | None:
    """Return the crops that incremental inference runs on: one for each window's span along an axis, all of one length.

    Args:
        field: Receptive field of the output, in positions of the input.
        axis: 0 for rows, 1 for columns.
        spans: The changed positions of the input, one span per window.
        side: Length of the input along the axis.

    Returns:
        The crops; `None` if the output positions do not align with those of the input.
    """
    size, jump, centre = (pair[axis] for pair in (field.size, field.jump, field.centre))
    if jump != int(jump) or side % int(jump):
        return None
    stride, extents = int(jump), []
    for start, end in spans:
        start = min(start, end - 1)  # of a window beyond the edge, which changes nothing
        first = max(math.floor((start - centre - size / 2) / jump) + 1, 0)
        last = min(math.ceil((end - centre + size / 2) / jump), side // stride)
        crop_start = max(centre + first * jump - size / 2, 0)
        crop_end = min(centre + (last - 1) * jump + size / 2, side)
        extents.append((first, last, math.floor(crop_start / stride) * stride, math.ceil(crop_end)))
    length = min(max(math.ceil((end - start) / stride) * stride for _, _, start, end in extents), side)
    crops = []
    for first, last, crop_start, _ in extents:
        start = min(crop_start, side - length)
        local_span = (first - start // stride, last - start // stride)
        crops.append(CropAxis((start, start + length), (first, last), local_span))
    return crops


class IncrementalWindows:
    """Computes the logits of one photo with different contents in one of its windows.

    Args:
        image: The model's input for the unchanged photo.
        stages: The stages that run on crops, from `plan_windows`.
    """

    def __init__(self, image: Float[Tensor, "1 3 h w"], stages: Sequence[IncrementalStage]) -> None:
        self._image, self._stages = image, stages
        # Outputs of the stages for the unchanged photo, by layer; every engine has a precision of its own.
        self._unchanged: WeakKeyDictionary[BatchedInference, dict[str, Tensor]] = WeakKeyDictionary()

    def logits(
        self, inference: BatchedInference, images: Float[Tensor, "n 3 h w"], window_indices: Sequence[int]
    ) -> Tensor:
        """Return the logits of changed photos.

        Args:
            inference: Runs the passes.
            images: Photos that differ from the unchanged one only inside one window each.
            window_indices: Number of the changed window of each photo, counted row by row.

        Returns:
            Logits "n classes".
        """
        unchanged = self._compute_unchanged(inference)
        first_stage, *later_stages = self._stages
        changes: dict[str, Callable[[Tensor], Tensor]] = {}
        for stage, next_stage in zip(self._stages, (*later_stages, None), strict=True):
            changes[stage.layer] = _make_paste(unchanged[stage.layer], stage, next_stage, window_indices)
        crops = [
            image[:, slice(*row.input_span), slice(*column.input_span)]
            for image, (row, column) in zip(images, map(first_stage.crop_at, window_indices), strict=True)
        ]
        return inference.logits_with_altered_layers(torch.stack(crops), changes)

    def _compute_unchanged(self, inference: BatchedInference) -> dict[str, Tensor]:
        """Return the outputs of the stages for the unchanged photo, computed once per engine."""
        if inference not in self._unchanged:
            outputs: dict[str, Tensor] = {}

            def make_store(layer: str) -> Callable[[Tensor], Tensor]:
                return lambda output: outputs.setdefault(layer, output.detach())

            inference.logits_with_altered_layers(
                self._image, {stage.layer: make_store(stage.layer) for stage in self._stages}
            )
            self._unchanged[inference] = outputs
        return self._unchanged[inference]


def _make_paste(
    unchanged: Float[Tensor, "1 channels rows columns"],
    stage: IncrementalStage,
    next_stage: IncrementalStage | None,
    window_indices: Sequence[int],
) -> Callable[[Tensor], Tensor]:
    """Return the function that turns a stage's outputs into the next stage's inputs in incremental inference.

    It takes the next stage's crops out of the unchanged output and pastes the changed positions into them.
    """
    whole_map = tuple(CropAxis((0, side), (0, side), (0, side)) for side in unchanged.shape[2:])

    def paste(stage_outputs: Float[Tensor, "n channels rows columns"]) -> Tensor:
        """Return the next stage's inputs: unchanged activations with the changed positions of incremental inference."""
        crops = [next_stage.crop_at(window) if next_stage else whole_map for window in window_indices]
        shape = len(window_indices), unchanged.shape[1], *(axis.length for axis in crops[0])
        results = torch.empty(
            shape, dtype=stage_outputs.dtype, device=stage_outputs.device, memory_format=torch.channels_last
        )
        for result, stage_output, window, crop in zip(results, stage_outputs, window_indices, crops, strict=True):
            result.copy_(unchanged[0, :, slice(*crop[0].input_span), slice(*crop[1].input_span)])
            target, source = zip(*map(_intersect, stage.crop_at(window), crop), strict=True)
            result[(slice(None), *target)] = stage_output[(slice(None), *source)]
        return results

    return paste


def _intersect(changed: CropAxis, crop: CropAxis) -> tuple[slice, slice]:
    """Return where positions changed by incremental inference lie in the next crop, and where in the stage's output."""
    first = max(changed.output_span[0], crop.input_span[0])
    last = max(first, min(changed.output_span[1], crop.input_span[1]))
    shift = changed.local_span[0] - changed.output_span[0]
    return slice(first - crop.input_span[0], last - crop.input_span[0]), slice(first + shift, last + shift)
