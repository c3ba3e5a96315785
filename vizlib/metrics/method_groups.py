"""Measure several methods of one photo by metrics that run them again, from passes that they share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from vizlib.attribution.measurement import Measurement
from vizlib.attribution.methods.registry import METHODS as ATTRIBUTION_METHODS
from vizlib.attribution.request import MethodCall
from vizlib.attribution.result import Attribution
from vizlib.metrics.measuring import add_seed, is_constant, make_measurement, make_scored_photo
from vizlib.metrics.method_checks import iterate_randomisations, iterate_sensitivities
from vizlib.metrics.metric import Metric
from vizlib.metrics.registry import get_metric
from vizlib.metrics.scored_photo import ScoredPhoto
from vizlib.models.inference.batched_inference import DEFAULT_BUDGET_MB
from vizlib.models.model import Model

SHARED_METRICS = ("parameter-randomisation", "max-sensitivity")


def measure_methods_together(
    model: Model, attributions: Mapping[str, Attribution], metric: str, *, seed: int = 0, **parameters: Any
) -> dict[str, Measurement]:
    """Return the measurements of several methods of one pass by a metric of methods, which share its passes.

    Args:
        model: The model.
        attributions: Maps of one photo and target by name of the method.
        metric: `"parameter-randomisation"` or `"max-sensitivity"`; of another metric nothing is measured.
        seed: Seed of all random numbers.
        **parameters: Parameters of the metric.

    Returns:
        The measurement of each map that is not constant.

    Raises:
        VizlibError: As `measure`.
        ModelError: If the network cannot be run or copied.
    """
    if metric not in SHARED_METRICS:
        return {}
    row = get_metric(metric)
    values = row.resolve_parameters(model, add_seed(row, parameters, seed))
    measured: dict[str, Measurement] = {}
    if varied := {name: one for name, one in attributions.items() if not is_constant(one.heat)}:
        photo = make_scored_photo(model, next(iter(varied.values())), row, "float32", DEFAULT_BUDGET_MB)
        for group in group_by_score_kind(model, varied):
            *_, (measured_group, _) = iterate_methods_together(photo, group, row, values)
            measured |= measured_group
    return measured


def group_by_score_kind(
    model: Model, attributions: Mapping[str, Attribution]
) -> list[dict[str, tuple[Attribution, MethodCall]]]:
    """Return attributions with the call of their method, in groups that explain the same kind of score.

    Args:
        model: The model.
        attributions: Maps by name of the method.

    Raises:
        MethodError: Where a method does not exist, or does not support the model.
    """
    groups: dict[str, dict[str, tuple[Attribution, MethodCall]]] = {}
    for name, one in attributions.items():
        call = ATTRIBUTION_METHODS.resolve_method(model, one.method, one.parameters)
        groups.setdefault(call.score_kind, {})[name] = one, call
    return list(groups.values())


def iterate_methods_together(
    photo: ScoredPhoto,
    group: Mapping[str, tuple[Attribution, MethodCall]],
    row: Metric,
    values: Mapping[str, Any],
) -> Iterator[tuple[dict[str, Measurement], float]]:
    """Yield the measurements of several methods after each batch of shared passes, and how much of the work is done.

    Args:
        photo: Photo, model and score.
        group: Maps with the call of their method, one of the groups of `group_by_score_kind`.
        row: One of the metrics in `SHARED_METRICS`.
        values: Value of each parameter of the metric.
    """
    calls = [call for _, call in group.values()]
    if row.name == "max-sensitivity":
        steps = iterate_sensitivities(photo, calls, **values)
    else:
        steps = iterate_randomisations(photo, calls, [one.heat for one, _ in group.values()], **values)
    for results in steps:
        measured = {
            name: make_measurement(row, result, (), values) for name, result in zip(group, results, strict=True)
        }
        yield measured, results[0].done / results[0].total
