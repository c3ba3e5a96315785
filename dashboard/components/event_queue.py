"""An invisible component that queues the user's choices while earlier ones are being handled.

Its `input` event sends the queued choices; `submit` is sent instead if one of them selects a model, which may have to
be downloaded.

gradio's own `trigger_mode` keeps no order among different events, and sends the data of an earlier event again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from dashboard.components.custom_component import read_script

Choice = Mapping[str, Any]  # selected values by name: "model", "target", "method", ...


def parse_choices(value: Any) -> list[Choice]:
    """Return the choices in the value of an event queue, in the order they were made; invalid entries are left out."""
    choices = value.get("choices") if isinstance(value, Mapping) else None
    return [choice for choice in choices if isinstance(choice, Mapping)] if isinstance(choices, list) else []


def acknowledge_choices(value: Any) -> dict[str, Any]:
    """Return the value by which an event queue recognises that its choices were handled, so that it sends the next."""
    return {"answered": value.get("turn") if isinstance(value, Mapping) else None}


def report_failure_js(queue: str = "event-queue") -> str:
    """Return a JavaScript event handler that reports to an event queue that handling its choices failed."""
    return f"() => {{ {_dispatch_js('viz-failure', queue=queue)} }}"


def report_current_file_js() -> str:
    """Return a JavaScript event handler for the page load that passes the file in the upload box to the event queue."""
    return f"(file) => {{ {_dispatch_js('viz-current-file', 'file')} }}"


def restore_file_js() -> str:
    """Return a JavaScript event handler for a failed choice that restores the last valid file in the upload box.

    Unless the value of the event queue is `wrong`, it returns an update without a change: setting even the same file
    would fire the box's change event.
    """
    dispatch, no_change = _dispatch_js("viz-restore-file", "request"), "{ __type__: 'update' }"
    return (
        f"(file, value) => {{ const request = {{ file, update: {no_change} }}; "
        f"if (value && value.wrong) {dispatch} return request.update; }}"
    )


def _dispatch_js(event: str, detail: str = "null", queue: str = "event-queue") -> str:
    """Return JavaScript that sends an event of the browser to an event queue."""
    element = f"document.querySelector('#{queue} .viz-event_queue')"
    return f"{element}.dispatchEvent(new CustomEvent('{event}', {{ detail: {detail} }}));"


def emit_choice_js(arguments: str, choice: str, queue: str = "event-queue") -> str:
    """Return a JavaScript event handler for one of gradio's own components that adds a choice to an event queue.

    Args:
        arguments: The handler's parameters, comma-separated: the values of the event's inputs.
        choice: The choice as a JavaScript expression of the parameters.
        queue: The element id of the event queue.
    """
    return f"({arguments}) => {{ {read_script('emit_choice.js')} emitChoice({choice}, {json.dumps(queue)}); }}"
