"""Many inputs, one score each: in batches, in shuffled order, in a precision that is checked on the way.

The one engine of every method that asks the network again and again: they say what the inputs are, this says how they
are computed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from vizlib.attribution.methods.base import Evidence, Knob
from vizlib.models.inference.batched_inference import DEFAULT_BUDGET_MB, MIN_BUDGET_MB, MAX_BUDGET_MB, BatchedInference, benefits_from_bfloat16
from vizlib.models.inference.incremental import IncrementalWindows

CHECKED = 4  # trials that are also computed in single precision
TOLERANCE = 0.1  # of the scores' spread, their root mean square error: then ranks correlate about 0.99 or better

PRECISION = Knob(
    "auto",
    "bfloat16 where the processor has it and a check of its scores passes (auto), or always single precision",
    ("auto", "float32"),
)
BUDGET = Knob(DEFAULT_BUDGET_MB, "memory for one batch, in megabytes, besides the model", range=(MIN_BUDGET_MB, MAX_BUDGET_MB))
SEED = Knob(0, "of the random numbers; the same seed gives the same ones on every machine", range=(0, 2**32 - 1))


@dataclass(frozen=True, eq=False)
class Trials:
    """Some of the trials, with their scores."""

    places: Int[Tensor, " n"]  # which of all
    scores: Float[Tensor, " n"]
    done: int  # with these
    notes: tuple[str, ...]


def trials(
    evidence: Evidence,
    make: Callable[[Int[Tensor, " n"]], Tensor],
    total: int,
    *,
    precision: object,
    budget_mb: int,
    layer: str | None = None,
    quickly: IncrementalWindows | None = None,
) -> Iterator[Trials]:
    """Score `total` inputs, which `make` builds from their numbers; those of a batch are given together.

    With `layer` they are outputs of that layer, and only what follows it is computed. Where they are photos with a
    window changed, and their numbers are the windows', `quickly` computes only what each reaches. They come in shuffled
    order, so that the first ones already stand for all.
    """
    if not total:
        return
    order = torch.from_numpy(make_random_generator(0).permutation(total))
    exact, notes = BatchedInference(evidence.model, budget_mb=budget_mb), ()
    if precision == "auto" and benefits_from_bfloat16(evidence.model) and total > 2 * CHECKED:
        quick = BatchedInference(evidence.model, budget_mb=budget_mb, bfloat16=True)
        check = BatchedInference(evidence.model, budget_mb=budget_mb, use_folded_copy=False)
        exactly = _scores(evidence, make, order[:CHECKED], check, layer)
        found = _through(evidence, make, order, quick, layer, quickly, first=CHECKED + 1)
        first = next(found)
        gap = (exactly - first.scores[:CHECKED]).square().mean().sqrt()
        share = (gap / first.scores.std()).item()
        if share <= TOLERANCE:
            notes = (f"Computed in bfloat16, whose error in a score is {share:.1%} of their spread.",)
            yield from (replace(one, notes=notes) for one in chain([first], found))
            return
        told = f"'s error in a score was {share:.1%} of their spread" if share < 10 else " cannot tell the scores apart"
        notes = (f"Computed in single precision: bfloat16{told}.",)
    yield from (replace(one, notes=notes) for one in _through(evidence, make, order, exact, layer, quickly))


def make_random_generator(seed: int, stream: int = 0) -> np.random.Generator:
    """Random numbers that are the same on every machine; another stream of one seed is independent of it."""
    return np.random.Generator(np.random.PCG64([seed, stream]))


def _through(
    evidence: Evidence,
    make,
    order: Tensor,
    passes: BatchedInference,
    layer: str | None,
    quickly: IncrementalWindows | None,
    first: int = 1,
) -> Iterator[Trials]:
    """The trials in batches, of which the first holds as many as asked for, though it be scored in several passes."""
    size = passes.batch_size(image=evidence.run.image, layer=layer)
    first, done = max(first, size), 0
    for places in (order[:first], *passes.split_batches(order[first:], size)):
        done += len(places)
        yield Trials(places, _scores(evidence, make, places, passes, layer, quickly), done, ())


def _scores(
    evidence: Evidence, make, places: Tensor, passes: BatchedInference, layer: str | None, quickly: IncrementalWindows | None = None
) -> Tensor:
    image, inputs = evidence.run.image.detach(), make(places)
    size = passes.batch_size(image=image, layer=layer)

    def logits(part: Tensor, some: Tensor) -> Tensor:
        if quickly is not None:
            return quickly.logits(passes, part, some.tolist())
        return passes.logits(part) if layer is None else passes.logits_from_layer(image, layer, part)

    parts = zip(inputs.split(size), places.split(size), strict=True)
    return torch.cat([evidence.score(logits(*part)).detach() for part in parts])
