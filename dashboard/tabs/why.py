"""Why this class: any method's map on the photo, and all the one-pass methods beside each other."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing
from typing import Any, NamedTuple

import gradio as gr
from PIL import Image

import vizlib
from dashboard.components.base import part
from dashboard.components.captions import alternative, caption, duration, gives, lead, no_photo, question, verdict
from dashboard.components.heatmap import bare, of_attribution
from dashboard.components.knobs import knobs, turned
from dashboard.components.progress import running, waiting
from dashboard.components.thumbnails import reduced, thumb, thumbs
from dashboard.i18n.translate import describe_method, translate
from dashboard.services.analysis_service import KEPT, Study
from dashboard.state.context import PLUMBING, STREAM_QUEUE, Shared, View
from dashboard.state.selection import Selection
from vizlib.attribution.methods.base import MANY_PASSES
from vizlib.attribution.methods.registry import METHODS
from vizlib.render import overlay as render

TITLE = "Why"
FIRST = "grad-cam"  # fits both kinds of network, so that a change of model keeps the method
SOON = 3.0  # seconds: what takes no longer begins by itself


class Shown(NamedTuple):
    """All the tab shows."""

    method: str | None
    heat: dict[str, Any]
    words: str
    menus: dict[str, Any]
    strip: dict[str, Any]
    progress: dict[str, Any]
    kept: str = ""  # empty where it is still to be worked out


def method_of(study: Study, model: str, wanted: str | None) -> str:
    """The method to show: the one that was chosen if it fits this model, else the one to begin with."""
    fitting = vizlib.list_methods(study.catalog.get(model))
    return next(name for name in (wanted, FIRST, *fitting) if name in fitting)


def draw(study: Study, photo: Image.Image | None, selection: Selection | None, method: str | None, menus: Any) -> Shown:
    """All the tab shows: the method, its map, its words, its knobs and the strip.

    A method of many passes that was not yet worked out has no map, but says how long it will take.
    """
    if photo is None or selection is None:
        return Shown(method, {"empty": no_photo()}, "", {}, {}, {})
    method = method_of(study, selection.model, method)
    model = study.catalog.get(selection.model)
    settings = turned(menus, model, method)
    answer = study.known(photo, *selection[1:3], method, settings, selection.against)
    offered = knobs(model, method, settings, placed=True)
    others = strip(study, photo, selection, method, answer)
    if answer is None:
        heat, words = unanswered(study, photo, selection, method)
        return Shown(method, heat, words, offered, others, cost(study, photo, selection, method, settings))
    heat, words = picture(answer, photo, rival(study, selection))
    pair = study.kept_already(photo, answer, selection.model)
    return Shown(method, heat, words, offered, others, {}, kept_words(*pair) if pair else "")


def run(
    study: Study, photo: Image.Image | None, selection: Selection | None, method: str | None, menus: Any
) -> Generator[Shown, None, None]:
    """A method of many passes as a map that gets better and better; with the last step all else is drawn again."""
    if photo is None or selection is None:
        return
    method = method_of(study, selection.model, method)
    settings = turned(menus, study.catalog.get(selection.model), method)
    keep = gr.skip()
    began = time.perf_counter()
    for step in study.stream(photo, *selection[1:3], method, settings, selection.against):
        if step.done < step.total:
            each = (time.perf_counter() - began) / step.done
            bar = running(step.done, step.total, duration(each * (step.total - step.done)))
            heat, words = picture(step.attribution, photo, rival(study, selection))
            yield Shown(method, heat, words, keep, keep, bar)
    yield draw(study, photo, selection, method, menus)


def picture(answer: vizlib.Attribution, photo: Image.Image, rival: str = "") -> tuple[dict[str, Any], str]:
    """The map on the photo, and what it means and does not mean."""
    row = METHODS[answer.method]
    return (
        of_attribution(answer, photo, alternative(answer), rival),
        caption(lead(answer, rival), *describe_method(row), answer.notes, verdict(answer)),
    )


def unanswered(study: Study, photo: Image.Image, selection: Selection, method: str) -> tuple[dict[str, Any], str]:
    """The photo without a map, and what the map will mean."""
    model, row = study.catalog.get(selection.model), METHODS[method]
    found = {one.index: one for one in study.predictions(photo, selection.model, 10**6)}[selection.target]
    heading = question(method, found.label, rival(study, selection))
    words = caption(heading, *describe_method(row), (), gives(model.name, found.probability))
    return bare(photo, model.preprocessing.geometry(photo), alt=translate("why.not-run", method=method)), words


def cost(
    study: Study, photo: Image.Image, selection: Selection, method: str, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """How long a method of many passes will take, and the button to begin; what is over soon begins by itself."""
    seconds = study.seconds(photo, selection.model, method, settings)
    said = translate("why.cost", method=method, time=duration(seconds))
    return waiting(said, at_once=seconds <= SOON)


def rival(study: Study, selection: Selection) -> str:
    """The label of the class that the target is set against, or nothing."""
    return "" if selection.against is None else study.catalog.get(selection.model).labels[selection.against]


def strip(
    study: Study, photo: Image.Image, selection: Selection, method: str, shown: vizlib.Attribution | None
) -> dict[str, Any]:
    """Every method that fits as a button, with its map where it is known already."""
    items = []
    at_hand = study.explanations(photo, *selection[1:])
    for name in vizlib.list_methods(study.catalog.get(selection.model)):
        answer = at_hand.get(name) or study.found(photo, *selection[1:3], name, None, selection.against)
        answer = shown if name == method else answer
        values = None if answer is None else reduced(answer.heat.numpy())
        signed = answer is not None and answer.signed
        limits = (0.0, 1.0) if values is None else render.limits_of(values, signed=signed)
        smooth = not METHODS[name].patches
        items.append(thumb(name, name, values, limits, signed=signed, smooth=smooth, hint=hint(name)))
    geometry = study.catalog.get(selection.model).preprocessing.geometry(photo)
    return thumbs(
        items,
        method,
        label=translate("why.methods"),
        heading=translate("why.other-ways"),
        photo=photo,
        geometry=geometry,
    )


def hint(name: str) -> str:
    """What a method's picture means, and whether it takes long."""
    row = METHODS[name]
    means = describe_method(row)[0]
    return f"{means} {translate('why.many')}" if row.cost == MANY_PASSES else means


