"""Where the choices of a visitor wait for the answer to those before; nobody sees it.

`input` fires when some are told, `submit` in its place when one of them is of a model, which may have to be fetched.

gradio's own way to hold an event back knows no order among different ones, and sends the data of an earlier one again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Choice = Mapping[str, Any]  # what was chosen, by name


def parse_choices(value: Any) -> list[Choice]:
    """The choices that a desk tells of, first those made first; what a program forged is left out."""
    choices = value.get("choices") if isinstance(value, Mapping) else None
    return [one for one in choices if isinstance(one, Mapping)] if isinstance(choices, list) else []


def acknowledge(value: Any) -> dict[str, Any]:
    """What the desk is told when its choices were answered, so that it tells of the next."""
    return {"answered": value.get("turn") if isinstance(value, Mapping) else None}


def report_failure_js(queue: str = "desk") -> str:
    """A browser's answer to an event that failed."""
    return f"() => {{ {_dispatch_js('viz-failure', queue=queue)} }}"


def report_current_file_js() -> str:
    """A browser's answer to the page's opening: the desk is told of the file that lies in the box."""
    return f"(file) => {{ {_dispatch_js('viz-current-file', 'file')} }}"


def restore_file_js() -> str:
    """A browser's answer to a choice that failed: what is to lie in the box, where what does is `wrong`.

    Else an update of nothing, as what is put there is told of even if it is the same.
    """
    asking, nothing = _dispatch_js("viz-restore-file", "found"), "{ __type__: 'update' }"
    return (
        f"(file, value) => {{ const found = {{ file, put: {nothing} }}; "
        f"if (value && value.wrong) {asking} return found.put; }}"
    )


def _dispatch_js(event: str, detail: str = "null", queue: str = "desk") -> str:
    there = f"document.querySelector('#{queue} .viz-event_queue')"
    return f"{there}.dispatchEvent(new CustomEvent('{event}', {{ detail: {detail} }}));"
