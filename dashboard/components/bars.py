"""The top-5 bars: the likeliest classes as buttons; a click chooses the `target`, or the class to set it `against`.

Above them stands the doubt, where the model has one: a softmax is sure of a photo of nothing it knows, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dashboard.i18n.translate import translate, translate_note
from vizlib import Prediction
from vizlib.core.text import format_percent, shorten_label

MAX_LISTED_CLASSES = 20  # a model that knows no more classes than this had better say which they are


def build_bars(
    predictions: Sequence[Prediction],
    target: int,
    top: int = 5,
    *,
    against: int | None = None,
    ood_note: str | None = None,
    model: str = "",
) -> dict[str, Any]:
    """The first of all predictions, and the target and the class it is set against too if they are not among them.

    A small model also says all it knows. `model` is the name of the one whose classes they are.
    """
    rows = list(predictions[:top])
    rows += [one for one in predictions[top:] if one.index in (target, against)]
    names = sorted((shorten_label(one.label) for one in predictions), key=str.lower)
    note = translate("bars.note", count=len(names), names=", ".join(names)) if len(names) <= MAX_LISTED_CLASSES else ""
    return {
        "model": model,
        "target": target,
        "against": against,
        "note": note,
        "doubt": translate_note(ood_note or ""),
        "rows": [
            {
                "index": one.index,
                "label": one.label,
                "name": shorten_label(one.label),
                "probability": one.probability,
                "share": format_percent(one.probability),
            }
            for one in rows
        ],
    }
