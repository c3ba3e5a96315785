"""Rank methods by metrics on a set of photos, with results that survive an interruption."""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from PIL import Image
from tqdm import tqdm

from vizlib.attribution.explain import explain, explain_all
from vizlib.attribution.measurement import Measurement
from vizlib.attribution.methods.registry import METHODS
from vizlib.attribution.request import ONE_PASS
from vizlib.attribution.result import Attribution
from vizlib.core.errors import ImageError, VizlibError
from vizlib.core.images import open_image
from vizlib.core.version import __version__
from vizlib.metrics.benchmark_table import Benchmark, BenchmarkRow
from vizlib.metrics.localisation import Box
from vizlib.metrics.measuring import measure, measure_together
from vizlib.metrics.method_groups import measure_methods_together
from vizlib.metrics.registry import get_metric
from vizlib.models.loading.checkpoint_files import hash_weights
from vizlib.models.model import Model

DEFAULT_METRICS = ("deletion", "insertion", "parameter-randomisation", "max-sensitivity")
RESULTS_FILE = "results.jsonl"


def benchmark(
    model: Model,
    photos: Iterable[Any],
    *,
    methods: Sequence[str] | None = None,
    metrics: Sequence[str] = DEFAULT_METRICS,
    boxes: Mapping[str, Sequence[Box]] | None = None,
    target: Any = None,
    labels: Mapping[str, Any] | None = None,
    parameters: Mapping[str, Mapping[str, Any]] | None = None,
    random_maps: int = 5,
    seed: int = 0,
    precision: str = "auto",
    folder: str | os.PathLike[str] | None = None,
    progress: bool | None = None,
) -> Benchmark:
    """Return how good the maps of several methods are by several metrics, on a set of photos.

    One photo after another is opened. With a folder, the values of each photo are written as soon as they are known,
    and a benchmark that was interrupted at any moment continues with the first photo that has none.

    Args:
        model: The model.
        photos: Photos as `open_image` accepts them; with a folder, paths.
        methods: Names of methods; by default all that one forward and one backward pass feed.
        metrics: Names of metrics; those that need the object take `boxes`.
        boxes: Boxes of the objects by the path or file name of their photo, as (left, top, right, bottom) in pixels.
        target: Class to explain, as in `explain`; by default the likeliest of each photo.
        labels: Class to explain of each photo by its path or file name, instead of one target for all.
        parameters: Parameters of methods and metrics by their names, such as `{"rise": {"masks": 500}}`.
        random_maps: How many random maps each map is compared with.
        seed: Seed of all random numbers.
        precision: `"auto"` for bfloat16 where the processor supports it and a check passes, or `"float32"`.
        folder: Folder for the results; it may hold those of the same benchmark so far.
        progress: Show a progress bar; by default in a terminal.

    Returns:
        The table.

    Raises:
        VizlibError: For an unknown method, metric or parameter, a photo without its label or boxes, or a
            folder that holds a benchmark with other settings, boxes or weights.
        ModelError: If the model cannot be run.

    Example:
        >>> import vizlib
        >>> from gradio.media import get_image
        >>> model = vizlib.load("resnet18-imagenette")
        >>> table = vizlib.benchmark(
        ...     model, [get_image("tower.jpg")], methods=["saliency", "grad-cam"], metrics=["sparseness"]
        ... )
        >>> [(row.method, row.metric) for row in table.rows]
        [('saliency', 'sparseness'), ('grad-cam', 'sparseness')]
    """
    given = dict(parameters or {})
    chosen = tuple(methods or (call.method.name for call in METHODS.list_single_pass_calls(model)))
    calls = {name: METHODS.resolve_method(model, name, given.get(name, {})) for name in chosen}
    metric_values = {name: get_metric(name).resolve_parameters(model, given.get(name, {})) for name in metrics}
    if seeded := [name for name in metric_values if "seed" in given.get(name, {})]:
        raise VizlibError(f"the seed of {seeded[0]} is that of the benchmark; give seed= to it alone")
    unused = set(given) - set(calls) - set(metric_values)
    if unused:
        raise VizlibError(f"parameters are given for {', '.join(sorted(unused))}, which the benchmark does not use")
    if boxes is None and (needing := [name for name in metrics if get_metric(name).needs_region]):
        raise VizlibError(f"{', '.join(needing)} needs the boxes of the objects: give boxes= by the photos' names")
    # All photos and boxes are checked before the folder is made: nothing is left behind by a wrong request.
    names = _make_names(photos, need_paths=folder is not None)
    if labels is not None and target is not None:
        raise VizlibError("give the class of each photo by labels=, or one class for all by target=, not both")
    boxes_of = {name: _find_entry(boxes, name, "boxes") for name, _ in names}
    targets = {name: target if labels is None else _find_entry(labels, name, "label") for name, _ in names}
    settings = {
        "version": __version__,
        "model": model.name,
        "methods": list(chosen),
        "metrics": list(metrics),
        "parameters": {**{name: dict(call.values) for name, call in calls.items()}, **metric_values},
        "target": _describe_target(target),
        "boxes": None
        if boxes is None
        else _hash_json({name: [list(box) for box in rows] for name, rows in boxes.items()}),
        "labels": None if labels is None else _hash_json(dict(labels)),
        "weights": hash_weights(model.module),
        "random_maps": random_maps,
        "seed": seed,
        "precision": precision,
    }
    runner = _PhotoRunner(model, chosen, tuple(metrics), given, random_maps, seed, precision)
    store = _ResultStore(None if folder is None else Path(folder), settings)
    with tqdm(names, desc="benchmark", disable=None if progress is None else not progress, leave=False) as bar:
        for name, source in bar:
            if name in store:
                continue
            try:
                photo = open_image(source)
            except ImageError as error:
                store.add_error(name, str(error))
                continue
            store.add(name, runner.measure_photo(photo, name, targets[name], boxes_of[name]))
    given_names = [name for name, _ in names]
    rows = tuple(row for name in given_names for row in store.rows.get(name, ()))
    errors = {name: store.errors[name] for name in given_names if name in store.errors}
    return Benchmark(model.name, rows, settings, errors)


