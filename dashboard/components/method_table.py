"""A table that ranks methods by metrics: mean, interval and rank in each cell, reference maps in the last rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from dashboard.i18n.translate import translate
from vizlib.core.text import format_number
from vizlib.metrics import METRICS, BenchmarkSummary
from vizlib.metrics.ranking import RankedMethod, group_columns

REFERENCES = ("random", "centred_gaussian", "edges")


def build_method_table(rows: Sequence[RankedMethod], *, label: str) -> dict[str, Any]:
    """Return the value of the table; empty without rows.

    Args:
        rows: The ranking of a network.
        label: What a screen reader calls the table.
    """
    if not rows:
        return {}
    columns = group_columns(rows)
    methods = list(dict.fromkeys(row.summary.method for row in rows))
    return {
        "label": label,
        "corner": translate("model.ranking-method"),
        "columns": [
            {
                "name": metric,
                "parameters": parameters,
                "data": translate("model.ranking-photos", count=max(one.photos for one in cells.values())),
                "higher": METRICS[metric].higher_is_better,
                "direction": translate(
                    "model.ranking-higher" if METRICS[metric].higher_is_better else "model.ranking-lower"
                ),
            }
            for (metric, parameters, _), cells in columns.items()
        ],
        "rows": [
            {"name": method, "cells": [_build_cell(cells.get(method)) for cells in columns.values()]}
            for method in methods
        ],
        "references": [
            {
                "name": translate(f"model.ranking-{name.replace('_', '-')}"),
                "cells": [_format_mean([getattr(one, name) for one in cells.values()]) for cells in columns.values()],
            }
            for name in REFERENCES
        ],
    }


def _build_cell(one: BenchmarkSummary | None) -> dict[str, Any]:
    """Return a cell of the table; one with a dash where the method was not measured."""
    if one is None or not math.isfinite(one.mean):
        return {"text": "–", "interval": "", "value": None, "best": False}
    interval = f"{format_number(one.low)} – {format_number(one.high)}"
    return {"text": format_number(one.mean), "interval": interval, "value": one.mean, "best": one.rank == 1}


def _format_mean(values: Sequence[float]) -> str:
    """Return the mean of the values of a reference map, which differ by the resolution of the maps; a dash for none."""
    finite = [value for value in values if math.isfinite(value)]
    return format_number(sum(finite) / len(finite)) if finite else "–"
