"""Attribution by perturbation: the change of the score when parts of the image change."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import product

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from vizlib.attribution.evidence import Evidence, RequiredSignals
from vizlib.attribution.methods.baselines import BASELINE, make_baseline
from vizlib.attribution.methods.scoring import SCORING_PARAMETERS, SEED_PARAMETER, make_random_generator, score_inputs
from vizlib.attribution.request import MANY_PASSES, Method, Parameter, PartialHeat, supports_every_model
from vizlib.models.inference.incremental_plan import plan_windows

Span = tuple[int, int]  # first pixel, and the one after the last


def compute_window_spans(size: int, window: int, stride: int) -> list[Span]:
    """Return the pixels that the window of occlusion covers along one axis, one span for each of its positions.

    Args:
        size: Length of the axis, in pixels.
        window: Length of the window, in pixels.
        stride: Distance between neighbouring positions, in pixels.

    Returns:
        Half-open spans from the first pixel to the last; the last window is cut off at the edge.
    """
    window = min(window, size)
    last_start = stride * math.ceil((size - window) / stride)
    return [(start, min(start + window, size)) for start in range(0, last_start + 1, stride)]


def _occlusion(
    evidence: Evidence, *, window: int, stride: int, baseline: str, precision: str, budget_mb: int, **_
) -> Iterator[PartialHeat]:
    """Yield the mean drop of the score over the windows that cover each pixel.

    References:
        Zeiler, Fergus. Visualizing and Understanding Convolutional Networks. ECCV 2014, section 4.2. arXiv:1311.2901
    """
    image = evidence.run.image.detach()
    cover = make_baseline(baseline, evidence)
    rows, columns = (compute_window_spans(size, int(window), int(stride)) for size in image.shape[-2:])
    spans = list(product(rows, columns))
    row_masks, column_masks = (
        _make_coverage_masks(axis, size).to(image.device)
        for axis, size in zip((rows, columns), image.shape[-2:], strict=True)
    )

    def make_inputs(indices: Int[Tensor, " n"]) -> Tensor:
        """Return the image covered by the windows with the given indices."""
        indices = indices.to(image.device)
        covered_rows, covered_columns = row_masks[indices // len(columns)], column_masks[indices % len(columns)]
        return torch.where(covered_rows[:, None, :, None] & covered_columns[:, None, None, :], cover, image)

    # On a GPU a full forward pass takes less time than launching the kernels of incremental inference.
    incremental = plan_windows(evidence.model, image, rows, columns) if image.is_cpu else None
    full_score = evidence.score(evidence.run.logits.detach())
    # On the processor, because many small slices are slow on a GPU.
    drop_sums, counts = torch.zeros(2, *image.shape[-2:], dtype=full_score.dtype, device="cpu")
    for batch in score_inputs(
        evidence, make_inputs, len(spans), precision=precision, budget_mb=budget_mb, windows=incremental
    ):
        for index, drop in zip(batch.indices.tolist(), (full_score - batch.scores).cpu(), strict=True):
            (top, bottom), (left, right) = spans[index]
            drop_sums[top:bottom, left:right] += drop
            counts[top:bottom, left:right] += 1
        yield PartialHeat(drop_sums / counts.clamp(min=1), batch.done, len(spans), batch.notes)


def _make_coverage_masks(spans: Sequence[Span], size: int) -> Bool[Tensor, "windows size"]:
    """Return which pixels of one axis each window of occlusion covers."""
    start, end = torch.tensor(spans, device="cpu").T.unsqueeze(2)
    pixels = torch.arange(size, device="cpu")
    return (start <= pixels) & (pixels < end)


def make_rise_masks(
    indices: Int[Tensor, " n"],
    size: tuple[int, int],
    cells: int,
    share: float,
    seed: int,
    device: torch.device | None = None,
) -> Float[Tensor, "n h w"]:
    """Return the random masks of RISE with the given indices: coarse grids, upsampled bilinearly and shifted.

    A mask depends on its index, the seed and the other arguments only, not on the batch that it is made in.

    Args:
        indices: Indices of the masks.
        size: Height and width of a mask, in pixels.
        cells: Cells on each side of the coarse grid.
        share: Probability that a cell is visible.
        seed: Seed of the random numbers.
        device: Where the masks are made; the processor by default.

    Returns:
        Masks with values from 0 (covered) to 1 (visible).

    References:
        Petsiuk, Das, Saenko. RISE: Randomized Input Sampling for Explanation of Black-box Models. BMVC 2018, section
        3.2. arXiv:1806.07421
    """
    cell_height, cell_width = cell_sizes = [math.ceil(side / cells) for side in size]
    generators = [make_random_generator(seed, index) for index in indices.tolist()]
    visible = [generator.random((cells, cells)) < share for generator in generators]
    grids = torch.from_numpy(np.stack(visible)).float().to(device)
    shifts = torch.tensor(
        [(generator.integers(0, cell_height), generator.integers(0, cell_width)) for generator in generators],
        device=device,
    )
    # Upsampling one axis is a product with a matrix; a shifted mask needs only some rows of that matrix.
    vertical, horizontal = (
        _make_upsampling_matrix(cells, cell_size).to(device)[shift.unsqueeze(1) + torch.arange(side, device=device)]
        for cell_size, shift, side in zip(cell_sizes, shifts.T, size, strict=True)
    )
    return vertical @ grids @ horizontal.mT


def _make_upsampling_matrix(cells: int, cell_size: int) -> Float[Tensor, "pixels cells"]:
    """Return the bilinear upsampling of RISE's masks along one axis, to the pixels of one cell more, as a matrix."""
    return F.interpolate(
        torch.eye(cells, dtype=torch.float32, device="cpu").unsqueeze(0), (cells + 1) * cell_size, mode="linear"
    )[0].T


