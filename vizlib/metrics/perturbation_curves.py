"""Deletion and insertion: how the score changes when pixels are removed, or shown, in the order of a map."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

from vizlib.attribution.result import Attribution
from vizlib.core.errors import VizlibError
from vizlib.metrics.scored_photo import ScoredPhoto
from vizlib.models.inference.batched_inference import DEFAULT_BUDGET_MB
from vizlib.models.model import Model


@dataclass(frozen=True, eq=False)
class PerturbationCurve:
    """The score as pixels are removed or shown in the order of a map, highest heat first.

    Attributes:
        fraction: Fraction of the input's pixels that are removed, or shown, from 0 to 1.
        score: Score at that point: of a class its probability, from 0 to 1.
        notes: What is worth knowing about the computation.

    References:
        Petsiuk, Das, Saenko: RISE: randomized input sampling for explanation of black-box models, BMVC 2018,
        arXiv:1806.07421.

    Example:
        >>> import torch, vizlib
        >>> vizlib.PerturbationCurve(torch.tensor([0.0, 0.5, 1.0]), torch.tensor([1.0, 0.5, 0.0])).auc
        0.5
    """

    fraction: Float[Tensor, " points"]
    score: Float[Tensor, " points"]
    notes: tuple[str, ...] = ()

    @property
    def auc(self) -> float:
        """Area under the curve: the mean score over all fractions, in the unit of the score."""
        return torch.trapezoid(self.score.double(), self.fraction.double()).item()


class Perturbation(NamedTuple):
    """How the pixels of a photo are changed in the order of a map.

    Attributes:
        inserts: Whether pixels are shown on a baseline, instead of replaced by it.
        baseline: Name of the baseline: `"mean"`, `"black"`, `"white"`, `"blur"` or `"noise"`.
    """

    inserts: bool
    baseline: str


class CurveProgress(NamedTuple):
    """The curves of several maps after some of their passes.

    Attributes:
        scores: The scores; NaN where they are not computed yet.
        done: How many passes are done.
        total: How many there are.
        notes: What is worth knowing about the computation.
    """

    scores: Float[Tensor, "perturbations maps points"]
    done: int
    total: int
    notes: tuple[str, ...]


def deletion(
    model: Model,
    attribution: Attribution,
    *,
    steps: int = 20,
    baseline: str = "mean",
    precision: str = "auto",
    budget_mb: int = DEFAULT_BUDGET_MB,
) -> PerturbationCurve:
    """Return the deletion curve of a map: the score while the pixels with the highest heat are removed first.

    A removed pixel becomes that of the baseline, by default the mean colour of the training data. A map coarser than
    the input is interpolated bilinearly; equal values are removed in reading order. Compare the area with that of maps
    that contain no information about the model, as `vizlib.metrics.measure` does: objects are mostly in the middle of
    photos. Photos with removed pixels are outside the training distribution (Hooker et al. 2019).

    Args:
        model: The model that the map explains.
        attribution: The map, with its photo and target.
        steps: Number of equal parts in which the pixels are removed.
        baseline: What replaces pixels: `"mean"`, `"black"`, `"white"`, `"blur"` or `"noise"`.
        precision: `"auto"` for bfloat16 where the processor supports it and a check passes, or `"float32"`.
        budget_mb: Memory for one batch, in megabytes.

    Returns:
        The curve at `steps` + 1 points; the lower its area, the earlier the map removed what the score depends on.

    Raises:
        VizlibError: For fewer than one step, an unknown baseline, or a map that explains no score of the model.
        ModelError: If the model cannot be run.

    References:
        Petsiuk, Das, Saenko: RISE: randomized input sampling for explanation of black-box models, BMVC 2018,
        arXiv:1806.07421.
        Hooker, Erhan, Kindermans, Kim: A benchmark for interpretability methods in deep neural networks, NeurIPS 2019,
        arXiv:1806.10758.

    Example:
        >>> import numpy as np, vizlib
        >>> model = vizlib.load("resnet18-imagenette")
        >>> photo = np.random.default_rng(0).integers(0, 256, (160, 160, 3), np.uint8)
        >>> curve = vizlib.metrics.deletion(model, vizlib.explain(model, photo, "grad-cam"), steps=4)
        >>> curve.fraction.tolist()
        [0.0, 0.25, 0.5, 0.75, 1.0]
        >>> 0 <= curve.auc <= 1
        True
    """
    photo = ScoredPhoto.make(model, attribution, precision=precision, budget_mb=budget_mb)
    return _compute_curve(photo, Perturbation(False, baseline), steps)


def insertion(
    model: Model,
    attribution: Attribution,
    *,
    steps: int = 20,
    baseline: str = "blur",
    precision: str = "auto",
    budget_mb: int = DEFAULT_BUDGET_MB,
) -> PerturbationCurve:
    """Return the insertion curve of a map: the score while the pixels with the highest heat are shown first.

    Args:
        model: The model that the map explains.
        attribution: The map, with its photo and target.
        steps: Number of equal parts in which the pixels are shown.
        baseline: On what they are shown, as in `deletion`; by default the blurred photo, as in the paper.
        precision: As in `deletion`.
        budget_mb: As in `deletion`.

    Returns:
        The curve at `steps` + 1 points; the higher its area, the earlier the map showed what the score depends on.

    Raises:
        VizlibError: As `deletion`.
        ModelError: If the model cannot be run.

    References:
        Petsiuk, Das, Saenko: RISE: randomized input sampling for explanation of black-box models, BMVC 2018,
        arXiv:1806.07421.

    Example:
        >>> import numpy as np, vizlib
        >>> model = vizlib.load("resnet18-imagenette")
        >>> photo = np.random.default_rng(0).integers(0, 256, (160, 160, 3), np.uint8)
        >>> curve = vizlib.metrics.insertion(model, vizlib.explain(model, photo, "grad-cam"), steps=4)
        >>> len(curve.score)
        5
    """
    photo = ScoredPhoto.make(model, attribution, precision=precision, budget_mb=budget_mb)
    return _compute_curve(photo, Perturbation(True, baseline), steps)


def iterate_curves(
    photo: ScoredPhoto,
    heats: Float[Tensor, "maps rows columns"],
    perturbations: Sequence[Perturbation],
    steps: int,
) -> Iterator[CurveProgress]:
    """Yield the curves of several maps after each batch of passes, those of the first maps first.

    The unchanged photo and the empty baselines are scored once for all maps.

    Args:
        photo: Photo, model and score.
        heats: The maps, in any resolution.
        perturbations: How pixels are changed.
        steps: Number of equal parts in which they are changed.

    Yields:
        The curves so far.

    Raises:
        VizlibError: For fewer than one step, or an unknown baseline.
    """
    if steps < 1:
        raise VizlibError(f"the pixels are removed or shown in at least 1 step, not {steps}")
    image, count = photo.image, len(heats)
    baselines = list(dict.fromkeys(perturbation.baseline for perturbation in perturbations))
    whole = torch.cat([image, *(photo.make_baseline(name) for name in baselines)])  # inputs that all maps share
    ranks = rank_pixels(photo.resize_to_input(heats)).to(image.device)
    limits = _count_changed_pixels(steps, ranks.shape[1]).to(image.device)
    inner = steps - 1
    sources = torch.tensor(
        [(0, 1 + baselines.index(p.baseline))[:: -1 if p.inserts else 1] for p in perturbations], device=image.device
    )  # of each perturbation: what stays, and what replaces it

    def make_inputs(indices: Int[Tensor, " n"]) -> Tensor:
        """Return the inputs with the given indices: first the whole ones, then map by map each perturbation's steps."""
        indices = indices.to(image.device)
        is_whole = indices < len(whole)
        number = (indices - len(whole)).clamp(min=0)
        of_map, rest = number // (len(perturbations) * max(inner, 1)), number % (len(perturbations) * max(inner, 1))
        kind, step = rest // max(inner, 1), rest % max(inner, 1) + 1
        is_changed = (ranks[of_map] < limits[step.clamp(max=steps)][:, None]).view(-1, 1, *image.shape[-2:])
        kept, replacing = sources[kind].T
        kept = torch.where(is_whole, indices.clamp(max=len(whole) - 1), kept)
        replacing = torch.where(is_whole, kept, replacing)
        return torch.where(is_changed, whole[replacing], whole[kept])

    total = len(whole) + count * len(perturbations) * inner
    scores = torch.full((total,), torch.nan, dtype=torch.float64, device="cpu")
    for batch in photo.iterate_scores(make_inputs, total, in_order=True):
        scores[batch.indices] = batch.scores.double().cpu()
        ends = scores[sources.cpu()]  # perturbations × (first, last)
        middle = scores[len(whole) :].view(count, len(perturbations), inner).transpose(0, 1)
        first, last = ends[:, :1, None].expand(-1, count, 1), ends[:, 1:, None].expand(-1, count, 1)
        yield CurveProgress(torch.cat([first, middle, last], 2), batch.done, total, batch.notes)


