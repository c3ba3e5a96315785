"""The estimated cost and the progress of a method of many forward passes, with a button that starts or stops it.

The button fires `submit` to start and `stop` to stop.
"""

from __future__ import annotations

from typing import Any

from dashboard.i18n.translate import translate


def build_waiting(text: str, *, start_now: bool = False) -> dict[str, Any]:
    """Return the value before the start: the cost in words, and whether to start without a click."""
    return {"state": "waiting", "text": text, "begin": start_now}


def build_running(done: int, total: int, time_left: str) -> dict[str, Any]:
    """Return the value while the method runs: forward passes done and in total, and the remaining time in words."""
    share = done / total if total else 0.0
    passes = {"done": f"{done:,}", "total": f"{total:,}"}
    text = translate("progress.left", **passes, left=time_left) if time_left else translate("progress.passes", **passes)
    return {"state": "running", "share": share, "text": text, "stopped": translate("progress.stopped", **passes)}
