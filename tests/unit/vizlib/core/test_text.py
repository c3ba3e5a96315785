"""Words for classes, shares and questions: in one place, whoever says them."""

from __future__ import annotations

import pytest

from vizlib.core.text import percent, question, short


@pytest.mark.parametrize(
    ("share", "text"),
    [(0.0, "< 0.1 %"), (0.0009, "< 0.1 %"), (0.0123, "1.2 %"), (0.1234, "12 %"), (0.5, "50 %"), (1.0, "100 %")],
)
def test_shares_are_written_as_a_person_would(share, text):
    assert percent(share) == text


def test_a_class_is_called_by_the_first_of_its_names():
    assert short("tench, Tinca tinca") == "tench"
    assert short("church") == "church"


def test_a_question_is_about_a_class_or_one_against_another_or_none():
    assert question("tench, Tinca tinca") == "Why tench?"
    assert question("tench, Tinca tinca", "church, church building") == "Why tench and not church?"
    assert question("tench", "church", of_class=False) == "Where does it look?"
