"""Metrics of faithfulness: they score the photo with the pixels changed that a map marks."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from vizlib.attribution.methods.baselines import BASELINE, BASELINES
from vizlib.attribution.methods.scoring import SEED_PARAMETER, make_random_generator
from vizlib.attribution.request import Parameter
from vizlib.core.text import make_note
from vizlib.metrics.imputation import impute_pixels
from vizlib.metrics.metric import MASK_SIGN, Heats, Metric, MetricValues, make_sign_parameter
from vizlib.metrics.perturbation_curves import Perturbation, compute_areas, iterate_curves, rank_pixels
from vizlib.metrics.scored_photo import ScoreChanges, ScoredPhoto, apply_sign

STEPS = Parameter(20, "number of equal parts in which the pixels are changed", range=(1, 1000))
INSERTION_BASELINE = Parameter("blur", "on what pixels are shown: the photo heavily blurred, or a colour", BASELINES)
RISE_PAPER = "Petsiuk, Das, Saenko: RISE, BMVC 2018", "https://arxiv.org/abs/1806.07421"
GRAD_CAM_PP_PAPER = "Chattopadhay et al.: Grad-CAM++, WACV 2018", "https://arxiv.org/abs/1710.11063"
MAX_SQUARE_SHARE = 0.5  # of the side of the input, of a square that infidelity removes
MIN_SQUARE_SHARE = 1 / 16


def _measure_area(
    photo: ScoredPhoto, heats: Heats, perturbation: Perturbation, steps: int, sign: str
) -> Iterator[MetricValues]:
    """Yield the area under a perturbation curve of each map."""
    fractions = [step / steps for step in range(steps + 1)]
    for progress in iterate_curves(photo, apply_sign(heats, sign), [perturbation], steps):
        curve = list(zip(fractions, progress.scores[0, 0].tolist(), strict=True))
        values = compute_areas(progress.scores[0])
        yield MetricValues(values, progress.done, progress.total, curve=curve, notes=progress.notes)


def _deletion(photo: ScoredPhoto, heats: Heats, *, steps: int, baseline: str, sign: str) -> Iterator[MetricValues]:
    """Yield the area under the deletion curve of each map."""
    return _measure_area(photo, heats, Perturbation(False, baseline), steps, sign)


def _insertion(photo: ScoredPhoto, heats: Heats, *, steps: int, baseline: str, sign: str) -> Iterator[MetricValues]:
    """Yield the area under the insertion curve of each map."""
    return _measure_area(photo, heats, Perturbation(True, baseline), steps, sign)


def _road(
    photo: ScoredPhoto, heats: Heats, *, steps: int, noise: float, seed: int, sign: str
) -> Iterator[MetricValues]:
    """Yield the mean difference of the score with the least, and with the most, relevant pixels imputed.

    References:
        Rong, Leemann, Borisov, Kasneci, Kasneci. A Consistent and Efficient Evaluation Strategy for Attribution
        Methods. ICML 2022. arXiv:2202.00449
    """
    image = photo.image
    ranks = rank_pixels(photo.resize_to_input(apply_sign(heats, sign)))
    pixels = ranks.shape[1]
    fractions = [step / (steps + 1) for step in range(1, steps + 1)]

    def make_inputs(indices: Int[Tensor, " n"]) -> Tensor:
        """Return the imputed photos with the given indices: map by map, the most relevant pixels, then the least."""
        images = []
        for index in indices.tolist():
            of_map, rest = divmod(index, 2 * steps)
            least, step = divmod(rest, steps)
            count = round(fractions[step] * pixels)
            is_removed = ranks[of_map] >= pixels - count if least else ranks[of_map] < count
            images.append(impute_pixels(image, is_removed.view(image.shape[-2:]), noise, seed + rest))
        return torch.cat(images)

    total = len(heats) * 2 * steps
    scores = torch.full((total,), torch.nan, dtype=torch.float64, device="cpu")
    for batch in photo.iterate_scores(make_inputs, total, in_order=True):
        scores[batch.indices] = batch.scores.double().cpu()
        most, least = scores.view(len(heats), 2, steps).unbind(1)
        differences = (least - most) / 2
        curve = list(zip(fractions, differences[0].tolist(), strict=True))
        yield MetricValues(differences.mean(1), batch.done, total, curve=curve, notes=batch.notes)


def _score_masked_photos(photo: ScoredPhoto, heats: Heats, sign: str) -> ScoreChanges:
    """Return the scores of the photo, and of the photo multiplied by each map, scaled to a maximum of 1."""
    resized = photo.resize_to_input(apply_sign(heats, sign))
    masks = resized / resized.amax((1, 2), keepdim=True).clamp(min=torch.finfo(resized.dtype).tiny)
    masks = masks.to(photo.image)  # scaled before, as half precision has a small range

    def make_inputs(indices: Int[Tensor, " n"]) -> Tensor:
        """Return the photo multiplied by the maps with the given indices."""
        return photo.image * masks[indices.to(masks.device), None]

    *_, last = photo.iterate_changes(make_inputs, len(heats))
    return last


def _average_drop(photo: ScoredPhoto, heats: Heats, *, sign: str) -> Iterator[MetricValues]:
    """Yield how far the score falls, as a fraction of it, when the photo is multiplied by each map.

    References:
        Chattopadhay, Sarkar, Howlader, Balasubramanian. Grad-CAM++. WACV 2018, section 5.1. arXiv:1710.11063
    """
    whole, scores, _, notes = _score_masked_photos(photo, heats, sign)
    if whole <= 0:
        notes = (*notes, make_note("metric.score-not-positive", metric="average-drop"))
        yield MetricValues(torch.full_like(scores, torch.nan), len(heats), len(heats), notes=notes)
    else:
        yield MetricValues((whole - scores).clamp(min=0) / whole, len(heats), len(heats), notes=notes)


def _increase(photo: ScoredPhoto, heats: Heats, *, sign: str) -> Iterator[MetricValues]:
    """Yield whether the score rises when the photo is multiplied by each map.

    References:
        Chattopadhay, Sarkar, Howlader, Balasubramanian. Grad-CAM++. WACV 2018, section 5.1. arXiv:1710.11063
    """
    whole, scores, _, notes = _score_masked_photos(photo, heats, sign)
    yield MetricValues((scores > whole).double(), len(heats), len(heats), notes=notes)


def make_squares(count: int, size: tuple[int, int], seed: int) -> Int[np.ndarray, "count 4"]:
    """Return the random squares that `infidelity` removes, as (top, left, bottom, right) in pixels of the input.

    Args:
        count: How many.
        size: (height, width) of the input.
        seed: Seed of the random numbers.
    """
    squares = []
    for index in range(count):
        generator, longest = make_random_generator(seed, index), min(size)
        side = int(generator.integers(max(1, round(longest * MIN_SQUARE_SHARE)), round(longest * MAX_SQUARE_SHARE) + 1))
        top, left = (int(generator.integers(0, length - side + 1)) for length in size)
        squares.append((top, left, top + side, left + side))
    return np.array(squares)


def _infidelity(
    photo: ScoredPhoto, heats: Heats, *, squares: int, baseline: str, seed: int, sign: str
) -> Iterator[MetricValues]:
    """Yield the share of the score's changes that the sums of each map over removed squares do not predict.

    References:
        Yeh, Hsieh, Suggala, Inouye, Ravikumar. On the (In)fidelity and Sensitivity of Explanations. NeurIPS 2019,
        definition 2.1 and section 2.2. arXiv:1901.09392
    """
    resized = photo.resize_to_input(apply_sign(heats, sign)).double().cpu()
    boxes = make_squares(squares, (photo.image.shape[-2], photo.image.shape[-1]), seed)
    cover = photo.make_baseline(baseline)
    # The sum over a square, from sums over the rectangles that end at its corners.
    sums = torch.nn.functional.pad(resized.cumsum(1).cumsum(2), (1, 0, 1, 0))
    top, left, bottom, right = boxes.T
    predicted = sums[:, bottom, right] - sums[:, top, right] - sums[:, bottom, left] + sums[:, top, left]

    def make_inputs(indices: Int[Tensor, " n"]) -> Tensor:
        """Return the photo without the squares with the given indices."""
        images = photo.image.repeat(len(indices), 1, 1, 1)
        for row, (y0, x0, y1, x1) in enumerate(boxes[indices.numpy()]):
            images[row, :, y0:y1, x0:x1] = cover[0, :, y0:y1, x0:x1]
        return images

    for step in photo.iterate_changes(make_inputs, squares):
        drops = step.whole - step.changed
        known = drops.isfinite()
        values = compute_relative_infidelity(predicted[:, known], drops[known])
        yield MetricValues(values, step.done, squares, notes=step.notes)


def compute_relative_infidelity(
    predicted: Float[Tensor, "maps n"], drops: Float[Tensor, " n"]
) -> Float[Tensor, " maps"]:
    """Return the infidelity of maps with the best scale for each, as a fraction of that of a map of zeros.

    Args:
        predicted: Sum of each map over what each perturbation removes.
        drops: Change of the score by each perturbation.

    Returns:
        Values from 0 (the sums are proportional to the changes) to 1; NaN where the score never changes.
    """
    products, squares = (predicted * drops).mean(1), predicted.square().mean(1)
    scales = torch.where(squares > 0, products / squares, 0)
    errors = (scales[:, None] * predicted - drops).square().mean(1)
    zero_error = drops.square().mean()
    return errors / zero_error if zero_error > 0 else torch.full_like(errors, torch.nan)


OWN_BASELINE = "method"  # that of the method, where it has one
COMPLETENESS_BASELINE = Parameter(
    OWN_BASELINE,
    "what the photo is compared with: the baseline of the method, if it has one, else the mean colour; or a given one",
    (OWN_BASELINE, *BASELINES),
)


def _completeness(photo: ScoredPhoto, heats: Heats, *, baseline: str) -> Iterator[MetricValues]:
    """Yield how far the sum of each map is from the difference of the score to that of a baseline, relative to it.

    References:
        Sundararajan, Taly, Yan. Axiomatic Attribution for Deep Networks. ICML 2017, section 3. arXiv:1703.01365
    """
    if baseline == OWN_BASELINE:
        baseline = str(photo.attribution.parameters.get("baseline") or "mean")
    empty = photo.make_baseline(baseline, int(photo.attribution.parameters.get("seed", 0)))
    scores = photo.evidence.score(photo.model.logits(torch.cat([photo.image, empty]))).double().tolist()
    difference = scores[0] - scores[1]
    sums = heats.double().sum((1, 2))
    values = (sums - difference).abs() / abs(difference) if difference else torch.full_like(sums, torch.nan)
    yield MetricValues(values, references={"zeros": 1.0})


METRICS = (
    Metric(
        name="deletion",
        paper=RISE_PAPER[0],
        paper_url=RISE_PAPER[1],
        equation=r"\int_0^1 s\left( x \text{ without the } q \text{ highest pixels of } H \right) dq",
        means="A low value means that removing the pixels which the map marks lowers the score soon.",
        does_not_mean=(
            "It does not show that the network used these pixels on the whole photo: it never saw photos with removed "
            "pixels in training."
        ),
        range=(0.0, 1.0),
        higher_is_better=False,
        compute=_deletion,
        parameters={"steps": STEPS, "baseline": BASELINE, "sign": make_sign_parameter("signed")},
    ),
    Metric(
        name="insertion",
        paper=RISE_PAPER[0],
        paper_url=RISE_PAPER[1],
        equation=(
            r"\int_0^1 s\left( \text{the } q \text{ highest pixels of } H \text{ of } x \text{, shown alone} "
            r"\right) dq"
        ),
        means="A high value means that the pixels which the map marks are soon enough for a high score.",
        does_not_mean=(
            "It does not show that these pixels are necessary, and a map of the whole object scores well without "
            "showing which part decides."
        ),
        range=(0.0, 1.0),
        higher_is_better=True,
        compute=_insertion,
        parameters={"steps": STEPS, "baseline": INSERTION_BASELINE, "sign": make_sign_parameter("signed")},
    ),
    Metric(
        name="road",
        paper="Rong et al.: A Consistent and Efficient Evaluation Strategy for Attribution Methods (ROAD), ICML 2022",
        paper_url="https://arxiv.org/abs/2202.00449",
        equation=(
            r"\frac{1}{n} \sum_{k=1}^{n} \frac{s(x \text{ with its } q_k \text{ lowest pixels imputed}) - "
            r"s(x \text{ with its } q_k \text{ highest pixels imputed})}{2}"
        ),
        means=(
            "A high value means that imputing the pixels which the map marks lowers the score more than imputing those "
            "it marks least."
        ),
        does_not_mean=(
            "Imputed pixels are blurred from their neighbours, so fine evidence may survive and hide a fault."
        ),
        range=(-0.5, 0.5),
        higher_is_better=True,
        compute=_road,
        parameters={
            "steps": Parameter(4, "number of fractions of imputed pixels, evenly spaced in 0 to 1", range=(1, 99)),
            "noise": Parameter(
                0.01, "standard deviation of the noise on imputed pixels, in the model's input", range=(0.0, 1.0)
            ),
            "seed": SEED_PARAMETER,
            "sign": make_sign_parameter("signed"),
        },
    ),
    Metric(
        name="average-drop",
        paper=GRAD_CAM_PP_PAPER[0],
        paper_url=GRAD_CAM_PP_PAPER[1],
        equation=r"\frac{\max\left(0, s(x) - s(x \odot \hat H)\right)}{s(x)}, \quad \hat H = \frac{H^+}{\max H^+}",
        means="A low value means that the photo multiplied by the map keeps its score.",
        does_not_mean="A map that marks everything drops nothing, so it says nothing about how precise the map is.",
        range=(0.0, 1.0),
        higher_is_better=False,
        compute=_average_drop,
        parameters={"sign": MASK_SIGN},
    ),
    Metric(
        name="increase",
        paper=GRAD_CAM_PP_PAPER[0],
        paper_url=GRAD_CAM_PP_PAPER[1],
        equation=r"\left[ s(x \odot \hat H) > s(x) \right], \quad \hat H = \frac{H^+}{\max H^+}",
        means="1 means that the photo multiplied by the map gets a higher score than the photo; over photos, a share.",
        does_not_mean=(
            "The score may rise because the map hides evidence against the class, not since it shows more for it."
        ),
        range=(0.0, 1.0),
        higher_is_better=True,
        compute=_increase,
        parameters={"sign": MASK_SIGN},
    ),
    Metric(
        name="infidelity",
        paper="Yeh et al.: On the (In)fidelity and Sensitivity of Explanations, NeurIPS 2019",
        paper_url="https://arxiv.org/abs/1901.09392",
        equation=(
            r"\min_\beta \frac{\sum_w \left( \beta \sum_{ij \in w} H_{ij} - (s(x) - s(x \text{ without } w)) "
            r"\right)^2}{\sum_w \left( s(x) - s(x \text{ without } w) \right)^2}, \quad w \text{ random squares}"
        ),
        means="A low value means that the sum of the map over a square predicts how much removing it lowers the score.",
        does_not_mean=(
            "It fits one scale to each map, of either sign: it does not show that the values are in the right "
            "unit, or that "
            "positive ones are evidence for the class."
        ),
        range=(0.0, 1.0),
        higher_is_better=False,
        compute=_infidelity,
        parameters={
            "squares": Parameter(100, "number of random squares", range=(4, 20000)),
            "baseline": BASELINE,
            "seed": SEED_PARAMETER,
            "sign": make_sign_parameter("signed"),
        },
    ),
    Metric(
        name="completeness",
        paper="Sundararajan, Taly, Yan: Axiomatic Attribution for Deep Networks, ICML 2017",
        paper_url="https://arxiv.org/abs/1703.01365",
        equation=r"\frac{\left| \sum_{ij} H_{ij} - (s(x) - s(x')) \right|}{\left| s(x) - s(x') \right|}",
        means="0 means that the values of the map sum to the difference of the score to that of the baseline.",
        does_not_mean="The sum may be right while every single value is wrong; most methods do not aim at it.",
        range=(0.0, None),
        higher_is_better=False,
        compute=_completeness,
        parameters={"baseline": COMPLETENESS_BASELINE},
        find_score=lambda parameters: parameters.get("score"),
    ),
)
