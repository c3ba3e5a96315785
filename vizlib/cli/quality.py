"""Shell commands for the quality of maps: `vizlib metrics`, `vizlib trust PHOTO` and `vizlib benchmark PHOTOS`."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

import vizlib
from vizlib.attribution.measurement import TRUST_PARTS
from vizlib.attribution.target import parse_target
from vizlib.cli.options import (
    DEFAULT_MODEL,
    Architecture,
    AsJson,
    Checkpoints,
    ModelName,
    Parameters,
    Photo,
    Photos,
)
from vizlib.cli.photo_lists import list_photos
from vizlib.cli.values import parse_parameters
from vizlib.core.errors import VizlibError
from vizlib.metrics import METRICS
from vizlib.metrics.benchmark_table import SAVE_FORMATS
from vizlib.metrics.benchmarking import DEFAULT_METRICS
from vizlib.metrics.localisation import Box

BOX_COLUMNS = ("path", "left", "top", "right", "bottom")
LABEL_COLUMNS = ("path", "label")


def metrics_command(as_json: AsJson = False) -> None:
    """List the metrics of maps: what a good value means, and what it does not."""
    if as_json:
        rows = {
            name: {
                "paper": row.paper,
                "means": row.means,
                "does_not_mean": row.does_not_mean,
                "higher_is_better": row.higher_is_better,
                "range": row.range,
                "needs_object": row.needs_region,
                "parameters": {key: parameter.default for key, parameter in row.parameters.items()},
            }
            for name, row in METRICS.items()
        }
        typer.echo(json.dumps(rows, indent=1))
        return
    for name, row in METRICS.items():
        typer.echo(f"{name}: {row.means} {row.does_not_mean}\n  {row.paper}")


def trust_command(
    photo: Photo,
    model: ModelName = DEFAULT_MODEL,
    method: Annotated[str, typer.Option("--method", "-x", help="A name that `vizlib methods` lists.")] = "grad-cam",
    target: Annotated[
        str | None, typer.Option("--target", "-t", help="The class; by default the most probable one.")
    ] = None,
    param: Parameters = None,
    part: Annotated[
        list[str] | None, typer.Option(help=f"What to measure: {', '.join(TRUST_PARTS)}; may be repeated.")
    ] = None,
    architecture: Architecture = None,
    checkpoints: Checkpoints = None,
    as_json: AsJson = False,
) -> None:
    """Measure how far a heat map can be trusted: is it faithful, does it depend on the model, is it stable?"""
    network = vizlib.load(model, architecture=architecture, checkpoints=checkpoints)
    attribution = vizlib.explain(
        network, vizlib.open_image(photo), method, parse_target(target), **parse_parameters(param or [])
    )
    result = vizlib.trust(network, attribution, parts=part)
    if as_json:
        typer.echo(json.dumps(attribution.with_trust(result).to_dict(), indent=1))
        return
    typer.echo(repr(attribution)[1:-1])
    for name, measured in result.parts.items():
        typer.echo(f"{name:<13}{measured.text:>6}  {measured.sentence}")
    for note in (*result.notes, *attribution.notes):
        typer.echo(note)


def benchmark_command(
    photos: Photos,
    model: ModelName = DEFAULT_MODEL,
    methods: Annotated[
        list[str] | None,
        typer.Option("--methods", "-x", help="A method; may be repeated. By default all that one pass feeds."),
    ] = None,
    metrics: Annotated[
        list[str] | None,
        typer.Option("--metrics", help=f"A metric; may be repeated. By default {', '.join(DEFAULT_METRICS)}."),
    ] = None,
    boxes: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.csv", help=f"Boxes of the objects: a CSV file with the columns {', '.join(BOX_COLUMNS)}."
        ),
    ] = None,
    target: Annotated[
        str | None, typer.Option("--target", "-t", help="The class; by default the most probable one of each photo.")
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.csv",
            help=f"Class of each photo, instead of --target: a CSV file with the columns {', '.join(LABEL_COLUMNS)}.",
        ),
    ] = None,
    random_maps: Annotated[int, typer.Option(min=0, help="How many random maps each map is compared with.")] = 5,
    seed: Annotated[int, typer.Option(help="Seed of all random numbers.")] = 0,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the results.")] = Path("benchmark"),
    save_as: Annotated[
        list[str] | None, typer.Option("--as", help="csv, parquet, html, tex or json; may be repeated.")
    ] = None,
    architecture: Architecture = None,
    checkpoints: Checkpoints = None,
) -> None:
    """Rank methods by metrics on a set of photos, with a 95 % interval of every mean.

    The values of each photo are written to results.jsonl in the folder --out as soon as they are known. A benchmark
    that was interrupted continues with the same command. The table is written to benchmark.csv and the like.
    """
    formats = [f".{suffix}" for suffix in save_as or ["csv", "html"]]
    if unknown := [suffix for suffix in formats if suffix not in SAVE_FORMATS]:
        expected = ", ".join(suffix[1:] for suffix in SAVE_FORMATS)
        raise VizlibError(f"cannot save as {unknown[0][1:]!r}; use one of {expected}")
    paths = list_photos(photos)
    network = vizlib.load(model, architecture=architecture, checkpoints=checkpoints)
    table = vizlib.benchmark(
        network,
        [str(path) for path in paths],
        methods=methods,
        metrics=metrics or DEFAULT_METRICS,
        boxes=None if boxes is None else read_boxes(boxes),
        target=parse_target(target),
        labels=None if labels is None else read_labels(labels),
        random_maps=random_maps,
        seed=seed,
        folder=out,
    )
    for one in table.summaries:
        interval = f"{one.mean:9.4g} [{one.low:.4g}, {one.high:.4g}]"
        typer.echo(f"{one.metric:<24}{one.rank:>3}  {one.method:<22}{interval:<32}random {one.random:.4g}")
    for suffix in formats:
        typer.echo(f"{table.save(out / f'benchmark{suffix}')}")
    for path, message in table.errors.items():
        typer.echo(f"vizlib: {path}: {message}", err=True)
    if table.errors:
        raise typer.Exit(2 if len(table.errors) == len(paths) else 1)


def read_boxes(path: Path) -> dict[str, list[Box]]:
    """Return the boxes in a CSV file, by the path or file name of their photo.

    Args:
        path: File with the columns path, left, top, right, bottom, in pixels of the photo; a photo may have several
            rows.

    Raises:
        VizlibError: For a file that cannot be read, or a row that is no box.
    """
    boxes: dict[str, list[Box]] = {}
    for number, row in _read_rows(path, BOX_COLUMNS):
        boxes.setdefault(row["path"], []).append(_parse_box(path, number, row))
    return boxes


def read_labels(path: Path) -> dict[str, Any]:
    """Return the classes in a CSV file, by the path or file name of their photo.

    Args:
        path: File with the columns path and label: the index or the name of the class.

    Raises:
        VizlibError: For a file that cannot be read.
    """
    return {row["path"]: parse_target(row["label"]) for _, row in _read_rows(path, LABEL_COLUMNS)}


def _read_rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the rows of a CSV file with the number of their line; it must have these columns."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            missing = [name for name in columns if name not in (reader.fieldnames or ())]
            if missing:
                raise VizlibError(f"{path.name} has no column {missing[0]!r}; expected {', '.join(columns)}")
            yield from enumerate(reader, 2)
    except (OSError, UnicodeDecodeError) as error:
        raise VizlibError(f"{path.name} cannot be read as a CSV file: {error}") from error


def _parse_box(path: Path, number: int, row: dict[str, Any]) -> Box:
    """Return the box in one row of a CSV file."""
    try:
        return [float(row[name]) for name in BOX_COLUMNS[1:]]
    except (TypeError, ValueError):
        raise VizlibError(f"line {number} of {path.name} holds no box; expected {', '.join(BOX_COLUMNS)}") from None
