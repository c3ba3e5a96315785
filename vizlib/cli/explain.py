"""Shell commands for photos: `vizlib explain PHOTO`, `compare`, `estimate` and `predict`."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from tqdm import tqdm

import vizlib
from vizlib.attribution.result import SAVE_SUFFIXES, Attribution, ExplanationStep
from vizlib.cli.options import (
    DEFAULT_MODEL,
    Architecture,
    AsJson,
    Checkpoints,
    ModelName,
    Parameters,
    Photo,
    Photos,
    format_prediction,
)
from vizlib.core.errors import MethodError
from vizlib.reporting.code_snippets import CodeSnippet


def explain_command(
    photos: Photos,
    model: ModelName = DEFAULT_MODEL,
    method: Annotated[
        str, typer.Option("--method", "-x", help="A name that `vizlib methods` lists, or `all`.")
    ] = "grad-cam",
    target: Annotated[
        str | None, typer.Option("--target", "-t", help="The class to explain; by default the most probable one.")
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
) -> None:
    """Draw a heat map on each photo that shows the evidence for a class."""
    if f".{save_as}" not in SAVE_SUFFIXES:
        raise MethodError(f"cannot save as {save_as!r}; use one of {', '.join(s[1:] for s in SAVE_SUFFIXES)}")
    network = vizlib.load(model, architecture=architecture, checkpoints=checkpoints)
    parameters = _parse_parameters(param or [])
    opened = [vizlib.open_image(path) for path in photos]  # an unusable photo is reported before anything is computed
    # A report may be sent to others: it names files, but not the folders that they are in.
    load_options = {
        "model": Path(model).name if Path(model).is_file() else model,
        "architecture": architecture,
        "checkpoints": None if checkpoints is None else checkpoints.name or ".",
    }
    out.mkdir(parents=True, exist_ok=True)
    rows, attributions, snippets = [], [], []
    with tqdm(total=len(opened), desc="explaining", disable=None, leave=False) as progress:  # hidden without a terminal
        for path, stem, name, photo in zip(photos, make_stems(photos), make_names(photos), opened, strict=True):
            if method == "all":
                results = list(vizlib.explain_all(network, photo, target, against).values())
            else:
                steps = vizlib.explain_stream(network, photo, method, target, against, **parameters)
                results = [_finish(progress, steps)]
            for attribution in results:
                file = attribution.save(out / f"{stem}.{attribution.method}.{save_as}")
                rows.append({"path": str(path), "file": str(file), **attribution.to_dict()})
                attributions.append(attribution)
                snippets.append(CodeSnippet.from_attribution(attribution, network, photo=name, **load_options))
    if report is not None:
        vizlib.report(attributions, report, model=network, snippets=snippets)
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
        return
    for row in rows:
        typer.echo(f"{row['file']}: {row['method']} for {row['label']} ({row['probability']:.1%})")
        for note in row["notes"]:
            typer.echo(f"  {note}")
    if report is not None:
        typer.echo(f"{report}: all results as one page")


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
        label, probability = attribution.label, attribution.probability
        typer.echo(f"{attribution.model}: {attribution.method} for {label} ({probability:.1%})")
    typer.echo(
        f"rank correlation {agreement.correlation:.2f}; "
        f"overlap of the strongest {fraction:.0%}: {agreement.overlap:.0%}"
    )


def estimate_command(
    method: Annotated[str, typer.Option("--method", "-x", help="A name that `vizlib methods` lists.")],
    model: ModelName = DEFAULT_MODEL,
    param: Parameters = None,
    architecture: Architecture = None,
    checkpoints: Checkpoints = None,
) -> None:
    """Estimate from a short measurement how many seconds a method takes on this machine."""
    network = vizlib.load(model, architecture=architecture, checkpoints=checkpoints)
    seconds = vizlib.estimate(network, method, **_parse_parameters(param or []))
    typer.echo(f"about {seconds:.1f} s per photo")


def predict_command(
    photos: Photos,
    model: ModelName = DEFAULT_MODEL,
    top: Annotated[int, typer.Option(min=1, help="How many classes to list.")] = 5,
    architecture: Architecture = None,
    checkpoints: Checkpoints = None,
    as_json: AsJson = False,
) -> None:
    """List the most probable classes of each photo."""
    network = vizlib.load(model, architecture=architecture, checkpoints=checkpoints)
    logits_by_path = {str(path): network.logits(network.tensor(vizlib.open_image(path))) for path in photos}
    if as_json:
        predictions = {
            path: [prediction._asdict() for prediction in network.rank_classes(logits, top)]
            for path, logits in logits_by_path.items()
        }
        typer.echo(json.dumps(predictions, indent=1))
        return
    for path, logits in logits_by_path.items():
        if len(logits_by_path) > 1:
            typer.echo(path)
        for prediction in network.rank_classes(logits, top):
            typer.echo(format_prediction(prediction))
        if note := network.ood_note(logits):
            typer.echo(note)
    for note in network.notes:
        typer.echo(note)


def make_stems(paths: Sequence[Path]) -> list[str]:
    """Return the start of the file names that `vizlib explain` writes for each photo: its name, made unique.

    >>> make_stems([Path("a/cat.jpg"), Path("a/dog.jpg")])
    ['cat', 'dog']
    >>> make_stems([Path("a/cat.jpg"), Path("b/cat.png"), Path("c/cat.png")])
    ['cat.jpg', 'b-cat.png', 'c-cat.png']
    """
    forms = [lambda path: path.stem, lambda path: path.name, lambda path: f"{path.parent.name}-{path.name}".lstrip("-")]
    return _make_unique(paths, forms)


def make_names(paths: Sequence[Path]) -> list[str]:
    """Return the name of each photo in the code of `vizlib explain`'s report: its file name, made unique by its folder.

    >>> make_names([Path("a/cat.jpg"), Path("b/cat.jpg"), Path("c/dog.jpg")])
    ['a/cat.jpg', 'b/cat.jpg', 'dog.jpg']
    """
    forms = [lambda path: path.name, lambda path: Path(path.parent.name, path.name).as_posix()]
    return _make_unique(paths, forms, number=False)


def _make_unique(paths: Sequence[Path], forms: Sequence[Callable[[Path], str]], *, number: bool = True) -> list[str]:
    """Return the shortest form of each photo's path on the command line that no other path has, ignoring case.

    Args:
        paths: Paths of files.
        forms: From the shortest to the longest.
        number: Append a number to the last form where even that is not unique.
    """
    levels, names = [0] * len(paths), [forms[0](path) for path in paths]
    for _ in forms[1:]:
        counts = Counter(name.lower() for name in names)
        repeated = [i for i, name in enumerate(names) if counts[name.lower()] > 1]
        for i in repeated:
            levels[i] = min(levels[i] + 1, len(forms) - 1)
            names[i] = forms[levels[i]](paths[i])
    taken: set[str] = set()
    for i, name in enumerate(names if number else []):
        unique, count = name, 1
        while unique.lower() in taken:
            count += 1
            unique = f"{name}-{count}"
        taken.add(unique.lower())
        names[i] = unique
    return names


def _finish(progress: tqdm, steps: Iterator[ExplanationStep]) -> Attribution:
    """Return the attribution of the last step; meanwhile advance the progress bar of `vizlib explain` by one photo."""
    before, step = progress.n, None
    for step in steps:
        progress.n = before + step.fraction
        progress.refresh()
    assert step is not None
    return step.attribution


def _parse_parameters(pairs: list[str]) -> dict[str, Any]:
    """Return the `NAME=VALUE` options of `vizlib explain` as keyword arguments.

    A value that is valid JSON is read as JSON (`false`, `3`, `[6, 8]`), any other as text.
    """
    parameters: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals:
            raise MethodError(f"a parameter is given as NAME=VALUE, not {pair!r}")
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        parameters[name] = tuple(value) if isinstance(value, list) else value
    return parameters
