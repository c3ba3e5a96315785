"""Options that several shell commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

DEFAULT_MODEL = "resnet18-imagenette"

ModelName = Annotated[
    str, typer.Option("--model", "-m", help="A name that `vizlib models` lists, any timm name, or a weight file.")
]
Architecture = Annotated[str | None, typer.Option(help="Architecture of a weight file, as a timm name.")]
Checkpoints = Annotated[
    Path | None,
    typer.Option(metavar="FOLDER", help="A folder of your weight files, which can then be loaded by name."),
]
Photos = Annotated[list[Path], typer.Argument(metavar="PHOTO...", help="One or more image files.")]
Photo = Annotated[Path, typer.Argument(metavar="PHOTO", help="An image file.")]
Parameters = Annotated[
    list[str] | None,
    typer.Option("--param", "-p", metavar="NAME=VALUE", help="A parameter of the method; may be repeated."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
