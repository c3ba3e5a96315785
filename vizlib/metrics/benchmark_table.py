"""The result of `vizlib.benchmark`: values by photo, method and metric, means with intervals, and files of them."""

from __future__ import annotations

import csv
import html
import io
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from vizlib.core.atomic_files import open_atomic
from vizlib.core.errors import VizlibError
from vizlib.core.text import format_number
from vizlib.metrics.registry import METRICS

RESAMPLES = 2000
INTERVAL_PERCENT = 95
RANK_DIGITS = 6  # decimals of the means that are compared
SAVE_FORMATS = (".csv", ".parquet", ".html", ".tex", ".json")
LATEX_ESCAPES = {"_": r"\_", "%": r"\%", "&": r"\&", "#": r"\#"}


@dataclass(frozen=True)
class BenchmarkRow:
    """One value of a benchmark.

    Attributes:
        photo: Name of the photo.
        method: Name of the method.
        metric: Name of the metric.
        value: The value; NaN where the metric is not defined.
        random: Mean value of random maps, or of the map with its values shuffled; NaN without any.
        better_than_random: Fraction of the random maps with a worse value; NaN without any.
        centred_gaussian: Value of a Gaussian in the centre of the photo; NaN where there is none.
        edges: Value of the edges of the photo; NaN where there is none.
        seconds: Time of the map, on this machine; methods of one pass share theirs.
    """

    photo: str
    method: str
    metric: str
    value: float
    random: float
    better_than_random: float
    centred_gaussian: float
    edges: float
    seconds: float


@dataclass(frozen=True)
class BenchmarkSummary:
    """The values of one method and metric over all photos.

    Attributes:
        method: Name of the method.
        metric: Name of the metric.
        mean: Mean over the photos where it is defined.
        low: Lower end of the 95 % bootstrap interval of the mean.
        high: Upper end of that interval.
        rank: Rank of the method by its mean, from 1 for the best; 0 for a mean of NaN. Means that are equal up to
            rounding have equal ranks.
        random: Mean value of random maps, or of the map with its values shuffled; NaN without any.
        better_than_random: Mean fraction of random maps with a worse value; NaN without any.
        centred_gaussian: Mean value of a Gaussian in the centre of the photo; NaN where there is none.
        edges: Mean value of the edges of the photo; NaN where there is none.
        photos: Number of photos where the value is defined.
        seconds: Mean time of a map on this machine.
    """

    method: str
    metric: str
    mean: float
    low: float
    high: float
    rank: int
    random: float
    better_than_random: float
    centred_gaussian: float
    edges: float
    photos: int
    seconds: float


