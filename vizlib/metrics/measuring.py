"""Measure an attribution by one metric, beside maps that know nothing about the model."""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vizlib.attribution.explain import estimate_stream_seconds
from vizlib.attribution.measurement import Measurement
from vizlib.attribution.result import Attribution
from vizlib.core.errors import VizlibError
from vizlib.core.text import make_note
from vizlib.metrics.localisation import Box, make_region
from vizlib.metrics.metric import Heats, Metric, MetricValues
from vizlib.metrics.reference_maps import make_random_maps, make_reference_maps
from vizlib.metrics.registry import get_metric
from vizlib.metrics.scored_photo import ScoredPhoto
from vizlib.models.inference.batched_inference import DEFAULT_BUDGET_MB
from vizlib.models.model import Model

RANDOM_MAPS = 20
MAX_RANDOM_MAPS = 10000


class MeasurementStep(NamedTuple):
    """The result of `measure_stream` after some of its passes; that of the last step is `measure`'s.

    Attributes:
        measurement: The measurement so far; values that are not computed yet are NaN.
        done: How many passes are done.
        total: How many there are.
    """

    measurement: Measurement
    done: int
    total: int


def measure(
    model: Model,
    attribution: Attribution,
    metric: str = "deletion",
    *,
    boxes: Sequence[Box] | None = None,
    mask: Any = None,
    random_maps: int = RANDOM_MAPS,
    seed: int = 0,
    precision: str = "auto",
    budget_mb: int = DEFAULT_BUDGET_MB,
    **parameters: Any,
) -> Measurement:
    """Return the value of a metric for an attribution, and for maps that know nothing about the model.

    A value alone says little: the deletion curve of a small object falls fast for any map. So metrics of maps measure
    the same for random maps, a centred Gaussian and the edges of the photo, all in the resolution of the attribution;
    metrics of a method compare with its values in random places. A constant map has no value, and a note says so.

    Args:
        model: The model that the attribution explains.
        attribution: The attribution.
        metric: Name of the metric; `list_metrics` lists them.
        boxes: For metrics that need the object: its boxes as (left, top, right, bottom) in pixels of the photo.
        mask: Or its mask, an array of the photo's height and width.
        random_maps: How many random maps are measured; 0 for no reference maps at all. Metrics of a method have
            reference values of their own.
        seed: Seed of all random numbers: of the random maps and of the metric.
        precision: `"auto"` for bfloat16 where the processor supports it and a check passes, or `"float32"`.
        budget_mb: Memory for one batch, in megabytes.
        **parameters: Parameters of the metric, for example `steps=10`.

    Returns:
        The measurement; `better_than_random` is the fraction of random maps with a worse value.

    Raises:
        VizlibError: For an unknown metric or parameter, a value that is not accepted, a map of another model, or a
            metric that needs boxes or a mask.
        ModelError: If the model cannot be run.

    References:
        Each metric's paper is in `vizlib.metrics.METRICS`.

    Example:
        >>> import vizlib
        >>> from gradio.media import get_image
        >>> model = vizlib.load("resnet18-imagenette")
        >>> attribution = vizlib.explain(model, get_image("tower.jpg"), "grad-cam")
        >>> measurement = vizlib.metrics.measure(model, attribution, "deletion", steps=5, random_maps=4)
        >>> len(measurement.random_values), sorted(measurement.references)
        (4, ['centred-gaussian', 'edges'])
    """
    steps = measure_stream(
        model,
        attribution,
        metric,
        boxes=boxes,
        mask=mask,
        random_maps=random_maps,
        seed=seed,
        precision=precision,
        budget_mb=budget_mb,
        **parameters,
    )
    *_, last = steps
    return last.measurement


