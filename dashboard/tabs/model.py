"""Model: what the chosen model is, how it was trained and how far it can be trusted, as far as its sidecar says."""

from __future__ import annotations

from typing import Any

import gradio as gr
from PIL import Image

from dashboard.components.base import custom_component, on_page_load
from dashboard.components.captions import build_caption, get_no_photo_text
from dashboard.components.card import build_model_card
from dashboard.components.curves import build_curve, build_curves
from dashboard.components.training_comparison import build_training_comparison
from dashboard.i18n.translate import translate
from dashboard.services.analysis_service import AnalysisService
from dashboard.state.context import TabContext
from dashboard.state.selection import Selection
from vizlib.models.loading.checkpoint_files import Sidecar
from vizlib.models.loading.model_index import ModelEntry
from vizlib.models.loading.training_history import list_training_histories, training_history

TITLE = "Model"


def learned(entry: ModelEntry) -> dict[str, Any]:
    """How a bundled network learned, epoch by epoch; nothing where that was not kept."""
    if not entry.bundled or entry.name not in list_training_histories():
        return {}
    history = training_history(entry.name)
    epochs, stages = history["epoch"], history.get("stage", ())
    changes = zip(epochs[1:], stages[1:], stages, strict=False)
    starts = {epoch: translate("model.stage", number=f"{now:.0f}") for epoch, now, before in changes if now != before}
    lines = [
        build_curve(translate("model.validation"), epochs, history["val_top1"], colour=0),
        build_curve(translate("model.training"), epochs, history["train_top1"], colour=1, dashed=True),
    ]
    return build_curves(lines, label=translate("model.history", model=entry.name), marks=starts)


def draw(
    service: AnalysisService, photo: Image.Image | None, selection: Selection | None
) -> tuple[dict[str, Any], str, dict]:
    """All that depends on the model: the card, and how it learned."""
    if photo is None or selection is None:
        return {"empty": get_no_photo_text()}, "", {}
    entry = service.catalog.get_entry(selection.model)
    sidecar = Sidecar.read_for(entry.path) if entry.path else Sidecar()
    history = learned(entry)
    words = build_caption(translate("model.heading"), translate("model.learned")) if history else ""
    return build_model_card(entry, sidecar, service.catalog.get(selection.model)), words, history


def build(shared: TabContext) -> None:
    """The card, then how the model learned beside what every such model teaches."""
    whole = custom_component("card", elem_id="model-card")
    with gr.Row(equal_height=False, elem_classes="viz-section"):
        with gr.Column(scale=4, min_width=280):
            heading = gr.HTML(elem_id="model-caption", apply_default_css=False)
        with gr.Column(scale=6, min_width=320):
            history = custom_component("curves", elem_id="model-history")
    if build_training_comparison()[0]:
        with gr.Row(equal_height=False, elem_classes="viz-section"):
            with gr.Column(scale=4, min_width=280):
                words = gr.HTML(apply_default_css=False)
            with gr.Column(scale=6, min_width=320):
                value = custom_component("curves", elem_id="model-comparison")
        on_page_load(build_training_comparison, [value, words, custom_component("card")])

    def again(photo: Image.Image | None, selection: Selection | None) -> tuple:
        return draw(shared.service, photo, selection)

    shared.on_photo_or_model(again, [], [whole, heading, history])