def _rise(
    evidence: Evidence, *, masks: int, cells: int, share: float, seed: int, precision: str, budget_mb: int, **_
) -> Iterator[PartialHeat]:
    """Yield the mean of random masks, weighted by the scores of the masked images.

    References:
        Petsiuk, Das, Saenko. RISE: Randomized Input Sampling for Explanation of Black-box Models. BMVC 2018, equation
        6. arXiv:1806.07421
    """
    image = evidence.run.image.detach()
    size, total = evidence.model.preprocessing.input_size, int(masks)

    @lru_cache(maxsize=1)  # the masks of a batch are read twice: to make its inputs and to weight them
    def make_masks(indices: tuple[int, ...]) -> Float[Tensor, "n h w"]:
        """Return the random masks of RISE with the given indices, in the image's type."""
        return make_rise_masks(
            torch.tensor(indices, device="cpu"), size, int(cells), share, int(seed), image.device
        ).to(image)

    def make_inputs(indices: Int[Tensor, " n"]) -> Tensor:
        """Return the image perturbed by the random masks with the given indices."""
        return image * make_masks(tuple(indices.tolist())).unsqueeze(1)

    heat = torch.zeros(size, device=image.device, dtype=image.dtype)
    for batch in score_inputs(evidence, make_inputs, total, precision=precision, budget_mb=budget_mb):
        heat += torch.tensordot(batch.scores.to(heat), make_masks(tuple(batch.indices.tolist())), 1)
        yield PartialHeat(heat / (share * batch.done), batch.done, total, batch.notes)


RISE_SCORE = Parameter(
    "probability",
    "what is measured: the probability of the class, or its logit; without probabilities, what the network returns",
    lambda m: m.output_row.scores[::-1],
    find_default=lambda m: m.output_row.scores[-1],
)

METHODS = (
    Method(
        name="occlusion",
        paper="Zeiler, Fergus: Visualizing and Understanding Convolutional Networks, ECCV 2014",
        paper_url="https://arxiv.org/abs/1311.2901",
        equation=(
            r"H_{ij} = \frac{1}{|W_{ij}|} \sum_{w \in W_{ij}} \left( s(x) - s(x \text{ covered by } w) \right), "
            r"\quad W_{ij} \text{ the windows that cover } (i, j)"
        ),
        shows="Covering a warm region lowers the score; covering a cold region raises it.",
        does_not_show="It covers one window at a time: evidence present twice is missed, and window edges matter.",
        signals=lambda model, values: RequiredSignals(),
        compute_steps=_occlusion,
        unsupported_reason=supports_every_model,
        parameters={
            "window": Parameter(32, "side of the covered square, in pixels of the model input", range=(1, 1024)),
            "stride": Parameter(
                16, "distance from one square to the next, in pixels of the model input", range=(1, 1024)
            ),
            "baseline": BASELINE,
            **SCORING_PARAMETERS,
        },
        is_signed=lambda values: True,
        cost=MANY_PASSES,
    ),
    Method(
        name="rise",
        paper="Petsiuk, Das, Saenko: RISE, BMVC 2018",
        paper_url="https://arxiv.org/abs/1806.07421",
        equation=r"H_{ij} = \frac{1}{n\, p} \sum_{m=1}^{n} s\left( x \odot M_m \right) M_{m,ij}",
        shows="Bright regions are mostly visible in the masked photos that get a high score for the class.",
        does_not_show="It is an average over random masks: fine detail is blurred, and few masks give a noisy map.",
        signals=lambda model, values: RequiredSignals(),
        compute_steps=_rise,
        unsupported_reason=supports_every_model,
        parameters={
            "masks": Parameter(1000, "number of random masks", range=(16, 20000)),
            "cells": Parameter(7, "cells on each side of the coarse grid of a mask", range=(2, 32)),
            "share": Parameter(0.5, "probability that a cell stays visible", range=(0.05, 0.95)),
            "seed": SEED_PARAMETER,
            **SCORING_PARAMETERS,
            "score": RISE_SCORE,
        },
        cost=MANY_PASSES,
        count_passes=lambda values: values["masks"],
    ),
)
