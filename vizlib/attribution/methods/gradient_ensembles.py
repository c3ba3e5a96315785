"""Methods that average the gradient at the pixels over many inputs: along a path, or under noise."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from vizlib.attribution.methods.base import MANY_PASSES, SCORE, Evidence, Method, Needs, Parameter, Partial, fits_all
from vizlib.attribution.methods.baselines import BASELINES, make_baseline
from vizlib.attribution.methods.gradient import CHANNELS, reduce_channels
from vizlib.attribution.methods.scoring import BUDGET, SEED, make_random_generator
from vizlib.models.inference.batched_inference import BatchedInference
from vizlib.models.inference.first_convolution import FirstConvolution, find_first_convolution

# The gradient changes fastest where the way begins, so the points stand closer there: a share t of them lies below
# t ** 1.6 of the way. 40 such points come as near to the integral as 50 of Gauss and Legendre's, whose high order is
# wasted on a gradient that jumps at every ReLU.
STEP_SPACING_EXPONENT = 1.6
GRADIENT_PRECISION = Parameter(
    "float32",
    "single precision, or bfloat16 (fast), quicker on processors that support it; a note gives its accuracy",
    ("float32", "fast"),
)


def _stream_gradients(
    evidence: Evidence, make: Callable[[Int[Tensor, " n"]], Tensor], order: Int[Tensor, " total"], walk: InputGradients
) -> Iterator[tuple[Int[Tensor, " n"], Tensor, tuple[str, ...]]]:
    """The gradient at each of many inputs, batch by batch in the given order, with notes on the precision."""
    passes, notes = BatchedInference(evidence.model, budget_mb=walk.budget_mb, bfloat16=walk.fast), ()
    for places in passes.split_batches(order, passes.batch_size(gradient=True)):
        inputs = make(places)
        found = walk.compute(passes, inputs, evidence).to(evidence.run.image.dtype)
        if walk.fast and not notes:
            check = BatchedInference(evidence.model, budget_mb=walk.budget_mb, use_folded_copy=False)
            exact = walk.compute(check, inputs[:1], evidence)
            pair = [walk.stem.backward(one).flatten() for one in (exact, found[:1])]
            alike = torch.corrcoef(torch.stack(pair))[0, 1].item()
            notes = (f"Computed in bfloat16; a single gradient correlates {alike:.3f} with that of single precision.",)
        yield places, found, notes


@dataclass(frozen=True, eq=False)
class InputGradients:
    """How the gradients of one map are taken: where the inputs enter the network, and where their gradients end.

    Gradients that are only summed can end at the stem's output, and the sum alone goes back to the pixels; inputs that
    are sums of others can begin there.
    """

    stem: FirstConvolution
    begins: bool  # whether the inputs are outputs of the stem already
    budget_mb: int
    fast: bool

    def compute(self, passes: BatchedInference, inputs: Tensor, evidence: Evidence) -> Tensor:
        """The gradients of one batch."""
        if self.begins and self.stem.layer:
            return passes.gradients_from_layer(evidence.run.image.detach(), self.stem.layer, inputs, evidence.score)
        return passes.gradients(inputs, evidence.score, self.stem.layer)


def _smoothgrad(
    evidence: Evidence,
    *,
    samples: int,
    noise: float,
    form: str,
    channels: str,
    seed: int,
    budget_mb: int,
    precision,
    **_,
) -> Iterator[Partial]:
    image, total = evidence.run.image.detach(), int(samples)
    width = noise * (image.max() - image.min())
    summed = form == "mean"  # squares are taken at the pixels, one input at a time
    stem = find_first_convolution(evidence.model) if summed else FirstConvolution(evidence.model, None)
    walk = InputGradients(stem, False, budget_mb, precision == "fast")

    def make(places: Int[Tensor, " n"]) -> Tensor:
        drawn = np.empty((len(places), *image.shape[1:]), np.float32)

        def draw(place: int, into: np.ndarray) -> None:
            make_random_generator(int(seed), place).standard_normal(dtype=np.float32, out=into)

        with ThreadPoolExecutor() as pool:  # on a GPU these numbers would take longer than the network
            list(pool.map(draw, places.tolist(), drawn))
        return image + width * torch.from_numpy(drawn).to(image)

    done, sums, squares = 0, 0.0, 0.0
    for places, found, notes in _stream_gradients(evidence, make, torch.arange(total), walk):
        done += len(places)
        sums = sums + found.sum(0, keepdim=True)
        mean = stem.backward(sums / done)
        if summed:
            shown = mean
        else:
            squares = squares + found.square().sum(0, keepdim=True)
            shown = squares / done if form == "squared" else (squares / done - mean.square()).clamp(min=0)
        yield Partial(reduce_channels(shown, channels), done, total, notes)


def _integrated_gradients(
    evidence: Evidence, *, steps: int, baseline: str, seed: int, budget_mb: int, precision, **_
) -> Iterator[Partial]:
    image, total, stem = evidence.run.image.detach(), int(steps), find_first_convolution(evidence.model)
    start = make_baseline(baseline, evidence, int(seed))
    first, last = stem.forward(start), stem.forward(image)
    edges = torch.linspace(0, 1, total + 1, dtype=torch.float64) ** STEP_SPACING_EXPONENT
    along, weights = ((edges[1:] + edges[:-1]) / 2).to(image), edges.diff()

    def make(places: Int[Tensor, " n"]) -> Tensor:
        return torch.lerp(first, last, along[places].view(-1, *(1,) * (first.ndim - 1)))

    change = evidence.score(evidence.run.logits.detach()) - evidence.score(evidence.model.logits(start))
    walk = InputGradients(stem, True, budget_mb, precision == "fast")
    done, weighed, sums = 0, 0.0, 0.0
    for places, found, notes in _stream_gradients(
        evidence, make, torch.from_numpy(make_random_generator(0).permutation(total)), walk
    ):
        done, weighed = done + len(places), weighed + weights[places].sum().item()
        sums = sums + torch.tensordot(weights[places].to(found), found, 1).unsqueeze(0)
        heat = ((image - start) * stem.backward(sums) / weighed)[0].sum(0)
        if done == total:
            gap = f": a gap of {((heat.sum() - change) / change.abs()).item():.1%}" if change else ""
            notes += (f"The map sums to {heat.sum():.3f}; the score rose by {change.item():.3f}{gap}.",)
        yield Partial(heat, done, total, notes)


METHODS = (
    Method(
        name="smoothgrad",
        paper="Smilkov et al.: SmoothGrad, ICML Workshop 2017",
        shows="Bright pixels are those to which the score is sensitive, on average over noisy copies of the photo.",
        does_not_show="It is smoother than one gradient, not more accurate: it averages over inputs near the photo.",
        needs=lambda model, knobs: Needs(),
        compute_steps=_smoothgrad,
        unsupported_reason=fits_all,
        parameters={
            "samples": Parameter(25, "number of noisy copies", range=(1, 1000)),
            "noise": Parameter(
                0.15, "standard deviation of the noise, as a fraction of the input range", range=(0.0, 2.0)
            ),
            "form": Parameter(
                "mean",
                "the mean of the gradients, of their squares (SmoothGrad-Squared), or their variance (VarGrad)",
                ("mean", "squared", "variance"),
            ),
            "channels": CHANNELS,
            "seed": SEED,
            "score": SCORE,
            "precision": GRADIENT_PRECISION,
            "budget_mb": BUDGET,
        },
        cost=MANY_PASSES,
    ),
    Method(
        name="integrated-gradients",
        paper="Sundararajan, Taly, Yan: Axiomatic Attribution for Deep Networks, ICML 2017",
        shows="Contribution of each pixel to the difference in score between a baseline image and this photo.",
        does_not_show="It depends on the baseline: with a black baseline, black pixels get zero.",
        needs=lambda model, knobs: Needs(),
        compute_steps=_integrated_gradients,
        unsupported_reason=fits_all,
        parameters={
            "steps": Parameter(40, "number of points on the path at which the gradient is computed", range=(2, 1000)),
            "baseline": Parameter("black", "the baseline image at which the path starts", BASELINES),
            "seed": SEED,
            "score": SCORE,
            "precision": GRADIENT_PRECISION,
            "budget_mb": BUDGET,
        },
        signed=True,
        cost=MANY_PASSES,
    ),
)
