"""Metrics of a method: it is run again on photos with noise, or on a model with random parameters."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from vizlib.attribution.image_batches import explain_images
from vizlib.attribution.methods.registry import METHODS as ATTRIBUTION_METHODS
from vizlib.attribution.methods.scoring import SEED_PARAMETER, make_random_generator
from vizlib.attribution.request import MethodCall, Parameter
from vizlib.core.errors import VizlibError
from vizlib.metrics.metric import Heats, Metric, MetricValues, make_sign_parameter
from vizlib.metrics.scored_photo import ScoredPhoto, apply_sign
from vizlib.metrics.similarity import compute_rank_correlation
from vizlib.models.model import Model
from vizlib.models.randomised_copy import iterate_randomised_copies, list_levels

Heat = Tensor  # "rows columns", of its own resolution for each method
NUM_SHUFFLED_MAPS = 20
OWN_PARAMETERS = "parameters of the network itself"  # name of their level in a curve
SAMPLES_PER_STEP = 5  # photos with noise after which there is a first value

HEDSTROM_PAPER = (
    "Hedström, Weber, Lapuschkin, Höhne: A Fresh Look at Sanity Checks for Saliency Maps, xAI 2024",
    "https://arxiv.org/abs/2405.02383",
)


def resolve_call(photo: ScoredPhoto) -> MethodCall:
    """Return the call of the method that made an attribution, with its parameters.

    Args:
        photo: Photo, model and attribution.

    Raises:
        MethodError: Where the method does not exist, or does not support the model.
    """
    attribution = photo.attribution
    return ATTRIBUTION_METHODS.resolve_method(photo.model, attribution.method, attribution.parameters)


def _max_sensitivity(
    photo: ScoredPhoto, heats: Heats, *, radius: float, samples: int, seed: int
) -> Iterator[MetricValues]:
    """Yield the largest relative change of the map among photos with uniform noise.

    References:
        Yeh, Hsieh, Suggala, Inouye, Ravikumar. On the (In)fidelity and Sensitivity of Explanations. NeurIPS 2019,
        section 4, divided by the norm of the map as in captum. arXiv:1901.09392
    """
    for (values,) in iterate_sensitivities(photo, [resolve_call(photo)], radius=radius, samples=samples, seed=seed):
        yield values


def iterate_sensitivities(
    photo: ScoredPhoto, calls: Sequence[MethodCall], *, radius: float, samples: int, seed: int
) -> Iterator[list[MetricValues]]:
    """Yield the metric `max-sensitivity` of several methods after each batch of photos with noise, which they share.

    Args:
        photo: Photo, model and score.
        calls: The methods with their parameters; all explain the same kind of score.
        radius: Largest change of a value of the input.
        samples: Number of photos with noise.
        seed: Seed of the noise.
    """
    image, original = photo.image, photo.attribution.photo
    bases = explain_images(photo.model, image, original, calls, photo.spec)[0]
    norms = [base.double().norm() for base in bases]
    random_values = [
        [((_shuffle(base, seed, index) - base).double().norm() / norm).item() for index in range(NUM_SHUFFLED_MAPS)]
        for base, norm in zip(bases, norms, strict=True)
    ]
    changes: list[list[float]] = [[] for _ in calls]
    for start in range(0, samples, SAMPLES_PER_STEP):
        indices = range(start, min(start + SAMPLES_PER_STEP, samples))
        noise = np.concatenate([make_random_generator(seed, index).uniform(-1, 1, image.shape) for index in indices])
        images = image + radius * torch.from_numpy(noise).to(image)
        for results in explain_images(photo.model, images, original, calls, photo.spec):
            for own, heat, base, norm in zip(changes, results, bases, norms, strict=True):
                own.append(((heat - base).double().norm() / norm).item())
        yield [
            MetricValues(_as_values(float(np.max(own))), len(own), samples, random_values=others)  # NaN if one is
            for own, others in zip(changes, random_values, strict=True)
        ]


def iterate_similarities(
    photo: ScoredPhoto,
    calls: Sequence[MethodCall],
    heats: Sequence[Heat],
    *,
    cascading: bool,
    seed: int,
    sign: str,
    levels: int | None = None,
) -> Iterator[tuple[str, list[float]]]:
    """Yield how similar the map of each method stays with random parameters in each level of the network.

    One forward and one backward pass of a level serve all methods of one pass.

    Args:
        photo: Photo, model and score.
        calls: The methods with their parameters; all explain the same kind of score.
        heats: Their maps of the trained network.
        cascading: Randomise each level and all after it; else each level alone.
        seed: Seed of the random parameters.
        sign: What is compared of signed maps: `"positive"`, `"signed"` or `"absolute"`.
        levels: How many levels to randomise, counted from the output; by default all.

    Yields:
        Name of the level, from the output of the network to its input, and for each method the rank correlation; 0
        where a map is constant with random parameters, NaN where it is so with the trained ones.
    """
    for name, results in islice(iterate_randomised_maps(photo, calls, cascading=cascading, seed=seed), levels):
        yield (
            (name or OWN_PARAMETERS),
            [compare_maps(before, after, sign) for before, after in zip(heats, results, strict=True)],
        )


def iterate_randomised_maps(
    photo: ScoredPhoto, calls: Sequence[MethodCall], *, cascading: bool, seed: int
) -> Iterator[tuple[str, list[Heat]]]:
    """Yield the maps of several methods with random parameters in each level, from the output to the input.

    Args:
        photo: Photo, model and score.
        calls: The methods with their parameters; all explain the same kind of score.
        cascading: Randomise each level and all after it; else each level alone.
        seed: Seed of the random parameters.

    Yields:
        Name of the level, which is empty for parameters of the network itself, and the map of each method.
    """
    for level, model in iterate_randomised_copies(photo.model, cascading=cascading, seed=seed):
        maps = explain_images(model, photo.image, photo.attribution.photo, calls, photo.spec)[0]
        yield level.name, maps


def compare_maps(before: Heat, after: Heat, sign: str) -> float:
    """Return the rank correlation of a map of the trained network and one of a randomised network.

    Args:
        before: Map of the trained network.
        after: Map of the randomised one.
        sign: What is compared of signed maps.

    Returns:
        The correlation; 0 where the second map is constant, NaN where the first one is.
    """
    first, second = apply_sign(torch.stack([before, after.nan_to_num(0, 0, 0)]), sign).double().numpy()
    if first.min() == first.max():
        return float("nan")
    return 0.0 if second.min() == second.max() else compute_rank_correlation(first, second)


def _parameter_randomisation(
    photo: ScoredPhoto, heats: Heats, *, order: str, levels: int | None, seed: int, sign: str
) -> Iterator[MetricValues]:
    """Yield the mean absolute rank correlation of the map with those of a network whose levels are random.

    References:
        Adebayo, Gilmer, Muelly, Goodfellow, Hardt, Kim. Sanity Checks for Saliency Maps. NeurIPS 2018, sections 3 and
        4. arXiv:1810.03292
    """
    for (values,) in iterate_randomisations(
        photo, [resolve_call(photo)], [heats[0]], order=order, levels=levels, seed=seed, sign=sign
    ):
        yield values


def iterate_randomisations(
    photo: ScoredPhoto,
    calls: Sequence[MethodCall],
    heats: Sequence[Heat],
    *,
    order: str,
    levels: int | None,
    seed: int,
    sign: str,
) -> Iterator[list[MetricValues]]:
    """Yield the metric `parameter-randomisation` of several methods after each level, whose passes they share.

    Args:
        photo: Photo, model and score.
        calls: The methods with their parameters; all explain the same kind of score.
        heats: Their maps of the trained network.
        order: `"cascading"` or `"independent"`.
        levels: How many levels to randomise, counted from the output; `None` for all.
        seed: Seed of the random parameters.
        sign: What is compared of signed maps.
    """
    references = [_compare_with_shuffled(heat, seed, sign) for heat in heats]
    total = min(_count_levels(photo.model), levels or sys.maxsize)
    curves: list[list[tuple[str, float]]] = [[] for _ in calls]
    for name, similarities in iterate_similarities(
        photo, calls, heats, cascading=order == "cascading", seed=seed, sign=sign, levels=levels
    ):
        for curve, similarity in zip(curves, similarities, strict=True):
            curve.append((name, similarity))
        yield [
            MetricValues(
                _as_values(_average_absolute(curve)), len(curve), total, references=shuffled, curve=tuple(curve)
            )
            for curve, shuffled in zip(curves, references, strict=True)
        ]


def _compare_with_shuffled(heat: Heat, seed: int, sign: str) -> dict[str, float]:
    """Return what the value would be if the values of the map were in random places, as a reference value."""
    correlations = [compare_maps(heat, _shuffle(heat, seed, index), sign) for index in range(NUM_SHUFFLED_MAPS)]
    return {"shuffled": float(np.mean(np.abs(correlations)))}


def _average_absolute(curve: Sequence[tuple[str, float]]) -> float:
    """Return the mean absolute rank correlation of all levels; a map in reverse order is not unrelated to it."""
    return float(np.mean([abs(value) for _, value in curve]))


def _count_levels(model: Model) -> int:
    """Return how many levels of a network can be randomised.

    Raises:
        VizlibError: For a network without parameters.
    """
    count = len(list_levels(model))
    if not count:
        raise VizlibError(f"{model.name} has no parameters that could be randomised")
    return count


def compute_histogram_entropy(heat: Heat, bins: int) -> float:
    """Return the entropy of the distribution of a map's values, in nats.

    Args:
        heat: Raw values.
        bins: Number of equal bins from the lowest to the highest value.
    """
    counts, _ = np.histogram(heat.double().numpy(), bins=bins)
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log(shares)).sum())


def _efficient_randomisation(photo: ScoredPhoto, heats: Heats, *, bins: int, seed: int) -> Iterator[MetricValues]:
    """Yield how much the entropy of the map rises when all parameters of the network are random, relative to it.

    References:
        Hedström, Weber, Lapuschkin, Höhne. A Fresh Look at Sanity Checks for Saliency Maps. xAI 2024, section 4.2
        (eMPRT). arXiv:2405.02383
    """
    call = resolve_call(photo)
    _count_levels(photo.model)
    *_, (_, randomised) = iterate_randomised_copies(photo.model, cascading=True, seed=seed)
    (after,) = explain_images(randomised, photo.image, photo.attribution.photo, [call], photo.spec)[0]
    before = compute_histogram_entropy(heats[0], bins)
    # Not 0, as no constant map is measured: its lowest and its highest value are in two bins.
    rise = (compute_histogram_entropy(after.nan_to_num(0, 0, 0), bins) - before) / before
    yield MetricValues(_as_values(rise), references={"zeros": 0.0})


def _as_values(value: float) -> Tensor:
    """Return the value of one map as a metric returns it."""
    return torch.tensor([value], dtype=torch.float64, device="cpu")


def _shuffle(heat: Heat, seed: int, index: int) -> Heat:
    """Return the values of a map in random places."""
    order = torch.from_numpy(make_random_generator(seed, index).permutation(heat.numel()))
    return heat.flatten()[order].view(heat.shape)


METRICS = (
    Metric(
        name="max-sensitivity",
        paper="Yeh et al.: On the (In)fidelity and Sensitivity of Explanations, NeurIPS 2019",
        paper_url="https://arxiv.org/abs/1901.09392",
        equation=r"\max_{\|r\|_\infty \le \epsilon} \frac{\| H(x + r) - H(x) \|_2}{\| H(x) \|_2}",
        means="A low value means that noise which one hardly sees does not change the map.",
        does_not_mean="A map that shows the same for every photo is perfectly stable.",
        range=(0.0, None),
        higher_is_better=False,
        compute=_max_sensitivity,
        parameters={
            "radius": Parameter(
                0.02,
                "largest change of a value of the model's input, in which one standard deviation is 1",
                range=(0.0, 10.0),
            ),
            "samples": Parameter(10, "number of photos with noise", range=(1, 10000)),
            "seed": SEED_PARAMETER,
        },
        measures_method=True,
        needs_score=False,
    ),
    Metric(
        name="parameter-randomisation",
        paper="Adebayo et al.: Sanity Checks for Saliency Maps, NeurIPS 2018",
        paper_url="https://arxiv.org/abs/1810.03292",
        equation=(
            r"\frac{1}{L} \sum_{l=1}^{L} \left| \rho\left( H, H^{(l)} \right) \right|, \quad H^{(l)} \text{ with "
            r"random "
            r"parameters in level } l"
        ),
        means="A value near 0 means that the map depends on what the network has learned.",
        does_not_mean=(
            "It does not show that the map explains the network: any map that changes with its parameters passes."
        ),
        range=(0.0, 1.0),
        higher_is_better=False,
        compute=_parameter_randomisation,
        parameters={
            "order": Parameter(
                "cascading", "randomise each level and all after it, or each level alone", ("cascading", "independent")
            ),
            "levels": Parameter(
                None, "how many levels to randomise, counted from the output; by default all", range=(1, 100000)
            ),
            "seed": SEED_PARAMETER,
            "sign": make_sign_parameter("absolute"),
        },
        measures_method=True,
        needs_score=False,
    ),
    Metric(
        name="efficient-randomisation",
        paper=HEDSTROM_PAPER[0],
        paper_url=HEDSTROM_PAPER[1],
        equation=(
            r"\frac{\xi(H^{(L)}) - \xi(H)}{\xi(H)}, \quad \xi \text{ the entropy of the histogram, all } L \text{ "
            r"levels random}"
        ),
        means=(
            "A positive value means that the map is more complex with random parameters, so that training gave "
            "it order."
        ),
        does_not_mean="It reads no places: a map that keeps its values but moves them is not found out.",
        range=(-1.0, None),
        higher_is_better=True,
        compute=_efficient_randomisation,
        parameters={
            "bins": Parameter(100, "number of bins of the histogram of the map's values", range=(2, 100000)),
            "seed": SEED_PARAMETER,
        },
        measures_method=True,
        needs_score=False,
    ),
)
