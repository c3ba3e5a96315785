"""Work that takes a while: what it will cost, how far it is, and the button that begins or stops it.

`submit` fires when it is to begin, `stop` when it is to end.
"""

from __future__ import annotations

from typing import Any

from dashboard.i18n.translate import translate


def build_waiting(text: str, *, start_now: bool = False) -> dict[str, Any]:
    """Nothing runs yet: what it will cost, and a button to begin; with `at_once` it begins by itself."""
    return {"state": "waiting", "said": text, "begin": start_now}


def build_running(done: int, total: int, time_left: str) -> dict[str, Any]:
    """So much is done, and about so long it still takes; with a button to stop."""
    share = done / total if total else 0.0
    passes = {"done": f"{done:,}", "total": f"{total:,}"}
    said = translate("progress.left", **passes, left=time_left) if time_left else translate("progress.passes", **passes)
    return {"state": "running", "share": share, "said": said, "stopped": translate("progress.stopped", **passes)}
