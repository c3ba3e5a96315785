"""What a server did since it started: counts and seconds for `/metrics`, and one line of JSON for each run of a model.

Nothing here holds a photo, a path or an address: only names from the tables of methods and models, and numbers.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from vizlib import VizlibError

LOG = logging.getLogger("vizlib.dashboard")


class RunMetrics:
    """Counters that many threads may raise."""

    def __init__(self) -> None:
        self.runs: Counter[tuple[str, str]] = Counter()  # (what was asked of a model, how it ended)
        self.seconds: Counter[str] = Counter()  # by what was asked
        self.requests: Counter[tuple[str, str]] = Counter()  # (route, status)
        self._lock = threading.Lock()

    @contextmanager
    def measure_run(self, what: str, model: str) -> Iterator[None]:
        """Time what a model is asked, and log it when it is over."""
        started, end = time.perf_counter(), "failed"
        try:
            yield
            end = "answered"
        except (VizlibError, GeneratorExit) as error:
            end = "refused" if isinstance(error, VizlibError) else "stopped"
            raise
        finally:
            seconds = time.perf_counter() - started
            with self._lock:
                self.runs[what, end] += 1
                self.seconds[what] += seconds  # pyright: ignore[reportArgumentType] - a Counter adds any numbers
            log_event(event="run", what=what, model=model, end=end, seconds=round(seconds, 4))

    def count_request(self, route: str, status: int) -> None:
        """Count a request that was answered."""
        with self._lock:
            self.requests[route, str(status)] += 1


def log_event(**about: object) -> None:
    """One line for machines."""
    LOG.info(json.dumps({"time": round(time.time(), 3), **about}))


def exposition(rows: Iterable[tuple[str, str, str, Mapping[tuple[str, ...], float], tuple[str, ...]]]) -> str:
    """Prometheus's text format: rows of name, kind, help, values by labels, and what the labels are called."""
    lines = []
    for name, kind, words, values, labels in rows:
        lines += [f"# HELP {name} {words}", f"# TYPE {name} {kind}"]
        for key, value in sorted(values.items()):
            pairs = ",".join(f'{label}="{_escaped(text)}"' for label, text in zip(labels, key, strict=True))
            lines.append(f"{name}{{{pairs}}} {value}" if pairs else f"{name} {value}")
    return "\n".join([*lines, ""])


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
