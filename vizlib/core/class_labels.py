"""Resolve a class index, a label or a class name to the index of a class."""

from __future__ import annotations

import operator
import re
from collections import Counter
from collections.abc import Sequence
from typing import SupportsIndex

from vizlib.core.errors import TargetError, suggest_names
from vizlib.core.text import form_plural, shorten_label, split_label

_INTEGER = re.compile(r"[+-]?\d{1,18}", re.ASCII)


def resolve_class(target: SupportsIndex | str, labels: Sequence[str], *, noun: str = "class") -> int:
    """Return the index of a class given by its index, its label or a name of its label.

    Text is compared without regard to case and surrounding spaces, in this order: a whole label, then a comma-separated
    name of exactly one label, then an integer. So with the labels "3" and "7" the text "7" is class 1. Text with
    several names, such as another model's label, matches the label that shares any of them.

    Args:
        target: Class index, or text as described above.
        labels: Labels of the model's classes, each a list of names separated by commas.
        noun: What they are, for messages.

    Raises:
        TargetError: For an unknown or ambiguous name, an index out of range or another type. The message names the
            candidates.

    >>> labels = ["tench, Tinca tinca", "goldfish", "crane, a bird", "crane, a machine"]
    >>> resolve_class("tinca tinca", labels), resolve_class("crane, a machine", labels), resolve_class("1", labels)
    (0, 3, 1)
    """
    if isinstance(target, str):
        text = target.strip().lower()
        matches = _find_labels(text, labels)
        if len(matches) == 1:
            return matches[0]
        if matches:  # ImageNet has two classes called "crane"
            candidates = ", ".join(f"{index} ({labels[index]})" for index in matches)
            raise TargetError(f"{target!r} names {len(matches)} classes: {candidates}; give the number")
        if not _INTEGER.fullmatch(text):
            names = [name for label in labels for name in _split_names(label)]
            raise TargetError(f"this model has no {noun} {target!r}; {suggest_names(text, names)}")
        target = int(text)
    try:
        index = operator.index(target)
    except TypeError:
        raise TargetError(f"a {noun} is a number, a label or None, not {target!r}") from None
    if not 0 <= index < len(labels):
        raise TargetError(f"there is no {noun} {index}; this model's {form_plural(noun)} are 0 to {len(labels) - 1}")
    return index


def name_classes(labels: Sequence[str]) -> list[str]:
    """Return a short name for each label, different for each: its first name, or more where classes share that.

    >>> name_classes(["tench, Tinca tinca", "maillot", "maillot, tank suit", "crane", "crane"])
    ['tench', 'maillot', 'maillot, tank suit', 'crane (class 3)', 'crane (class 4)']
    """
    short, whole = Counter(map(shorten_label, labels)), Counter(labels)
    return [
        shorten_label(label)
        if short[shorten_label(label)] == 1
        else label
        if whole[label] == 1
        else f"{label} (class {i})"
        for i, label in enumerate(labels)
    ]


def find_class(target: SupportsIndex | str, labels: Sequence[str]) -> int | None:
    """Return the index of a class as `resolve_class` does, or `None` where it raises a TargetError."""
    try:
        return resolve_class(target, labels)
    except TargetError:
        return None


def _find_labels(text: str, labels: Sequence[str]) -> list[int]:
    """Return the indices of the class labels equal to a text in lower case, else of those that share a name with it."""
    names = set(_split_names(text))
    equal = [index for index, label in enumerate(labels) if label.strip().lower() == text]
    return equal or [index for index, label in enumerate(labels) if names.intersection(_split_names(label))]


def _split_names(label: str) -> list[str]:
    """Return the comma-separated names of a class label in lower case."""
    return [name.lower() for name in split_label(label)]
