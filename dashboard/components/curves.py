"""Curves over epochs: each named at its end, its values under the mouse, and told in words to those who cannot see."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from dashboard.i18n.translate import translate


def build_curve(
    name: str, x: Sequence[float], y: Sequence[float], *, colour: int, dashed: bool = False, faint: bool = False
) -> dict[str, Any]:
    """One curve in one of three colours; a `faint` one only accompanies another, and has no name at its end."""
    points = [(at, value) for at, value in zip(x, y, strict=True) if math.isfinite(value)]
    return {
        "name": name,
        "x": [at for at, _ in points],
        "y": [value for _, value in points],
        "colour": colour,
        "dashed": dashed,
        "faint": faint,
    }


def build_curves(
    lines: Sequence[dict[str, Any]], *, label: str, caption: str = "", marks: Mapping[float, str] | None = None
) -> dict[str, Any]:
    """Curves in one picture; `marks` name places along the x axis where something changed."""
    lines = [line for line in lines if line["x"]]
    if not lines:
        return {}
    ends = ((line["name"], f"{line['y'][0]:.1f}", f"{line['y'][-1]:.1f}") for line in lines)
    told = "; ".join(translate("curves.line", name=name, first=first, last=last) for name, first, last in ends)
    return {
        "lines": lines,
        "axes": [translate("curves.epoch"), translate("curves.top1")],
        "ticks": [compute_ticks([x for line in lines for x in line["x"]]), compute_ticks([y for line in lines for y in line["y"]])],
        "marks": [{"at": at, "name": name} for at, name in (marks or {}).items()],
        "caption": caption,
        "alt": translate("curves.alt", name=label, lines=told),
    }


def compute_ticks(values: Sequence[float], max_ticks: int = 7) -> list[float]:
    """Round numbers that span the values, a 1, 2 or 5 of some power of ten apart; epochs are whole.

    >>> ticks([33.6, 84.2])
    [30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 90.0]
    >>> ticks([1, 2, 3])
    [1.0, 2.0, 3.0]
    """
    low, high = min(values), max(values)
    step = next(
        step for power in range(12) for step in (10**power, 2 * 10**power, 5 * 10**power) if (high - low) / step <= max_ticks
    )
    first, last = math.floor(low / step), max(math.ceil(high / step), math.floor(low / step) + 1)
    return [float(step * i) for i in range(first, last + 1)]
