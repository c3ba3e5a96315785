"""Curves over epochs, labelled at their ends, with the values under the pointer and a text alternative."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import gradio as gr

from dashboard.components.custom_component import custom_component
from dashboard.i18n.translate import translate


def build_curve(
    name: str, x: Sequence[float], y: Sequence[float], *, colour: int, dashed: bool = False, faint: bool = False
) -> dict[str, Any]:
    """Return one of the curves, in one of three colours, without non-finite values; a `faint` curve has no label."""
    points = [point for point in zip(x, y, strict=True) if math.isfinite(point[1])]
    return {
        "name": name,
        "x": [point[0] for point in points],
        "y": [point[1] for point in points],
        "colour": colour,
        "dashed": dashed,
        "faint": faint,
    }


def build_curves(
    lines: Sequence[dict[str, Any]], *, label: str, caption: str = "", marks: Mapping[float, str] | None = None
) -> dict[str, Any]:
    """Return the value of the curves, empty without points; `marks` annotates places on the x axis."""
    lines = [line for line in lines if line["x"]]
    if not lines:
        return {}
    ends = ((line["name"], f"{line['y'][0]:.1f}", f"{line['y'][-1]:.1f}") for line in lines)
    descriptions = [translate("curves.line", name=name, first=first, last=last) for name, first, last in ends]
    return {
        "lines": lines,
        "axes": [translate("curves.epoch"), translate("curves.top1")],
        "ticks": [
            compute_axis_ticks([x for line in lines for x in line["x"]]),
            compute_axis_ticks([y for line in lines for y in line["y"]]),
        ],
        "marks": [{"at": at, "name": name} for at, name in (marks or {}).items()],
        "caption": caption,
        "alt": translate("curves.alt", name=label, lines="; ".join(descriptions)),
    }


def add_captioned_curves(curves_id: str, caption_id: str | None = None) -> tuple[gr.HTML, gr.HTML]:
    """Add curves beside their caption to the page, with these element ids, and return caption and curves."""
    with gr.Row(equal_height=False, elem_classes="viz-section"):
        with gr.Column(scale=4, min_width=280):
            caption = gr.HTML(elem_id=caption_id, apply_default_css=False)
        with gr.Column(scale=6, min_width=320):
            curves = custom_component("curves", elem_id=curves_id)
    return caption, curves


def compute_axis_ticks(values: Sequence[float], max_ticks: int = 7) -> list[float]:
    """Return the ticks on an axis of curves: round numbers that span the values, with steps of 1, 2, 5, 10, ...

    >>> compute_axis_ticks([33.6, 84.2])
    [30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 90.0]
    >>> compute_axis_ticks([1, 2, 3])
    [1.0, 2.0, 3.0]
    """
    low, high = min(values), max(values)
    step = next(
        step
        for power in range(12)
        for step in (10**power, 2 * 10**power, 5 * 10**power)
        if (high - low) / step <= max_ticks
    )
    first, last = math.floor(low / step), max(math.ceil(high / step), math.floor(low / step) + 1)
    return [float(step * i) for i in range(first, last + 1)]
