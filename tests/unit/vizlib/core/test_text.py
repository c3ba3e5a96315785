"""Words for classes, shares and questions: in one place, whoever says them."""

from __future__ import annotations

import pytest

from vizlib.core.text import format_percent, format_question, shorten_label


@pytest.mark.parametrize(
    ("share", "text"),
    [(0.0, "< 0.1 %"), (0.0009, "< 0.1 %"), (0.0123, "1.2 %"), (0.1234, "12 %"), (0.5, "50 %"), (1.0, "100 %")],
)
def test_shares_are_written_as_a_person_would(share, text):
    assert format_percent(share) == text


def test_a_class_is_called_by_the_first_of_its_names():
    assert shorten_label("tench, Tinca tinca") == "tench"
    assert shorten_label("church") == "church"


def test_a_question_is_about_a_class_or_one_against_another_or_none():
    assert format_question("tench, Tinca tinca") == "Why tench?"
    assert format_question("tench, Tinca tinca", "church, church building") == "Why tench and not church?"
    assert format_question("tench", "church", class_specific=False) == "Where does it look?"
