"""The sidebar: the photo, model and class that the whole page shows, and the events that change them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import gradio as gr
from PIL import Image

from dashboard.components.custom_component import custom_component
from dashboard.components.error_messages import show_errors
from dashboard.components.event_queue import (
    acknowledge_choices,
    emit_choice_js,
    parse_choices,
    report_current_file_js,
    report_failure_js,
    restore_file_js,
)
from dashboard.components.examples import build_examples
from dashboard.components.photo import PhotoInput
from dashboard.i18n.translate import translate_in_browser
from dashboard.services.analysis_service import AnalysisService
from dashboard.services.example_photos import EXAMPLES, choose_first_example, open_example_photos
from dashboard.services.photo_key import compute_photo_key
from dashboard.services.prompted_name import get_catalog_name
from dashboard.sidebar.deep_links import open_deep_link
from dashboard.sidebar.model_loading import load_selected_model
from dashboard.sidebar.prediction_panel import build_prediction_panel
from dashboard.state.context import DOWNLOAD_QUEUE, MODEL_QUEUE, PRIVATE_EVENT, PROGRESS, TabContext, TabView
from dashboard.state.generation_counter import GenerationCounter
from dashboard.state.page_state import PageState, apply_choices
from dashboard.state.selection import Selection
from vizlib import VizlibError, open_image

PHOTO_HEIGHT_PX = 264


def build_sidebar(service: AnalysisService, *, auto_trust: bool = True) -> TabContext:
    """Build the components of the sidebar, and return all that tabs share.

    Args:
        service: The analysis service.
        auto_trust: Whether it is measured at once how far a map can be trusted, or at a click.
    """
    first = choose_first_example(service.catalog.entries[0])
    photo = PhotoInput(
        value=dict(zip(open_example_photos(), EXAMPLES.values(), strict=True))[first],
        label=translate_in_browser("photo"),
        show_label=False,
        sources=["upload", "webcam", "clipboard"],
        type="filepath",
        format="png",
        buttons=["fullscreen"],
        height=PHOTO_HEIGHT_PX,
        elem_id="photo",
        alt_text=str(translate_in_browser("own-photo")),
        placeholder=str(translate_in_browser("drop")),
    )
    examples = custom_component("examples", build_examples(EXAMPLES), texts=EXAMPLES, elem_id="examples")
    model = gr.Dropdown(
        service.catalog.list_menu_rows(),
        value=service.catalog.names[0],
        label=translate_in_browser("typed" if service.catalog.accepts_typed_names else "model"),
        elem_id="model",
        interactive=True,
        allow_custom_value=service.catalog.accepts_typed_names,
    )
    gr.HTML(f"<h2>{translate_in_browser('predictions')}</h2>", elem_classes="viz-heading", apply_default_css=False)
    bars = custom_component("bars", elem_id="bars")
    classes = gr.Dropdown([], label=translate_in_browser("other-classes"), elem_id="classes", interactive=True)
    prompts = custom_component("prompts", elem_id="prompts")
    model_input = custom_component("figure", elem_id="model-input")
    copy_link = custom_component("copy_link", elem_id="copy-link", render=False)
    return TabContext(
        service,
        auto_trust,
        photo,
        model,
        gr.State(None),
        gr.State(None),
        classes,
        prompts,
        bars=bars,
        model_input=model_input,
        copy_link=copy_link,
        examples=examples,
        method=gr.State(None),
        parameters=custom_component("parameters", elem_id="why-parameters", render=False),
        generations=GenerationCounter(),
        event_queue=custom_component("event_queue", elem_id="event-queue", initial_event=True),
        inspect_queue=custom_component("event_queue", elem_id="inside-event-queue", url_keys=["u", "o"]),
    )


def connect_events(context: TabContext, page: gr.Blocks, tabs: gr.Tabs, tab_ids: Sequence[str], view: TabView) -> None:
    """Connect the events of the sidebar.

    All choices pass through the event queue: one is handled at a time, and the states are those after the one before.

    Args:
        context: The components of the sidebar.
        page: The page that is being built.
        tabs: The container of the tabs.
        tab_ids: Their names in the address.
        view: A view that is computed in the same events as the selection, so that a visitor waits once.
    """
    service, queue = context.service, context.event_queue
    default_model = service.catalog.names[0]
    first_example = choose_first_example(service.catalog.entries[0])
    panel_components = [
        context.selection,
        context.photo_and_model,
        context.bars,
        context.classes,
        context.prompts,
        context.model_input,
        context.copy_link,
    ]
    outputs = [*panel_components, *view.outputs, context.model, tabs, queue]

    def open_page(request: gr.Request, progress: gr.Progress = PROGRESS) -> tuple:
        """Return the values of the page's components for the address with which it was opened."""
        name = request.query_params.get("m")
        if name in service.catalog.names:
            with suppress(VizlibError):  # reported by `open_deep_link`
                load_selected_model(service, name, progress)
        linked = open_deep_link(service, request.query_params, tab_ids)
        link, photo, panel = linked.link, linked.photo, linked.panel
        assert panel.selection is not None
        panel.copy_link["keys"].update(
            {
                "v": link.tab or tab_ids[0],
                "w": link.method,
                "k": link.parameters,
                "l": link.layer,
                "h": link.head,
                "p": link.patch,
                "u": link.unit,
                "o": link.ablated,
                "s": link.step,
            }
        )
        photo_update = gr.skip() if photo is open_example_photos()[first_example] else photo
        tab = gr.Tabs(selected=link.tab) if link.tab else gr.skip()
        content = view.draw(photo, panel.selection, link.method, linked.parameters)
        return *panel, *content, get_catalog_name(panel.selection.model), tab, {"answered": 0}, photo_update

    def load_model(value: Any, progress: gr.Progress = PROGRESS) -> None:
        """Load the models that the choices in the event queue select."""
        for choice in parse_choices(value):
            if isinstance(choice.get("model"), str):
                load_selected_model(service, choice["model"], progress)

    def handle_choice(
        photo: Image.Image | None,
        selection: Selection | None,
        method: str | None,
        menus: Any,
        value: Any,
        request: gr.Request,
    ) -> tuple:
        """Return the values of the page's components after the choices in the event queue."""
        choices, acknowledgement = parse_choices(value), acknowledge_choices(value)
        same_photo = photo is not None and selection is not None and selection.photo == compute_photo_key(photo)
        if same_photo:
            choices = [choice for choice in choices if "photo" not in choice]  # the page was opened with this photo
            if not choices:
                return *(gr.skip(),) * (len(outputs) - 1), acknowledgement
        context.generations.advance(request)
        state = PageState(selection.model if selection else default_model, None, None, method, menus)
        if same_photo and selection:
            state = state._replace(target=selection.target, against=selection.against)
        state = apply_choices(state, choices, lambda name: service.catalog.get(name).labels)
        panel = build_prediction_panel(service, photo, state.model, state.target, state.against)
        if selection:
            panel = panel.without_unchanged(selection)
        content = view.draw(photo, panel.selection, state.method, state.parameters)
        model = get_catalog_name(state.model) if any("model" in choice for choice in choices) else gr.skip()
        tab = gr.Tabs(selected=state.tab) if state.tab in tab_ids else gr.skip()
        return *panel, *content, model, tab, acknowledgement

    def revert(photo: Image.Image | gr.Error | None, selection: Selection | None, value: Any) -> tuple:
        """Return the selected model before a choice that failed, and whether the file in the upload box is wrong."""
        choices = parse_choices(value)
        single = choices[0] if len(choices) == 1 else {}
        model_before = get_catalog_name(selection.model) if selection else default_model
        model = model_before if single and "photo" not in single else gr.skip()
        return model, {"wrong": isinstance(photo, gr.Error) or "photo" in single}

    def end_session(request: gr.Request) -> None:
        """Count that a visitor has left the page as one more choice of the session."""
        context.generations.advance(request)  # gradio does not cancel an event that started a moment ago

    page.unload(end_session)
    unordered = {**PRIVATE_EVENT, "trigger_mode": "multiple"}  # the event queue keeps the order
    waiting = {"show_progress": "full", "show_progress_on": [context.bars]}  # a model may have to be loaded first
    opening = page.load(
        show_errors(open_page), None, [*outputs, context.photo], **{**MODEL_QUEUE, **unordered, **waiting}
    )
    options = {"cancels": list(view.long_events), **unordered, **waiting}
    loading = queue.submit(show_errors(load_model), queue, None, **{**options, **DOWNLOAD_QUEUE})
    choosing = [
        context.on_event(event, handle_choice, [*view.inputs, queue], outputs, report_bad_photo=True, **options)
        for event in (queue.input, loading.success)
    ]
    for event in (loading, *choosing):  # the next choice waits until a failed one is reverted, as it reads the photo
        reverting = event.failure(
            revert,
            [context.photo, context.selection, queue],
            [context.model, queue],
            **{**MODEL_QUEUE, **PRIVATE_EVENT},
        )
        restoring = reverting.then(None, [context.photo, queue], context.photo, js=restore_file_js(), **PRIVATE_EVENT)
        restoring.then(None, None, None, js=report_failure_js(), **PRIVATE_EVENT)
    opening.failure(None, None, None, js=report_failure_js(), **PRIVATE_EVENT)
    opening.success(None, context.photo, None, js=report_current_file_js(), **PRIVATE_EVENT)
    for event in (opening, *choosing):
        context.on_event(event.success, *view.follow_up)
    photo_js = emit_choice_js("file, model", "{ photo: true, file, model }")
    context.photo.change(None, [context.photo, context.model], None, js=photo_js, **unordered)
    context.model.input(None, [context.model], None, js=emit_choice_js("model", "{ model }"), **unordered)
    target_js = emit_choice_js("target, bars", "{ target, of: bars.model }")
    context.classes.input(None, [context.classes, context.bars], None, js=target_js, **unordered)
    context.examples.select(open_clicked_example, None, context.photo, **PRIVATE_EVENT)


def open_clicked_example(event: gr.SelectData) -> Image.Image | None:
    """Return the example photo that was clicked in the sidebar; gradio may not serve files of installed packages."""
    return open_image(EXAMPLES[event.value]) if event.value in EXAMPLES else None
