"""The same from a shell: `vizlib explain PHOTO`, `compare`, `predict`, `units`, `field`, `layers`, `serve` and more."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from tqdm import tqdm
from typer.core import TyperGroup

from vizlib import agreement as agreement_of
from vizlib import kernels as kernels_of
from vizlib import load
from vizlib import models as known_models
from vizlib.cli_units import field, units
from vizlib.errors import MethodError, VizlibError
from vizlib.explaining import estimate as seconds_of
from vizlib.explaining import explain_all, explain_stream
from vizlib.images import open_image
from vizlib.methods.registry import METHODS
from vizlib.methods.registry import methods as fitting
from vizlib.options import DEFAULT_MODEL, Architecture, AsJson, Checkpoints, ModelName
from vizlib.recipes import Recipe
from vizlib.render import kernel_sheet
from vizlib.report import report as report_on
from vizlib.results import SUFFIXES, Attribution, Step


class _PlainErrors(TyperGroup):
    """A person's mistake is one sentence and exit code 2, never a traceback."""

    def invoke(self, ctx):
        try:
            return super().invoke(ctx)
        except VizlibError as error:
            typer.echo(f"vizlib: {error}", err=True)
            sys.exit(2)


app = typer.Typer(
    cls=_PlainErrors,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="See why a vision model decided what it decided.",
)

Photos = Annotated[list[Path], typer.Argument(metavar="PHOTO...", help="One or more image files.")]


@app.command()
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
    knob: Annotated[
        list[str] | None, typer.Option("--knob", "-k", metavar="NAME=VALUE", help="A knob of the method.")
    ] = None,
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
    if f".{save_as}" not in SUFFIXES:
        raise MethodError(f"cannot save as {save_as!r}; use one of {', '.join(s[1:] for s in SUFFIXES)}")
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
                told.append((result, Recipe.of(result, network, photo=path.name, **named)))
    if report is not None:
        report_on([result for result, _ in told], report, model=network, recipes=[recipe for _, recipe in told])
    if as_json:
        typer.echo(json.dumps(answers, indent=1))
        return
    for answer in answers:
        typer.echo(f"{answer['file']}: {answer['method']} for {answer['label']} ({answer['probability']:.1%})")
        for note in answer["notes"]:
            typer.echo(f"  {note}")
    if report is not None:
        typer.echo(f"{report}: all of it as one page")


@app.command()
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
    found = agreement_of(*answers, share=share)
    if as_json:
        correlation = found.correlation if math.isfinite(found.correlation) else None  # JSON has no NaN
        about = {"correlation": correlation, "overlap": found.overlap, "share": share}
        typer.echo(json.dumps({"photo": str(photo), **about, "maps": [one.to_dict() for one in answers]}, indent=1))
        return
    for one in answers:
        typer.echo(f"{one.model}: {one.method} for {one.label} ({one.probability:.1%})")
    typer.echo(f"rank correlation {found.correlation:.2f}; of the strongest {share:.0%}, {found.overlap:.0%} is shared")


@app.command()
def estimate(
    method: Annotated[str, typer.Option("--method", "-x", help="A name `vizlib methods` lists.")],
    model: ModelName = DEFAULT_MODEL,
    knob: Annotated[
        list[str] | None, typer.Option("--knob", "-k", metavar="NAME=VALUE", help="A knob of the method.")
    ] = None,
    architecture: Architecture = None,
    checkpoints: Checkpoints = None,
) -> None:
    """Say about how many seconds a method takes on this machine, from a short probe."""
    network = load(model, architecture=architecture, checkpoints=checkpoints)
    typer.echo(f"about {seconds_of(network, method, **_knobs(knob or [])):.1f} s a photo")


@app.command()
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
        ranked = {path: network.ranking(logits, top) for path, logits in answers.items()}
        typer.echo(json.dumps({path: [p._asdict() for p in found] for path, found in ranked.items()}, indent=1))
        return
    for path, logits in answers.items():
        if len(answers) > 1:
            typer.echo(path)
        for prediction in network.ranking(logits, top):
            typer.echo(f"{prediction.probability:7.2%}  {prediction.label}")
        if doubt := network.doubt(logits):
            typer.echo(doubt)
    for note in network.notes:
        typer.echo(note)


app.command()(units)
app.command()(field)


@app.command()
def models(checkpoints: Checkpoints = None, as_json: AsJson = False) -> None:
    """List what can be loaded by name, the bundled checkpoints first."""
    entries = known_models(checkpoints)
    if as_json:
        derived = ("bundled", "needs_download")
        listed = [{**vars(entry), **{key: getattr(entry, key) for key in derived}} for entry in entries]
        typer.echo(json.dumps(listed, indent=1, default=str))  # a path is text
        return
    wide = max(len(entry.name) for entry in entries)
    for entry in entries:
        where = "your folder" if entry.source == "folder" else entry.source
        accuracy = "" if entry.accuracy is None else f"{entry.accuracy:.1f} %"
        size = f"{entry.megabytes:.0f} MB"
        typer.echo(f"{entry.name:<{wide}}  {size:>7}  {where:<11}  {accuracy:>7}  {entry.classes}".rstrip())
    typer.echo("Besides these, any timm name, torchvision/NAME, hf-hub:REPOSITORY, or a weight file.")


