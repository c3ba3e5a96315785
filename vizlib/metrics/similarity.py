"""Similarity of two attribution maps of one photo: rank correlation, and overlap of the highest values."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from vizlib.attribution.result import Attribution
from vizlib.core.errors import VizlibError

MAX_SIDE_PIXELS = 448  # two maps are compared on a photo of at most this side; no map is much finer


@dataclass(frozen=True)
class Agreement:
    """Two measures of the similarity of two maps; neither depends on the maps' units.

    Attributes:
        correlation: Spearman's rank correlation, -1 to 1; NaN if a map is constant.
        overlap: Fraction of their highest-valued pixels that the maps share, 0 to 1; by chance it is the fraction of
            pixels that count as highest.

    Example:
        >>> import vizlib
        >>> vizlib.Agreement(correlation=0.5, overlap=0.3).overlap
        0.3
    """

    correlation: float
    overlap: float


def agreement(a: Attribution, b: Attribution, fraction: float = 0.2) -> Agreement:
    """Return the similarity of two maps of one photo, over the photo pixels inside both models' inputs.

    Pixels with equal values have equal ranks; where a group of equal values only partly belongs to the highest ones,
    each counts in part. Maps of different methods, classes and models can be compared, as only the order of their
    values counts.

    Args:
        a: A map.
        b: Another map of the same photo.
        fraction: Fraction of pixels, with each map's highest values, whose overlap is measured; above 0, at most 1.

    Raises:
        VizlibError: For maps of different photos, or a fraction out of range.

    References:
        Adebayo, Gilmer, Muelly, Goodfellow, Hardt, Kim: Sanity checks for saliency maps, NeurIPS 2018,
        arXiv:1810.03292 (rank correlation of maps).

    Example:
        >>> import numpy as np, vizlib
        >>> model = vizlib.load("resnet18-imagenette")
        >>> photo = np.random.default_rng(0).integers(0, 256, (160, 160, 3), np.uint8)
        >>> saliency = vizlib.explain(model, photo, "saliency")
        >>> round(vizlib.agreement(saliency, saliency).correlation, 6)
        1.0
    """
    if not 0 < fraction <= 1:
        raise VizlibError(f"the fraction of highest values is more than 0 and at most 1, not {fraction:g}")
    left, right = (_round_to_millionths(values) for values in lift_to_common_region(a, b)[:2])
    highest = [_select_highest(left, fraction), _select_highest(right, fraction)]
    return Agreement(
        correlation=compute_rank_correlation(left, right),
        overlap=float(np.minimum(*highest).sum() / highest[0].sum()),
    )


def lift_to_common_region(
    a: Attribution, b: Attribution, max_side: int = MAX_SIDE_PIXELS
) -> tuple[Float[np.ndarray, "h w"], Float[np.ndarray, "h w"], tuple[float, float, float, float]]:
    """Return the two maps to compare, at the photo pixels inside both models' inputs, and the region of these pixels.

    Args:
        a: A map.
        b: Another map of the same photo.
        max_side: A photo with a longer side is reduced to this many pixels.

    Returns:
        The values of `a`, those of `b`, and the region as (top, left, bottom, right) in fractions of the photo's sides.

    Raises:
        VizlibError: For maps of different photos, or models whose inputs have no photo pixel in common.
    """
    if a.photo is not b.photo and (a.photo.size != b.photo.size or a.photo.tobytes() != b.photo.tobytes()):
        raise VizlibError("only maps of one photo can be compared, but these are of different photos")
    height, width = a.geometry.photo_size
    scale = min(1.0, max_side / max(height, width))
    size = max(1, round(height * scale)), max(1, round(width * scale))
    left, right = (
        attribution.geometry.project_to_photo(attribution.heat, size, smooth=not attribution.patch_values)
        for attribution in (a, b)
    )
    in_both = np.isfinite(left) & np.isfinite(right)
    rows, columns = np.flatnonzero(in_both.any(1)), np.flatnonzero(in_both.any(0))
    if not len(rows):
        raise VizlibError("the inputs of the two models have no pixel of this photo in common")
    y0, y1, x0, x1 = (
        rows[0],
        rows[-1] + 1,
        columns[0],
        columns[-1] + 1,
    )  # each model's input is a rectangle of the photo
    region = (y0 / size[0], x0 / size[1], y1 / size[0], x1 / size[1])
    return left[y0:y1, x0:x1], right[y0:y1, x0:x1], region


def compute_rank_correlation(a: Float[np.ndarray, "h w"], b: Float[np.ndarray, "h w"]) -> float:
    """Return Spearman's rank correlation of two maps of one shape, -1 to 1; NaN if one is constant.

    Args:
        a: A map; equal values have equal ranks.
        b: Another map.
    """
    ranks = [_rank_values(_round_to_millionths(values)) for values in (a, b)]
    deviations = [float(values.std()) for values in ranks]
    covariance = float(np.mean((ranks[0] - ranks[0].mean()) * (ranks[1] - ranks[1].mean())))
    return covariance / (deviations[0] * deviations[1]) if all(deviations) else float("nan")


def _round_to_millionths(values: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "h w"]:
    """Return a map to compare in millionths of its largest value, so that rounding errors alone do not order pixels."""
    return (values / (np.abs(values).max() or 1)).astype(float).round(6)


def _rank_values(values: Float[np.ndarray, "h w"]) -> Float[np.ndarray, " pixels"]:
    """Return each value's rank for the rank correlation, from 1; equal values share their mean rank."""
    _, group, counts = np.unique(values.ravel(), return_inverse=True, return_counts=True)
    last_ranks = np.cumsum(counts)
    return (last_ranks - (counts - 1) / 2)[group]


def _select_highest(values: Float[np.ndarray, "h w"], fraction: float) -> Float[np.ndarray, " pixels"]:
    """Return 1 for each pixel in the overlap measure's fraction of highest values, else 0; ties at the border share."""
    _, group, counts = np.unique(-values.ravel(), return_inverse=True, return_counts=True)
    remaining = fraction * values.size - (np.cumsum(counts) - counts)  # pixels still to select at each group of ties
    return (np.clip(remaining, 0, counts) / counts)[group]
