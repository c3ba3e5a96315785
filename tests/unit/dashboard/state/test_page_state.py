"""The state of the page after choices: later ones win, and a class is matched by name on another model."""

from __future__ import annotations

import pytest

from dashboard.components.event_queue import acknowledge_choices, parse_choices
from dashboard.services.prompted_name import PromptedName
from dashboard.state.page_state import PageState, apply_choices
from vizlib import TargetError

LABELS = {"small": ["church", "tench, Tinca tinca", "golf ball"], "large": ["tench", "cat", "church, church building"]}
STATE = PageState("small", 0, None, "grad-cam", {"parameters": "changed"})


def after(*choices, before: PageState = STATE) -> PageState:
    return apply_choices(before, choices, LABELS.__getitem__)


def test_no_choice_changes_nothing():
    assert after() == STATE
    assert after({}) == STATE


def test_last_choice_of_each_kind_wins():
    state = after({"target": 1, "of": "small"}, {"method": "saliency"}, {"target": 2, "of": "small"}, {"tab": "inside"})
    assert state == PageState("small", 2, None, "saliency", None, "inside")


def test_new_method_resets_parameters():
    assert after({"method": "saliency"}).parameters is None
    assert after({"method": "saliency"}, {"parameters": {"method": "saliency"}}).parameters == {"method": "saliency"}
    assert after({"parameters": {"method": "grad-cam"}}).method == "grad-cam"


def test_new_photo_or_model_resets_the_classes_and_keeps_the_method():
    before = STATE._replace(against=1)
    assert after({"photo": True, "model": "small"}, before=before) == before._replace(target=None, against=None)
    assert after({"model": "large"}, before=before) == before._replace(model="large", target=None, against=None)
    assert after({"model": "small"}, before=before) == before


def test_contrast_class_is_toggled_and_differs_from_the_target():
    contrast = {"against": 1, "of": "small"}
    assert after(contrast).against == 1
    assert after(contrast, contrast).against is None
    assert after(contrast, {"against": 2, "of": "small"}).against == 2
    assert after({"against": 0, "of": "small"}).against is None
    assert after(contrast, {"target": 1, "of": "small"}) == STATE._replace(target=1)


@pytest.mark.parametrize(("index", "expected"), [(0, 2), (1, 0), (2, None), (7, None), (-1, None), ("0", None)])
def test_class_chosen_for_another_model_is_matched_by_name(index, expected):
    assert after({"model": "large"}, {"target": index, "of": "small"}).target == expected


def test_parse_choices_keeps_order_and_drops_invalid_entries():
    assert parse_choices({"turn": 3, "choices": [{"method": "rise"}, "nonsense", None, {"target": 1}]}) == [
        {"method": "rise"},
        {"target": 1},
    ]
    assert [parse_choices(value) for value in (None, [], {"choices": "all"}, {"turn": 1})] == [[]] * 4
    assert [acknowledge_choices(value) for value in ({"turn": 3, "choices": []}, None)] == [
        {"answered": 3},
        {"answered": None},
    ]


def test_class_of_a_model_with_the_same_labels_keeps_its_index():
    labels = ["maillot", "maillot, tank suit", "crane", "crane"]

    def select(index: int, own: list[str]) -> int | None:
        choices = {"model": "large"}, {"target": index, "of": "small"}
        return apply_choices(STATE, choices, {"small": labels, "large": own}.__getitem__).target

    assert [select(index, labels) for index in range(4)] == [0, 1, 2, 3]
    assert [select(index, labels[::-1]) for index in range(2)] == [3, 2]
    assert select(2, [*labels[::-1], "a"]) is None  # two candidates


CLIP_LABELS = {"clip": ["a dog", "a cat, asleep"]}


def with_prompts(before: PageState, *choices) -> PageState:
    return apply_choices(before, choices, lambda name: CLIP_LABELS.get(name) or PromptedName.parse(name).prompts)


def test_prompts_are_the_classes_and_a_class_stays_where_it_is_among_them():
    before = PageState("clip", 1, 0, "attention-relevance")
    after_prompts = with_prompts(before, {"prompts": ["a bird", " a cat,  asleep ", "", "A bird"]})
    assert after_prompts == before._replace(model="clip\na bird\na cat, asleep", target=1, against=None)
    assert with_prompts(after_prompts, {"prompts": ["a dog", "a cat, asleep"]}) == before._replace(against=None)
    assert with_prompts(after_prompts, {"model": "clip"}) == after_prompts  # the prompts stay with their model
    both = with_prompts(after_prompts, {"prompts": ["a bird", "a cat, asleep", "a cat"], "target": 1, "against": 2})
    assert (both.target, both.against) == (1, 2)
    assert with_prompts(both, {"prompts": both.model.split("\n")[1:], "target": 1, "against": 2}).against is None
    assert with_prompts(before, {"prompts": "a bird"}) == before


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "there are no prompts"),
        ([" ", 3, None], "there are no prompts"),
        (["x" * 201], "has 201 characters; the page takes at most 200"),
        ([f"dog {i}" for i in range(101)], "there are 101 prompts; the page takes at most 100"),
        ([f"{i} {'x' * 190}" for i in range(11)], "characters together; the page takes at most 2,000"),
        (["a\0dog"], r"control character U\+0000"),
    ],
)
def test_prompts_that_the_page_does_not_take_are_one_sentence(lines, message):
    with pytest.raises(TargetError, match=message):
        with_prompts(PageState("clip"), {"prompts": lines})
