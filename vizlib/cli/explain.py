"""Shell commands about a photo: `vizlib explain PHOTO`, `compare`, `estimate` and `predict`."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from tqdm import tqdm

from vizlib import agreement as agreement_of
from vizlib import estimate as seconds_of
from vizlib import explain_all, explain_stream, load, open_image
from vizlib import report as report_on
from vizlib.attribution.result import SAVE_SUFFIXES, Attribution, ExplanationStep
from vizlib.cli.options import DEFAULT_MODEL, Architecture, AsJson, Checkpoints, Knobs, ModelName, Photos
from vizlib.core.errors import MethodError
from vizlib.reporting.code_snippets import CodeSnippet


def explain(
    photos: Photos,
    model: ModelName = DEFAULT_MODEL,
    method: Annotated[
        str, typer.Option("--method", "-x", help="A name `vizlib methods` lists, or `all`.")
    ] = "grad-cam",
    target: Annotated[
        str | None, typer.Option("--target", "-t", help="The class to explain; the likeliest if left out.")
    ] = None,
    against: Annotated[
        str | None, typer.Option(help="Why the target and not this class; runner-up is the next likeliest.")
    ] = None,
    knob: Knobs = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the pictures.")] = Path(),
    save_as: Annotated[str, typer.Option("--as", help="png, svg, npz or json.")] = "png",
    report: Annotated[
        Path | None, typer.Option(metavar="FILE.html", help="Write all of it as one page, to send to someone.")
    ] = None,
    architecture: Architecture = None,
    checkpoints: Checkpoints = None,
    as_json: AsJson = False,
) -> None:
    """Draw on each photo how much each place spoke for a class."""
    if f".{save_as}" not in SAVE_SUFFIXES:
        raise MethodError(f"cannot save as {save_as!r}; use one of {', '.join(s[1:] for s in SAVE_SUFFIXES)}")
    network = load(model, architecture=architecture, checkpoints=checkpoints)
    knobs = _knobs(knob or [])
    opened = [(path, open_image(path)) for path in photos]  # a wrong photo is told before any work is done
    # A report is sent to others: it names files, but not the folders they lie in.
    named = {
        "model": Path(model).name if Path(model).is_file() else model,
        "architecture": architecture,
        "checkpoints": None if checkpoints is None else checkpoints.name or ".",
    }
    out.mkdir(parents=True, exist_ok=True)
    answers, told = [], []
    with tqdm(total=len(opened), desc="explaining", disable=None, leave=False) as progress:  # none into a file
        for path, photo in opened:
            if method == "all":
                results = list(explain_all(network, photo, target, against).values())
            else:
                results = [_watched(progress, explain_stream(network, photo, method, target, against, **knobs))]
            for result in results:
                file = result.save(out / f"{path.stem}.{result.method}.{save_as}")
                answers.append({"photo": str(path), "file": str(file), **result.to_dict()})
                told.append((result, CodeSnippet.from_attribution(result, network, photo=path.name, **named)))
    if report is not None:
        report_on([result for result, _ in told], report, model=network, snippets=[recipe for _, recipe in told])
    if as_json:
        typer.echo(json.dumps(answers, indent=1))
        return
    for answer in answers:
        typer.echo(f"{answer['file']}: {answer['method']} for {answer['label']} ({answer['probability']:.1%})")
        for note in answer["notes"]:
            typer.echo(f"  {note}")
    if report is not None:
        typer.echo(f"{report}: all of it as one page")


def compare(
    photo: Annotated[Path, typer.Argument(metavar="PHOTO", help="An image file.")],
    model: Annotated[tuple[str, str], typer.Option("--model", "-m", help="Two models, each as in `explain`.")],
    method: Annotated[str, typer.Option("--method", "-x", help="One that fits both.")] = "grad-cam",
    target: Annotated[
        str | None, typer.Option("--target", "-t", help="The class; the first model's likeliest if left out.")
    ] = None,
    share: Annotated[float, typer.Option(help="The share of strongest places whose overlap is told.")] = 0.2,
    checkpoints: Checkpoints = None,
    as_json: AsJson = False,
) -> None:
    """Say how far two models agree about the places that spoke for a class."""
    networks = [load(name, checkpoints=checkpoints) for name in model]
    opened, answers = open_image(photo), []
    with tqdm(total=2, desc="explaining", disable=None, leave=False) as progress:
        for network in networks:  # the second is asked by the class's name, as its classes may be others
            asked = answers[0].label if answers else target
            answers.append(_watched(progress, explain_stream(network, opened, method, asked)))
    found = agreement_of(*answers, fraction=share)
    if as_json:
        correlation = found.correlation if math.isfinite(found.correlation) else None  # JSON has no NaN
        about = {"correlation": correlation, "overlap": found.overlap, "share": share}
        typer.echo(json.dumps({"photo": str(photo), **about, "maps": [one.to_dict() for one in answers]}, indent=1))
        return
    for one in answers:
        typer.echo(f"{one.model}: {one.method} for {one.label} ({one.probability:.1%})")
    typer.echo(f"rank correlation {found.correlation:.2f}; of the strongest {share:.0%}, {found.overlap:.0%} is shared")


def estimate(
    method: Annotated[str, typer.Option("--method", "-x", help="A name `vizlib methods` lists.")],
    model: ModelName = DEFAULT_MODEL,
    knob: Knobs = None,
    architecture: Architecture = None,
    checkpoints: Checkpoints = None,
) -> None:
    """Say about how many seconds a method takes on this machine, from a short probe."""
    network = load(model, architecture=architecture, checkpoints=checkpoints)
    typer.echo(f"about {seconds_of(network, method, **_knobs(knob or [])):.1f} s a photo")


def predict(
    photos: Photos,
    model: ModelName = DEFAULT_MODEL,
    top: Annotated[int, typer.Option(min=1, help="How many classes.")] = 5,
    architecture: Architecture = None,
    checkpoints: Checkpoints = None,
    as_json: AsJson = False,
) -> None:
    """Name the likeliest classes of each photo."""
    network = load(model, architecture=architecture, checkpoints=checkpoints)
    answers = {str(path): network.logits(network.tensor(open_image(path))) for path in photos}
    if as_json:
        ranked = {path: network.rank_classes(logits, top) for path, logits in answers.items()}
        typer.echo(json.dumps({path: [p._asdict() for p in found] for path, found in ranked.items()}, indent=1))
        return
    for path, logits in answers.items():
        if len(answers) > 1:
            typer.echo(path)
        for prediction in network.rank_classes(logits, top):
            typer.echo(f"{prediction.probability:7.2%}  {prediction.label}")
        if doubt := network.ood_note(logits):
            typer.echo(doubt)
    for note in network.notes:
        typer.echo(note)


def _watched(progress: tqdm, steps: Iterator[ExplanationStep]) -> Attribution:
    """The last step's attribution; the bar moves by one photo, in as many parts as there are steps."""
    before, step = progress.n, None
    for step in steps:
        progress.n = before + step.fraction
        progress.refresh()
    assert step is not None
    return step.attribution


def _knobs(pairs: list[str]) -> dict[str, Any]:
    """`NAME=VALUE` as keyword arguments; a value that reads as JSON is one (`false`, `3`, `[6, 8]`), else text."""
    knobs: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals:
            raise MethodError(f"a knob is given as NAME=VALUE, not {pair!r}")
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        knobs[name] = tuple(value) if isinstance(value, list) else value
    return knobs
