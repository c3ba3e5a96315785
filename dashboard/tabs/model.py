"""Model: what the chosen model is, how it was trained and how far it can be trusted, as far as its sidecar says."""

from __future__ import annotations

from typing import Any

import gradio as gr
from PIL import Image

from dashboard.components.base import part
from dashboard.components.card import about, card, group, plain
from dashboard.components.curves import curve, curves
from dashboard.shared import Selection, Shared
from dashboard.study import Study
from dashboard.words import NO_PHOTO, caption
from vizlib.checkpoints import Sidecar
from vizlib.entries import Entry
from vizlib.histories import comparison, histories, training_history

TITLE = "Model"
LEARNED = (
    "How often the first guess was right after each epoch. Training photos are cropped and altered at random, so the "
    "two curves are not about the same photos; in the last epochs of a stage they are altered less."
)
COMPARED = "Solid: on validation photos. Dotted: on the training photos, as they were altered."


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


def compared() -> tuple[dict[str, Any], str, dict[str, Any]]:
    """The classic comparison of three starts: its curves, what it teaches, and how to do it again; empty without it."""
    try:
        told = comparison()
    except ValueError:  # a broken file costs this section, not the page
        return {}, "", {}
    starts = {name: row for name, row in told.get("starts", {}).items() if name in histories()}
    names = {name: plain(row.get("label")) or name for name, row in starts.items()}
    lines = []
    for colour, (name, label) in enumerate(names.items()):
        history = training_history(name)
        epochs = history["epoch"]
        train, val = history["train_top1"], history["val_top1"]
        lines.append(curve(f"{label}, training", epochs, train, colour=colour % 3, dashed=True, faint=True))
        lines.append(curve(label, epochs, val, colour=colour % 3))
    title = plain(told.get("title")) or "Three starts"
    rows = {row: plain(told.get(row.lower())) for row in ("Data", "Schedule", "Licence")}
    commands = {names[name].capitalize(): plain(row.get("command")) for name, row in starts.items()}
    groups = [group("What they share", rows), group("Do it again", commands, list(commands))]
    value = curves(lines, label=title, caption=COMPARED)
    return (value, caption(title, plain(told.get("text"))), card("", "", {}, groups)) if value else ({}, "", {})


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
