"""The most probable classes as bars; a click emits the choice `target`, or `against` for the contrast class.

The out-of-distribution note stands above them: a softmax can be confident on a photo of none of its classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dashboard.i18n.translate import translate, translate_note
from vizlib import Prediction
from vizlib.core.text import shorten_label

MAX_LISTED_CLASSES = 20  # a model with at most so many classes lists them all


def build_bars(
    predictions: Sequence[Prediction],
    target: int,
    top: int = 5,
    *,
    against: int | None = None,
    ood_note: str | None = None,
    model: str = "",
    complement: Prediction | None = None,
) -> dict[str, Any]:
    """Return the value of the bars of the most probable classes.

    Args:
        predictions: The predictions of all classes, most probable first.
        target: The index of the target class; it gets a bar even if it is not among the first.
        top: The number of bars.
        against: The index of the contrast class, which gets a bar too.
        ood_note: The note that the photo is unlike the model's training data.
        model: The name of the model.
        complement: The other side of a single label, which gets a bar that cannot be chosen.
    """
    rows = [*predictions[:top], *(row for row in predictions[top:] if row.index in (target, against))]
    rows += [] if complement is None else [complement]
    names = sorted((shorten_label(row.label) for row in predictions), key=str.lower)
    note = translate("bars.note", count=len(names), names=", ".join(names)) if len(names) <= MAX_LISTED_CLASSES else ""
    return {
        "model": model,
        "target": target,
        "against": against,
        "note": note,
        "oodNote": translate_note(ood_note or ""),
        "rows": [
            {
                "index": row.index,
                "label": row.label,
                "name": shorten_label(row.label),
                "probability": row.probability or 0.0,  # the length of the bar
                "share": row.text,
            }
            for row in rows
        ],
    }
