"""Shell commands that list what there is: `vizlib models`, `layers MODEL`, `methods` and `kernels MODEL`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from vizlib import kernels as kernels_of
from vizlib import list_methods as fitting
from vizlib import list_models as known_models
from vizlib import load
from vizlib.attribution.methods.registry import METHODS
from vizlib.cli.options import DEFAULT_MODEL, Architecture, AsJson, Checkpoints
from vizlib.render.image_grid import draw_kernel_grid


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
        size = f"{entry.size_mb:.0f} MB"
        typer.echo(f"{entry.name:<{wide}}  {size:>7}  {where:<11}  {accuracy:>7}  {entry.classes}".rstrip())
    typer.echo("Besides these, any timm name, torchvision/NAME, hf-hub:REPOSITORY, or a weight file.")


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
            {**{key: getattr(row, key) for key in fields}, "knobs": {k: v.default for k, v in row.parameters.items()}}
            for row in rows
        ]
        typer.echo(json.dumps(listed, indent=1))
        return
    for row in rows:
        typer.echo(f"{row.name} ({row.cost})\n  {row.shows}\n  {row.does_not_show}\n  {row.paper}")
        for name, knob in row.parameters.items():
            span = "" if knob.range is None else f", {knob.range[0]} to {knob.range[1]}"
            typer.echo(f"    {name}={knob.default}{span}: {knob.help}")


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
    draw_kernel_grid(found.weights.numpy()).save(file)
    typer.echo(f"{file}: {len(found.weights)} kernels of {found.layer}")
