"""The one table of metrics: command line, documentation and tests read it."""

from __future__ import annotations

from vizlib.core.errors import VizlibError, suggest_names
from vizlib.metrics import complexity, faithfulness, localisation, method_checks
from vizlib.metrics.metric import Metric

METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        *faithfulness.METRICS,
        *method_checks.METRICS,
        *localisation.METRICS,
        *complexity.METRICS,
    )
}


def get_metric(name: str) -> Metric:
    """Return the row of a metric.

    Args:
        name: Its name.

    Raises:
        VizlibError: For an unknown name.
    """
    if name not in METRICS:
        raise VizlibError(f"there is no metric {name!r}; {suggest_names(str(name), METRICS)}")
    return METRICS[name]


def list_metrics(*, with_region: bool = True) -> list[str]:
    """Return the names of the metrics that `measure` takes.

    Args:
        with_region: Include those that need boxes or a mask of the object.

    Example:
        >>> import vizlib
        >>> "iou" in vizlib.metrics.list_metrics(with_region=False)
        False
    """
    return [name for name, metric in METRICS.items() if with_region or not metric.needs_region]
