"""What the left column shows of a photo: the likeliest classes, the crop that the model sees, and the address of it."""

from __future__ import annotations

from typing import Any

import gradio as gr
from PIL import Image

from dashboard.components.address import address
from dashboard.components.bars import bars
from dashboard.components.card import shown
from dashboard.components.figure import figure
from dashboard.i18n.translate import translate
from dashboard.services.analysis_service import Study
from dashboard.services.byte_cache import key_of
from dashboard.services.examples import addressed
from dashboard.state.selection import Selection, name_of
from vizlib.core.text import percent, short


def look(
    study: Study,
    photo: Image.Image | None,
    model: str,
    target: int | None = None,
    against: int | None = None,
) -> tuple:
    """The selection for a photo, and all that the left column shows of it: bars, classes to choose from, the crop.

    The class is the likeliest one unless it is given.
    """
    if photo is None:
        empty = address(dict.fromkeys(("m", "img", "c", "vs")))
        return None, None, {}, gr.update(choices=[], value=None), {}, empty
    found = study.predictions(photo, model, top=10**6)
    target = study.target(photo, model, target)
    against = study.against(photo, model, target, None if against == target else against)
    names = [(short(one.label), one.index) for one in found]
    selection = Selection(key_of(photo), model, target, against)
    return (
        selection,
        selection[:2],
        bars(found, target, against=against, doubt=study.doubt(photo, model), model=model),
        gr.update(choices=sorted(names, key=lambda row: row[0].lower()), value=target),
        eye(study, photo, model),
        address(keys(study, selection)),
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
    facts = {"size": by(picture.width, picture.height), "share": percent(seen)}
    grid, rows = network.tokens.grid if network.tokens else (), shown(network)
    if not grid:
        caption = translate("left.crop", **facts)
    else:
        caption = translate("left.crop-patches", **facts, grid=by(*grid))
        each = by(picture.height // grid[0], picture.width // grid[1])
        rows = {**rows, translate("left.patches"): translate("left.each", grid=by(*grid), size=each)}
    return figure(picture, caption, alt=translate("left.alt"), fit="small", grid=grid, rows=rows)


def by(*sizes: int) -> str:
    """Sizes as a person writes them: 14 × 14."""
    return " × ".join(map(str, sizes))
