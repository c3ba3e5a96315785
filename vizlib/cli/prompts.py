"""Shell commands for networks that read prompts: `vizlib clip PHOTO` and `check`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

import vizlib
from vizlib.attribution.result import SAVE_SUFFIXES
from vizlib.attribution.target import parse_target
from vizlib.cli.options import AsJson, Parameters, Photo, format_prediction
from vizlib.cli.values import parse_parameters
from vizlib.core.errors import MethodError, TargetError
from vizlib.core.text import format_percent
from vizlib.models.clip.prompts import read_prompts
from vizlib.text.clip_checks import PROMPTS, check_clip

DEFAULT_CLIP = "clip-digits"
NOISE_PIXELS = 320  # side of the image that a network is checked with

ClipName = Annotated[
    str,
    typer.Option(
        "--model", "-m", help="clip-digits, open_clip/ARCHITECTURE/TAG, hf-hub:ORGANISATION/REPOSITORY, or a folder."
    ),
]


def clip_command(
    photo: Photo,
    prompts: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A text file with one prompt a line; a whole vocabulary fits.")
    ] = None,
    prompt: Annotated[list[str] | None, typer.Option(help="A prompt; may be repeated.")] = None,
    model: ClipName = DEFAULT_CLIP,
    templates: Annotated[
        list[str] | None,
        typer.Option(help="openai, simple, or a text with {} where the prompt is put, which may be repeated."),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option("--method", "-x", help="A name that `vizlib methods` lists; attention-relevance where it fits."),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option("--target", "-t", help="The prompt to explain, by default the most probable; or weights as JSON."),
    ] = None,
    against: Annotated[str | None, typer.Option(help="Explain why the target and not this prompt.")] = None,
    param: Parameters = None,
    top: Annotated[int, typer.Option(help="How many prompts to list.")] = 5,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the heat map.")] = Path(),
    save_as: Annotated[str, typer.Option("--as", help="png, svg, npz or json.")] = "png",
    as_json: AsJson = False,
) -> None:
    """Ask a CLIP which prompts fit a photo, and draw where it sees the best of them, or another.

    Prints the most probable prompts and the share of each word of the explained one in its relevance, and writes the
    heat map to NAME.METHOD.png in the folder --out.
    """
    if f".{save_as}" not in SAVE_SUFFIXES:
        raise MethodError(f"cannot save as {save_as!r}; use one of {', '.join(s[1:] for s in SAVE_SUFFIXES)}")
    clip = vizlib.load_clip(model)
    if templates:
        clip = clip.with_templates(templates[0] if len(templates) == 1 else templates)
    texts = [*(read_prompts(prompts) if prompts is not None else ()), *(prompt or ())] or list(clip.default_prompts)
    if not texts:
        raise TargetError(f"{model} has no prompts of its own; give --prompts FILE or --prompt TEXT")
    network = clip.with_prompts(texts)
    image = vizlib.open_image(photo)
    attribution = vizlib.explain(network, image, method, parse_target(target), against, **parse_parameters(param or []))
    predictions = network.predict(image, top)
    words = vizlib.explain_words(network, image, attribution.target) if isinstance(attribution.target, int) else None
    out.mkdir(parents=True, exist_ok=True)
    file = attribution.save(out / f"{photo.stem}.{attribution.method}.{save_as}")
    if as_json:
        row = {"path": str(photo), "file": str(file), "prompts": [one._asdict() for one in predictions]}
        row |= {"words": None if words is None else words.to_dict(), "map": attribution.to_dict()}
        typer.echo(json.dumps(row, indent=1))
        return
    for one in predictions:
        typer.echo(format_prediction(one))
    if words is not None:
        shares = ", ".join(
            f"{word} {format_percent(share)}" for word, share in zip(words.words, words.shares, strict=True)
        )
        typer.echo(f"words of “{words.prompt}”: {shares}")
    typer.echo(f"{file}: {attribution.method} for {attribution.label}")
    for note in attribution.notes:
        typer.echo(f"  {note}")


def check_command(
    model: Annotated[str, typer.Argument(metavar="NAME", help="A CLIP, as --model of `vizlib clip` takes it.")],
    photo: Annotated[
        Path | None, typer.Option(metavar="PHOTO", help="The photo to check with; by default noise.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check that a CLIP is read as it computes: scores, attention weights, gradients and ranking.

    These are the checks that the tests of vizlib make on networks with random weights, here on real ones. The exit code
    is 1 if one fails.
    """
    clip = vizlib.load_clip(model)
    noise = np.random.default_rng(0).integers(0, 256, (NOISE_PIXELS, NOISE_PIXELS, 3), dtype=np.uint8)
    checks = check_clip(clip, noise if photo is None else photo, clip.default_prompts or PROMPTS)
    if as_json:
        typer.echo(json.dumps([check._asdict() for check in checks], indent=1))
    else:
        for check in checks:
            typer.echo(f"{'passed' if check.passed else 'FAILED'}  {check.name}: {check.value:.3g}")
    if not all(check.passed for check in checks):
        raise typer.Exit(1)
