"""The classic comparison of three starts, as it is drawn wherever the page speaks of it."""

from __future__ import annotations

from typing import Any

from dashboard.components.captions import build_caption
from dashboard.components.card import build_card, build_sidecar_group, to_plain_text
from dashboard.components.curves import build_curve, build_curves
from dashboard.i18n.translate import translate, translate_stored
from vizlib.models.loading.training_history import list_training_histories, read_training_comparison, training_history


def build_training_comparison() -> tuple[dict[str, Any], str, dict[str, Any]]:
    """The classic comparison of three starts: its curves, what it teaches, and how to do it again; empty without it."""
    try:
        told = read_training_comparison()
    except ValueError:  # a broken file costs this section, not the page
        return {}, "", {}
    starts = {name: row for name, row in told.get("starts", {}).items() if name in list_training_histories()}
    names = {name: translate_stored(to_plain_text(row.get("label"))) or name for name, row in starts.items()}
    lines = []
    for colour, (name, label) in enumerate(names.items()):
        history = training_history(name)
        epochs = history["epoch"]
        train, val = history["train_top1"], history["val_top1"]
        lines.append(
            build_curve(translate("curves.training", name=label), epochs, train, colour=colour % 3, dashed=True, faint=True)
        )
        lines.append(build_curve(label, epochs, val, colour=colour % 3))
    title = translate_stored(to_plain_text(told.get("title"))) or translate("model.starts")
    rows = {translate(f"model.{row}"): to_plain_text(told.get(row)) for row in ("data", "schedule", "licence")}
    commands = {names[name].capitalize(): to_plain_text(row.get("command")) for name, row in starts.items()}
    groups = [build_sidecar_group(translate("model.shared"), rows), build_sidecar_group(translate("model.repeat"), commands, *commands)]
    value = build_curves(lines, label=title, caption=translate("curves.legend"))
    return (
        (value, build_caption(title, translate_stored(to_plain_text(told.get("text")))), build_card("", "", {}, groups))
        if value
        else ({}, "", {})
    )
