"""The comparison of one network trained from three initialisations, which two tabs show."""

from __future__ import annotations

from typing import Any

from dashboard.components.captions import build_caption
from dashboard.components.curves import build_curve, build_curves
from dashboard.components.model_card import build_card, build_sidecar_group, to_plain_text
from dashboard.i18n.translate import translate, translate_stored
from vizlib.models.loading.training_history import list_training_histories, read_training_comparison, training_history


def build_training_comparison() -> tuple[dict[str, Any], str, dict[str, Any]]:
    """Return curves, caption and card of the training comparison; all empty without a readable comparison file."""
    try:
        comparison = read_training_comparison()
    except ValueError:  # the rest of the page does not depend on the file
        return {}, "", {}
    starts = {name: row for name, row in comparison.get("starts", {}).items() if name in list_training_histories()}
    names = {name: translate_stored(to_plain_text(row.get("label"))) or name for name, row in starts.items()}
    lines = []
    for i, (start, label) in enumerate(names.items()):
        history, colour = training_history(start), i % 3
        epochs = history["epoch"]
        name = translate("curves.training", name=label)
        lines.append(build_curve(name, epochs, history["train_top1"], colour=colour, dashed=True, faint=True))
        lines.append(build_curve(label, epochs, history["val_top1"], colour=colour))
    title = translate_stored(to_plain_text(comparison.get("title"))) or translate("model.starts")
    rows = {translate(f"model.{row}"): to_plain_text(comparison.get(row)) for row in ("data", "schedule", "licence")}
    commands = {names[name].capitalize(): to_plain_text(row.get("command")) for name, row in starts.items()}
    groups = [
        build_sidecar_group(translate("model.shared"), rows),
        build_sidecar_group(translate("model.repeat"), commands, *commands),
    ]
    curves = build_curves(lines, label=title, caption=translate("curves.legend"))
    if not curves:
        return {}, "", {}
    caption = build_caption(title, translate_stored(to_plain_text(comparison.get("text"))))
    return curves, caption, build_card("", "", {}, groups)
