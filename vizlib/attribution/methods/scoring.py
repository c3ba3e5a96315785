"""Score many inputs: in batches, in shuffled order, in bfloat16 where a check against single precision passes.

Every method of many forward passes states what its inputs are; this module decides how they are computed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from vizlib.attribution.evidence import Evidence
from vizlib.attribution.request import SCORE_PARAMETER, Parameter
from vizlib.core.text import Note, make_note
from vizlib.models.inference.batched_inference import (
    DEFAULT_BUDGET_MB,
    MAX_BUDGET_MB,
    MIN_BUDGET_MB,
    BatchedInference,
    benefits_from_bfloat16,
)
from vizlib.models.inference.incremental import IncrementalWindows

NUM_CHECKED_INPUTS = 4  # inputs that are also scored in single precision
BFLOAT16_TOLERANCE = (
    0.1  # of the scores' standard deviation, for the root mean square error: ranks correlate about 0.99
)
UNUSABLE_ERROR = 10  # an error of so many standard deviations is stated without its number

PRECISION_PARAMETER = Parameter(
    "auto",
    "bfloat16 where the processor supports it and a check of its scores passes (auto), or always single precision",
    ("auto", "float32"),
)
BUDGET_PARAMETER = Parameter(
    DEFAULT_BUDGET_MB, "memory for one batch, in megabytes, besides the model", range=(MIN_BUDGET_MB, MAX_BUDGET_MB)
)
SCORING_PARAMETERS = {"score": SCORE_PARAMETER, "precision": PRECISION_PARAMETER, "budget_mb": BUDGET_PARAMETER}
SEED_PARAMETER = Parameter(
    0, "seed of the random numbers; the same seed gives the same numbers on every machine", range=(0, 2**32 - 1)
)

MakeInputs = Callable[[Int[Tensor, " n"]], Tensor]  # from the indices of a batch to its inputs


@dataclass(frozen=True, eq=False)
class ScoredBatch:
    """The scores of a batch of inputs.

    Attributes:
        indices: Which of all inputs.
        scores: Their scores.
        done: How many inputs have been scored, these included.
        notes: What is worth knowing about the precision.
    """

    indices: Int[Tensor, " n"]
    scores: Float[Tensor, " n"]
    done: int
    notes: tuple[Note, ...]


def score_inputs(
    evidence: Evidence,
    make_inputs: MakeInputs,
    total: int,
    *,
    precision: str,
    budget_mb: int,
    layer: str | None = None,
    windows: IncrementalWindows | None = None,
    in_order: bool = False,
) -> Iterator[ScoredBatch]:
    """Yield the scores of many inputs, batch by batch, in shuffled order, so that the first batches represent all.

    Args:
        evidence: Model, run and score.
        make_inputs: Makes the inputs of a batch from their indices.
        total: How many inputs there are.
        precision: `"auto"` or `"float32"`.
        budget_mb: Memory for one batch, in megabytes.
        layer: If given, the inputs are outputs of this layer, and only what follows it is computed.
        windows: If given, the inputs are the photo with one window changed, their indices are those of the windows, and
            only what each window can change is computed.
        in_order: Score the inputs in the order of their indices.
    """
    if not total:
        return
    order = torch.arange(total, device="cpu")
    if not in_order:
        order = torch.from_numpy(make_random_generator(0).permutation(total))
    exact, notes = BatchedInference(evidence.model, budget_mb=budget_mb), ()
    if precision == "auto" and benefits_from_bfloat16(evidence.model) and total > 2 * NUM_CHECKED_INPUTS:
        fast = BatchedInference(evidence.model, budget_mb=budget_mb, bfloat16=True)
        check = BatchedInference(evidence.model, budget_mb=budget_mb, use_folded_copy=False)
        exact_scores = _score_batch(evidence, make_inputs, order[:NUM_CHECKED_INPUTS], check, layer)
        batches = _score_in_order(evidence, make_inputs, order, fast, layer, windows, first=NUM_CHECKED_INPUTS + 1)
        first = next(batches)
        error = (exact_scores - first.scores[:NUM_CHECKED_INPUTS]).square().mean().sqrt()
        relative_error = (error / first.scores.std()).item()
        if relative_error <= BFLOAT16_TOLERANCE:
            notes = (make_note("score.bfloat16", share=f"{relative_error:.1%}"),)
            yield from (replace(batch, notes=notes) for batch in chain([first], batches))
            return
        if relative_error < UNUSABLE_ERROR:
            notes = (make_note("score.bfloat16-refused", share=f"{relative_error:.1%}"),)
        else:  # NaN too
            notes = (make_note("score.bfloat16-too-coarse"),)
    batches = _score_in_order(evidence, make_inputs, order, exact, layer, windows)
    yield from (replace(batch, notes=notes) for batch in batches)


def make_random_generator(seed: int, stream: int = 0) -> np.random.Generator:
    """Return the random generator of inputs to be scored: the same on every machine, independent between streams."""
    return np.random.Generator(np.random.PCG64([seed, stream]))


def _score_in_order(
    evidence: Evidence,
    make_inputs: MakeInputs,
    order: Tensor,
    inference: BatchedInference,
    layer: str | None,
    windows: IncrementalWindows | None,
    first: int = 1,
) -> Iterator[ScoredBatch]:
    """Yield scored batches; the first holds at least `first` inputs, even if they are scored in several passes."""
    size = inference.batch_size(image=evidence.run.image, layer=layer)
    first, done = max(first, size), 0
    for indices in (order[:first], *inference.split_batches(order[first:], size)):
        done += len(indices)
        scores = _score_batch(evidence, make_inputs, indices, inference, layer, windows)
        yield ScoredBatch(indices, scores, done, ())


def _score_batch(
    evidence: Evidence,
    make_inputs: MakeInputs,
    indices: Tensor,
    inference: BatchedInference,
    layer: str | None,
    windows: IncrementalWindows | None = None,
) -> Tensor:
    """Return the score of each input, from as many passes as the memory needs."""
    image, inputs = evidence.run.image.detach(), make_inputs(indices)
    size = inference.batch_size(image=image, layer=layer)

    def compute_logits(part: Tensor, part_indices: Tensor) -> Tensor:
        """Return the logits of inputs to be scored, in full or from what their windows change."""
        if windows is not None:
            return windows.logits(inference, part, part_indices.tolist())
        return inference.logits(part) if layer is None else inference.logits_from_layer(image, layer, part)

    parts = zip(inputs.split(size), indices.split(size), strict=True)
    return torch.cat([evidence.score(compute_logits(*part)).detach() for part in parts])
