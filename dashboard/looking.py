"""What the left column shows of a photo: the likeliest classes, the crop that the model sees, and the address of it."""

from __future__ import annotations

from typing import Any

import gradio as gr
from PIL import Image

from dashboard.cache import key_of
from dashboard.components.address import address
from dashboard.components.bars import bars, percent, short
from dashboard.components.card import shown
from dashboard.components.figure import figure
from dashboard.examples import addressed
from dashboard.selection import Selection, name_of
from dashboard.study import Study


def look(
    study: Study,
    photo: Image.Image | None,
    model: str,
    target: int | None = None,
    against: int | None = None,
    said: str = "",
) -> tuple:
    """The selection for a photo, and all that the left column shows of it: bars, classes to choose from, the crop.

    The class is the likeliest one unless it is given. `said` is a sentence on the address the page was opened with.
    """
    if photo is None:
        empty = address(dict.fromkeys(("m", "img", "c", "vs")), said)
        return None, None, {}, gr.update(choices=[], value=None), {}, empty
    found = study.predictions(photo, model, top=10**6)
    target = study.target(photo, model, target)
    against = study.against(photo, model, target, None if against == target else against)
    names = [(short(one.label), one.index) for one in found]
    selection = Selection(key_of(photo), model, target, against)
    return (
        selection,
        selection[:2],
        bars(found, target, against=against, doubt=study.doubt(photo, model)),
        gr.update(choices=sorted(names, key=lambda row: row[0].lower()), value=target),
        eye(study, photo, model),
        address(keys(study, selection), said),
    )


def keys(study: Study, selection: Selection) -> dict[str, str | None]:
    """What the selection is called in the page's address; a photo that is no example has no name there."""
    labels = study.catalog.get(selection.model).labels
    return {
        "m": selection.model,
        "img": {key_of(photo): name for name, photo in addressed().items()}.get(selection.photo),
        "c": name_of(selection.target, labels),
        "vs": None if selection.against is None else name_of(selection.against, labels),
    }


def eye(study: Study, photo: Image.Image, model: str) -> dict[str, Any]:
    """The exact crop the model was shown, how much of the photo it is, and what was done to it on the way."""
    picture, network = study.eye(photo, model), study.catalog.get(model)
    seen = network.preprocessing.geometry(photo).seen_fraction
    caption = f"What the model really sees: {picture.width} × {picture.height} pixels, {percent(seen)} of the photo"
    grid = network.tokens.grid if network.tokens else ()
    patches = ""
    if grid:
        caption += f", in {grid[0]} × {grid[1]} patches"
        patches = f"{grid[0]} × {grid[1]}, each of {picture.height // grid[0]} × {picture.width // grid[1]} pixels"
    rows = {**shown(network), **({"Patches": patches} if grid else {})}
    alt = "The photo as resized and cropped for the model"
    return figure(picture, f"{caption}.", alt=alt, fit="small", grid=grid, rows=rows)


def rival(selection: Selection, chosen: int) -> Selection:
    """The selection with a class to set its target against; the same class again takes it away."""
    return selection._replace(against=None if chosen in (selection.against, selection.target) else chosen)
