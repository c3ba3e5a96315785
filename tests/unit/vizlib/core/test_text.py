"""Formatting of labels, fractions and questions."""

from __future__ import annotations

import pytest

from vizlib.core.text import format_percent, format_question, shorten_label


@pytest.mark.parametrize(
    ("share", "text"),
    [(0.0, "< 0.1 %"), (0.0009, "< 0.1 %"), (0.0123, "1.2 %"), (0.1234, "12 %"), (0.5, "50 %"), (1.0, "100 %")],
)
def test_format_percent_rounds_by_size(share, text):
    assert format_percent(share) == text


def test_shorten_label_returns_the_first_name():
    assert shorten_label("tench, Tinca tinca") == "tench"
    assert shorten_label("church") == "church"


def test_format_question_with_and_without_contrast_and_class():
    assert format_question("tench, Tinca tinca") == "Why tench?"
    assert format_question("tench, Tinca tinca", "church, church building") == "Why tench and not church?"
    assert format_question("tench", "church", class_specific=False) == "Which places are salient?"
