"""Deletion and insertion curves of a map; under the pointer, the photos at that step and their scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from PIL import Image

from dashboard.components.data_encoding import encode_data_url
from dashboard.i18n.translate import translate
from dashboard.services.executor_tasks import PerturbedPhotos
from vizlib import Attribution, Trust
from vizlib.core.text import format_number, shorten_label

TILE_SIDE_PX = 192  # longest side of a photo
ENDS = (("first", 0), ("last", -1))  # of a curve
FIRST_STEP = 2  # that is shown before one is chosen


def build_perturbation(attribution: Attribution, trust: Trust, photos: PerturbedPhotos) -> dict[str, Any]:
    """Return the value of the curves of a map; empty where they were not measured.

    Args:
        attribution: The map.
        trust: What was measured, with both curves.
        photos: The photo at each step of both.
    """
    if trust.faithfulness is None:
        return {}
    measured = {one.metric: one.curve for one in trust.faithfulness.measurements}
    curves = {"deletion": measured["deletion"], "insertion": measured["insertion"]}
    rows = [_list_tiles(photos.deletion), _list_tiles(photos.insertion)]
    steps = [f"{100 * float(fraction):.0f} %" for fraction, _ in curves["deletion"]]
    label = shorten_label(attribution.label)
    lines = [
        {
            "name": translate(f"perturbation.{name}"),
            "scores": [score for _, score in curve],
            "captions": [
                translate(f"perturbation.{name}-at", share=share, score=format_number(score))
                for share, (_, score) in zip(steps, curve, strict=True)
            ],
        }
        for name, curve in curves.items()
    ]
    facts = {f"{name}_{end}": format_number(curve[i][1]) for name, curve in curves.items() for end, i in ENDS}
    return {
        "heading": translate("perturbation.heading"),
        "fractions": [fraction for fraction, _ in curves["deletion"]],
        "steps": steps,
        "lines": lines,
        "sprite": encode_data_url(_join_tiles(rows), "JPEG"),
        "tile": list(rows[0][0].size),
        "first": FIRST_STEP,
        "axis": translate("perturbation.axis"),
        "slider": translate("perturbation.slider"),
        "alt": translate("perturbation.alt", label=label, method=attribution.method, **facts),
    }


def _list_tiles(photos: Sequence[Image.Image]) -> list[Image.Image]:
    """Return the photos of a curve in the size in which they are shown."""
    factor = min(1.0, TILE_SIDE_PX / max(photos[0].size))
    size = (max(1, round(photos[0].width * factor)), max(1, round(photos[0].height * factor)))
    return [photo.resize(size, Image.Resampling.BOX) for photo in photos]


def _join_tiles(rows: Sequence[Sequence[Image.Image]]) -> Image.Image:
    """Return one image with a row of photos for each curve."""
    width, height = rows[0][0].size
    joined = Image.new("RGB", (width * len(rows[0]), height * len(rows)))
    for top, row in enumerate(rows):
        for left, tile in enumerate(row):
            joined.paste(tile, (left * width, top * height))
    return joined
