"""The most probable classes as bars; a click emits the choice `target`, or `against` for the contrast class.

The out-of-distribution note stands above them: a softmax can be confident on a photo of none of its classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dashboard.i18n.translate import translate, translate_group, translate_note
from vizlib import Prediction
from vizlib.core.imagenet_groups import ImageNetClass
from vizlib.core.text import format_percent, shorten_label
from vizlib.models.class_groups import ClassGroup

MAX_LISTED_CLASSES = 20  # a model with at most so many classes lists them all
MIN_GROUP_PROBABILITY, MAX_GROUPS = 0.05, 3  # of the groups of classes that are named below the bars


def build_bars(
    predictions: Sequence[Prediction],
    target: int,
    top: int = 5,
    *,
    against: int | None = None,
    ood_note: str | None = None,
    model: str = "",
    complement: Prediction | None = None,
    groups: Sequence[ClassGroup] = (),
    known_classes: Sequence[ImageNetClass] = (),
    short_names: Sequence[str] = (),
    are_prompts: bool = False,
) -> dict[str, Any]:
    """Return the value of the bars of the most probable classes.

    Args:
        predictions: The predictions of all classes, most probable first.
        target: The index of the target class; it gets a bar even if it is not among the first.
        top: The number of bars.
        against: The index of the contrast class, which gets a bar too.
        ood_note: The note that the photo is unlike the model's training data.
        model: The name of the model.
        complement: The other side of a single label, which gets a bar that cannot be chosen.
        groups: Groups of the classes, most probable first.
        known_classes: What is known of each class, by its index, for the tooltips; empty if nothing is.
        short_names: A name for each class, by its index; by default the first name of its label.
        are_prompts: Whether the classes are prompts, which are listed elsewhere.
    """
    rows = [*predictions[:top], *(row for row in predictions[top:] if row.index in (target, against))]
    rows += [] if complement is None else [complement]
    names = sorted((shorten_label(row.label) for row in predictions), key=str.lower)
    is_listed = len(names) <= MAX_LISTED_CLASSES and not are_prompts
    note = translate("bars.note", count=len(names), names=", ".join(names)) if is_listed else ""
    return {
        "model": model,
        "target": target,
        "against": against,
        "note": note,
        "groups": format_groups(groups),
        "oodNote": translate_note(ood_note or ""),
        "rows": [
            {
                "index": row.index,
                "label": describe_class(row, known_classes),
                "name": short_names[row.index] if short_names and row.index >= 0 else shorten_label(row.label),
                "probability": row.probability or 0.0,  # the length of the bar
                "share": row.text,
            }
            for row in rows
        ],
    }


def format_groups(groups: Sequence[ClassGroup]) -> str:
    """Return the groups that have a part of the probability, as one sentence; empty without groups."""
    shown = [group for group in groups[:MAX_GROUPS] if group.probability >= MIN_GROUP_PROBABILITY]
    if not shown:
        return ""
    names = (f"{translate_group(group.name)} {format_percent(group.probability)}" for group in shown)
    return translate("bars.groups", groups=", ".join(names))


def describe_class(row: Prediction, known_classes: Sequence[ImageNetClass]) -> str:
    """Return the tooltip of a class: all names, and where it is known WordNet's definition, synset and the groups."""
    if not known_classes or row.index < 0:
        return row.label
    known = known_classes[row.index]
    groups = " › ".join(translate_group(group) for group in known.groups)
    return f"{row.label}\n{known.definition}\n{groups} · WordNet {known.synset}"