@app.command()
def layers(
    model: Annotated[str, typer.Argument()],
    architecture: Architecture = None,
    checkpoints: Checkpoints = None,
    as_json: AsJson = False,
) -> None:
    """List a model's layers: class, output shape, parameters, FLOPs."""
    network = load(model, architecture=architecture, checkpoints=checkpoints)
    if as_json:
        typer.echo(json.dumps([vars(layer) for layer in network.layers], indent=1))
    else:
        typer.echo(network.summary())


@app.command()
def methods(
    model: Annotated[str | None, typer.Option("--model", "-m", help="Only those that fit this model.")] = None,
    architecture: Architecture = None,
    checkpoints: Checkpoints = None,
    as_json: AsJson = False,
) -> None:
    """List the methods: what their picture means, what it does not, and their knobs."""
    network = load(model, architecture=architecture, checkpoints=checkpoints) if model else None
    rows = [METHODS[name] for name in fitting(network)]
    if as_json:
        fields = ("name", "paper", "cost", "means", "means_not")
        listed = [
            {**{key: getattr(row, key) for key in fields}, "knobs": {k: v.default for k, v in row.knobs.items()}}
            for row in rows
        ]
        typer.echo(json.dumps(listed, indent=1))
        return
    for row in rows:
        typer.echo(f"{row.name} ({row.cost})\n  {row.means}\n  {row.means_not}\n  {row.paper}")
        for name, knob in row.knobs.items():
            span = "" if knob.range is None else f", {knob.range[0]} to {knob.range[1]}"
            typer.echo(f"    {name}={knob.default}{span}: {knob.help}")


@app.command()
def kernels(
    model: Annotated[str, typer.Argument()] = DEFAULT_MODEL,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the picture.")] = Path(),
    architecture: Architecture = None,
    checkpoints: Checkpoints = None,
) -> None:
    """Draw the kernels that read the pixels: a first convolution's, or a patch embedding's."""
    network = load(model, architecture=architecture, checkpoints=checkpoints)
    found = kernels_of(network)
    out.mkdir(parents=True, exist_ok=True)
    file = out / f"{network.name.replace('/', '-')}.kernels.png"
    kernel_sheet(found.weights.numpy()).save(file)
    typer.echo(f"{file}: {len(found.weights)} kernels of {found.layer}")


@app.command()
def serve(
    host: Annotated[str, typer.Option(help="The address to listen on; 0.0.0.0 for all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port to listen on; 0 for any free one.")] = 7860,
    browser: Annotated[bool, typer.Option(help="Open the page.")] = True,
    auth: Annotated[
        str | None, typer.Option(metavar="USER:PASSWORD", help="Who may enter; @FILE for one user:password a line.")
    ] = None,
    models: Annotated[
        list[str] | None, typer.Option(metavar="NAME...", help="Offer only these, separated by blanks or commas.")
    ] = None,
    allow_any_model: Annotated[
        bool, typer.Option("--allow-any-model", help="Take any timm name, hf-hub: repository or path; not in public.")
    ] = False,
    offline: Annotated[bool, typer.Option("--offline", help="Offer only what is on this machine.")] = False,
    resident: Annotated[int, typer.Option(help="How many models stay in memory.")] = 2,
    idle_minutes: Annotated[float, typer.Option(help="Until a model that nobody asks leaves the memory.")] = 30,
    max_queue: Annotated[int, typer.Option(help="How many may wait before others are turned away.")] = 64,
    workers: Annotated[int, typer.Option(help="How many questions to models are answered at once.")] = 2,
    delete_after: Annotated[
        int, typer.Option(metavar="SECONDS", help="Delete uploads that are as old, before they are twice as old.")
    ] = 3600,
    mcp: Annotated[bool, typer.Option("--mcp", help="Offer the endpoints as tools to language models.")] = False,
    log: Annotated[bool, typer.Option("--log", help="Print a line of JSON for each run of a model.")] = False,
    checkpoints: Checkpoints = None,
) -> None:
    """Start the dashboard."""
    given = locals()  # every option is a setting of the same name
    from dashboard.app import serve as start  # here, so that every other command starts without gradio
    from dashboard.serving import Settings

    given["models"] = tuple(" ".join(models or []).replace(",", " ").split())
    start(Settings(**given))


def _watched(progress: tqdm, steps: Iterator[Step]) -> Attribution:
    """The last step's attribution; the bar moves by one photo, in as many parts as there are steps."""
    before, step = progress.n, None
    for step in steps:
        progress.n = before + step.share
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
