"""Methods that change the photo, or one channel of a layer, and look what becomes of the score."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import product

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from vizlib.attribution.methods.base import MANY_PASSES, SCORE, Evidence, Method, Needs, Parameter, Partial, fits_all
from vizlib.attribution.methods.baselines import BASELINE, make_baseline
from vizlib.attribution.methods.cam import CAM_LAYER, RELU, check_spatial_layer, choose_cam_layer
from vizlib.attribution.methods.scoring import BUDGET, PRECISION, SEED, make_random_generator, trials
from vizlib.models.inference.incremental_plan import plan_windows

Span = tuple[int, int]


def compute_window_spans(size: int, window: int, stride: int) -> list[Span]:
    """First and last-but-one pixel of each place of a sliding window; the last is cut off at the edge."""
    window = min(window, size)
    return [(at, min(at + window, size)) for at in range(0, stride * (math.ceil((size - window) / stride) + 1), stride)]


def _occlusion(
    evidence: Evidence, *, window: int, stride: int, baseline: str, precision: str, budget_mb: int, **_
) -> Iterator[Partial]:
    image = evidence.run.image.detach()
    cover = make_baseline(baseline, evidence)
    rows, columns = (compute_window_spans(size, int(window), int(stride)) for size in image.shape[-2:])
    spans = list(product(rows, columns))
    hides_rows, hides_columns = (
        _make_coverage_masks(axis, size).to(image.device)
        for axis, size in zip((rows, columns), image.shape[-2:], strict=True)
    )

    def make(places: Int[Tensor, " n"]) -> Tensor:
        at = places.to(image.device)
        across, along = hides_rows[at // len(columns)], hides_columns[at % len(columns)]
        return torch.where(across[:, None, :, None] & along[:, None, None, :], cover, image)

    # A GPU has done a whole pass before it is told about all crops.
    quickly = plan_windows(evidence.model, image, rows, columns) if image.is_cpu else None
    whole = evidence.score(evidence.run.logits.detach())
    drops, times = torch.zeros(2, *image.shape[-2:], dtype=whole.dtype)  # on the processor: a GPU is slow at windows
    for found in trials(evidence, make, len(spans), precision=precision, budget_mb=budget_mb, quickly=quickly):
        for place, drop in zip(found.places.tolist(), (whole - found.scores).cpu(), strict=True):
            (top, bottom), (left, right) = spans[place]
            drops[top:bottom, left:right] += drop
            times[top:bottom, left:right] += 1
        yield Partial(drops / times.clamp(min=1), found.done, len(spans), found.notes)


def _make_coverage_masks(spans: Sequence[Span], size: int) -> Bool[Tensor, "windows size"]:
    """Which pixels of one axis each window covers."""
    first, last = torch.tensor(spans).T.unsqueeze(2)
    at = torch.arange(size)
    return (first <= at) & (at < last)


def make_rise_masks(
    indices: Int[Tensor, " n"],
    size: tuple[int, int],
    cells: int,
    share: float,
    seed: int,
    device: torch.device | None = None,
) -> Float[Tensor, "n h w"]:
    """Masks by their numbers: coarse random grids, enlarged bilinearly and shifted by less than a cell (RISE, 3.2)."""
    height, width = steps = [math.ceil(side / cells) for side in size]
    random = [make_random_generator(seed, place) for place in indices.tolist()]
    grids = torch.from_numpy(np.stack([one.random((cells, cells)) < share for one in random])).float().to(device)
    shifts = torch.tensor([(one.integers(0, height), one.integers(0, width)) for one in random], device=device)
    # What enlarges one axis is a matrix; a shifted mask takes some of its rows.
    above, beside = (
        _make_upsampling_matrix(cells, step).to(device)[shift.unsqueeze(1) + torch.arange(side, device=device)]
        for step, shift, side in zip(steps, shifts.T, size, strict=True)
    )
    return above @ grids @ beside.mT


def _make_upsampling_matrix(cells: int, step: int) -> Float[Tensor, "pixels cells"]:
    """Bilinear enlargement of one axis to a cell more than it has, as a matrix."""
    return F.interpolate(torch.eye(cells).unsqueeze(0), (cells + 1) * step, mode="linear")[0].T


def _rise(
    evidence: Evidence, *, masks: int, cells: int, share: float, seed: int, precision: str, budget_mb: int, **_
) -> Iterator[Partial]:
    image = evidence.run.image.detach()
    size, total = evidence.model.preprocessing.input_size, int(masks)

    drawn = image.new_zeros(0)  # the masks of the batch at hand

    def make(places: Int[Tensor, " n"]) -> Tensor:
        nonlocal drawn
        drawn = make_rise_masks(places, size, int(cells), share, int(seed), image.device).to(image)
        return image * drawn.unsqueeze(1)

    heat = torch.zeros(size, device=image.device, dtype=image.dtype)
    for found in trials(evidence, make, total, precision=precision, budget_mb=budget_mb):
        heat += torch.tensordot(found.scores.to(heat), drawn, 1)
        yield Partial(heat / (share * found.done), found.done, total, found.notes)


def make_channel_masks(
    activation: Float[Tensor, "channels rows columns"], size: tuple[int, int]
) -> Float[Tensor, "channels h w"]:
    """Each channel enlarged to the input and scaled to 0 to 1 (Score-CAM, equations 6 and 7)."""
    large = F.interpolate(activation.unsqueeze(0), size, mode="bilinear")[0]
    low, high = large.amin((1, 2), keepdim=True), large.amax((1, 2), keepdim=True)
    return (large - low) / (high - low)


def _score_cam(evidence: Evidence, *, relu: bool, precision: str, budget_mb: int, **knobs) -> Iterator[Partial]:
    image = evidence.run.image.detach()
    activation = evidence.places(choose_cam_layer(evidence.model, knobs)).activation_maps
    heard = _find_varying_channels(activation)
    if not len(heard):
        yield _make_empty_map(activation)

    def make(places: Int[Tensor, " n"]) -> Tensor:
        return image * make_channel_masks(activation[heard[places]], evidence.model.preprocessing.input_size).unsqueeze(
            1
        )

    scores = image.new_full((len(activation),), -math.inf)
    for found in trials(evidence, make, len(heard), precision=precision, budget_mb=budget_mb):
        scores[heard[found.places]] = found.scores.to(scores)
        heat = evidence.places(choose_cam_layer(evidence.model, knobs)).weighted_sum(scores.softmax(0))
        yield Partial(heat.clamp(min=0) if relu else heat, found.done, len(heard), found.notes)


def _ablation_cam(evidence: Evidence, *, relu: bool, precision: str, budget_mb: int, **knobs) -> Iterator[Partial]:
    layer = choose_cam_layer(evidence.model, knobs)
    places, output = evidence.places(layer), evidence.run.activations[layer].detach()
    heard = _find_varying_channels(places.activation_maps, silent=0.0)
    if not len(heard):
        yield _make_empty_map(places.activation_maps)
    axis = evidence.model.channel_axis(output)

    def make(numbers: Int[Tensor, " n"]) -> Tensor:
        outputs = output.repeat(len(numbers), *(1,) * (output.ndim - 1))
        outputs.movedim(axis, 1)[torch.arange(len(numbers)), heard[numbers]] = 0
        return outputs

    whole = evidence.score(evidence.run.logits.detach())
    size = whole.abs().clamp(min=torch.finfo(whole.dtype).tiny)  # of a class against itself the score is 0
    weights = places.activation_maps.new_zeros(len(places.activation_maps))
    for found in trials(evidence, make, len(heard), precision=precision, budget_mb=budget_mb, layer=layer):
        weights[heard[found.places]] = ((whole - found.scores) / size).to(weights)
        heat = places.weighted_sum(weights)
        yield Partial(heat.clamp(min=0) if relu else heat, found.done, len(heard), found.notes)


def _find_varying_channels(
    activation: Float[Tensor, "channels rows columns"], silent: float | None = None
) -> Int[Tensor, " heard"]:
    """The channels that can matter: not those that are `silent` everywhere, or the same everywhere if left out."""
    first = activation[:, :1, :1] if silent is None else silent
    return (activation != first).flatten(1).any(1).nonzero().flatten()


def _make_empty_map(activation: Float[Tensor, "channels rows columns"]) -> Partial:
    note = "No channel of this layer tells one place from another; choose an earlier layer."
    return Partial(torch.zeros_like(activation[0]), 1, 1, (note,))


def _layer_without_gradient(model, knobs) -> Needs:
    return Needs(layers=(choose_cam_layer(model, knobs),), layer_gradients=False)


RISE_SCORE = Parameter(
    "probability", "what is measured: the softmax probability of the class, or its logit", ("probability", "logit")
)

METHODS = (
    Method(
        name="occlusion",
        paper="Zeiler, Fergus: Visualizing and Understanding Convolutional Networks, ECCV 2014",
        shows="Covering a warm region lowers the score; covering a cold region raises it.",
        does_not_show="It covers one window at a time: evidence present twice is missed, and window edges matter.",
        needs=lambda model, knobs: Needs(),
        compute_steps=_occlusion,
        unsupported_reason=fits_all,
        parameters={
            "window": Parameter(32, "side of the covered square, in pixels of the model input", range=(1, 1024)),
            "stride": Parameter(
                16, "distance from one square to the next, in pixels of the model input", range=(1, 1024)
            ),
            "baseline": BASELINE,
            "score": SCORE,
            "precision": PRECISION,
            "budget_mb": BUDGET,
        },
        signed=True,
        cost=MANY_PASSES,
    ),
    Method(
        name="rise",
        paper="Petsiuk, Das, Saenko: RISE, BMVC 2018",
        shows="Bright regions are mostly visible in the masked photos that get a high score for the class.",
        does_not_show="It is an average over random masks: fine detail is blurred, and few masks give a noisy map.",
        needs=lambda model, knobs: Needs(),
        compute_steps=_rise,
        unsupported_reason=fits_all,
        parameters={
            "masks": Parameter(1000, "number of random masks", range=(16, 20000)),
            "cells": Parameter(7, "cells on each side of the coarse grid of a mask", range=(2, 32)),
            "share": Parameter(0.5, "probability that a cell stays visible", range=(0.05, 0.95)),
            "seed": SEED,
            "score": RISE_SCORE,
            "precision": PRECISION,
            "budget_mb": BUDGET,
        },
        cost=MANY_PASSES,
    ),
    Method(
        name="score-cam",
        paper="Wang et al.: Score-CAM, CVPR Workshops 2020",
        shows="Warm regions are where channels are active that give a high class score when used as a mask.",
        does_not_show="A channel is weighted by the region it reveals, not by how the network uses the channel.",
        needs=_layer_without_gradient,
        compute_steps=_score_cam,
        unsupported_reason=check_spatial_layer,
        parameters={"layer": CAM_LAYER, "relu": RELU, "score": SCORE, "precision": PRECISION, "budget_mb": BUDGET},
        cost=MANY_PASSES,
    ),
    Method(
        name="ablation-cam",
        paper="Desai, Ramaswamy: Ablation-CAM, WACV 2020",
        shows="Warm regions are where channels are active whose ablation lowers the class score.",
        does_not_show="Channels are ablated one at a time: two redundant channels both seem unimportant.",
        needs=_layer_without_gradient,
        compute_steps=_ablation_cam,
        unsupported_reason=check_spatial_layer,
        parameters={"layer": CAM_LAYER, "relu": RELU, "score": SCORE, "precision": PRECISION, "budget_mb": BUDGET},
        cost=MANY_PASSES,
    ),
)
