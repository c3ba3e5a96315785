"""Metrics of localisation: whether a map is high within boxes or a mask of the object."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float

from vizlib.attribution.request import Parameter
from vizlib.attribution.result import Attribution
from vizlib.core.errors import VizlibError
from vizlib.core.text import make_note
from vizlib.metrics.metric import Heats, Metric, MetricValues, make_sign_parameter
from vizlib.metrics.scored_photo import ScoredPhoto, apply_sign

MAX_REGION_SIDE_PX = 1024  # maps are compared with the region on a photo of at most this side
Box = Sequence[float | int]  # (left, top, right, bottom) in pixels of the photo

Region = Bool[np.ndarray, "height width"]


def make_region(attribution: Attribution, boxes: Sequence[Any] | None = None, mask: Any = None) -> Region:
    """Return which pixels of a photo belong to the object, on the photo reduced to `MAX_REGION_SIDE_PX`.

    Args:
        attribution: The attribution of the photo.
        boxes: Boxes as (left, top, right, bottom) in pixels of the photo; a pixel belongs to a box that holds its
            centre.
        mask: Array of the photo's height and width, of which every value other than 0 belongs to the object.

    Raises:
        VizlibError: For neither or both, a mask of another size, or a box without area.
    """
    if (boxes is None) == (mask is None):
        raise VizlibError(
            "give the object's boxes=, as (left, top, right, bottom) in pixels of the photo, or its mask="
        )
    height, width = attribution.geometry.photo_size
    size = _reduce_size(height, width)
    if mask is not None:
        array = np.asarray(mask)
        if array.shape != (height, width):
            raise VizlibError(f"the mask has shape {array.shape}; expected that of the photo, {(height, width)}")
        rows, columns = (
            np.minimum(((np.arange(n) + 0.5) * full / n).astype(int), full - 1)
            for n, full in zip(size, (height, width), strict=True)
        )
        return array[rows][:, columns] != 0
    region = np.zeros(size, dtype=bool)
    y, x = ((np.arange(n) + 0.5) * full / n for n, full in zip(size, (height, width), strict=True))
    for box in () if boxes is None else boxes:
        try:
            left, top, right, bottom = (float(value) for value in box)
        except (TypeError, ValueError):
            raise VizlibError(f"a box is (left, top, right, bottom) in pixels of the photo, not {box!r}") from None
        if not (left < right and top < bottom):
            raise VizlibError(f"the box {tuple(box)} has no area; expected (left, top, right, bottom)")
        region |= ((top <= y) & (y < bottom))[:, None] & ((left <= x) & (x < right))[None, :]
    return region


def compute_energy(heat: Float[np.ndarray, "height width"], region: Region) -> float:
    """Return the fraction of a map's positive heat that lies within a region; NaN where there is none.

    Args:
        heat: Heat on the photo; NaN outside the input of the model.
        region: Pixels of the object.
    """
    positive = np.nan_to_num(heat).clip(min=0).astype(float)
    return float(positive[region].sum() / positive.sum()) if positive.any() else float("nan")


def _reduce_size(height: int, width: int) -> tuple[int, int]:
    scale = min(1.0, MAX_REGION_SIDE_PX / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def _project_to_photo(photo: ScoredPhoto, heats: Heats, size: tuple[int, int]) -> Iterator[Float[np.ndarray, "h w"]]:
    """Yield each map on the photo, in the size of the region; NaN outside the input of the model."""
    attribution = photo.attribution
    for heat in heats:
        yield attribution.geometry.project_to_photo(heat, size, smooth=not attribution.patch_values)


def _make_values(values: list[float], region: Region, seen: Region) -> Iterator[MetricValues]:
    """Yield the values of a metric, with a note where the model saw nothing of the object."""
    notes = () if (region & seen).any() else (make_note("metric.object-not-seen"),)
    yield MetricValues(torch.tensor(values, dtype=torch.float64, device="cpu"), notes=notes)


def _pointing_game(
    photo: ScoredPhoto, heats: Heats, *, region: Region, tolerance: int, sign: str
) -> Iterator[MetricValues]:
    """Yield whether the highest value of each map lies within the object, or near it.

    References:
        Zhang, Bargal, Lin, Brandt, Shen, Sclaroff. Top-down Neural Attention by Excitation Backprop. IJCV 2018, section
        4.1. arXiv:1608.00507
    """
    height, _ = photo.attribution.geometry.photo_size
    radius = round(tolerance * region.shape[0] / height)
    grown = torch.from_numpy(region)[None, None].float()
    if radius:
        offsets = torch.arange(-radius, radius + 1)
        disc = (offsets[:, None] ** 2 + offsets**2 <= radius**2).float()
        # A pixel is near where some pixel of the object lies in the disc around it.
        grown = F.conv2d(F.pad(grown, (radius,) * 4), disc[None, None])
    near = grown[0, 0].numpy() > 0.5
    values, seen = [], region
    for heat in _project_to_photo(photo, apply_sign(heats, sign), (region.shape[0], region.shape[1])):
        seen = np.isfinite(heat)
        highest = seen & (heat == np.nanmax(heat))
        values.append(float(near[highest].mean()) if (region & seen).any() else float("nan"))
    return _make_values(values, region, seen)


def _energy_pointing_game(photo: ScoredPhoto, heats: Heats, *, region: Region) -> Iterator[MetricValues]:
    """Yield the fraction of each map's positive heat that lies within the object.

    References:
        Wang et al. Score-CAM. CVPR Workshops 2020, section 4.2. arXiv:1910.01279
    """
    values, seen = [], region
    for heat in _project_to_photo(photo, heats, (region.shape[0], region.shape[1])):
        seen = np.isfinite(heat)
        values.append(compute_energy(heat, region) if (region & seen).any() else float("nan"))
    return _make_values(values, region, seen)


def _iou(photo: ScoredPhoto, heats: Heats, *, region: Region, threshold: float, sign: str) -> Iterator[MetricValues]:
    """Yield the intersection over union of the object and the pixels of each map above a fraction of its maximum.

    References:
        Zhou, Khosla, Lapedriza, Oliva, Torralba. Learning Deep Features for Discriminative Localization. CVPR 2016,
        section 3.2 (a threshold of 20 % of the maximum). arXiv:1512.04150
    """
    values, seen = [], region
    for heat in _project_to_photo(photo, apply_sign(heats, sign), (region.shape[0], region.shape[1])):
        seen = np.isfinite(heat)
        object_seen = region & seen
        is_marked = seen & (heat >= threshold * np.nanmax(heat)) & (np.nanmax(heat) > 0)
        union = (object_seen | is_marked).sum()
        values.append(float((object_seen & is_marked).sum() / union) if object_seen.any() else float("nan"))
    return _make_values(values, region, seen)


METRICS = (
    Metric(
        name="pointing-game",
        paper="Zhang et al.: Top-down Neural Attention by Excitation Backprop, IJCV 2018",
        paper_url="https://arxiv.org/abs/1608.00507",
        equation=(
            r"\left[ \operatorname{dist}\left( \arg\max_{ij} H_{ij}, B \right) \le t \right], \quad B \text{ the "
            r"object}"
        ),
        means="1 means that the highest value of the map lies on the object; over photos, a share.",
        does_not_mean="It reads one pixel, and a model may be right to look elsewhere: at the water under a boat.",
        range=(0.0, 1.0),
        higher_is_better=True,
        compute=_pointing_game,
        parameters={
            "tolerance": Parameter(
                15, "distance to the object that still counts, in pixels of the photo", range=(0, 500)
            ),
            "sign": make_sign_parameter("positive"),
        },
        needs_region=True,
        needs_score=False,
    ),
    Metric(
        name="energy-pointing-game",
        paper="Wang et al.: Score-CAM, CVPR Workshops 2020",
        paper_url="https://arxiv.org/abs/1910.01279",
        equation=r"\frac{\sum_{ij \in B} H_{ij}^+}{\sum_{ij} H_{ij}^+}, \quad B \text{ the object}",
        means="A high value means that most of the positive heat lies on the object.",
        does_not_mean="It grows with the size of the object, and says nothing about which part of it decides.",
        range=(0.0, 1.0),
        higher_is_better=True,
        compute=_energy_pointing_game,
        needs_region=True,
        needs_score=False,
    ),
    Metric(
        name="iou",
        paper="Zhou et al.: Learning Deep Features for Discriminative Localization, CVPR 2016",
        paper_url="https://arxiv.org/abs/1512.04150",
        equation=r"\frac{|B \cap M|}{|B \cup M|}, \quad M = \{ ij : H_{ij} \ge t \max H \}, \; B \text{ the object}",
        means="A high value means that the pixels above the threshold have the outline of the object.",
        does_not_mean="A faithful map need not cover the object: one decisive part is enough for a model.",
        range=(0.0, 1.0),
        higher_is_better=True,
        compute=_iou,
        parameters={
            "threshold": Parameter(
                0.2, "fraction of the maximum from which a pixel counts as marked", range=(0.0, 1.0)
            ),
            "sign": make_sign_parameter("positive"),
        },
        needs_region=True,
        needs_score=False,
    ),
)