def list_perturbed_photos(
    model: Model, attribution: Attribution, perturbation: Perturbation, steps: int
) -> list[Image.Image]:
    """Return what the model is given at each point of a deletion or insertion curve, as pictures in its input size.

    Args:
        model: The model that the map explains.
        attribution: The map, with its photo and target.
        perturbation: How pixels are changed.
        steps: Number of equal parts in which they are changed.

    Returns:
        The `steps` + 1 pictures, from no changed pixel to all of them.

    Raises:
        VizlibError: As `deletion`.
        ModelError: If the model cannot be run.

    Example:
        >>> import numpy as np, vizlib
        >>> from vizlib.metrics.perturbation_curves import Perturbation, list_perturbed_photos
        >>> model = vizlib.load("resnet18-imagenette")
        >>> photo = np.random.default_rng(0).integers(0, 256, (160, 160, 3), np.uint8)
        >>> attribution = vizlib.explain(model, photo, "grad-cam")
        >>> len(list_perturbed_photos(model, attribution, Perturbation(False, "mean"), steps=4))
        5
    """
    photo = ScoredPhoto.make(model, attribution)
    image, baseline = photo.image, photo.make_baseline(perturbation.baseline)
    kept, replacing = (baseline, image) if perturbation.inserts else (image, baseline)
    ranks = rank_pixels(photo.resize_to_input(attribution.heat[None]))[0].to(image.device)
    limits = _count_changed_pixels(steps, len(ranks)).tolist()
    changed = ((ranks < limit).view(1, 1, *image.shape[-2:]) for limit in limits)
    return [model.preprocessing.denormalise(torch.where(mask, replacing, kept)) for mask in changed]


