"""Choose the stages of incremental inference: the ones with the fewest operations, verified before they are used."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vizlib.capture.receptive_field_tracer import INPUT_FIELD, ReceptiveField
from vizlib.core.errors import ModelError
from vizlib.models.inference.batched_inference import BatchedInference
from vizlib.models.inference.incremental import (
    CropAxis,
    IncrementalStage,
    IncrementalWindows,
    Span,
    compute_crops,
    relative_field,
)
from vizlib.models.model import Model
from vizlib.models.receptive_field import receptive_fields

MIN_SAVED_FRACTION = 0.05  # least fraction of a pass's operations that a plan must save
STAGE_OVERHEAD_FRACTION = 0.01  # assumed overhead of one stage, so that no stage is added for a negligible gain
# Largest accepted difference between the logits of a plan and of plain passes, relative to the largest logit.
MAX_LOGIT_DIFFERENCE = 1e-4


@dataclass(frozen=True)
class CutPoint:
    """A layer that a plan can end a stage with: the layers after it read nothing from before it.

    Attributes:
        layer: Name of the layer.
        field: Its receptive field.
        flops_share: Fraction of a pass's operations up to the end of the layer.
    """

    layer: str
    field: ReceptiveField
    flops_share: float


@dataclass(frozen=True)
class StagePlan:
    """A plan of the stages of incremental inference, in the order they run.

    Attributes:
        cost: Operations as a fraction of those of a pass, stage overhead included.
        stages: The stages.
    """

    cost: float
    stages: tuple[IncrementalStage, ...]


def plan_windows(
    model: Model, image: Float[Tensor, "1 3 h w"], rows: Sequence[Span], columns: Sequence[Span]
) -> IncrementalWindows | None:
    """Return the plan of incremental inference for windows of a photo, if it is cheaper and gives the same logits.

    The logits are compared with those of plain passes once per set of windows; the result of the comparison is kept in
    the model's bounded plan cache.

    Args:
        model: The model.
        image: The model's input for the unchanged photo.
        rows: Row span of the windows, in pixels.
        columns: Column span of the windows, in pixels. The windows are all combinations, numbered row by row.

    Returns:
        `None` if the model is not local enough for incremental inference, or it would save little; and for a function
        of the output, as a comparison of its values says too little about the output.
    """
    if model.target_function is not None:
        return None
    for cut_points in _cut_points(model):
        plan = _cheapest_plan(cut_points, image, rows, columns)
        if plan.cost > 1 - MIN_SAVED_FRACTION:
            continue
        stages = plan.stages
        key = "windows", tuple(rows), tuple(columns), *(stage.layer for stage in stages)
        if model._plan_cache.get_or_compute(
            key, lambda stages=stages: _matches_plain_inference(model, stages, image, rows, columns)
        ):
            return IncrementalWindows(image, stages)
    return None


def _cheapest_plan(
    cut_points: Sequence[CutPoint], image: Tensor, rows: Sequence[Span], columns: Sequence[Span]
) -> StagePlan:
    """Return the cheapest plan, by dynamic programming over the cheapest plan up to each cut point."""
    cheapest = [(CutPoint("", INPUT_FIELD, 0.0), StagePlan(0.0, ()))]
    for cut_point in cut_points:
        extended = [_extend_plan(plan, before, cut_point, image, (rows, columns)) for before, plan in cheapest]
        best = min((plan for plan in extended if plan), key=lambda plan: plan.cost, default=None)
        if best:
            cheapest.append((cut_point, best))
    complete = (StagePlan(plan.cost + 1 - cut_point.flops_share, plan.stages) for cut_point, plan in cheapest)
    return min(complete, key=lambda plan: plan.cost)


def _extend_plan(
    plan: StagePlan,
    before: CutPoint,
    cut_point: CutPoint,
    image: Tensor,
    windows: tuple[Sequence[Span], Sequence[Span]],
) -> StagePlan | None:
    """Return a plan with one more stage, from `before` to `cut_point`; `None` if its crops do not align."""
    field = relative_field(before.field, cut_point.field)
    crops: list[Sequence[CropAxis]] = []
    area_fraction = 1.0
    for axis, spans in enumerate(windows):
        side = image.shape[2 + axis] / before.field.jump[axis]
        if plan.stages:
            spans = [crop.output_span for crop in (plan.stages[-1].rows, plan.stages[-1].columns)[axis]]
        axis_crops = compute_crops(field, axis, spans, int(side))
        if axis_crops is None:
            return None
        crops.append(axis_crops)
        area_fraction *= axis_crops[0].length / side
    return StagePlan(
        plan.cost + (cut_point.flops_share - before.flops_share) * area_fraction + STAGE_OVERHEAD_FRACTION,
        (*plan.stages, IncrementalStage(cut_point.layer, *crops)),
    )


def _cut_points(model: Model) -> Iterator[list[CutPoint]]:
    """Yield what a plan may consist of: all cut points of less than the whole input, then those that are stages."""
    cut_points = model._plan_cache.get_or_compute("cut_points", lambda: _find_cut_points(model))
    yield cut_points
    yield [cut_point for cut_point in cut_points if cut_point.layer in model.stages]


def _find_cut_points(model: Model) -> list[CutPoint]:
    """Return the cut points that a plan chooses from, up to the first layer whose field is the whole input."""
    names = [layer.name for layer in model.layers]
    is_leaf = [not following.startswith(f"{name}.") for name, following in pairwise([*names, ""])]
    flops = [leaf * layer.flops for leaf, layer in zip(is_leaf, model.layers, strict=True)]
    cut_points = []
    for layer, field in receptive_fields(model, _chained_layers(model)).items():
        if math.inf in field.size:
            break
        end = max(index for index, name in enumerate(names) if f"{name}.".startswith(f"{layer}."))
        cut_points.append(CutPoint(layer, field, sum(flops[: end + 1]) / max(sum(flops), 1)))
    return cut_points


def _chained_layers(model: Model) -> list[str]:
    """Return what may be a plan's cut points: stages, and children of each `Sequential` that is or holds a stage."""
    modules = dict(model.module.named_modules())
    chains = {*model.stages, *(stage.rpartition(".")[0] for stage in model.stages)}
    blocks = {
        f"{chain}.{name}"
        for chain in chains
        if chain and isinstance(modules[chain], nn.Sequential)
        for name, _ in modules[chain].named_children()
    }
    # A stage follows its children: the output of its last child is its own.
    return [layer.name for layer in model.layers if layer.name in blocks | set(model.stages)]


def _matches_plain_inference(
    model: Model, stages: Sequence[IncrementalStage], image: Tensor, rows: Sequence[Span], columns: Sequence[Span]
) -> bool:
    """Return whether a plan gives the logits of plain passes, for noise in the first, middle and last window."""
    window_indices = [0, len(rows) // 2 * len(columns) + len(columns) // 2, len(rows) * len(columns) - 1]
    noise = torch.rand(image.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float32, device="cpu").to(
        image
    )
    images = image.repeat(len(window_indices), 1, 1, 1)
    for changed, window in zip(images, window_indices, strict=True):
        (top, bottom), (left, right) = rows[window // len(columns)], columns[window % len(columns)]
        changed[:, top:bottom, left:right] = noise[0, :, top:bottom, left:right]
    inference = BatchedInference(model, use_folded_copy=False)
    try:
        logits = IncrementalWindows(image, stages).logits(inference, images, window_indices)
    except ModelError:  # a crop reaches the layers after the stages by another path
        return False
    expected = inference.logits(images)
    return bool((logits - expected).abs().max() <= MAX_LOGIT_DIFFERENCE * expected.abs().max())
