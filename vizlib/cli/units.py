"""Shell commands for layers: `vizlib units PHOTO -l LAYER`, `receptive-field LAYER` and `gradient PHOTO`."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated, Any

import typer

import vizlib
from vizlib.analysis.effective_receptive_field import effective_receptive_field
from vizlib.attribution.target import parse_target
from vizlib.cli.options import DEFAULT_MODEL, Architecture, AsJson, Checkpoints, ModelName, Photo, format_prediction
from vizlib.core.errors import ModelError, TargetError
from vizlib.core.text import format_number


def units_command(
    photo: Photo,
    layer: Annotated[
        str, typer.Option("--layer", "-l", help="A layer, for its channels, or an attention layer, for its heads.")
    ],
    model: ModelName = DEFAULT_MODEL,
    target: Annotated[
        str | None, typer.Option("--target", "-t", help="The class; by default the most probable one.")
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="How many units to list.")] = 10,
    ablate: Annotated[
        str | None, typer.Option(metavar="3,17", help="Ablate these units and list the predictions without them.")
    ] = None,
    architecture: Architecture = None,
    checkpoints: Checkpoints = None,
    as_json: AsJson = False,
) -> None:
    """List the contributions of a layer's channels or heads to a class, or ablate some."""
    network = vizlib.load(model, architecture=architecture, checkpoints=checkpoints)
    image, is_attention = vizlib.open_image(photo), layer in network.attention_layers
    kind = "heads" if is_attention else "channels"
    if ablate is not None:
        units = {layer: _parse_numbers(ablate)}
        ablated = vizlib.ablate(network, image, **{kind: units})[: min(top, 5)]
        if as_json:
            typer.echo(json.dumps([prediction._asdict() for prediction in ablated], indent=1))
            return
        for before, after in zip(network.predict(image), ablated, strict=False):
            typer.echo(f"{format_prediction(before):<33}{format_prediction(after)}")
        return
    contributions = vizlib.contributions(
        network, image, target, layers=[] if is_attention else [layer], heads=is_attention
    )
    values = getattr(contributions, kind)[layer]
    ranked = [(i, values[i].item()) for i in values.argsort(descending=True).tolist()][:top]
    if as_json:
        facts = {"layer": layer, "kind": kind, "target": contributions.target, "label": contributions.label}
        rows = [{"unit": i, "contribution": value} for i, value in ranked]
        typer.echo(json.dumps({**facts, "logit": contributions.logit, "units": rows}, indent=1))
        return
    typer.echo(f"{kind} of {layer} for {contributions.label} (logit {contributions.logit:.3f})")
    for i, value in ranked:
        typer.echo(f"{i:>6}  {value:+.4f}")
    for note in image.info["notes"]:
        typer.echo(note)


def receptive_field_command(
    layer: Annotated[str, typer.Argument(metavar="LAYER", help="A name that `vizlib layers` lists.")],
    model: ModelName = DEFAULT_MODEL,
    photo: Annotated[
        Path | None, typer.Option("--photo", help="Also measure the effective receptive field on this photo.")
    ] = None,
    cell: Annotated[
        tuple[int, int], typer.Option(metavar="ROW COLUMN", help="Position in the layer's output, from 0.")
    ] = (0, 0),
    architecture: Architecture = None,
    checkpoints: Checkpoints = None,
    as_json: AsJson = False,
) -> None:
    """Print the receptive field of a layer in pixels of the model input."""
    network = vizlib.load(model, architecture=architecture, checkpoints=checkpoints)
    field = vizlib.receptive_field(network, layer)
    whole = math.isinf(field.size[0])
    facts: dict[str, Any] = {"layer": layer, "whole": whole}
    if not whole:
        facts |= {"size": field.size, "jump": field.jump, "centre": field.centre, "box": field.box(*cell)}
    if photo is not None:
        facts["effective"] = effective_receptive_field(network, vizlib.open_image(photo), layer, cell).size
    if as_json:
        typer.echo(json.dumps(facts, indent=1))
        return
    size, jump = ("{:g} × {:g}".format(*pair) for pair in (field.size, field.jump))
    typer.echo(f"{layer}: " + ("the whole input" if whole else f"{size} pixels, stride {jump} pixels"))
    if photo is not None:
        row, column = cell
        typer.echo(
            f"row {row}, column {column}: effective receptive field about {facts['effective']:.0f} pixels a side"
        )


def gradient_command(
    photo: Photo,
    output: Annotated[
        str | None, typer.Option("--output", help="The layer; by default the outputs of the network.")
    ] = None,
    unit: Annotated[int | None, typer.Option(help="A channel of the layer; by default all.")] = None,
    at: Annotated[
        str | None, typer.Option(metavar="ROW,COLUMN", help="A position of the layer, from 0; by default all.")
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            "--target", "-t", help='Of the outputs: a class, or weights such as \'{"church": 1, "parachute": -1}\'.'
        ),
    ] = None,
    of: Annotated[
        list[str] | None,
        typer.Option(help="With respect to what: an earlier layer, or image, the default; may be repeated."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE", help="Also write a .png, .npz or .json file.")
    ] = None,
    model: ModelName = DEFAULT_MODEL,
    architecture: Architecture = None,
    checkpoints: Checkpoints = None,
    as_json: AsJson = False,
) -> None:
    """Compute the gradient of the outputs or of any layer with respect to earlier layers or the image."""
    network = vizlib.load(model, architecture=architecture, checkpoints=checkpoints)
    if output is not None and target is not None:
        raise TargetError(
            "--target is a class of the outputs; with --output choose a part of the layer by --unit and --at"
        )
    weights = parse_target(target)
    if isinstance(weights, str):
        weights = {weights: 1.0}
    position = None if at is None else _parse_numbers(at)
    if position is not None and len(position) != 2:
        raise ModelError(f"a position is a row and a column, as in 3,4, not {at!r}")
    found = vizlib.gradient(
        network,
        vizlib.open_image(photo),
        output,
        weights,
        of=of or "image",
        unit=unit,
        at=None if position is None else (position[0], position[1]),
    )
    if out is not None:
        found.save(out, *(of or [])[:1])
    if as_json:
        typer.echo(json.dumps(found.to_dict(), indent=1))
        return
    typer.echo(f"{found.label} of {found.model}: {format_number(found.score)}")
    for name, tensor in found.gradients.items():
        shape = " × ".join(map(str, tensor.shape))
        typer.echo(f"gradient of {name}: {shape}, norm {format_number(tensor.double().norm().item())}")
    for note in found.notes:
        typer.echo(note)
    if out is not None:
        typer.echo(str(out))


def _parse_numbers(text: str) -> list[int]:
    """Return the units that an option lists, such as `3,17`, as integers."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise ModelError(f"units are given by their numbers, as in 3,17, not {text!r}") from None
