"""Which class a person means by a number, a label, or one of a label's names."""

from __future__ import annotations

import operator
import re
from collections.abc import Sequence
from typing import SupportsIndex

from vizlib.core.errors import TargetError, suggest_names


def resolve_class(target: SupportsIndex | str, labels: Sequence[str]) -> int:
    """The index of the class that is meant, as `Model.target` takes it.

    Raises: TargetError, naming what was meant perhaps.
    """
    if isinstance(target, str):
        found = _by_label(target, labels)
        if found is not None:
            return found
        target = int(target)
    try:
        index = operator.index(target)
    except TypeError:
        raise TargetError(f"a class is a number, a label or None, not {target!r}") from None
    if not 0 <= index < len(labels):
        raise TargetError(f"there is no class {index}; this model's classes are 0 to {len(labels) - 1}")
    return index


def _by_label(wanted: str, labels: Sequence[str]) -> int | None:
    """The one class with this label, or with one of its comma-separated names; `None` for a plain number."""
    text = wanted.strip().lower()
    whole = [i for i, label in enumerate(labels) if label.lower() == text]
    names = {name.strip() for name in text.split(",")}  # another network's label may hold more names than this one's
    named = [i for i, label in enumerate(labels) if names & {name.strip() for name in label.lower().split(",")}]
    found = whole or named
    if len(found) == 1:
        return found[0]
    if found:  # two of ImageNet's classes are called "crane"
        several = ", ".join(f"{i} ({labels[i]})" for i in found)
        raise TargetError(f"{wanted!r} names {len(found)} classes: {several}; give the number")
    if re.fullmatch(r"[+-]?\d+", text):
        return None
    known = [name.strip() for label in labels for name in label.lower().split(",")]
    raise TargetError(f"this model knows no class {wanted!r}; {suggest_names(text, known)}")
