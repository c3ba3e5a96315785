"""Count of the choices of each session."""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock

import gradio as gr

MAX_COUNTED_SESSIONS = 10_000  # the count of an evicted session starts again from 0


class GenerationCounter:
    """Count the choices of each session, so that work for one choice can detect that another one followed.

    Leaving the page counts as a choice.
    """

    def __init__(self) -> None:
        self._counts: OrderedDict[str | None, int] = OrderedDict()  # by session, the most recent choice last
        self._lock = Lock()

    def current(self, request: gr.Request) -> int:
        """Return the generation of a session: the number of its choices so far."""
        return self._counts.get(request.session_hash, 0)

    def advance(self, request: gr.Request) -> None:
        """Count one more choice of a session, which begins another generation."""
        with self._lock:
            self._counts[request.session_hash] = self._counts.pop(request.session_hash, 0) + 1
            if len(self._counts) > MAX_COUNTED_SESSIONS:
                self._counts.popitem(last=False)
