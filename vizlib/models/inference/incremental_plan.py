"""Through which layers a crop is worth showing: the way with the fewest operations, tried out before it is taken."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

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
    plan_crops,
    relative_field,
)
from vizlib.models.model import Model
from vizlib.models.receptive_field import receptive_fields

MIN_SAVED_FRACTION = 0.05  # of a pass's operations must be saved at least
STAGE_OVERHEAD_FRACTION = 0.01  # of them a step is taken to cost in itself, so that none is taken for next to nothing
MAX_RELATIVE_DIFFERENCE = 1e-4  # of the largest logit: how far the two ways may lie apart in single precision


@dataclass(frozen=True)
class CutPoint:
    """A layer through which all of a pass goes: what follows reads nothing from before it."""

    layer: str
    field: ReceptiveField
    flops_share: float  # of a pass's operations, up to its end


@dataclass(frozen=True)
class StagePlan:
    """Some steps, and what they cost, as a share of a pass's operations."""

    cost: float
    stages: tuple[IncrementalStage, ...]


def plan_windows(
    model: Model, image: Float[Tensor, "1 3 h w"], rows: Sequence[Span], columns: Sequence[Span]
) -> IncrementalWindows | None:
    """The windows at all these rows and columns of a photo, numbered row by row; `None` where crops would save little.

    That the answers are the same is tried out, once for each model and set of windows.
    """
    for cuts in _cut_points(model):
        way = _cheapest_plan(cuts, image, rows, columns)
        if way.cost > 1 - MIN_SAVED_FRACTION:
            continue
        key = "windows", tuple(rows), tuple(columns), *(step.layer for step in way.stages)
        if key not in model._plan_cache:
            model._plan_cache[key] = _matches_plain_inference(model, way.stages, image, rows, columns)
        if model._plan_cache[key]:
            return IncrementalWindows(image, way.stages)
    return None


def _cheapest_plan(cuts: Sequence[CutPoint], image: Tensor, rows: Sequence[Span], columns: Sequence[Span]) -> StagePlan:
    """The cheapest way through the cuts, by the cheapest to each of them."""
    best = [(CutPoint("", INPUT_FIELD, 0.0), StagePlan(0.0, ()))]
    for cut in cuts:
        ways = [_extend_plan(way, before, cut, image, (rows, columns)) for before, way in best]
        found = min((way for way in ways if way), key=lambda way: way.cost, default=None)
        if found:
            best.append((cut, found))
    return min((StagePlan(way.cost + 1 - cut.flops_share, way.stages) for cut, way in best), key=lambda way: way.cost)


def _extend_plan(
    way: StagePlan, before: CutPoint, cut: CutPoint, image: Tensor, windows: tuple[Sequence[Span], Sequence[Span]]
) -> StagePlan | None:
    """A way and one step more; `None` where its crops do not align."""
    field = relative_field(before.field, cut.field)
    axes: list[Sequence[CropAxis]] = []
    area = 1.0
    for axis, spans in enumerate(windows):
        side = image.shape[2 + axis] / before.field.jump[axis]
        if way.stages:
            spans = [one.output_span for one in (way.stages[-1].rows, way.stages[-1].columns)[axis]]
        found = plan_crops(field, axis, spans, int(side))
        if found is None:
            return None
        axes.append(found)
        area *= found[0].length / side
    return StagePlan(
        way.cost + (cut.flops_share - before.flops_share) * area + STAGE_OVERHEAD_FRACTION,
        (*way.stages, IncrementalStage(cut.layer, *axes)),
    )


def _cut_points(model: Model) -> Iterator[list[CutPoint]]:
    """The cuts whose places do not see everything: as many as can be, then those that are stages."""
    if "cuts" not in model._plan_cache:
        names = [layer.name for layer in model.layers]
        leaves = [not after.startswith(f"{name}.") for name, after in zip(names, [*names[1:], ""], strict=True)]
        flops = [leaf * layer.flops for leaf, layer in zip(leaves, model.layers, strict=True)]
        found = []
        for layer, field in receptive_fields(model, _chained_layers(model)).items():
            if math.inf in field.size:
                break
            end = max(at for at, name in enumerate(names) if f"{name}.".startswith(f"{layer}."))
            found.append(CutPoint(layer, field, sum(flops[: end + 1]) / max(sum(flops), 1)))
        model._plan_cache["cuts"] = found
    yield model._plan_cache["cuts"]
    yield [cut for cut in model._plan_cache["cuts"] if cut.layer in model.stages]


def _chained_layers(model: Model) -> list[str]:
    """The stages, and the parts of a `Sequential` that is a stage or holds some, in the order they run."""
    parts = dict(model.module.named_modules())
    chains = {*model.stages, *(stage.rpartition(".")[0] for stage in model.stages)}
    blocks = {
        f"{chain}.{name}"
        for chain in chains
        if chain and isinstance(parts[chain], nn.Sequential)
        for name, _ in parts[chain].named_children()
    }
    # A stage comes after its parts: its last one's output is its own.
    return [layer.name for layer in model.layers if layer.name in blocks | set(model.stages)]


def _matches_plain_inference(
    model: Model, steps: Sequence[IncrementalStage], image: Tensor, rows: Sequence[Span], columns: Sequence[Span]
) -> bool:
    """Whether a network answers the same about noise in the first window, one in the middle and the last."""
    places = [0, len(rows) // 2 * len(columns) + len(columns) // 2, len(rows) * len(columns) - 1]
    noise = torch.rand(image.shape, generator=torch.Generator().manual_seed(0)).to(image)
    images = image.repeat(len(places), 1, 1, 1)
    for one, place in zip(images, places, strict=True):
        (top, bottom), (left, right) = rows[place // len(columns)], columns[place % len(columns)]
        one[:, top:bottom, left:right] = noise[0, :, top:bottom, left:right]
    passes = BatchedInference(model, use_folded_copy=False)
    try:
        found = IncrementalWindows(image, steps).logits(passes, images, places)
    except ModelError:  # something else hands on a crop, past the layer
        return False
    plain = passes.logits(images)
    return bool((found - plain).abs().max() <= MAX_RELATIVE_DIFFERENCE * plain.abs().max())
