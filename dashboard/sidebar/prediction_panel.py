"""What the left column shows of a photo: the likeliest classes, the crop that the model sees, and the address of it."""

from __future__ import annotations

from typing import Any

import gradio as gr
from PIL import Image

from dashboard.components.address import build_address
from dashboard.components.bars import build_bars
from dashboard.components.card import describe_preprocessing
from dashboard.components.figure import build_figure
from dashboard.i18n.translate import translate
from dashboard.services.analysis_service import AnalysisService
from dashboard.services.byte_cache import photo_key
from dashboard.services.examples import load_examples
from dashboard.state.selection import Selection, class_address
from vizlib.core.text import format_percent, shorten_label


def draw_panel(
    study: AnalysisService,
    photo: Image.Image | None,
    model: str,
    target: int | None = None,
    against: int | None = None,
) -> tuple:
    """The selection for a photo, and all that the left column shows of it: bars, classes to choose from, the crop.

    The class is the likeliest one unless it is given.
    """
    if photo is None:
        empty = build_address(dict.fromkeys(("m", "img", "c", "vs")))
        return None, None, {}, gr.update(choices=[], value=None), {}, empty
    found = study.predict(photo, model, top=10**6)
    target = study.resolve_target(photo, model, target)
    against = study.resolve_against(photo, model, target, None if against == target else against)
    names = [(shorten_label(one.label), one.index) for one in found]
    selection = Selection(photo_key(photo), model, target, against)
    return (
        selection,
        selection[:2],
        build_bars(found, target, against=against, ood_note=study.get_ood_note(photo, model), model=model),
        gr.update(choices=sorted(names, key=lambda row: row[0].lower()), value=target),
        draw_model_input(study, photo, model),
        build_address(address_values(study, selection)),
    )


def address_values(study: AnalysisService, selection: Selection) -> dict[str, str | None]:
    """What the selection is called in the page's address; a photo that is no example has no name there."""
    labels = study.catalog.get(selection.model).labels
    return {
        "m": selection.model,
        "img": {photo_key(photo): name for name, photo in load_examples().items()}.get(selection.photo),
        "c": class_address(selection.target, labels),
        "vs": None if selection.against is None else class_address(selection.against, labels),
    }


def draw_model_input(study: AnalysisService, photo: Image.Image, model: str) -> dict[str, Any]:
    """The exact crop the model was shown, how much of the photo it is, and what was done to it on the way."""
    picture, network = study.render_model_input(photo, model), study.catalog.get(model)
    seen = network.preprocessing.geometry(photo).visible_fraction
    facts = {"size": format_size(picture.width, picture.height), "share": format_percent(seen)}
    grid, rows = network.tokens.grid if network.tokens else (), describe_preprocessing(network)
    if not grid:
        caption = translate("left.crop", **facts)
    else:
        caption = translate("left.crop-patches", **facts, grid=format_size(*grid))
        each = format_size(picture.height // grid[0], picture.width // grid[1])
        rows = {**rows, translate("left.patches"): translate("left.each", grid=format_size(*grid), size=each)}
    return build_figure(picture, caption, alt=translate("left.alt"), fit="small", grid=grid, rows=rows)


def format_size(*sizes: int) -> str:
    """Sizes as a person writes them: 14 × 14."""
    return " × ".join(map(str, sizes))
