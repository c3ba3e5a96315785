"""Methods that average the gradient at the pixels over many inputs: along a path, or under noise."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from vizlib.methods.base import MANY_PASSES, SCORE, Evidence, Knob, Method, Needs, Partial, fits_all
from vizlib.methods.baselines import BASELINES, baseline_of
from vizlib.methods.gradient import CHANNELS, over_channels
from vizlib.methods.trials import BUDGET, SEED, numbers
from vizlib.passes import Passes

# The gradient changes fastest where the way begins, so the points stand closer there: a share t of them lies below
# t ** 1.6 of the way. 40 such points come as near to the integral as 50 of Gauss and Legendre's, whose high order is
# wasted on a gradient that jumps at every ReLU.
CROWDING = 1.6
PRECISION = Knob(
    "float32",
    "single precision, or bfloat16 (fast), which is quicker on processors that have it; a note says how far it is off",
    ("float32", "fast"),
)


def _gradients(
    evidence: Evidence, make: Callable[[Int[Tensor, " n"]], Tensor], order: Int[Tensor, " total"], **how
) -> Iterator[tuple[Int[Tensor, " n"], Float[Tensor, "n 3 h w"], tuple[str, ...]]]:
    """The gradient at each of many inputs, batch by batch in the given order, with notes on the precision."""
    budget_mb, fast = how["budget_mb"], how["precision"] == "fast"
    passes, notes = Passes(evidence.model, budget_mb=budget_mb, bfloat16=fast), ()
    for places in order.split(passes.batch(gradient=True)):
        inputs = make(places)
        found = passes.gradients(inputs, evidence.score)[1].to(evidence.run.image.dtype)
        if fast and not notes:
            exact = Passes(evidence.model, budget_mb=budget_mb).gradients(inputs[:1], evidence.score)[1]
            alike = torch.corrcoef(torch.stack([exact.flatten(), found[:1].flatten()]))[0, 1].item()
            notes = (f"Computed in bfloat16; a single gradient correlates {alike:.3f} with that of single precision.",)
        yield places, found, notes


def _smoothgrad(
    evidence: Evidence, *, samples: int, noise: float, form: str, channels: str, seed: int, **how
) -> Iterator[Partial]:
    image, total = evidence.run.image.detach(), int(samples)
    width = noise * (image.max() - image.min())

    def make(places: Int[Tensor, " n"]) -> Tensor:
        drawn = [numbers(int(seed), place).standard_normal(image.shape[1:], np.float32) for place in places.tolist()]
        return image + width * torch.from_numpy(np.stack(drawn)).to(image)

    done, sums, squares = 0, torch.zeros_like(image), torch.zeros_like(image)
    for places, found, notes in _gradients(evidence, make, torch.arange(total), **how):
        done += len(places)
        sums += found.sum(0, keepdim=True)
        squares += found.square().sum(0, keepdim=True)
        mean, square = sums / done, squares / done
        shown = {"mean": mean, "squared": square, "variance": (square - mean.square()).clamp(min=0)}[form]
        yield Partial(over_channels(shown, channels), done, total, notes)


def _integrated_gradients(evidence: Evidence, *, steps: int, baseline: str, seed: int, **how) -> Iterator[Partial]:
    image, total = evidence.run.image.detach(), int(steps)
    start = baseline_of(baseline, evidence, int(seed))
    edges = torch.linspace(0, 1, total + 1, dtype=torch.float64) ** CROWDING
    along, weights = ((edges[1:] + edges[:-1]) / 2).to(image), edges.diff()

    def make(places: Int[Tensor, " n"]) -> Tensor:
        return start + along[places, None, None, None] * (image - start)

    change = evidence.score(evidence.run.logits.detach()) - evidence.score(evidence.model.logits(start))
    done, weighed, sums = 0, 0.0, torch.zeros_like(image)
    for places, found, notes in _gradients(evidence, make, torch.from_numpy(numbers(0).permutation(total)), **how):
        done, weighed = done + len(places), weighed + weights[places].sum().item()
        sums += (weights[places].to(found)[:, None, None, None] * found).sum(0, keepdim=True)
        heat = ((image - start) * sums / weighed)[0].sum(0)
        if done == total:
            gap = f": a gap of {((heat.sum() - change) / change.abs()).item():.1%}" if change else ""
            notes += (f"The map sums to {heat.sum():.3f}; the score rose by {change.item():.3f}{gap}.",)
        yield Partial(heat, done, total, notes)


METHODS = (
    Method(
        name="smoothgrad",
        paper="Smilkov et al.: SmoothGrad, ICML Workshop 2017",
        means="Bright pixels are those the score reacts to, on average over slightly noisy copies of the photo.",
        means_not="It is smoother than one gradient, not truer: the noise takes it away from this very photo.",
        needs=lambda model, knobs: Needs(),
        stream=_smoothgrad,
        fits=fits_all,
        knobs={
            "samples": Knob(25, "how many noisy copies", range=(1, 1000)),
            "noise": Knob(0.15, "standard deviation of the noise, as a share of the input's range", range=(0.0, 2.0)),
            "form": Knob(
                "mean",
                "the mean of the gradients, of their squares (SmoothGrad-Squared), or their variance (VarGrad)",
                ("mean", "squared", "variance"),
            ),
            "channels": CHANNELS,
            "seed": SEED,
            "score": SCORE,
            "precision": PRECISION,
            "budget_mb": BUDGET,
        },
        cost=MANY_PASSES,
    ),
    Method(
        name="integrated-gradients",
        paper="Sundararajan, Taly, Yan: Axiomatic Attribution for Deep Networks, ICML 2017",
        means="Each pixel's share of what the score gained on the way from an empty picture to this photo.",
        means_not="It depends on what counts as empty: with a black baseline, black pixels get nothing.",
        needs=lambda model, knobs: Needs(),
        stream=_integrated_gradients,
        fits=fits_all,
        knobs={
            "steps": Knob(40, "points on the way at which the gradient is taken", range=(2, 1000)),
            "baseline": Knob("black", "where the way begins", BASELINES),
            "seed": SEED,
            "score": SCORE,
            "precision": PRECISION,
            "budget_mb": BUDGET,
        },
        signed=True,
        cost=MANY_PASSES,
    ),
)
