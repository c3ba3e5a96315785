"""A button that ablates one unit, the list of ablated units, and the predictions with and without them.

A click emits the choice `switch`: "toggle" for the current unit, "all" to restore all units, or the place in the list
of the unit to restore.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dashboard.i18n.translate import translate
from vizlib import Prediction
from vizlib.core.text import shorten_label

NUM_PREDICTIONS = 5


def build_ablation_list(
    label: str, off: Sequence[str], before: Sequence[Prediction], after: Sequence[Prediction] | None, target: int
) -> dict[str, Any]:
    """Return the value of the list of ablated units, with the predictions before and after the ablation.

    Args:
        label: The text of the button.
        off: The names of the ablated units.
        before: The predictions of all classes without ablation.
        after: The predictions with the units ablated; None if there are none.
        target: The index of the target class.
    """
    value: dict[str, Any] = {"label": label, "off": list(off), "comparison": []}
    if after is not None:
        without = translate("ablation.one-off") if len(off) == 1 else translate("ablation.off", count=len(off))
        value["comparison"] = [
            {"heading": translate("ablation.before"), "rows": _build_rows(before, target)},
            {"heading": without, "rows": _build_rows(after, target)},
        ]
        value["effect"] = describe_effect(before, after, target)
    return value


def describe_effect(before: Sequence[Prediction], after: Sequence[Prediction], target: int) -> str:
    """Describe how the ablation changed the target class, and the top prediction if that is another one now."""
    old, new = (next(row for row in rows if row.index == target) for rows in (before, after))
    facts = {
        "class": shorten_label(old.label),
        "before": old.text,
        "after": new.text,
        "change": f"{new.logit - old.logit:+.2f}".replace("-", "\u2212"),
    }
    if before[0].index == after[0].index:
        return translate("ablation.goes", **facts)
    return translate("ablation.first", **facts, other=shorten_label(after[0].label))


def _build_rows(predictions: Sequence[Prediction], target: int) -> list[dict[str, Any]]:
    """Return the rows of the ablation list: the top predictions, and that of the target class if not among them."""
    rows = [*predictions[:NUM_PREDICTIONS], *(row for row in predictions[NUM_PREDICTIONS:] if row.index == target)]
    return [
        {
            "name": shorten_label(row.label),
            "probability": row.probability or 0.0,  # the length of the bar
            "share": row.text,
            "target": row.index == target,
        }
        for row in rows
    ]
