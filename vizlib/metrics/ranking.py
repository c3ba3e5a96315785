"""Files with how methods rank on a network, as they are distributed with the bundled checkpoints."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from vizlib.core.atomic_files import open_atomic
from vizlib.metrics.benchmark_table import Benchmark, BenchmarkSummary
from vizlib.models.loading.checkpoint_files import BUNDLED_FOLDER

RANKINGS_FOLDER = BUNDLED_FOLDER / "rankings"
SIGNIFICANT_DIGITS = 4


@dataclass(frozen=True)
class RankedMethod:
    """How good the maps of one method are by one metric on the photos of a benchmark.

    Attributes:
        data: What the photos are.
        parameters: Parameters of the metric that differ from their defaults, such as "levels=1"; empty if none.
        summary: Mean, interval and rank.
    """

    data: str
    parameters: str
    summary: BenchmarkSummary


def list_ranked_methods(table: Benchmark, data: str, parameters: dict[str, str] | None = None) -> list[RankedMethod]:
    """Return the rows of a ranking from the table of a benchmark.

    Args:
        table: The table.
        data: What its photos are.
        parameters: Text on the parameters of a metric by its name.
    """
    return [RankedMethod(data, (parameters or {}).get(one.metric, ""), one) for one in table.summaries]


def group_columns(rows: Sequence[RankedMethod]) -> dict[tuple[str, str, str], dict[str, BenchmarkSummary]]:
    """Return the columns of a ranking: metric, its parameters and the photos -> the summary of each method.

    Args:
        rows: The rows.
    """
    columns: dict[tuple[str, str, str], dict[str, BenchmarkSummary]] = {}
    for row in rows:
        key = row.summary.metric, row.parameters, row.data
        columns.setdefault(key, {})[row.summary.method] = row.summary
    return columns


def write_ranking(path: Path, rows: Sequence[RankedMethod]) -> None:
    """Write a ranking to a CSV file, with four significant digits.

    Args:
        path: Path of the file.
        rows: The rows.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["data", "parameters", *(entry.name for entry in fields(BenchmarkSummary))])
    for row in rows:
        values = asdict(row.summary).values()
        shown = [f"{value:.{SIGNIFICANT_DIGITS}g}" if isinstance(value, float) else value for value in values]
        writer.writerow([row.data, row.parameters, *shown])
    with open_atomic(path) as file:
        file.write(text.getvalue().encode())


def read_ranking(path: Path) -> list[RankedMethod]:
    """Return the rows of a ranking; none if there is no such file.

    Args:
        path: Path of the CSV file.
    """
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [_read_row(row) for row in csv.DictReader(file)]


def _read_row(row: dict[str, str]) -> RankedMethod:
    kinds = {"str": str, "int": int, "float": float}
    values = {entry.name: kinds[str(entry.type)](row[entry.name]) for entry in fields(BenchmarkSummary)}
    return RankedMethod(row["data"], row["parameters"], BenchmarkSummary(**values))
