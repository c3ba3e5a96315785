"""One step of a lesson: its text and pictures in the language of the request, and the buttons to other steps.

`select` requests the step of its `index`. One button emits the choices `tab` and `method` of the tab that shows the
same at full size, another the choice `model` of a model that shows more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def build_lesson(
    step: int,
    titles: Sequence[str],
    paragraphs: Sequence[str],
    pictures: Sequence[Mapping[str, Any]],
    labels: Mapping[str, str],
    base_photo: Mapping[str, Any],
    *,
    columns: int = 2,
    code: str = "",
    tab: str = "",
    method: str = "",
    other_model: str = "",
    frames: Sequence[str] = (),
    product: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the value of the lesson component: one step with its texts and pictures.

    Args:
        step: The index of the step, from 0.
        titles: The titles of all steps.
        paragraphs: The text of the step.
        pictures: Maps over a photo, or images, each with a caption.
        labels: The texts of the buttons.
        base_photo: The photo under maps that have none of their own.
        columns: The number of pictures in a row.
        code: The code that reproduces the step.
        tab: The tab that shows the same at full size.
        method: The method to select there.
        other_model: The name of a model that shows more.
        frames: The name of each position of the slider, where pictures have one map for each.
        product: Weights with a slider each, and matrices whose rows they weight, if any.
    """
    return {
        "step": step,
        "titles": list(titles),
        "paragraphs": list(paragraphs),
        "pictures": [dict(picture) for picture in pictures],
        "labels": dict(labels),
        "basePhoto": dict(base_photo),
        "columns": columns,
        "code": code,
        "tab": tab,
        "method": method,
        "otherModel": other_model,
        "frames": list(frames),
        "product": product,
    }


def mark_lesson_pending_js() -> str:
    """Return a JavaScript event handler that marks a lesson as outdated; it requests its step when it is visible."""
    return "(value) => ({ ...value, pending: true })"
