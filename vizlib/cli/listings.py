"""Shell commands that list: `vizlib models`, `layers MODEL` and `methods`; and `kernels MODEL`, which draws."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

import vizlib
from vizlib.attribution.methods.registry import METHODS
from vizlib.attribution.request import Parameter
from vizlib.cli.options import DEFAULT_MODEL, Architecture, AsJson, Checkpoints
from vizlib.render.image_grid import draw_kernel_grid


def models_command(checkpoints: Checkpoints = None, as_json: AsJson = False) -> None:
    """List the models that can be loaded by name, bundled ones first."""
    entries = vizlib.list_models(checkpoints)
    if as_json:
        rows = [{**vars(entry), "bundled": entry.bundled, "needs_download": entry.needs_download} for entry in entries]
        typer.echo(json.dumps(rows, indent=1, default=str))  # a path becomes text
        return
    width = max(len(entry.name) for entry in entries)
    for entry in entries:
        source = "your folder" if entry.source == "folder" else entry.source
        accuracy = "" if entry.accuracy is None else f"{entry.accuracy:.1f} %"
        size = f"{entry.size_mb:.0f} MB"
        typer.echo(f"{entry.name:<{width}}  {size:>7}  {source:<11}  {accuracy:>7}  {entry.classes}".rstrip())
    typer.echo("Also available: any timm name, torchvision/NAME, hf-hub:REPOSITORY, or a weight file.")


def layers_command(
    model: Annotated[str, typer.Argument()],
    architecture: Architecture = None,
    checkpoints: Checkpoints = None,
    as_json: AsJson = False,
) -> None:
    """List a model's layers: class, output shape, parameters, FLOPs."""
    network = vizlib.load(model, architecture=architecture, checkpoints=checkpoints)
    if as_json:
        typer.echo(json.dumps([vars(layer) for layer in network.layers], indent=1))
    else:
        typer.echo(network.summary())


def methods_command(
    model: Annotated[str | None, typer.Option("--model", "-m", help="Only methods that fit this model.")] = None,
    architecture: Architecture = None,
    checkpoints: Checkpoints = None,
    as_json: AsJson = False,
) -> None:
    """List the methods: what a map shows and does not show, the paper, and the parameters."""
    network = vizlib.load(model, architecture=architecture, checkpoints=checkpoints) if model else None
    methods = [METHODS[name] for name in vizlib.list_methods(network)]
    if as_json:
        fields = ("name", "paper", "cost", "shows", "does_not_show")
        rows = [
            {
                **{field: getattr(method, field) for field in fields},
                "parameters": {name: _get_default(parameter, network) for name, parameter in method.parameters.items()},
            }
            for method in methods
        ]
        typer.echo(json.dumps(rows, indent=1))
        return
    for method in methods:
        typer.echo(f"{method.name} ({method.cost})\n  {method.shows}\n  {method.does_not_show}\n  {method.paper}")
        for name, parameter in method.parameters.items():
            limits = "" if parameter.range is None else f", {parameter.range[0]} to {parameter.range[1]}"
            typer.echo(f"    {name}={_get_default(parameter, network)}{limits}: {parameter.help}")


def _get_default(parameter: Parameter, network: vizlib.Model | None) -> Any:
    """Return the default of a parameter of a method for a network, or for most networks."""
    return parameter.default if network is None else parameter.default_for(network)


def kernels_command(
    model: Annotated[str, typer.Argument()] = DEFAULT_MODEL,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the image.")] = Path(),
    architecture: Architecture = None,
    checkpoints: Checkpoints = None,
) -> None:
    """Draw the kernels of the first convolution or of the patch embedding."""
    network = vizlib.load(model, architecture=architecture, checkpoints=checkpoints)
    kernels = vizlib.kernels(network)
    out.mkdir(parents=True, exist_ok=True)
    file = out / f"{network.name.replace('/', '-')}.kernels.png"
    draw_kernel_grid(kernels.weights.numpy()).save(file)
    typer.echo(f"{file}: {len(kernels.weights)} kernels of {kernels.layer}")