def _count_changed_pixels(steps: int, pixels: int) -> Int[Tensor, " points"]:
    """Return how many pixels are changed at each point of a curve."""
    return (torch.linspace(0, 1, steps + 1, dtype=torch.float64, device="cpu") * pixels).round().long()


def compute_areas(scores: Float[Tensor, "... points"]) -> Float[Tensor, "..."]:
    """Return the area under curves.

    Args:
        scores: Scores at points that are evenly spaced from 0 to 1.
    """
    fractions = torch.linspace(0, 1, scores.shape[-1], dtype=scores.dtype, device="cpu")
    return torch.trapezoid(scores, fractions)


def rank_pixels(heats: Float[Tensor, "maps h w"]) -> Int[Tensor, "maps pixels"]:
    """Return the rank of each pixel by its heat, from 0 for the highest; equal values in reading order.

    Args:
        heats: Maps in the size of the input.
    """
    order = heats.flatten(1).argsort(dim=1, descending=True, stable=True)
    ranks = torch.empty_like(order)
    return ranks.scatter_(1, order, torch.arange(order.shape[1], device=order.device).expand_as(order))


def _compute_curve(photo: ScoredPhoto, perturbation: Perturbation, steps: int) -> PerturbationCurve:
    """Return the curve of one map."""
    *_, progress = iterate_curves(photo, photo.attribution.heat[None], [perturbation], steps)
    fractions = torch.linspace(0, 1, steps + 1, dtype=torch.float32, device="cpu")
    return PerturbationCurve(fractions, progress.scores[0, 0].float(), progress.notes)
