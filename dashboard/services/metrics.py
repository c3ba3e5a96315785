"""Counts and times of a server for `/metrics`, and one line of JSON for each run of a model.

Neither holds a photo, a path or an address: only names from the tables of methods and models, and numbers.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from vizlib import VizlibError

LOG = logging.getLogger("vizlib.dashboard")


class RunMetrics:
    """Counters of model runs and HTTP requests that any thread may increase."""

    def __init__(self) -> None:
        self.runs: Counter[tuple[str, str]] = Counter()  # by (method or task, outcome)
        self.seconds: Counter[str] = Counter()  # by method or task
        self.requests: Counter[tuple[str, str]] = Counter()  # by (route, status)
        self._lock = threading.Lock()

    @contextmanager
    def measure_run(self, method: str, model: str) -> Iterator[None]:
        """Time a run of a model, count it by its outcome ("answered", "refused", "stopped" or "failed") and log it."""
        started, outcome = time.perf_counter(), "failed"
        try:
            yield
            outcome = "answered"
        except (VizlibError, GeneratorExit) as error:
            outcome = "refused" if isinstance(error, VizlibError) else "stopped"
            raise
        finally:
            seconds = time.perf_counter() - started
            with self._lock:
                self.runs[method, outcome] += 1
                self.seconds[method] += seconds  # pyright: ignore[reportArgumentType] - a Counter adds any numbers
            log_event(event="run", what=method, model=model, end=outcome, seconds=round(seconds, 4))

    def count_request(self, route: str, status: int) -> None:
        """Count a finished HTTP request."""
        with self._lock:
            self.requests[route, str(status)] += 1


def log_event(**values: object) -> None:
    """Log one event that the metrics count, as a line of JSON."""
    LOG.info(json.dumps({"time": round(time.time(), 3), **values}))


def make_counter(name: str, description: str, labels: tuple[str, ...], values: Mapping) -> Metric:
    """Return a counter for Prometheus; `values` maps the values of its labels, in their order, to counts."""
    family = CounterMetricFamily(name, description, labels=labels)
    for key, value in sorted(values.items()):
        family.add_metric(key if isinstance(key, tuple) else (key,), value)
    return family


def make_gauge(name: str, description: str, value: float) -> Metric:
    """Return a gauge with one value for Prometheus."""
    return GaugeMetricFamily(name, description, value=value)


def render_metrics(metrics: Iterable[Metric]) -> bytes:
    """Return metrics in the text format of Prometheus, version 0.0.4."""
    registry = CollectorRegistry()
    registry.register(_Collector(list(metrics)))
    return generate_latest(registry)


class _Collector(Collector):
    """Metrics whose values are given."""

    def __init__(self, metrics: list[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> list[Metric]:
        """Return the Prometheus metrics that were given."""
        return self._metrics
