"""Attribution by the mean gradient over many inputs: along a path, or with added noise."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from vizlib.attribution.evidence import Evidence, RequiredSignals
from vizlib.attribution.methods.baselines import BASELINES, make_baseline
from vizlib.attribution.methods.gradient import CHANNELS, reduce_channels
from vizlib.attribution.methods.scoring import SCORING_PARAMETERS, SEED_PARAMETER, make_random_generator
from vizlib.attribution.request import MANY_PASSES, Method, Parameter, PartialHeat, supports_every_model
from vizlib.core.text import Note, make_note
from vizlib.models.inference.batched_inference import BatchedInference
from vizlib.models.inference.first_convolution import FirstConvolution, find_first_convolution

# The gradient changes fastest near the baseline, so the steps are shorter there: a fraction t of them lies below
# t ** 1.6 of the path. 40 such steps are as accurate as 50 of Gauss-Legendre quadrature, whose high order does not help
# with a gradient that jumps at every ReLU.
STEP_SPACING_EXPONENT = 1.6
GRADIENT_PRECISION = Parameter(
    "float32",
    "single precision, or bfloat16 (fast), quicker on processors that support it; a note gives its accuracy",
    ("float32", "fast"),
)
GRADIENT_PARAMETERS = {**SCORING_PARAMETERS, "precision": GRADIENT_PRECISION}


@dataclass(frozen=True, eq=False)
class InputGradients:
    """How the gradients of an ensemble of inputs are computed: where inputs enter the network, and where gradients end.

    The first convolution is linear. Gradients that are only summed can therefore end at its output, and their sum alone
    is propagated to the pixels; inputs that are linear combinations of others can enter at its output.

    Attributes:
        first_convolution: Where gradients end; with `layer=None` they end at the pixels.
        enter_after_convolution: Whether the inputs are outputs of the first convolution.
        budget_mb: Memory for one batch, in megabytes.
        bfloat16: Whether to compute in bfloat16.
    """

    first_convolution: FirstConvolution
    enter_after_convolution: bool
    budget_mb: int
    bfloat16: bool

    def compute(self, inference: BatchedInference, inputs: Tensor, evidence: Evidence) -> Tensor:
        """Return the gradient of the score for each input of one batch of the ensemble."""
        layer = self.first_convolution.layer
        if self.enter_after_convolution and layer:
            return inference.gradients_from_layer(evidence.run.image.detach(), layer, inputs, evidence.score)
        return inference.gradients(inputs, evidence.score, layer)


def _stream_gradients(
    evidence: Evidence,
    make_inputs: Callable[[Int[Tensor, " n"]], Tensor],
    order: Int[Tensor, " total"],
    settings: InputGradients,
) -> Iterator[tuple[Int[Tensor, " n"], Tensor, tuple[Note, ...]]]:
    """Yield the gradients of an ensemble of inputs in batches, in the given order.

    Args:
        evidence: Evidence that holds the model, the image and the score.
        make_inputs: Makes the inputs with the given indices.
        order: Indices of all inputs.
        settings: How the gradients are computed.

    Yields:
        Indices of the inputs of a batch, their gradients, and notes on the precision.
    """
    notes: tuple[Note, ...] = ()
    inference = BatchedInference(evidence.model, budget_mb=settings.budget_mb, bfloat16=settings.bfloat16)
    for indices in inference.split_batches(
        order, inference.batch_size(gradient=True, image=evidence.run.image.detach())
    ):
        inputs = make_inputs(indices)
        gradients = settings.compute(inference, inputs, evidence).to(evidence.run.image.dtype)
        if settings.bfloat16 and not notes:
            exact_inference = BatchedInference(evidence.model, budget_mb=settings.budget_mb, use_folded_copy=False)
            exact = settings.compute(exact_inference, inputs[:1], evidence)
            pair = [settings.first_convolution.backward(gradient).flatten() for gradient in (exact, gradients[:1])]
            correlation = torch.corrcoef(torch.stack(pair))[0, 1].item()
            notes = (make_note("gradient.bfloat16", correlation=f"{correlation:.3f}"),)
        yield indices, gradients, notes


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
) -> Iterator[PartialHeat]:
    """Yield the mean gradient over noisy copies of the image, or the mean of its squares, or its variance.

    References:
        Smilkov, Thorat, Kim, Viégas, Wattenberg. SmoothGrad: removing noise by adding noise. ICML Workshop 2017.
        arXiv:1706.03825
        Hooker, Erhan, Kindermans, Kim. A Benchmark for Interpretability Methods in Deep Neural Networks. NeurIPS 2019
        (SmoothGrad-Squared). arXiv:1806.10758
        Adebayo, Gilmer, Muelly, Goodfellow, Hardt, Kim. Sanity Checks for Saliency Maps. NeurIPS 2018 (VarGrad).
        arXiv:1810.03292
    """
    image, total = evidence.run.image.detach(), int(samples)
    sigma = noise * (image.max() - image.min())
    is_mean = form == "mean"  # squares need the gradient of each input at the pixels
    first_convolution = find_first_convolution(evidence.model) if is_mean else FirstConvolution(evidence.model, None)
    settings = InputGradients(first_convolution, False, budget_mb, precision == "fast")

    def make_inputs(indices: Int[Tensor, " n"]) -> Tensor:
        """Return noisy copies of the image, or its first convolution's outputs for them."""
        drawn = np.empty((len(indices), *image.shape[1:]), np.float32)

        def draw(index: int, out: np.ndarray) -> None:
            """Draw the noise of one copy of the image."""
            make_random_generator(int(seed), index).standard_normal(dtype=np.float32, out=out)

        with ThreadPoolExecutor() as pool:  # one thread would take longer than the forward passes on a GPU
            list(pool.map(draw, indices.tolist(), drawn))
        return image + sigma * torch.from_numpy(drawn).to(image)

    done, gradient_sum, square_sum = 0, 0.0, 0.0
    for indices, gradients, notes in _stream_gradients(
        evidence, make_inputs, torch.arange(total, device="cpu"), settings
    ):
        done += len(indices)
        gradient_sum = gradient_sum + gradients.sum(0, keepdim=True)
        mean = first_convolution.backward(gradient_sum / done)
        if is_mean:
            result = mean
        else:
            square_sum = square_sum + gradients.square().sum(0, keepdim=True)
            mean_square = square_sum / done
            result = mean_square if form == "squared" else (mean_square - mean.square()).clamp(min=0)
        yield PartialHeat(reduce_channels(result, channels), done, total, notes)


