"""A switch for one unit, the list of what is off, and the answers with and without it.

A click chooses what to `switch`: "toggle" the unit that is shown, "all" on again, or the number of one in the list that
comes back on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dashboard.i18n.translate import translate
from vizlib import Prediction
from vizlib.core.text import format_percent, shorten_label

NUM_PREDICTIONS = 5


def build_ablation_list(
    label: str, off: Sequence[str], before: Sequence[Prediction], after: Sequence[Prediction] | None, target: int
) -> dict[str, Any]:
    """The switch reads `label`; `off` names the units that are off, and `after` is the answer without them."""
    value: dict[str, Any] = {"label": label, "off": list(off), "sides": []}
    if after is not None:
        less = translate("ablation.one-off") if len(off) == 1 else translate("ablation.off", count=len(off))
        value["sides"] = [
            {"heading": name, "rows": _rows(found, target)}
            for name, found in zip((translate("ablation.before"), less), (before, after), strict=True)
        ]
        value["says"] = describe_effect(before, after, target)
    return value


def describe_effect(before: Sequence[Prediction], after: Sequence[Prediction], target: int) -> str:
    """What it did to the class the page is about, and to the first place."""
    old, new = (next(one for one in found if one.index == target) for found in (before, after))
    facts = {
        "class": shorten_label(old.label),
        "before": format_percent(old.probability),
        "after": format_percent(new.probability),
        "change": f"{new.logit - old.logit:+.2f}".replace("-", "\u2212"),
    }
    if before[0].index == after[0].index:
        return translate("ablation.goes", **facts)
    return translate("ablation.first", **facts, other=shorten_label(after[0].label))


def _rows(found: Sequence[Prediction], target: int) -> list[dict[str, Any]]:
    shown = list(found[:NUM_PREDICTIONS])
    shown += [one for one in found[NUM_PREDICTIONS:] if one.index == target]
    return [
        {
            "name": shorten_label(one.label),
            "probability": one.probability,
            "share": format_percent(one.probability),
            "target": one.index == target,
        }
        for one in shown
    ]
