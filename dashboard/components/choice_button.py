"""A button that emits a choice, and shows whether it is the current one."""

from __future__ import annotations

from typing import Any


def build_choice_button(label: str, choice: dict[str, Any], *, pressed: bool) -> dict[str, Any]:
    """Return the value of the button.

    Args:
        label: Its text.
        choice: What a click emits.
        pressed: Whether it is the current choice.
    """
    return {"label": label, "choice": choice, "pressed": pressed}