def _describe_target(target: Any) -> Any:
    """Return the target of a benchmark for its settings, as JSON."""
    if isinstance(target, Mapping):
        return {str(name): float(weight) for name, weight in target.items()}
    if hasattr(target, "tolist"):
        return target.tolist()
    return getattr(target, "__name__", str(target)) if callable(target) else target


def _hash_json(content: Any) -> str:
    """Return a hash of content in the settings of a benchmark."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _make_names(photos: Iterable[Any], *, need_paths: bool) -> list[tuple[str, Any]]:
    """Return each photo of a benchmark with its name: its path as given, or its number.

    Raises:
        VizlibError: For a photo that is given twice, or with a folder for one that has no path.
    """
    named: dict[str, Any] = {}
    for number, photo in enumerate(photos, 1):
        has_path = isinstance(photo, (str, os.PathLike))
        if need_paths and not has_path:
            raise VizlibError(f"with folder= photos are given by their paths, not as {type(photo).__name__}")
        name = os.fspath(photo) if has_path else f"photo {number}"
        if name in named:
            raise VizlibError(f"the photo {name!r} is given twice")
        named[str(name)] = photo
    return list(named.items())


def _find_entry(entries: Mapping[str, Any] | None, name: str, what: str) -> Any:
    """Return the boxes or the label of a photo of a benchmark, by its path or its file name."""
    if entries is None:
        return None
    found = entries.get(name, entries.get(Path(name).name))
    if found is None:
        raise VizlibError(f"there {'are' if what == 'boxes' else 'is'} no {what} for the photo {name!r}")
    return found


class _PhotoRunner:
    """Explains one photo after another by every method of a benchmark, and measures the maps."""

    def __init__(
        self,
        model: Model,
        methods: tuple[str, ...],
        metrics: tuple[str, ...],
        parameters: Mapping[str, Mapping[str, Any]],
        random_maps: int,
        seed: int,
        precision: str,
    ) -> None:
        self.model, self.methods, self.metrics, self.parameters = model, methods, metrics, parameters
        self.random_maps, self.seed, self.precision = random_maps, seed, precision

    def measure_photo(
        self, photo: Image.Image, name: str, target: Any, boxes: Sequence[Box] | None
    ) -> list[BenchmarkRow]:
        """Return the values of a photo for every method and metric."""
        attributions, seconds = self._explain(photo, target)
        rows = []
        for metric in self.metrics:
            measured = self._measure(attributions, metric, boxes)
            rows += [_make_row(name, method, metric, measured[method], seconds[method]) for method in self.methods]
        return rows

    def _explain(self, photo: Image.Image, target: Any) -> tuple[dict[str, Attribution], dict[str, float]]:
        """Return the attribution of every method, and its time in seconds; methods of one pass share theirs."""
        shared = [name for name in self.methods if METHODS[name].cost == ONE_PASS and name not in self.parameters]
        attributions: dict[str, Attribution] = {}
        seconds: dict[str, float] = {}
        if shared:
            start = time.perf_counter()
            results = explain_all(self.model, photo, target)
            spent = time.perf_counter() - start
            for name in (name for name in shared if name in results):
                attributions[name] = replace(results[name], by_layer={})
                seconds[name] = spent / len(results)
        for name in self.methods:
            if name not in attributions:
                start = time.perf_counter()
                attributions[name] = explain(self.model, photo, name, target, **self.parameters.get(name, {}))
                seconds[name] = time.perf_counter() - start
        return attributions, seconds

    def _measure(
        self, attributions: Mapping[str, Attribution], metric: str, boxes: Sequence[Box] | None
    ) -> dict[str, Measurement]:
        """Return the measurement of each attribution by one metric, from passes that they share where they can."""
        row, values = get_metric(metric), self.parameters.get(metric, {})
        options: dict[str, Any] = {"seed": self.seed, "precision": self.precision}
        if row.measures_method:
            one_pass = {name: one for name, one in attributions.items() if METHODS[name].cost == ONE_PASS}
            measured = measure_methods_together(self.model, one_pass, metric, seed=self.seed, **values)
            return measured | {
                name: measure(self.model, one, metric, **options, **values)
                for name, one in attributions.items()
                if name not in measured
            }
        if row.needs_region:
            options["boxes"] = boxes
        groups: dict[tuple, dict[str, Attribution]] = {}
        for name, one in attributions.items():
            same = (one.patch_values, row.find_score(one.parameters), one.parameters.get("baseline"))
            key = tuple(one.heat.shape), *same, one.parameters.get("seed")
            groups.setdefault(key, {})[name] = one
        result: dict[str, Measurement] = {}
        for group in groups.values():
            measurements = measure_together(
                self.model, list(group.values()), metric, random_maps=self.random_maps, **options, **values
            )
            result |= zip(group, measurements, strict=True)
        return result


def _make_row(photo: str, method: str, metric: str, measurement: Measurement, seconds: float) -> BenchmarkRow:
    """Return one row of a benchmark."""
    random_values = [value for value in measurement.random_values if math.isfinite(value)]
    better, references = measurement.better_than_random, measurement.references
    return BenchmarkRow(
        photo,
        method,
        metric,
        measurement.value,
        sum(random_values) / len(random_values) if random_values else references.get("shuffled", math.nan),
        math.nan if better is None else better,
        references.get("centred-gaussian", math.nan),
        references.get("edges", math.nan),
        seconds,
    )


class _ResultStore:
    """The results of a benchmark so far, in memory and, with a folder, in a file with one line for each photo.

    Args:
        folder: Folder of the file; `None` keeps the results in memory alone.
        settings: Settings of the benchmark, in the first line of the file.

    Raises:
        VizlibError: For a file of a benchmark with other settings, or one that cannot be read or written.
    """

    def __init__(self, folder: Path | None, settings: Mapping[str, Any]) -> None:
        self.rows: dict[str, list[BenchmarkRow]] = {}  # by photo
        self.errors: dict[str, str] = {}
        self._path = None if folder is None else folder / RESULTS_FILE
        if self._path is None:
            return
        first = json.dumps({"settings": settings})
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            lines = self._path.read_bytes().split(b"\n") if self._path.exists() else []
            complete = lines[:-1]  # what follows the last line break was cut off
            if complete and json.loads(complete[0]) != json.loads(first):
                raise VizlibError(
                    f"{self._path.name} in {self._path.parent.name or '.'!r} holds a benchmark with other settings; "
                    "choose another folder"
                )
            for line in complete[1:]:
                self._read(json.loads(line))
            if len(lines) > 1 and lines[-1]:
                with self._path.open("r+b") as file:
                    file.truncate(sum(len(line) + 1 for line in complete))
            if not complete:
                self._path.write_text(first + "\n", encoding="utf-8")
        except (OSError, ValueError, KeyError, TypeError) as error:
            if isinstance(error, VizlibError):
                raise
            raise VizlibError(f"{self._path.name} cannot be read or written: {error}") from error

    def __contains__(self, photo: str) -> bool:
        return photo in self.rows  # a photo that could not be used is tried again

    def add(self, photo: str, rows: Sequence[BenchmarkRow]) -> None:
        """Keep the values of a photo."""
        self._append({"photo": photo, "rows": [list(asdict(row).values())[1:] for row in rows]})
        self.rows[photo] = list(rows)
        self.errors.pop(photo, None)

    def add_error(self, photo: str, message: str) -> None:
        """Keep why a photo cannot be used."""
        self._append({"photo": photo, "error": message})
        self.errors[photo] = message

    def _read(self, line: Mapping[str, Any]) -> None:
        if "rows" in line:
            self.rows[line["photo"]] = [BenchmarkRow(line["photo"], *values) for values in line["rows"]]

    def _append(self, line: Mapping[str, Any]) -> None:
        """Write a line to the end of the file, and wait until it is on the disk."""
        if self._path is None:
            return
        try:
            with self._path.open("ab") as file:
                file.write(json.dumps(line).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise VizlibError(f"{self._path.name} cannot be written: {error.strerror or error}") from error
