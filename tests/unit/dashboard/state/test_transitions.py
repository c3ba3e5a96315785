"""What the page is about after a visitor's choices: later ones count, and a class keeps its name on another model."""

from __future__ import annotations

import pytest

from dashboard.components.event_queue import acknowledge, parse_choices
from dashboard.state.transitions import PageState, apply_choices

LABELS = {"small": ["church", "tench, Tinca tinca", "golf ball"], "large": ["tench", "cat", "church, church building"]}
NOW = PageState("small", 0, None, "grad-cam", {"parameters": "changed"})


def after(*choices, now: PageState = NOW) -> PageState:
    return apply_choices(now, choices, LABELS.__getitem__)


def test_no_choice_changes_nothing():
    assert after() == NOW
    assert after({}) == NOW


def test_choices_of_different_things_all_count_and_of_one_thing_the_last():
    asked = after({"target": 1, "of": "small"}, {"method": "saliency"}, {"target": 2, "of": "small"}, {"tab": "inside"})
    assert asked == PageState("small", 2, None, "saliency", None, "inside")


def test_another_method_begins_with_its_own_knobs_and_then_takes_those_turned():
    assert after({"method": "saliency"}).parameters is None
    assert after({"method": "saliency"}, {"parameters": {"method": "saliency"}}).parameters == {"method": "saliency"}
    assert after({"parameters": {"method": "grad-cam"}}).method == "grad-cam"


def test_a_new_photo_and_another_model_ask_for_the_likeliest_class_and_keep_the_method():
    before = NOW._replace(against=1)
    assert after({"photo": True, "model": "small"}, now=before) == before._replace(target=None, against=None)
    assert after({"model": "large"}, now=before) == before._replace(model="large", target=None, against=None)
    assert after({"model": "small"}, now=before) == before


def test_a_rival_is_set_and_taken_away_and_is_never_the_class_itself():
    rival = {"against": 1, "of": "small"}
    assert after(rival).against == 1
    assert after(rival, rival).against is None
    assert after(rival, {"against": 2, "of": "small"}).against == 2
    assert after({"against": 0, "of": "small"}).against is None
    assert after(rival, {"target": 1, "of": "small"}) == NOW._replace(target=1)


@pytest.mark.parametrize(("index", "there"), [(0, 2), (1, 0), (2, None), (7, None), (-1, None), ("0", None)])
def test_a_class_chosen_while_another_model_opens_is_the_one_of_that_name_there(index, there):
    assert after({"model": "large"}, {"target": index, "of": "small"}).target == there


def test_a_desk_tells_its_choices_in_order_and_nothing_that_a_program_forged():
    assert parse_choices({"turn": 3, "choices": [{"method": "rise"}, "nonsense", None, {"target": 1}]}) == [
        {"method": "rise"},
        {"target": 1},
    ]
    assert [parse_choices(value) for value in (None, [], {"choices": "all"}, {"turn": 1})] == [[]] * 4
    assert [acknowledge(value) for value in ({"turn": 3, "choices": []}, None)] == [{"answered": 3}, {"answered": None}]


def test_a_class_of_a_model_with_the_same_labels_keeps_its_index():
    labels = ["maillot", "maillot, tank suit", "crane", "crane"]

    def select(index: int, own: list[str]) -> int | None:
        choices = {"model": "large"}, {"target": index, "of": "small"}
        return apply_choices(NOW, choices, {"small": labels, "large": own}.__getitem__).target

    assert [select(index, labels) for index in range(4)] == [0, 1, 2, 3]
    assert [select(index, labels[::-1]) for index in range(2)] == [3, 2]
    assert select(2, [*labels[::-1], "a"]) is None  # two candidates