def measure_stream(
    model: Model,
    attribution: Attribution,
    metric: str = "deletion",
    *,
    boxes: Sequence[Box] | None = None,
    mask: Any = None,
    random_maps: int = RANDOM_MAPS,
    seed: int = 0,
    precision: str = "auto",
    budget_mb: int = DEFAULT_BUDGET_MB,
    **parameters: Any,
) -> Generator[MeasurementStep, None, None]:
    """Yield the measurement of `measure` after each batch of passes; the attribution comes before the reference maps.

    Nothing is computed between two steps, so iteration can stop at any of them. The arguments are those of `measure`.

    Args:
        model: As in `measure`, like all further arguments.
        attribution: The attribution.
        metric: Name of the metric.
        boxes: Boxes of the object.
        mask: Mask of the object.
        random_maps: How many random maps are measured.
        seed: Seed of all random numbers.
        precision: Precision of the passes.
        budget_mb: Memory for one batch.
        **parameters: Parameters of the metric.

    Yields:
        Steps with the measurement so far, and how many passes are done.

    Raises:
        VizlibError: As `measure`, before the first pass.

    Example:
        >>> import vizlib
        >>> from gradio.media import get_image
        >>> model = vizlib.load("resnet18-imagenette")
        >>> attribution = vizlib.explain(model, get_image("tower.jpg"), "grad-cam")
        >>> steps = list(vizlib.metrics.measure_stream(model, attribution, "insertion", steps=4, random_maps=2))
        >>> steps[-1].done == steps[-1].total
        True
    """
    row = get_metric(metric)
    values = row.resolve_parameters(model, add_seed(row, parameters, seed))
    if not (isinstance(random_maps, int) and 0 <= random_maps <= MAX_RANDOM_MAPS):
        raise VizlibError(f"random_maps is a whole number from 0 to {MAX_RANDOM_MAPS}, not {random_maps!r}")
    inputs = dict(values)
    if row.needs_region:
        inputs["region"] = make_region(attribution, boxes, mask)
    elif boxes is not None or mask is not None:
        raise VizlibError(f"{metric} reads no boxes or mask of the object; leave them out")
    photo = make_scored_photo(model, attribution, row, precision, budget_mb)
    return _measure_steps(photo, row, values, inputs, random_maps, seed)


def measure_together(
    model: Model,
    attributions: Sequence[Attribution],
    metric: str,
    *,
    boxes: Sequence[Box] | None = None,
    random_maps: int = RANDOM_MAPS,
    seed: int = 0,
    precision: str = "auto",
    **parameters: Any,
) -> list[Measurement]:
    """Return the measurements of several maps of one photo, class and resolution, which share their reference maps.

    Args:
        model: The model.
        attributions: Maps of one photo and target, of one resolution, kind of drawing and baseline.
        metric: Name of a metric of maps, not of methods.
        boxes: As in `measure`, like all further arguments.
        random_maps: How many random maps are measured.
        seed: Seed of all random numbers.
        precision: Precision of the passes.
        **parameters: Parameters of the metric.

    Returns:
        The measurement of each map.

    Raises:
        VizlibError: As `measure`.
        ModelError: If the model cannot be run.
    """
    row = get_metric(metric)
    values = row.resolve_parameters(model, add_seed(row, parameters, seed))
    first = attributions[0]
    inputs = {**values, **({"region": make_region(first, boxes)} if row.needs_region else {})}
    photo = make_scored_photo(model, first, row, precision, DEFAULT_BUDGET_MB)
    maps = torch.stack([attribution.heat for attribution in attributions])
    heats, references = _add_reference_maps(photo, maps, random_maps, seed)
    *_, result = row.compute(photo, heats, **inputs)
    others = result.values[len(maps) :]
    return [
        make_constant_measurement(row, values)
        if is_constant(heat)
        else make_measurement(
            row, replace(result, values=torch.cat([value[None], others]), curve=()), references, values
        )
        for heat, value in zip(maps, result.values[: len(maps)], strict=True)
    ]


def is_constant(heat: Tensor) -> bool:
    """Return whether a map has no order: all its values are equal, or some are not finite.

    Args:
        heat: Raw values.
    """
    return not bool(heat.isfinite().all()) or bool(heat.min() == heat.max())


