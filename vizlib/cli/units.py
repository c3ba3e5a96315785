"""Shell commands about a network's inside: `vizlib units PHOTO -l LAYER` and `vizlib field LAYER`."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated

import typer

from vizlib import ablate, contributions, load, receptive_field
from vizlib.analysis.effective_receptive_field import effective_receptive_field
from vizlib.cli.options import DEFAULT_MODEL, Architecture, AsJson, Checkpoints, ModelName
from vizlib.core.errors import ModelError
from vizlib.core.images import open_image


def units(
    photo: Annotated[Path, typer.Argument(metavar="PHOTO", help="An image file.")],
    layer: Annotated[
        str, typer.Option("--layer", "-l", help="Its channels are listed; of an attention layer, its heads.")
    ],
    model: ModelName = DEFAULT_MODEL,
    target: Annotated[
        str | None, typer.Option("--target", "-t", help="The class they speak for; the likeliest if left out.")
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="How many units.")] = 10,
    off: Annotated[
        str | None, typer.Option(metavar="3,17", help="Switch these units off, and see what the model would answer.")
    ] = None,
    architecture: Architecture = None,
    checkpoints: Checkpoints = None,
    as_json: AsJson = False,
) -> None:
    """List what the channels or heads of a layer contribute to a class, or switch some off."""
    network = load(model, architecture=architecture, checkpoints=checkpoints)
    picture, attention = open_image(photo), layer in network.attention_layers
    kind = "heads" if attention else "channels"
    if off is not None:
        answers = ablate(network, picture, **{kind: {layer: _numbers(off)}})[: min(top, 5)]
        if as_json:
            typer.echo(json.dumps([one._asdict() for one in answers], indent=1))
            return
        for before, after in zip(network.predict(picture), answers, strict=False):
            typer.echo(f"{before.probability:7.2%}  {before.label:<24}{after.probability:7.2%}  {after.label}")
        return
    found = contributions(network, picture, target, layers=[] if attention else [layer], heads=attention)
    values = getattr(found, kind)[layer]
    best = [(i, values[i].item()) for i in values.argsort(descending=True).tolist()][:top]
    if as_json:
        about = {"layer": layer, "kind": kind, "target": found.target, "label": found.label, "logit": found.logit}
        listed = [{"unit": i, "contribution": value} for i, value in best]
        typer.echo(json.dumps({**about, "units": listed}, indent=1))
        return
    typer.echo(f"{kind} of {layer} for {found.label} (logit {found.logit:.3f})")
    for i, value in best:
        typer.echo(f"{i:>6}  {value:+.4f}")


def field(
    layer: Annotated[str, typer.Argument(metavar="LAYER", help="A name `vizlib layers` lists.")],
    model: ModelName = DEFAULT_MODEL,
    photo: Annotated[
        Path | None, typer.Option("--photo", "-p", help="Say what a place really goes by on this image.")
    ] = None,
    cell: Annotated[tuple[int, int], typer.Option(metavar="ROW COLUMN", help="Which place; from 0.")] = (0, 0),
    architecture: Architecture = None,
    checkpoints: Checkpoints = None,
    as_json: AsJson = False,
) -> None:
    """Say which pixels a place of a layer can see: its receptive field."""
    network = load(model, architecture=architecture, checkpoints=checkpoints)
    found = receptive_field(network, layer)
    whole = math.isinf(found.size[0])
    answer = {"layer": layer, "whole": whole}
    if not whole:
        answer |= {"size": found.size, "jump": found.jump, "centre": found.centre, "box": found.box(*cell)}
    if photo is not None:
        answer["effective"] = effective_receptive_field(network, open_image(photo), layer, cell).size
    if as_json:
        typer.echo(json.dumps(answer, indent=1))
        return
    size, jump = ("{:g} × {:g}".format(*pair) for pair in (found.size, found.jump))
    typer.echo(f"{layer}: " + ("the whole input" if whole else f"{size} pixels, neighbours {jump} pixels apart"))
    if photo is not None:
        row, column = cell
        typer.echo(f"row {row}, column {column} really goes by about {answer['effective']:.0f} pixels a side")


def _numbers(text: str) -> list[int]:
    """`3,17` as whole numbers."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise ModelError(f"units are given by their numbers, as in 3,17, not {text!r}") from None
