"""Shell commands for photos: `vizlib explain PHOTO`, `compare`, `estimate` and `predict`."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer
from tqdm import tqdm

import vizlib
from vizlib.attribution.methods.registry import METHODS
from vizlib.attribution.result import SAVE_SUFFIXES, Attribution, ExplanationStep
from vizlib.attribution.target import parse_target
from vizlib.cli.options import (
    DEFAULT_MODEL,
    Architecture,
    AsJson,
    AsJsonLines,
    Checkpoints,
    ModelName,
    Parameters,
    Photo,
    Photos,
    format_prediction,
)
from vizlib.cli.photo_lists import check_outputs, list_photos, make_names, make_stems
from vizlib.cli.results import JsonPrinter, PhotoFailures, echo_line, format_result
from vizlib.cli.values import parse_parameters
from vizlib.core.errors import MethodError
from vizlib.reporting.code_snippets import CodeSnippet
from vizlib.reporting.html_report import ReportBuilder


def explain_command(
    photos: Photos,
    model: ModelName = DEFAULT_MODEL,
    method: Annotated[
        str, typer.Option("--method", "-x", help="A name that `vizlib methods` lists, or `all`.")
    ] = "grad-cam",
    target: Annotated[
        str | None,
        typer.Option(
            "--target",
            "-t",
            help="The class to explain, by default the most probable one; or weights of classes, as JSON.",
        ),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(help="Explain why the target and not this class; `runner-up` is the next most probable one."),
    ] = None,
    param: Parameters = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the output files.")] = Path(),
    save_as: Annotated[str, typer.Option("--as", help="png, svg, npz or json.")] = "png",
    report: Annotated[
        Path | None, typer.Option(metavar="FILE.html", help="Also write all results as one self-contained HTML page.")
    ] = None,
    architecture: Architecture = None,
    checkpoints: Checkpoints = None,
    as_json: AsJson = False,
    as_json_lines: AsJsonLines = False,
) -> None:
    """Draw a heat map on each photo that shows the evidence for a class.

    It is written to NAME.METHOD.png in the folder --out, where NAME is the photo's file name without its suffix; an
    older file of that name is replaced. Where two photos would get the same NAME, theirs keep the suffix, and where
    that is not enough the names of their folders come first, as in cats-001.jpg and dogs-001.jpg.

    A photo that cannot be used is reported, and the others are explained; the exit code is then 1, and 2 if there is
    no result. One photo after another is in memory, but a report holds the pictures of all.
    """
    if f".{save_as}" not in SAVE_SUFFIXES:
        raise MethodError(f"cannot save as {save_as!r}; use one of {', '.join(s[1:] for s in SAVE_SUFFIXES)}")
    paths = list_photos(photos)
    network = vizlib.load(model, architecture=architecture, checkpoints=checkpoints)
    parameters, explained = parse_parameters(param or []), parse_target(target)
    # A report may be sent to others: it names files, but not the folders that they are in.
    load_options = {
        "model": Path(model).name if Path(model).is_file() else model,
        "architecture": architecture,
        "checkpoints": None if checkpoints is None else checkpoints.name or ".",
    }
    methods = [call.method.name for call in METHODS.list_single_pass_calls(network)] if method == "all" else [method]
    stems = make_stems(paths)
    check_outputs(paths, [out / f"{stem}.{name}.{save_as}" for stem in stems for name in methods])
    out.mkdir(parents=True, exist_ok=True)
    failures, page = PhotoFailures(len(paths)), ReportBuilder(network)
    printer = JsonPrinter("" if as_json_lines else "[]") if as_json or as_json_lines else None

    def explain_photo(path: Path, stem: str, name: str, progress: tqdm) -> None:
        photo = vizlib.open_image(path)
        if method == "all":
            results = list(vizlib.explain_all(network, photo, explained, against).values())
        else:
            steps = vizlib.explain_stream(network, photo, method, explained, against, **parameters)
            results = [_finish(progress, steps)]
        for attribution in results:
            file = attribution.save(out / f"{stem}.{attribution.method}.{save_as}")
            if report is not None:
                page.add(attribution, CodeSnippet.from_attribution(attribution, network, photo=name, **load_options))
            row = {"path": str(path), "file": str(file), **attribution.to_dict()}
            row["photo"] = {"path": str(path), **row["photo"]}
            if printer is not None:
                printer.add(row)
                continue
            result = format_result(attribution.method, attribution.label, attribution.probability, attribution.score)
            echo_line(f"{file}: {result}")
            for note in attribution.notes:
                echo_line(f"  {note}")

    with (
        nullcontext() if printer is None else printer,
        tqdm(total=len(paths), desc="explaining", disable=None, leave=False) as progress,  # hidden without a terminal
    ):
        for count, photo in enumerate(zip(paths, stems, make_names(paths), strict=True), 1):
            with failures.report(photo[0]):
                explain_photo(*photo, progress)
            progress.n = count
            progress.refresh()
    if report is not None and len(page):
        page.write(report)
        if printer is None:
            echo_line(f"{report}: all results as one page")
    failures.exit_if_any()


def compare_command(
    photo: Photo,
    model: Annotated[tuple[str, str], typer.Option("--model", "-m", help="Two models, each as in `explain`.")],
    method: Annotated[str, typer.Option("--method", "-x", help="A method that fits both models.")] = "grad-cam",
    target: Annotated[
        str | None,
        typer.Option("--target", "-t", help="The class; by default the most probable one of the first model."),
    ] = None,
    fraction: Annotated[float, typer.Option(help="Fraction of strongest positions whose overlap is measured.")] = 0.2,
    checkpoints: Checkpoints = None,
    as_json: AsJson = False,
) -> None:
    """Measure how similar the heat maps of two models are for one class."""
    networks = [vizlib.load(name, checkpoints=checkpoints) for name in model]
    image = vizlib.open_image(photo)
    attributions: list[Attribution] = []
    with tqdm(total=2, desc="explaining", disable=None, leave=False) as progress:
        for network in networks:  # the second target is given by label, as the models may number classes differently
            label = attributions[0].label if attributions else target
            attributions.append(_finish(progress, vizlib.explain_stream(network, image, method, label)))
    agreement = vizlib.agreement(*attributions, fraction=fraction)
    if as_json:
        correlation = agreement.correlation if math.isfinite(agreement.correlation) else None  # JSON has no NaN
        scores = {"correlation": correlation, "overlap": agreement.overlap, "fraction": fraction}
        maps = [attribution.to_dict() for attribution in attributions]
        typer.echo(json.dumps({"photo": str(photo), **scores, "maps": maps}, indent=1))
        return
    for attribution in attributions:
        result = format_result(attribution.method, attribution.label, attribution.probability, attribution.score)
        typer.echo(f"{attribution.model}: {result}")
    typer.echo(
        f"rank correlation {agreement.correlation:.2f}; "
        f"overlap of the strongest {fraction:.0%}: {agreement.overlap:.0%}"
    )
    for note in image.info["notes"]:
        typer.echo(note)


def estimate_command(
    method: Annotated[str, typer.Option("--method", "-x", help="A name that `vizlib methods` lists.")],
    model: ModelName = DEFAULT_MODEL,
    param: Parameters = None,
    architecture: Architecture = None,
    checkpoints: Checkpoints = None,
) -> None:
    """Estimate from a short measurement how many seconds a method takes on this machine."""
    network = vizlib.load(model, architecture=architecture, checkpoints=checkpoints)
    seconds = vizlib.estimate(network, method, **parse_parameters(param or []))
    typer.echo(f"about {seconds:.1f} s per photo")


def predict_command(
    photos: Photos,
    model: ModelName = DEFAULT_MODEL,
    top: Annotated[int, typer.Option(min=1, help="How many classes to list.")] = 5,
    architecture: Architecture = None,
    checkpoints: Checkpoints = None,
    as_json: AsJson = False,
    as_json_lines: AsJsonLines = False,
) -> None:
    """List the most probable classes of each photo.

    A photo that cannot be used is reported, and the others are classified; the exit code is then 1, and 2 if there is
    no result.
    """
    paths = list_photos(photos)
    network = vizlib.load(model, architecture=architecture, checkpoints=checkpoints)
    failures = PhotoFailures(len(paths))
    printer = JsonPrinter("" if as_json_lines else "{}") if as_json or as_json_lines else None

    def predict_photo(path: Path) -> None:
        """Print the most probable classes of a photo."""
        photo = vizlib.open_image(path)
        logits = network.logits(network.tensor(photo))
        predictions = network.rank_classes(logits, top)
        notes = [*photo.info["notes"], *filter(None, [network.ood_note(logits)])]
        if printer is not None:
            rows = [prediction._asdict() for prediction in predictions]
            item = {"path": str(path), "predictions": rows, "notes": [*notes, *network.notes]}
            printer.add(item if as_json_lines else rows, str(path))
            return
        heading = [str(path)] if len(paths) > 1 else []
        for line in [*heading, *map(format_prediction, network.list_outcomes(predictions)), *notes]:
            echo_line(line)

    with nullcontext() if printer is None else printer:
        for path in paths:
            with failures.report(path):
                predict_photo(path)
    if printer is None:
        for note in network.notes:
            typer.echo(note)
    failures.exit_if_any()


def _finish(progress: tqdm, steps: Iterator[ExplanationStep]) -> Attribution:
    """Return the attribution of the last step; meanwhile advance the progress bar of `vizlib explain` by one photo."""
    before, step = progress.n, None
    for step in steps:
        progress.n = before + step.fraction
        progress.refresh()
    assert step is not None
    return step.attribution
