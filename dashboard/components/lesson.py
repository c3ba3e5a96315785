"""One step of a lesson: its words, its pictures, and the way to the next; all words come in the visitor's language.

`select` asks for the step of its `index`; the way to the tab it comes from chooses that `tab` and its `method`, the way
to another network that `model`.
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
) -> dict[str, Any]:
    """The step, counted from 0, among the `titles` of all; a picture is a map on a photo or a still, with a caption.

    Maps are drawn on the `ground` unless they bring a photo. `labels` are of the buttons, `tab` is where the same is to
    be seen at large, with this `method` chosen there, and `other` a model with more to see.
    """
    return {
        "step": step,
        "titles": list(titles),
        "paragraphs": list(paragraphs),
        "pictures": [dict(picture) for picture in pictures],
        "labels": dict(labels),
        "ground": dict(base_photo),
        "columns": columns,
        "code": code,
        "tab": tab,
        "method": method,
        "other": other_model,
    }


def mark_pending_js() -> str:
    """A browser's answer to an event: the step that is shown is of something else by now; it asks when it is seen."""
    return "(value) => ({ ...value, pending: true })"