@dataclass(frozen=True, eq=False)
class Benchmark:
    """The table that `vizlib.benchmark` returns.

    Attributes:
        model: Name of the model.
        rows: Every value.
        settings: Methods, metrics and their parameters.
        errors: Why a photo could not be used, by its name.
    """

    model: str
    rows: tuple[BenchmarkRow, ...]
    settings: Mapping[str, Any]
    errors: Mapping[str, str]

    @property
    def summaries(self) -> tuple[BenchmarkSummary, ...]:
        """Mean, interval and rank of every method by every metric, in the order of the settings."""
        found: list[BenchmarkSummary] = []
        for metric in self.settings["metrics"]:
            of_metric = [self._summarise(method, metric) for method in self.settings["methods"]]
            sign = -1 if METRICS[metric].higher_is_better else 1
            # Rounded: of methods whose maps are equal up to the rounding of their sums, none is better.
            keys = [round(sign * one.mean, RANK_DIGITS) for one in of_metric]
            found += [
                replace(one, rank=1 + sum(other < key for other in keys) if math.isfinite(key) else 0)
                for one, key in zip(of_metric, keys, strict=True)
            ]
        return tuple(found)

    def _summarise(self, method: str, metric: str) -> BenchmarkSummary:
        """Return the values of a method by a metric over all photos, without its rank."""
        rows = [row for row in self.rows if (row.method, row.metric) == (method, metric)]
        values = np.array([row.value for row in rows if math.isfinite(row.value)])
        low, high = bootstrap_interval(values)
        return BenchmarkSummary(
            method,
            metric,
            _mean(values),
            low,
            high,
            0,
            _mean([row.random for row in rows]),
            _mean([row.better_than_random for row in rows]),
            _mean([row.centred_gaussian for row in rows]),
            _mean([row.edges for row in rows]),
            len(values),
            _mean([row.seconds for row in rows]),
        )

    def __repr__(self) -> str:
        photos = len({row.photo for row in self.rows})
        return (
            f"<Benchmark of {self.model}: {len(self.settings['methods'])} methods, {len(self.settings['metrics'])} "
            f"metrics, {photos} photos>"
        )

    def _repr_html_(self) -> str:
        """Return the table of means, for a notebook."""
        return self.to_html()

    def to_html(self) -> str:
        """Return the table of means with intervals as HTML: a row for each method, the best of a metric in bold."""
        metrics = self.settings["metrics"]
        header = "".join(f"<th scope='col'>{html.escape(name)} {_arrow(name)}</th>" for name in metrics)
        body = ""
        for method, cells in self._list_cells().items():
            row = "".join(f"<td>{_emphasise(cell, '<b>', '</b>')}</td>" for cell in cells)
            body += f"<tr><th scope='row'>{html.escape(method)}</th>{row}</tr>"
        photos = len({row.photo for row in self.rows})
        caption = f"{html.escape(self.model)}, {photos} photos: mean and {INTERVAL_PERCENT} % bootstrap interval"
        return (
            f"<table><caption>{caption}</caption><thead><tr><th scope='col'>method</th>{header}</tr></thead>"
            f"<tbody>{body}</tbody></table>"
        )

    def to_latex(self) -> str:
        """Return the table of means with intervals as a LaTeX tabular that needs the package booktabs."""
        metrics = self.settings["metrics"]
        header = " & ".join(["method", *(f"{_escape_latex(name)} ${_latex_arrow(name)}$" for name in metrics)])
        lines = [
            " & ".join([_escape_latex(method), *(_emphasise(cell, r"\textbf{", "}") for cell in cells)]) + r" \\"
            for method, cells in self._list_cells().items()
        ]
        columns = "l" + "r" * len(metrics)
        lines = [_use_math_minus(line) for line in lines]
        return "\n".join(
            (
                rf"\begin{{tabular}}{{{columns}}}",
                r"\toprule",
                header + r" \\",
                r"\midrule",
                *lines,
                r"\bottomrule",
                r"\end{tabular}",
                "",
            )
        )

    def save(self, path: str | Path) -> Path:
        """Write the means (`.html`, `.tex`), every value (`.csv`, `.parquet`), or all of it (`.json`).

        Args:
            path: Path of the file; its suffix selects what is written. Parquet needs pyarrow.

        Returns:
            The path.

        Raises:
            VizlibError: For another suffix, a missing package, or if the file cannot be written.
        """
        path = Path(path)
        writers = {
            ".csv": self._write_csv,
            ".parquet": self._write_parquet,
            ".html": lambda: _make_page(self.to_html(), self.model).encode(),
            ".tex": lambda: self.to_latex().encode(),
            ".json": self._write_json,
        }
        if path.suffix not in writers:
            raise VizlibError(f"cannot save as {path.suffix or path.name!r}; use one of {', '.join(SAVE_FORMATS)}")
        content = writers[path.suffix]()
        with open_atomic(path) as file:
            file.write(content)
        return path

    def _write_csv(self) -> bytes:
        text = io.StringIO()
        writer = csv.writer(text)
        names = [entry.name for entry in fields(BenchmarkRow)]
        writer.writerow(names)
        writer.writerows([getattr(row, name) for name in names] for row in self.rows)
        return text.getvalue().encode()

    def _write_parquet(self) -> bytes:
        try:
            import pyarrow
            from pyarrow import parquet
        except ImportError:
            raise VizlibError("a Parquet file is written with pyarrow: pip install 'vizlib[metrics]'") from None
        file = io.BytesIO()
        parquet.write_table(pyarrow.Table.from_pylist([asdict(row) for row in self.rows]), file)
        return file.getvalue()

    def _write_json(self) -> bytes:
        content = {
            "model": self.model,
            "settings": dict(self.settings),
            "summaries": [_drop_nan(asdict(summary)) for summary in self.summaries],
            "rows": [_drop_nan(asdict(row)) for row in self.rows],
            "errors": dict(self.errors),
        }
        return (json.dumps(content, indent=1) + "\n").encode()

    def _list_cells(self) -> dict[str, list[tuple[str, bool]]]:
        """Return the text of each cell of the table of means and whether it is the best of its metric, by method."""
        cells: dict[str, list[tuple[str, bool]]] = {method: [] for method in self.settings["methods"]}
        for one in self.summaries:
            defined = math.isfinite(one.mean)
            text = (
                f"{format_number(one.mean)} [{format_number(one.low)}, {format_number(one.high)}]" if defined else "–"
            )
            cells[one.method].append((text, defined and one.rank == 1))
        return cells


