"""How far two maps of one photo agree: whether they order its places alike, and call the same ones strongest."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from vizlib.attribution.result import Attribution
from vizlib.core.errors import VizlibError

MAX_SIDE_PIXELS = 448  # longest side of the photo that two maps are compared on, in pixels; no map is much finer


@dataclass(frozen=True)
class Agreement:
    """Two numbers for how alike two maps are, whatever units each is in."""

    correlation: float  # Spearman's rank correlation, -1..1; NaN where a map is the same everywhere
    overlap: float  # how much of their strongest places they share, 0..1; by chance it is the share itself


def agreement(a: Attribution, b: Attribution, fraction: float = 0.2) -> Agreement:
    """How far two maps of one photo agree, over the photo pixels that both models saw.

    `overlap` is of the `share` of pixels with each map's greatest values. Pixels with the same value have the same
    rank, and where they are too many they are in the strongest places in part. Maps of other methods, classes and
    models can be compared, as only the order of their values counts.

    Raises: VizlibError for maps of different photos, or a share outside 0 to 1.

    >>> agreement(of_one_model, of_another).correlation  # doctest: +SKIP
    """
    if not 0 < fraction <= 1:
        raise VizlibError(f"the share of strongest places is more than 0 and at most 1, not {fraction:g}")
    left, right = (_without_rounding(one) for one in lift_to_common_region(a, b)[:2])
    ranks = [_ranks(left), _ranks(right)]
    spread = [float(one.std()) for one in ranks]
    together = float(np.mean((ranks[0] - ranks[0].mean()) * (ranks[1] - ranks[1].mean())))
    strongest = [_strongest(left, fraction), _strongest(right, fraction)]
    return Agreement(
        correlation=together / (spread[0] * spread[1]) if all(spread) else float("nan"),
        overlap=float(np.minimum(*strongest).sum() / strongest[0].sum()),
    )


def lift_to_common_region(
    a: Attribution, b: Attribution, max_side: int = MAX_SIDE_PIXELS
) -> tuple[Float[np.ndarray, "h w"], Float[np.ndarray, "h w"], tuple[float, float, float, float]]:
    """Both maps' raw values at the photo pixels that both models saw, and where those lie.

    The place is the box (top, left, bottom, right) as shares of the photo's sides. A photo with a longer side than
    `side` pixels is taken at that size.

    Raises: VizlibError for maps of different photos, or where the models saw nothing in common.
    """
    if a.photo is not b.photo and (a.photo.size != b.photo.size or a.photo.tobytes() != b.photo.tobytes()):
        raise VizlibError("two maps agree or not on one photo, but these are of different photos")
    height, width = a.geometry.photo_size
    factor = min(1.0, max_side / max(height, width))
    size = max(1, round(height * factor)), max(1, round(width * factor))
    left, right = (one.geometry.project_to_photo(one.heat, size, smooth=not one.patches) for one in (a, b))
    both = np.isfinite(left) & np.isfinite(right)
    rows, columns = np.flatnonzero(both.any(1)), np.flatnonzero(both.any(0))
    if not len(rows):
        raise VizlibError("the two models saw no place of this photo in common")
    top, below, first, beyond = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1  # what each saw is a rectangle
    box = (top / size[0], first / size[1], below / size[0], beyond / size[1])
    return left[top:below, first:beyond], right[top:below, first:beyond], box


def _without_rounding(values: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "h w"]:
    """The values in millionths of the largest: places that rounding alone tells apart must not be put in an order."""
    return (values / (np.abs(values).max() or 1)).astype(float).round(6)


def _ranks(values: Float[np.ndarray, "h w"]) -> Float[np.ndarray, " pixels"]:
    """Each value's rank from 1; equal values share the mean of theirs."""
    _, place, counts = np.unique(values.ravel(), return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[place]


def _strongest(values: Float[np.ndarray, "h w"], share: float) -> Float[np.ndarray, " pixels"]:
    """1 for each pixel among the share with the greatest values, 0 for the others; those on the edge share the rest."""
    _, place, counts = np.unique(-values.ravel(), return_inverse=True, return_counts=True)
    left = share * values.size - (np.cumsum(counts) - counts)  # how much room is left when it is a value's turn
    return (np.clip(left, 0, counts) / counts)[place]
