"""Why this class: any method's map on the photo, and all the one-pass methods beside each other."""

from __future__ import annotations

from typing import Any

import gradio as gr
from PIL import Image

import vizlib
from dashboard.components.base import part
from dashboard.components.heat import of_attribution
from dashboard.components.knobs import knobs, turned
from dashboard.components.thumbs import reduced, thumb, thumbs
from dashboard.shared import Selection, Shared, View
from dashboard.study import Study
from dashboard.words import NO_PHOTO, alternative, caption, lead, verdict
from vizlib import render
from vizlib.methods.base import MANY_PASSES
from vizlib.methods.registry import METHODS

TITLE = "Why"
HEADING = "The same question, asked in other ways"
FIRST = "grad-cam"  # fits both kinds of network, so that a change of model keeps the method


def method_of(study: Study, model: str, wanted: str | None) -> str:
    """The method to show: the one that was chosen if it fits this model, else the one to begin with."""
    fitting = vizlib.methods(study.catalog.get(model))
    return next(name for name in (wanted, FIRST, *fitting) if name in fitting)


def picture(answer: vizlib.Attribution, photo: Image.Image) -> tuple[dict[str, Any], str]:
    """The map on the photo, and what it means and does not mean."""
    row = METHODS[answer.method]
    return (
        of_attribution(answer, photo, alternative(answer)),
        caption(lead(answer), row.means, row.means_not, answer.notes, verdict(answer)),
    )


def strip(study: Study, photo: Image.Image, selection: Selection, shown: vizlib.Attribution) -> dict[str, Any]:
    """Every method that fits as a button, with its map where one pass gave them all, or it is the one that is shown."""
    known = {shown.method: shown, **study.explanations(photo, *selection[1:])}
    items = []
    for name in vizlib.methods(study.catalog.get(selection.model)):
        answer = known.get(name)
        values = None if answer is None else reduced(answer.heat.numpy())
        signed = answer is not None and answer.signed
        limits = (0.0, 1.0) if values is None else render.limits_of(values, signed=signed)
        smooth = not METHODS[name].patches
        items.append(thumb(name, name, values, limits, signed=signed, smooth=smooth, hint=hint(name)))
    geometry = study.catalog.get(selection.model).preprocessing.geometry(photo)
    return thumbs(items, shown.method, label="Methods", heading=HEADING, photo=photo, geometry=geometry)


def hint(name: str) -> str:
    """What a method's picture means, and whether it takes long."""
    row = METHODS[name]
    return f"{row.means} It asks the network many times, which takes a while." if row.cost == MANY_PASSES else row.means


def draw(study: Study, photo: Image.Image | None, selection: Selection | None, method: str | None, menus: Any) -> tuple:
    """All the tab shows: the method, its map, its words, its knobs and the strip."""
    if photo is None or selection is None:
        return method, {"empty": NO_PHOTO}, "", {}, {}
    method = method_of(study, selection.model, method)
    model = study.catalog.get(selection.model)
    settings = turned(menus, model, method)
    answer = study.explanation(photo, *selection[1:3], method, settings, selection.against)
    return (
        method,
        *picture(answer, photo),
        knobs(model, method, settings, placed=True),
        strip(study, photo, selection, answer),
    )


def build(shared: Shared) -> View:
    """The map and its words side by side, the strip of methods below; drawn in one event with the selection."""
    method = gr.State(None)
    with gr.Row(equal_height=False):
        with gr.Column(scale=8, min_width=320):
            heat = part("heat", elem_id="why-heat")
        with gr.Column(scale=5, min_width=280):
            words = gr.HTML(elem_id="why-words", apply_default_css=False)
            menus = part("knobs", elem_id="why-knobs")
    others = part("thumbs", elem_id="why-methods")
    outputs = [method, heat, words, menus, others]

    def again(photo: Image.Image | None, selection: Selection | None, method: str | None, menus: Any) -> tuple:
        return draw(shared.study, photo, selection, method, menus)

    def chosen(photo: Image.Image | None, selection: Selection | None, event: gr.SelectData) -> tuple:
        return draw(shared.study, photo, selection, event.index, None)

    shared.on(menus.input, again, [method, menus], outputs)
    shared.on(others.select, chosen, [], outputs)
    return View(again, [method, menus], outputs)