def make_scored_photo(
    model: Model, attribution: Attribution, row: Metric, precision: str, budget_mb: int
) -> ScoredPhoto:
    """Return what a metric reads of an attribution.

    Args:
        model: The model.
        attribution: The attribution.
        row: The metric.
        precision: Precision of the passes.
        budget_mb: Memory for one batch.
    """
    return ScoredPhoto.make(
        model,
        attribution,
        score=row.find_score(attribution.parameters),
        precision=precision,
        budget_mb=budget_mb,
        needs_score=row.needs_score,
    )


def add_seed(row: Metric, parameters: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """Return the parameters of a metric to measure, with the seed if it has one: one seed is for all random numbers.

    Args:
        row: The metric.
        parameters: Its other parameters.
        seed: The seed.
    """
    return {**parameters, "seed": seed} if "seed" in row.parameters else dict(parameters)


def _measure_steps(
    photo: ScoredPhoto,
    row: Metric,
    parameters: dict[str, Any],
    inputs: dict[str, Any],
    random_maps: int,
    seed: int,
) -> Generator[MeasurementStep, None, None]:
    """Yield the measurement after each batch of passes."""
    heats, references = photo.attribution.heat[None], []
    if is_constant(heats):
        yield MeasurementStep(make_constant_measurement(row, parameters), 1, 1)
        return
    if not row.measures_method:
        heats, references = _add_reference_maps(photo, heats, random_maps, seed)
    for values in row.compute(photo, heats, **inputs):
        yield MeasurementStep(make_measurement(row, values, references, parameters), values.done, values.total)


def _add_reference_maps(photo: ScoredPhoto, heats: Heats, random_maps: int, seed: int) -> tuple[Heats, list[str]]:
    """Return maps with the reference maps in their resolution after them, and the names of those that have one."""
    if not random_maps:
        return heats, []
    size = heats.shape[1], heats.shape[2]
    named = make_reference_maps(photo.image, size)
    others = [torch.stack(list(named.values())), make_random_maps(random_maps, size, seed)]
    return torch.cat([heats, *others]), list(named)


def make_constant_measurement(row: Metric, parameters: dict[str, Any]) -> Measurement:
    """Return the measurement of a map without order: no value, and a note.

    Args:
        row: The metric.
        parameters: Value of each parameter.
    """
    note = make_note("metric.constant-map", metric=row.name)
    return Measurement(row.name, math.nan, row.higher_is_better, parameters=parameters, notes=(note,))


def make_measurement(
    row: Metric, values: MetricValues, references: Sequence[str], parameters: Mapping[str, Any]
) -> Measurement:
    """Return the measurement of a metric's values: that of the attribution, of the references, of random maps.

    Args:
        row: The metric.
        values: What it computed so far.
        references: Names of the reference maps, whose values follow that of the attribution.
        parameters: Value of each parameter.
    """
    value, *others = values.values.tolist()
    named = dict(zip(references, others, strict=False))
    notes = values.notes
    if values.done == values.total and not math.isfinite(value) and not notes:
        notes = (make_note("metric.not-defined", metric=row.name),)
    return Measurement(
        metric=row.name,
        value=value,
        higher_is_better=row.higher_is_better,
        random_values=(*values.random_values, *(other for other in others[len(named) :] if math.isfinite(other))),
        references={**values.references, **named},
        parameters=parameters,
        curve=tuple(values.curve),
        notes=notes,
    )


def estimate_seconds(model: Model, attribution: Attribution, metric: str = "deletion", **options: Any) -> float:
    """Return about how many seconds `measure` takes on this machine, measured on its first two batches of passes.

    Args:
        model: The model that the attribution explains.
        attribution: The attribution.
        metric: Name of the metric.
        **options: Further arguments of `measure`.

    Returns:
        Seconds; a guide, as the first call on a model takes longer than later ones.

    Raises:
        VizlibError: As `measure`.

    Example:
        >>> import vizlib
        >>> from gradio.media import get_image
        >>> model = vizlib.load("resnet18-imagenette")
        >>> attribution = vizlib.explain(model, get_image("tower.jpg"), "grad-cam")
        >>> vizlib.metrics.estimate_seconds(model, attribution, "sparseness") > 0
        True
    """
    return estimate_stream_seconds(lambda: measure_stream(model, attribution, metric, **options))
