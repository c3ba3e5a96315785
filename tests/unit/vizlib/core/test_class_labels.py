"""`resolve_class` is the only parser of class names, for the library and for the page's URLs."""

from __future__ import annotations

import numpy as np
import pytest

from vizlib.core.class_labels import resolve_class
from vizlib.core.errors import TargetError

LABELS = [
    "tench, Tinca tinca",
    "crane, a bird",
    "golf ball",
    "crane, a machine",
    "7",
    "maillot",
    "maillot, tank suit",
    "",
]


@pytest.mark.parametrize(
    ("target", "index"),
    [
        (2, 2),
        (np.int64(2), 2),
        ("Tench", 0),
        (" tinca tinca ", 0),
        ("a machine", 3),
        ("crane, a machine", 3),  # the whole label, although its first name is ambiguous
        ("maillot", 5),  # a whole label before a name of another label
        ("tank suit", 6),
        ("7", 4),  # a label before a number
        ("3", 3),
        ("+3", 3),
        ("golf ball, some other name", 2),  # the label of another model
    ],
)
def test_resolve_class_takes_label_then_unique_name_then_number(target, index):
    assert resolve_class(target, LABELS) == index


@pytest.mark.parametrize("target", ["crane", "Crane ", "tench, golf ball"])
def test_resolve_class_names_the_candidates_of_an_ambiguous_name(target):
    with pytest.raises(TargetError, match=r"names 2 classes: \d \(.*\), \d \(.*\); give the number"):
        resolve_class(target, LABELS)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("goldball", "has no class 'goldball'; did you mean golf ball"),
        ("²", "has no class"),
        ("٣", "has no class"),
        ("9" * 5000, "has no class"),  # int() refuses so many digits with another error
        (",", "has no class"),
        ("-1", "there is no class -1; this model's classes are 0 to 7"),
        (8, "there is no class 8; this model's classes are 0 to 7"),
    ],
)
def test_resolve_class_states_what_is_wrong(target, message):
    with pytest.raises(TargetError, match=message):
        resolve_class(target, LABELS)
