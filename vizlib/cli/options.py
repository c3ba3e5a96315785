"""The options that several shell commands take, each described once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

DEFAULT_MODEL = "resnet18-imagenette"

ModelName = Annotated[
    str, typer.Option("--model", "-m", help="A name `vizlib models` lists, any timm name, or a file.")
]
Architecture = Annotated[str | None, typer.Option(help="What network a weight file belongs to.")]
Checkpoints = Annotated[
    Path | None,
    typer.Option(metavar="FOLDER", help="A folder with weight files of yours; each can then be named."),
]
Photos = Annotated[list[Path], typer.Argument(metavar="PHOTO...", help="One or more image files.")]
Knobs = Annotated[list[str] | None, typer.Option("--knob", "-k", metavar="NAME=VALUE", help="A knob of the method.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
