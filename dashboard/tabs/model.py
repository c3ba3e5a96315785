"""Model: what the chosen model is, how it was trained and how far it can be trusted, as far as its sidecar says."""

from __future__ import annotations

from typing import Any

import gradio as gr
from PIL import Image

from dashboard.components.base import part
from dashboard.components.card import about
from dashboard.components.curves import curve, curves
from dashboard.selection import Selection
from dashboard.shared import Shared
from dashboard.starts import compared
from dashboard.study import Study
from dashboard.words import NO_PHOTO, caption
from vizlib.checkpoints import Sidecar
from vizlib.entries import Entry
from vizlib.histories import histories, training_history

TITLE = "Model"
LEARNED = (
    "How often the first guess was right after each epoch. Training photos are cropped and altered at random, so the "
    "two curves are not about the same photos; in the last epochs of a stage they are altered less."
)


def learned(entry: Entry) -> dict[str, Any]:
    """How a bundled network learned, epoch by epoch; nothing where that was not kept."""
    if not entry.bundled or entry.name not in histories():
        return {}
    history = training_history(entry.name)
    epochs, stages = history["epoch"], history.get("stage", ())
    changes = zip(epochs[1:], stages[1:], stages, strict=False)
    starts = {epoch: f"stage {now:.0f}" for epoch, now, before in changes if now != before}
    lines = [
        curve("validation", epochs, history["val_top1"], colour=0),
        curve("training", epochs, history["train_top1"], colour=1, dashed=True),
    ]
    return curves(lines, label=f"How {entry.name} learned", marks=starts)


def draw(study: Study, photo: Image.Image | None, selection: Selection | None) -> tuple[dict[str, Any], str, dict]:
    """All that depends on the model: the card, and how it learned."""
    if photo is None or selection is None:
        return {"empty": NO_PHOTO}, "", {}
    entry = study.catalog.entry(selection.model)
    sidecar = Sidecar.beside(entry.path) if entry.path else Sidecar()
    history = learned(entry)
    words = caption("How it learned", LEARNED) if history else ""
    return about(entry, sidecar, study.catalog.get(selection.model)), words, history


def build(shared: Shared) -> None:
    """The card, then how the model learned beside what every such model teaches."""
    value, words, commands = compared()  # the same for every model and visitor
    whole = part("card", elem_id="model-card")
    with gr.Row(equal_height=False, elem_classes="viz-section"):
        with gr.Column(scale=4, min_width=280):
            heading = gr.HTML(elem_id="model-words", apply_default_css=False)
        with gr.Column(scale=6, min_width=320):
            history = part("curves", elem_id="model-history")
    if value:
        with gr.Row(equal_height=False, elem_classes="viz-section"):
            with gr.Column(scale=4, min_width=280):
                gr.HTML(words, apply_default_css=False)
            with gr.Column(scale=6, min_width=320):
                part("curves", value, elem_id="model-comparison")
        part("card", commands)

    def again(photo: Image.Image | None, selection: Selection | None) -> tuple:
        return draw(shared.study, photo, selection)

    shared.on_view(again, [], [whole, heading, history])