def keep(study: Study, photo: Image.Image | None, selection: Selection | None, method: str | None, menus: Any) -> str:
    """How sure the model still is where only the warmest of what it saw is left, as a sentence."""
    if photo is None or selection is None:
        return ""
    method = method_of(study, selection.model, method)
    settings = turned(menus, study.catalog.get(selection.model), method)
    answer = study.known(photo, *selection[1:3], method, settings, selection.against)
    return "" if answer is None else kept_words(*study.kept(photo, answer, selection.model))


def kept_words(before: float, after: float) -> str:
    """What keeping only the warmest pixels does to the answer, as safe HTML."""
    said = translate("why.kept", share=f"{100 * KEPT:.0f}\u00a0%")
    return f'<p class="viz-kept">{said} <strong>{before:.2f}</strong> → <strong>{after:.2f}</strong></p>'


def build(shared: Shared) -> View:
    """The map and its words side by side, the strip of methods below; drawn in one event with the selection."""
    study, method, menus = shared.study, shared.method, shared.knobs
    with gr.Row(equal_height=False):
        with gr.Column(scale=8, min_width=320):
            heat = part("heatmap", elem_id="why-heat")
        with gr.Column(scale=5, min_width=280):
            progress = part("progress", elem_id="why-progress")
            words = gr.HTML(elem_id="why-words", apply_default_css=False)
            kept = gr.HTML(elem_id="why-kept", apply_default_css=False)
            menus.render()
    others = part("thumbnails", elem_id="why-methods", chooses="method")
    outputs = [method, heat, words, menus, others, progress, kept]

    def again(photo: Image.Image | None, selection: Selection | None, method: str | None, menus: Any) -> tuple:
        return draw(study, photo, selection, method, menus)

    def begun(
        photo: Image.Image | None, selection: Selection | None, method: str | None, menus: Any, request: gr.Request
    ) -> Iterator[tuple]:
        turn = shared.turns.now(request)
        with closing(run(study, photo, selection, method, menus)) as steps:
            for shown in steps:
                # gradio ends this only after the answer to another choice, which one more step would undo; and what was
                # handed out last it hands out again at the end.
                if shared.turns.now(request) != turn:
                    yield (gr.skip(),) * len(outputs)
                    return
                yield shown

    def sure(photo: Image.Image | None, selection: Selection | None, method: str | None, menus: Any) -> str:
        return keep(study, photo, selection, method, menus)

    stream = shared.on(progress.submit, begun, [method, menus], outputs, **STREAM_QUEUE)
    progress.stop(None, None, None, cancels=[stream], **PLUMBING)
    later = sure, [method, menus], [kept]
    shared.on(stream.success, *later)
    return View(again, [method, menus], outputs, later, running=[stream])
