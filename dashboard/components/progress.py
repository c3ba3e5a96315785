"""The estimated cost and the progress of a method of many forward passes, with a button that starts or stops it.

The button fires `submit` to start and `stop` to stop.
"""

from __future__ import annotations

from typing import Any

from dashboard.i18n.translate import translate


def build_waiting_progress(text: str, *, start_now: bool = False) -> dict[str, Any]:
    """Return the value of the progress bar before the start: the cost in words, and whether to start at once."""
    return {"state": "waiting", "text": text, "begin": start_now}


def build_running_progress(done: int, total: int, time_left: str) -> dict[str, Any]:
    """Return the value of the progress bar of a running method: forward passes done, in total, and time left."""
    share = done / total if total else 0.0
    passes = {"done": f"{done:,}", "total": f"{total:,}"}
    text = translate("progress.left", **passes, left=time_left) if time_left else translate("progress.passes", **passes)
    return {"state": "running", "share": share, "text": text, "stopped": translate("progress.stopped", **passes)}


def format_duration(seconds: float) -> str:
    """Return the estimated or remaining time of a progress bar in rounded words.

    >>> [format_duration(seconds) for seconds in (0.2, 7.4, 44.0, 100.0, 400.0)]
    ['a second', '7 seconds', '45 seconds', '1½ minutes', '7 minutes']
    """
    if seconds < 1.5:
        return translate("common.a-second")
    if seconds < 55:
        return translate("common.seconds", count=round(seconds) if seconds < 10 else 5 * round(seconds / 5))
    if seconds < 80:
        return translate("common.a-minute")
    if seconds < 105:
        return translate("common.minute-and-half")
    return translate("common.minutes", count=round(seconds / 60))
