"""Options and the format of a prediction, which several shell commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vizlib.models.run import Prediction

DEFAULT_MODEL = "vit_tiny-imagenet"

ModelName = Annotated[
    str, typer.Option("--model", "-m", help="A name that `vizlib models` lists, any timm name, or a weight file.")
]
Architecture = Annotated[str | None, typer.Option(help="Architecture of a weight file, as a timm name.")]
Checkpoints = Annotated[
    Path | None,
    typer.Option(metavar="FOLDER", help="A folder of your weight files, which can then be loaded by name."),
]
Photos = Annotated[
    list[str],
    typer.Argument(
        metavar="PHOTO...",
        help="Image files, folders with all in them, patterns in quotation marks such as 'photos/**/*.jpg', or - for "
        "a list on standard input, one path a line.",
    ),
]
Photo = Annotated[Path, typer.Argument(metavar="PHOTO", help="An image file.")]
Parameters = Annotated[
    list[str] | None,
    typer.Option("--param", "-p", metavar="NAME=VALUE", help="A parameter of the method; may be repeated."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
AsJsonLines = Annotated[
    bool, typer.Option("--jsonl", help="Print one JSON object a line, as soon as each result is there.")
]


def format_prediction(prediction: Prediction) -> str:
    """Return one line of a list of predictions: the probability in percent, or the value of a regression; the label.

    >>> format_prediction(Prediction(0, "church", 0.9, 4.2))
    ' 90.00%  church'
    >>> format_prediction(Prediction(0, "age", None, 41.5))
    '   41.5  age'
    """
    probability = prediction.probability
    number = f"{prediction.logit:7.4g}" if probability is None else f"{probability:7.2%}"
    return f"{number}  {prediction.label}"