def _integrated_gradients(
    evidence: Evidence, *, steps: int, baseline: str, seed: int, budget_mb: int, precision, **_
) -> Iterator[PartialHeat]:
    """Yield the integral of the gradient along the straight path from a baseline to the image, times their difference.

    The integral is a sum with the midpoint rule. The last map carries a note that compares its sum with the difference
    of the scores, to which it is equal in the limit of many steps (completeness).

    References:
        Sundararajan, Taly, Yan. Axiomatic Attribution for Deep Networks. ICML 2017, equation 1. arXiv:1703.01365
    """
    image, total, first_convolution = evidence.run.image.detach(), int(steps), find_first_convolution(evidence.model)
    start = make_baseline(baseline, evidence, int(seed))
    path_start, path_end = first_convolution.forward(start), first_convolution.forward(image)
    edges = torch.linspace(0, 1, total + 1, dtype=torch.float64, device="cpu") ** STEP_SPACING_EXPONENT
    midpoints, weights = ((edges[1:] + edges[:-1]) / 2).to(image), edges.diff()

    def make_inputs(indices: Int[Tensor, " n"]) -> Tensor:
        """Return inputs on the path from the baseline to the image."""
        return torch.lerp(path_start, path_end, midpoints[indices].view(-1, *(1,) * (path_start.ndim - 1)))

    difference = evidence.score(evidence.run.logits.detach()) - evidence.score(evidence.model.logits(start))
    settings = InputGradients(first_convolution, True, budget_mb, precision == "fast")
    order = torch.from_numpy(make_random_generator(0).permutation(total))  # early maps cover the whole path
    done, weight_sum, gradient_sum = 0, 0.0, 0.0
    for indices, gradients, notes in _stream_gradients(evidence, make_inputs, order, settings):
        done, weight_sum = done + len(indices), weight_sum + weights[indices].sum().item()
        gradient_sum = gradient_sum + torch.tensordot(weights[indices].to(gradients), gradients, 1).unsqueeze(0)
        heat = ((image - start) * first_convolution.backward(gradient_sum) / weight_sum)[0].sum(0)
        if done == total:
            notes += (_compare_sum(heat.sum().item(), difference.item()),)
        yield PartialHeat(heat, done, total, notes)


def _compare_sum(total: float, difference: float) -> Note:
    """Return a note with the sum of a map of integrated gradients and the difference of scores that it approximates."""
    facts = {"sum": f"{total:.3f}", "difference": f"{difference:.3f}"}
    if not difference:
        return make_note("integrated-gradients.sum", **facts)
    return make_note("integrated-gradients.sum-with-gap", **facts, gap=f"{(total - difference) / abs(difference):.1%}")


METHODS = (
    Method(
        name="smoothgrad",
        paper="Smilkov et al.: SmoothGrad, ICML Workshop 2017",
        paper_url="https://arxiv.org/abs/1706.03825",
        equation=(
            r"H_{ij} = \max_c \left| \frac{1}{n} \sum_{m=1}^{n} "
            r"\frac{\partial s}{\partial x_{cij}}\left( x + \epsilon_m \right) \right|, "
            r"\quad \epsilon_m \sim \mathcal{N}(0, \sigma^2)"
        ),
        shows="Bright pixels are those to which the score is sensitive, on average over noisy copies of the photo.",
        does_not_show="It is smoother than one gradient, not more accurate: it averages over inputs near the photo.",
        signals=lambda model, values: RequiredSignals(),
        compute_steps=_smoothgrad,
        unsupported_reason=supports_every_model,
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
            "seed": SEED_PARAMETER,
            **GRADIENT_PARAMETERS,
        },
        cost=MANY_PASSES,
        count_passes=lambda values: values["samples"],
    ),
    Method(
        name="integrated-gradients",
        paper="Sundararajan, Taly, Yan: Axiomatic Attribution for Deep Networks, ICML 2017",
        paper_url="https://arxiv.org/abs/1703.01365",
        equation=(
            r"H_{ij} = "
            r"\sum_c \left( x_{cij} - x'_{cij} \right) "
            r"\int_0^1 \frac{\partial s}{\partial x_{cij}}\left( x' + t (x - x') \right) dt"
        ),
        shows="Contribution of each pixel to the difference in score between a baseline image and this photo.",
        does_not_show="It depends on the baseline: with a black baseline, black pixels get zero.",
        signals=lambda model, values: RequiredSignals(),
        compute_steps=_integrated_gradients,
        unsupported_reason=supports_every_model,
        parameters={
            "steps": Parameter(40, "number of points on the path at which the gradient is computed", range=(2, 1000)),
            "baseline": Parameter("black", "the baseline image at which the path starts", BASELINES),
            "seed": SEED_PARAMETER,
            **GRADIENT_PARAMETERS,
        },
        is_signed=lambda values: True,
        cost=MANY_PASSES,
        count_passes=lambda values: values["steps"],
    ),
)
