"""The classic comparison of three starts, as it is drawn wherever the page speaks of it."""

from __future__ import annotations

from typing import Any

from dashboard.components.captions import caption
from dashboard.components.card import card, plain, told_by
from dashboard.components.curves import curve, curves
from dashboard.i18n.translate import translate, translate_stored
from vizlib.models.loading.training_history import read_training_comparison, list_training_histories, training_history


def compared() -> tuple[dict[str, Any], str, dict[str, Any]]:
    """The classic comparison of three starts: its curves, what it teaches, and how to do it again; empty without it."""
    try:
        told = read_training_comparison()
    except ValueError:  # a broken file costs this section, not the page
        return {}, "", {}
    starts = {name: row for name, row in told.get("starts", {}).items() if name in list_training_histories()}
    names = {name: translate_stored(plain(row.get("label"))) or name for name, row in starts.items()}
    lines = []
    for colour, (name, label) in enumerate(names.items()):
        history = training_history(name)
        epochs = history["epoch"]
        train, val = history["train_top1"], history["val_top1"]
        lines.append(
            curve(translate("curves.training", name=label), epochs, train, colour=colour % 3, dashed=True, faint=True)
        )
        lines.append(curve(label, epochs, val, colour=colour % 3))
    title = translate_stored(plain(told.get("title"))) or translate("model.starts")
    rows = {translate(f"model.{row}"): plain(told.get(row)) for row in ("data", "schedule", "licence")}
    commands = {names[name].capitalize(): plain(row.get("command")) for name, row in starts.items()}
    groups = [told_by(translate("model.shared"), rows), told_by(translate("model.repeat"), commands, *commands)]
    value = curves(lines, label=title, caption=translate("curves.legend"))
    return (
        (value, caption(title, translate_stored(plain(told.get("text")))), card("", "", {}, groups))
        if value
        else ({}, "", {})
    )
