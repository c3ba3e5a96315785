"""Small maps as buttons; a click emits the clicked one's `key` as the choice that the property `choice_key` names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from dashboard.components.data_encoding import encode_bytes, encode_palette, encode_photo_and_box
from dashboard.i18n.translate import translate
from vizlib.core.geometry import Geometry

MAX_CELLS = 56  # a small map needs no more along a side


def build_thumbnail(
    key: str,
    name: str,
    values: np.ndarray | None,
    limits: tuple[float, float],
    *,
    signed: bool = False,
    smooth: bool = True,
    hint: str = "",
    scores: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return one of the thumbnails; without `values` it has a placeholder instead of a map.

    `scores` has share and text by the key of an order of `build_ranking`.
    """
    return {
        "key": key,
        "name": name,
        "hint": hint,
        **({"scores": dict(scores)} if scores else {}),
        "map": None if values is None else encode_bytes(downsample_map(values)),
        "limits": list(limits),
        "signed": signed,
        "smooth": smooth,
    }


def build_thumbnails(
    items: Sequence[dict[str, Any]],
    chosen: str | None,
    *,
    label: str,
    heading: str = "",
    photo: Image.Image | None = None,
    geometry: Geometry | None = None,
    small: bool = False,
    of: str = "",
    ranking: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the value of a group of thumbnails: small maps as buttons.

    Args:
        items: The buttons, from `build_thumbnail`.
        chosen: The key of the selected one.
        label: What a screen reader calls the group.
        heading: The heading above the buttons.
        photo: The photo under the maps, if any.
        geometry: Where on it the model's input lies.
        small: Whether the buttons are small.
        of: What the items belong to, such as a layer; a choice includes it.
        ranking: The toolbar that orders the buttons by measured scores, from `build_ranking`, if any.
    """
    base = encode_photo_and_box(photo, geometry, side=200) if photo is not None and geometry is not None else {}
    return {
        **base,
        "items": list(items),
        "chosen": chosen,
        "label": label,
        "of": of,
        "heading": heading,
        "size": "small" if small else "large",
        "palette": encode_palette(False),
        "signedPalette": encode_palette(True),
        **({} if ranking is None else {"ranking": ranking}),
    }


def build_ranking(key: int, orders: Mapping[str, str], *, is_measured: bool) -> dict[str, Any]:
    """Return the toolbar above thumbnails that orders them by measured scores, with a button that measures them.

    The button fires `submit` to start and `stop` to stop.

    Args:
        key: What the scores belong to; steps with another one are out of date.
        orders: Name of each order by its key, which is that of a score.
        is_measured: Whether all scores are there.
    """
    listed = {"key": "", "name": translate("ranking.listed")}
    return {
        "key": key,
        "state": "done" if is_measured else "waiting",
        "fraction": 0.0,
        "orders": [listed, *({"key": order, "name": name} for order, name in orders.items())],
        "label": translate("ranking.order"),
        "button": translate("ranking.measure"),
    }


def build_ranking_step(key: int, fraction: float, scores: Mapping[str, Any]) -> dict[str, Any]:
    """Return the value of thumbnails after some of the passes that measure their scores.

    Args:
        key: That of the toolbar.
        fraction: How much of the work is done, 0 to 1.
        scores: Scores of each thumbnail by its key: share and text by the key of an order.
    """
    state = "done" if fraction >= 1 else "running"
    return {"step": True, "key": key, "state": state, "fraction": fraction, "scores": dict(scores)}


def downsample_map(values: np.ndarray, cells: int = MAX_CELLS) -> np.ndarray:
    """Return a map for a thumbnail, with at most `cells` values along each side, by average pooling."""
    height, width = values.shape
    if max(height, width) <= cells:
        return values
    size = (min(height, cells), min(width, cells))
    return F.adaptive_avg_pool2d(torch.as_tensor(values, dtype=torch.float32)[None, None], size)[0, 0].numpy()
