"""The Model tab: what the selected model is, how it was trained and what limits it, from its sidecar."""

from __future__ import annotations

from typing import Any

import gradio as gr
from PIL import Image

from dashboard.components.captions import build_caption, get_no_photo_text
from dashboard.components.curves import add_captioned_curves, build_curve, build_curves
from dashboard.components.custom_component import custom_component, on_page_load
from dashboard.components.method_table import build_method_table
from dashboard.components.model_card import build_model_card
from dashboard.components.training_comparison import build_training_comparison
from dashboard.i18n.translate import translate
from dashboard.services.analysis_service import AnalysisService
from dashboard.state.context import TabContext
from dashboard.state.selection import Selection
from vizlib.metrics.ranking import RANKINGS_FOLDER, read_ranking
from vizlib.models.loading.checkpoint_files import Sidecar
from vizlib.models.loading.model_index import ModelEntry
from vizlib.models.loading.training_history import list_training_histories, training_history

TITLE = "Model"


def build_history_curves(entry: ModelEntry) -> dict[str, Any]:
    """Return the Model tab's curves of a bundled network's training; empty where there is no recorded history."""
    if not entry.bundled or entry.name not in list_training_histories():
        return {}
    history = training_history(entry.name)
    epochs, stages = history["epoch"], history.get("stage", ())
    stage_changes = zip(epochs[1:], stages[1:], stages, strict=False)
    starts = {
        epoch: translate("model.stage", number=f"{now:.0f}") for epoch, now, before in stage_changes if now != before
    }
    lines = [build_curve(translate("model.validation"), epochs, history["val_top1"], colour=0)]
    if "train_top1" in history:  # photos without labels have no accuracy
        lines.append(build_curve(translate("model.training"), epochs, history["train_top1"], colour=1, dashed=True))
    return build_curves(lines, label=translate("model.history", model=entry.name), marks=starts)


def compute_content(
    service: AnalysisService, photo: Image.Image | None, selection: Selection | None
) -> tuple[dict[str, Any], str, dict[str, Any], str, dict[str, Any]]:
    """Return the content of the Model tab: the card, caption and curves of the training, caption and ranking.

    Args:
        service: The analysis service.
        photo: The photo.
        selection: Model and classes.
    """
    if photo is None or selection is None:
        return {"empty": get_no_photo_text()}, "", {}, "", {}
    entry = service.catalog.get_entry(selection.model)
    sidecar = Sidecar.read_for(entry.path) if entry.path else Sidecar()
    history = build_history_curves(entry)
    caption = build_caption(translate("model.heading"), translate("model.learned")) if history else ""
    card = build_model_card(entry, sidecar, service.catalog.get(selection.model))
    return card, caption, history, *build_ranking(entry)


def build_ranking(entry: ModelEntry) -> tuple[str, dict[str, Any]]:
    """Return caption and table of the Model tab's ranking of methods; empty where there is none."""
    rows = read_ranking(RANKINGS_FOLDER / f"{entry.name}.csv") if entry.bundled else []
    table = build_method_table(rows, label=translate("model.ranking", model=entry.name))
    caption = (
        build_caption(translate("model.ranking", model=entry.name), translate("model.ranking-note")) if rows else ""
    )
    return caption, table


def build_tab(context: TabContext) -> None:
    """Build the Model tab: the model card, the training curves, and the comparison of initialisations."""
    card = custom_component("card", elem_id="model-card")
    caption, history = add_captioned_curves("model-history", "model-caption")
    ranking_caption = gr.HTML(elem_id="model-ranking-caption", apply_default_css=False)
    ranking = custom_component("method_table", elem_id="model-ranking")
    if build_training_comparison()[0]:
        comparison_caption, comparison_curves = add_captioned_curves("model-comparison")
        on_page_load(build_training_comparison, [comparison_curves, comparison_caption, custom_component("card")])

    def update(photo: Image.Image | None, selection: Selection | None) -> tuple:
        return compute_content(context.service, photo, selection)

    context.on_photo_or_model(update, [], [card, caption, history, ranking_caption, ranking])
