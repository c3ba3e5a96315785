"""The left column: the photo, model and class that the whole page is about, and what happens when they change."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import gradio as gr
from PIL import Image

from dashboard.components.base import choosing, part
from dashboard.components.event_queue import answered, keeping, putting_back, refused, told
from dashboard.components.examples import examples
from dashboard.components.photo import PhotoInput
from dashboard.i18n.translate import browser_text as shown_as
from dashboard.services.analysis_service import Study
from dashboard.services.byte_cache import key_of
from dashboard.services.examples import EXAMPLES, addressed
from dashboard.sidebar.deep_links import visit
from dashboard.sidebar.prediction_panel import look
from dashboard.state.context import FETCH_QUEUE, MODEL_QUEUE, PLUMBING, PROGRESS, Shared, Turns, View, fetch, plainly
from dashboard.state.selection import Selection
from dashboard.state.transitions import Wanted, wanted
from vizlib import VizlibError, open_image


def build(study: Study) -> Shared:
    """The left column."""
    photo = PhotoInput(
        value=next(iter(EXAMPLES.values())),
        label=shown_as("photo"),
        show_label=False,
        sources=["upload", "webcam", "clipboard"],
        type="filepath",
        format="png",
        buttons=["fullscreen"],
        height=264,
        elem_id="photo",
        alt_text=str(shown_as("own")),
        placeholder=str(shown_as("drop")),
    )
    offered = part("examples", examples(EXAMPLES), says=EXAMPLES, elem_id="examples")
    first = study.catalog.names[0]
    model = gr.Dropdown(
        study.catalog.choices(),
        value=first,
        label=shown_as("typed" if study.catalog.typed else "model"),
        elem_id="model",
        interactive=True,
        allow_custom_value=study.catalog.typed,
    )
    gr.HTML(f"<h2>{shown_as('sees')}</h2>", elem_classes="viz-heading", apply_default_css=False)
    answers = part("bars", elem_id="bars")
    classes = gr.Dropdown([], label=shown_as("classes"), elem_id="classes", interactive=True)
    crop = part("figure", elem_id="eye")
    link = part("address", elem_id="address", render=False)
    return Shared(
        study,
        photo,
        model,
        gr.State(None),
        gr.State(None),
        classes,
        bars=answers,
        eye=crop,
        address=link,
        examples=offered,
        method=gr.State(None),
        knobs=part("knobs", elem_id="why-knobs", render=False),
        turns=Turns(),
        desk=part("event_queue", elem_id="desk", opens=True),
        inside=part("event_queue", elem_id="inside-desk", recalls=["u", "o"]),
    )


def listen(shared: Shared, page: gr.Blocks, tabs: gr.Tabs, ids: Sequence[str], view: View) -> None:
    """The events of the left column; each brings the first tab's pictures with it, so a person waits once.

    All choices go by way of the desk, so one answer is under way at a time, and the States here are of the last one.
    """
    study, first, desk = shared.study, shared.study.catalog.names[0], shared.desk
    left = [shared.selection, shared.view, shared.bars, shared.classes, shared.eye, shared.address]
    outputs = [*left, *view.outputs, shared.model, tabs, desk]

    def arrive(request: gr.Request, progress: gr.Progress = PROGRESS) -> tuple:
        asked_for = request.query_params.get("m")
        if asked_for in study.catalog.names:
            with suppress(VizlibError):  # `visit` says it in its own place
                fetch(study, asked_for, progress)
        link, photo, looked, menus = visit(study, request.query_params, ids)
        keys = {
            "v": link.tab or ids[0],
            "w": link.method,
            "k": link.knobs,
            "l": link.layer,
            "h": link.head,
            "p": link.patch,
            "u": link.unit,
            "o": link.off,
            "s": link.step,
        }
        looked[-1]["keys"].update(keys)
        change = gr.skip() if photo is next(iter(addressed().values())) else photo
        tab = gr.Tabs(selected=link.tab) if link.tab else gr.skip()
        drawn = view.answer(photo, looked[0], link.method, menus)
        return *looked, *drawn, looked[0].model, tab, {"answered": 0}, change

    def fetched(value: Any, progress: gr.Progress = PROGRESS) -> None:
        for choice in told(value):
            if isinstance(choice.get("model"), str):
                fetch(study, choice["model"], progress)

    def choose(
        photo: Image.Image | None,
        selection: Selection | None,
        method: str | None,
        menus: Any,
        value: Any,
        request: gr.Request,
    ) -> tuple:
        shared.turns.next(request)
        choices, done = told(value), answered(value)
        same = photo is not None and selection is not None and selection.photo == key_of(photo)
        if same:
            choices = [one for one in choices if "photo" not in one]  # the page was opened with this photo
            if not choices:
                return *(gr.skip(),) * (len(outputs) - 1), done
        now = Wanted(selection.model if selection else first, None, None, method, menus)
        if same and selection:
            now = now._replace(target=selection.target, against=selection.against)
        now = wanted(now, choices, lambda name: study.catalog.get(name).labels)
        looked = look(study, photo, now.model, now.target, now.against)
        if selection and looked[0] and looked[0][:2] == selection[:2]:
            looked = again(looked)
        drawn = view.answer(photo, looked[0], now.method, now.menus)
        menu = now.model if any("model" in one for one in choices) else gr.skip()
        tab = gr.Tabs(selected=now.tab) if now.tab in ids else gr.skip()
        return *looked, *drawn, menu, tab, done

    def undo(photo: Image.Image | gr.Error | None, selection: Selection | None, value: Any) -> tuple:
        choices = told(value)
        only = choices[0] if len(choices) == 1 else {}
        before = selection.model if selection else first  # where the menu was
        menu = before if only and "photo" not in only else gr.skip()
        return menu, {"wrong": isinstance(photo, gr.Error) or "photo" in only}

    def leave(request: gr.Request) -> None:
        shared.turns.next(request)  # gradio itself ends no work that was begun in the moment before

    page.unload(leave)
    alone = {**PLUMBING, "trigger_mode": "multiple"}  # the desk sees to it that no two answers meet
    waiting = {"show_progress": "full", "show_progress_on": [shared.bars]}  # a model may have to be loaded first
    arrival = page.load(plainly(arrive), None, [*outputs, shared.photo], **{**MODEL_QUEUE, **alone, **waiting})
    how = {"cancels": list(view.running), **alone, **waiting}
    there = desk.submit(plainly(fetched), desk, None, **{**how, **FETCH_QUEUE})
    choices = [
        shared.on(event, choose, [*view.inputs, desk], outputs, tells=True, **how)
        for event in (desk.input, there.success)
    ]
    reading = {**MODEL_QUEUE, **PLUMBING}
    for event in (there, *choices):  # the next choice waits until this one is undone: it would meet the same photo
        undone = event.failure(undo, [shared.photo, shared.selection, desk], [shared.model, desk], **reading)
        back = undone.then(None, [shared.photo, desk], shared.photo, js=putting_back(), **PLUMBING)
        back.then(None, None, None, js=refused(), **PLUMBING)
    arrival.failure(None, None, None, js=refused(), **PLUMBING)
    arrival.success(None, shared.photo, None, js=keeping(), **PLUMBING)
    for event in (arrival, *choices):
        shared.on(event.success, *view.later)
    photo = choosing("file, model", "{ photo: true, file, model }")
    shared.photo.change(None, [shared.photo, shared.model], None, js=photo, **alone)
    shared.model.input(None, [shared.model], None, js=choosing("model", "{ model }"), **alone)
    target = choosing("target, bars", "{ target, of: bars.model }")
    shared.classes.input(None, [shared.classes, shared.bars], None, js=target, **alone)
    shared.examples.select(example, None, shared.photo, **PLUMBING)


def again(looked: tuple) -> tuple:
    """What is shown of the same photo and model with another class: all that does not change need not travel again."""
    selection, same, answers, _, _, link = looked
    return selection, same, answers, gr.update(value=selection.target), gr.skip(), link


def example(event: gr.SelectData) -> Image.Image | None:
    """The example photo that was clicked; opened here, as gradio may not serve files from where packages lie."""
    return open_image(EXAMPLES[event.value]) if event.value in EXAMPLES else None