def bootstrap_interval(values: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """Return the 95 % percentile bootstrap interval of a mean.

    Args:
        values: Values of the photos.
        seed: Seed of the resampling.

    Returns:
        Lower and upper end; both NaN without values.

    References:
        Efron, Tibshirani: An Introduction to the Bootstrap, Chapman and Hall 1993, section 13.3.
    """
    if not len(values):
        return math.nan, math.nan
    generator = np.random.default_rng(seed)
    means = np.array([values[generator.integers(0, len(values), len(values))].mean() for _ in range(RESAMPLES)])
    tail = (100 - INTERVAL_PERCENT) / 2
    low, high = np.percentile(means, [tail, 100 - tail])
    return float(low), float(high)


def _mean(values: Any) -> float:
    """Return the mean of the benchmark's finite values; NaN without any."""
    finite = [value for value in values if math.isfinite(value)]
    return float(np.mean(finite)) if finite else math.nan


def _drop_nan(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row of the benchmark for JSON, which has no NaN."""
    return {key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in row.items()}


def _arrow(metric: str) -> str:
    """Return whether a higher or a lower value of a metric is better, as an arrow with its text."""
    higher = METRICS[metric].higher_is_better
    return f"<abbr title='{'higher' if higher else 'lower'} is better'>{'↑' if higher else '↓'}</abbr>"


def _latex_arrow(metric: str) -> str:
    return r"\uparrow" if METRICS[metric].higher_is_better else r"\downarrow"


def _emphasise(cell: tuple[str, bool], start: str, end: str) -> str:
    """Return a cell of the benchmark's table, the best of its column between two marks."""
    text, is_best = cell
    return f"{start}{text}{end}" if is_best else text


def _use_math_minus(text: str) -> str:
    """Return a cell of the benchmark's LaTeX table with minus signs that every set-up knows."""
    return text.replace("−", "$-$")


def _escape_latex(text: str) -> str:
    return "".join(LATEX_ESCAPES.get(character, character) for character in text)


def _make_page(table: str, model: str) -> str:
    """Return the table of a benchmark as a page of its own."""
    style = (
        "body{font:15px/1.5 system-ui,sans-serif;margin:2rem;color-scheme:light dark}table{border-collapse:collapse}"
        "caption{text-align:left;padding:.5rem 0}th,td{padding:.3rem .7rem;border-bottom:1px solid #8886;"
        "text-align:right;font-variant-numeric:tabular-nums}tbody th,thead th:first-child{text-align:left}"
        "main{overflow-x:auto}abbr{text-decoration:none}"
    )
    return (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width,initial-scale=1'>"
        f"<title>Benchmark of {html.escape(model)}</title><style>{style}</style></head>"
        f"<body><main><h1>Benchmark of {html.escape(model)}</h1>{table}</main></body></html>\n"
    )
