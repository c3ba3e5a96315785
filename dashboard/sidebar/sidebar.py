"""The left column: the photo, model and class that the whole page is about, and what happens when they change."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import gradio as gr
from PIL import Image

from dashboard.components.base import custom_component, emit_choice_js
from dashboard.components.event_queue import (
    acknowledge,
    parse_choices,
    report_current_file_js,
    report_failure_js,
    restore_file_js,
)
from dashboard.components.examples import build_examples
from dashboard.components.photo import PhotoInput
from dashboard.i18n.translate import browser_text as shown_as
from dashboard.services.analysis_service import AnalysisService
from dashboard.services.byte_cache import photo_key
from dashboard.services.examples import EXAMPLES, load_examples
from dashboard.sidebar.deep_links import open_link
from dashboard.sidebar.prediction_panel import draw_panel
from dashboard.state.context import (
    FETCH_QUEUE,
    MODEL_QUEUE,
    PRIVATE_EVENT,
    PROGRESS,
    GenerationCounter,
    TabContext,
    TabView,
    load_with_progress,
    show_errors,
)
from dashboard.state.selection import Selection
from dashboard.state.transitions import PageState, apply_choices
from vizlib import VizlibError, open_image


def build(service: AnalysisService) -> TabContext:
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
        alt_text=str(shown_as("own-photo")),
        placeholder=str(shown_as("drop")),
    )
    offered = custom_component("examples", build_examples(EXAMPLES), texts=EXAMPLES, elem_id="examples")
    first = service.catalog.names[0]
    model = gr.Dropdown(
        service.catalog.menu_rows(),
        value=first,
        label=shown_as("typed" if service.catalog.accepts_typed_names else "model"),
        elem_id="model",
        interactive=True,
        allow_custom_value=service.catalog.accepts_typed_names,
    )
    gr.HTML(f"<h2>{shown_as('sees')}</h2>", elem_classes="viz-heading", apply_default_css=False)
    answers = custom_component("bars", elem_id="bars")
    classes = gr.Dropdown([], label=shown_as("other-classes"), elem_id="classes", interactive=True)
    crop = custom_component("figure", elem_id="model-input")
    link = custom_component("address", elem_id="address", render=False)
    return TabContext(
        service,
        photo,
        model,
        gr.State(None),
        gr.State(None),
        classes,
        bars=answers,
        model_input=crop,
        address=link,
        examples=offered,
        method=gr.State(None),
        parameters=custom_component("parameters", elem_id="why-parameters", render=False),
        generations=GenerationCounter(),
        event_queue=custom_component("event_queue", elem_id="event-queue", initial_event=True),
        inspect_queue=custom_component("event_queue", elem_id="inside-event-queue", url_keys=["u", "o"]),
    )


def listen(shared: TabContext, page: gr.Blocks, tabs: gr.Tabs, ids: Sequence[str], view: TabView) -> None:
    """The events of the left column; each brings the first tab's pictures with it, so a person waits once.

    All choices go by way of the desk, so one answer is under way at a time, and the States here are of the last one.
    """
    service, first, desk = shared.service, shared.service.catalog.names[0], shared.event_queue
    left = [shared.selection, shared.photo_and_model, shared.bars, shared.classes, shared.model_input, shared.address]
    outputs = [*left, *view.outputs, shared.model, tabs, desk]

    def arrive(request: gr.Request, progress: gr.Progress = PROGRESS) -> tuple:
        asked_for = request.query_params.get("m")
        if asked_for in service.catalog.names:
            with suppress(VizlibError):  # `visit` says it in its own place
                load_with_progress(service, asked_for, progress)
        linked = open_link(service, request.query_params, ids)
        link, photo, panel = linked.link, linked.photo, linked.panel
        keys = {
            "v": link.tab or ids[0],
            "w": link.method,
            "k": link.parameters,
            "l": link.layer,
            "h": link.head,
            "p": link.patch,
            "u": link.unit,
            "o": link.off,
            "s": link.step,
        }
        panel.address["keys"].update(keys)
        change = gr.skip() if photo is next(iter(load_examples().values())) else photo
        tab = gr.Tabs(selected=link.tab) if link.tab else gr.skip()
        assert panel.selection is not None
        drawn = view.draw(photo, panel.selection, link.method, linked.parameters)
        return *panel, *drawn, panel.selection.model, tab, {"answered": 0}, change

    def fetched(value: Any, progress: gr.Progress = PROGRESS) -> None:
        for choice in parse_choices(value):
            if isinstance(choice.get("model"), str):
                load_with_progress(service, choice["model"], progress)

    def choose(
        photo: Image.Image | None,
        selection: Selection | None,
        method: str | None,
        menus: Any,
        value: Any,
        request: gr.Request,
    ) -> tuple:
        shared.generations.advance(request)
        choices, done = parse_choices(value), acknowledge(value)
        same = photo is not None and selection is not None and selection.photo == photo_key(photo)
        if same:
            choices = [one for one in choices if "photo" not in one]  # the page was opened with this photo
            if not choices:
                return *(gr.skip(),) * (len(outputs) - 1), done
        now = PageState(selection.model if selection else first, None, None, method, menus)
        if same and selection:
            now = now._replace(target=selection.target, against=selection.against)
        now = apply_choices(now, choices, lambda name: service.catalog.get(name).labels)
        panel = draw_panel(service, photo, now.model, now.target, now.against)
        if selection and panel.photo_and_model == selection.photo_and_model:
            panel = panel.without_unchanged()
        drawn = view.draw(photo, panel.selection, now.method, now.parameters)
        menu = now.model if any("model" in one for one in choices) else gr.skip()
        tab = gr.Tabs(selected=now.tab) if now.tab in ids else gr.skip()
        return *panel, *drawn, menu, tab, done

    def undo(photo: Image.Image | gr.Error | None, selection: Selection | None, value: Any) -> tuple:
        choices = parse_choices(value)
        only = choices[0] if len(choices) == 1 else {}
        before = selection.model if selection else first  # where the menu was
        menu = before if only and "photo" not in only else gr.skip()
        return menu, {"wrong": isinstance(photo, gr.Error) or "photo" in only}

    def leave(request: gr.Request) -> None:
        shared.generations.advance(request)  # gradio itself ends no work that was begun in the moment before

    page.unload(leave)
    alone = {**PRIVATE_EVENT, "trigger_mode": "multiple"}  # the desk sees to it that no two answers meet
    waiting = {"show_progress": "full", "show_progress_on": [shared.bars]}  # a model may have to be loaded first
    arrival = page.load(show_errors(arrive), None, [*outputs, shared.photo], **{**MODEL_QUEUE, **alone, **waiting})
    how = {"cancels": list(view.long_events), **alone, **waiting}
    there = desk.submit(show_errors(fetched), desk, None, **{**how, **FETCH_QUEUE})
    choices = [
        shared.on_event(event, choose, [*view.inputs, desk], outputs, tells=True, **how)
        for event in (desk.input, there.success)
    ]
    reading = {**MODEL_QUEUE, **PRIVATE_EVENT}
    for event in (there, *choices):  # the next choice waits until this one is undone: it would meet the same photo
        undone = event.failure(undo, [shared.photo, shared.selection, desk], [shared.model, desk], **reading)
        back = undone.then(None, [shared.photo, desk], shared.photo, js=restore_file_js(), **PRIVATE_EVENT)
        back.then(None, None, None, js=report_failure_js(), **PRIVATE_EVENT)
    arrival.failure(None, None, None, js=report_failure_js(), **PRIVATE_EVENT)
    arrival.success(None, shared.photo, None, js=report_current_file_js(), **PRIVATE_EVENT)
    for event in (arrival, *choices):
        shared.on_event(event.success, *view.follow_up)
    photo = emit_choice_js("file, model", "{ photo: true, file, model }")
    shared.photo.change(None, [shared.photo, shared.model], None, js=photo, **alone)
    shared.model.input(None, [shared.model], None, js=emit_choice_js("model", "{ model }"), **alone)
    target = emit_choice_js("target, bars", "{ target, of: bars.model }")
    shared.classes.input(None, [shared.classes, shared.bars], None, js=target, **alone)
    shared.examples.select(example, None, shared.photo, **PRIVATE_EVENT)


def example(event: gr.SelectData) -> Image.Image | None:
    """The example photo that was clicked; opened here, as gradio may not serve files from where packages lie."""
    return open_image(EXAMPLES[event.value]) if event.value in EXAMPLES else None
