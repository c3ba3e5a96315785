"""The left column: the photo, model and class that the whole page is about, and what happens when they change."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gradio as gr
from PIL import Image

from dashboard.cache import key_of
from dashboard.components.base import part
from dashboard.components.examples import examples
from dashboard.components.photo import PhotoInput
from dashboard.examples import EXAMPLES, addressed
from dashboard.languages import shown as shown_as
from dashboard.looking import look, rival
from dashboard.selection import Selection
from dashboard.shared import MODEL_QUEUE, PLUMBING, Shared, View, plainly
from dashboard.study import Study
from dashboard.visiting import visit
from vizlib import open_image


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
        label=shown_as("model"),
        elem_id="model",
        interactive=True,
        allow_custom_value=study.catalog.any_model,
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
    )


def listen(shared: Shared, page: gr.Blocks, tabs: gr.Tabs, ids: Sequence[str], view: View) -> None:
    """The events of the left column; each brings the first tab's pictures with it, so a person waits once."""
    study, first = shared.study, shared.study.catalog.names[0]
    left = [shared.selection, shared.view, shared.bars, shared.classes, shared.eye, shared.address]
    outputs = [*left, *view.outputs]

    def complete(photo: Image.Image | None, looked: tuple, method: str | None, menus: Any) -> tuple:
        return *looked, *view.answer(photo, looked[0], method, menus)

    def again(photo: Image.Image | None, looked: tuple, method: str | None, menus: Any) -> tuple:
        """Of the same photo and model, another class: the crop need not travel again."""
        selection, same, answers, classes, _, link = looked
        return complete(photo, (selection, same, answers, classes, gr.skip(), link), method, menus)

    def arrive(request: gr.Request) -> tuple:
        link, photo, looked, menus = visit(study, request.query_params, ids)
        keys = {"v": link.tab, "w": link.method, "k": link.knobs, "l": link.layer, "h": link.head, "p": link.patch}
        looked[-1]["keys"].update(keys)
        change = gr.skip() if photo is next(iter(addressed().values())) else photo
        tab = gr.Tabs(selected=link.tab) if link.tab else gr.skip()
        return *complete(photo, looked, link.method, menus), change, looked[0].model, tab

    def fresh(photo: Image.Image | None, _: Selection | None, model: str, method: str | None, menus: Any) -> tuple:
        return complete(photo, look(study, photo, model), method, menus)

    def changed(
        photo: Image.Image | None, selection: Selection | None, model: str, method: str | None, menus: Any
    ) -> tuple:
        if photo is not None and selection is not None and selection.photo == key_of(photo):
            return (gr.skip(),) * len(outputs)  # the page was opened with this photo
        return fresh(photo, selection, model, method, menus)

    def aimed(
        photo: Image.Image | None, selection: Selection | None, target: int | None, method: str | None, menus: Any
    ) -> tuple:
        now = selection or Selection("", first, 0)
        return again(photo, look(study, photo, now.model, target, now.against), method, menus)

    def clicked(
        photo: Image.Image | None, selection: Selection | None, method: str | None, menus: Any, event: gr.SelectData
    ) -> tuple:
        if event.value != "against" or selection is None:
            return aimed(photo, selection, event.index, method, menus)
        now = rival(selection, event.index)
        return again(photo, look(study, photo, now.model, now.target, now.against), method, menus)

    # A model may have to be loaded first.
    waiting: dict[str, Any] = {"show_progress": "full", "show_progress_on": [shared.bars]}
    ending: dict[str, Any] = {"cancels": list(view.running)}
    page.load(
        plainly(arrive), None, [*outputs, shared.photo, shared.model, tabs], **{**MODEL_QUEUE, **PLUMBING, **waiting}
    )
    # What cannot be opened as a photo is taken out of the box again, once the sentence about it is shown.
    asking = [shared.model, *view.inputs]
    shared.on(shared.photo.change, changed, asking, outputs, tells=True, **waiting, **ending).failure(
        lambda: None, None, shared.photo, **PLUMBING
    )
    other = shared.on(shared.model.input, fresh, asking, outputs, **waiting, **ending)
    # A model that could not be loaded leaves the menu where it was.
    other.failure(lambda old: old.model if old else first, shared.selection, shared.model, **PLUMBING)
    shared.on(shared.classes.input, aimed, [shared.classes, *view.inputs], outputs, **ending)
    shared.on(shared.bars.select, clicked, view.inputs, outputs, **ending)
    shared.examples.select(example, None, shared.photo, **PLUMBING)


def example(event: gr.SelectData) -> Image.Image | None:
    """The example photo that was clicked; opened here, as gradio may not serve files from where packages lie."""
    return open_image(EXAMPLES[event.value]) if event.value in EXAMPLES else None
