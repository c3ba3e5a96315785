"""`read_labels`: labels as lists, mappings, numbers and files, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from vizlib.core.errors import ModelError
from vizlib.core.label_formats import read_labels


@pytest.mark.parametrize(
    "source",
    [
        ["cat", "dog", "neither"],
        ("cat", " dog ", "neither"),
        np.array(["cat", "dog", "neither"]),
        {0: "cat", 1: "dog", 2: "neither"},
        {2: "neither", 0: "cat", 1: "dog"},  # in any order
        {"0": "cat", "1": "dog", "2": "neither"},  # keys of JSON
        {np.int64(0): "cat", np.int64(1): "dog", np.int64(2): "neither"},
        {"cat": 0, "neither": 2, "dog": 1},  # class_to_idx of a dataset
        {"cat": np.int64(0), "dog": np.int64(1), "neither": np.int64(2)},
        {"0": ["n02123045", "cat"], "1": ["n02084071", "dog"], "2": ["n00000000", "neither"]},  # ImageNet's class index
        iter(["cat", "dog", "neither"]),
    ],
)
def test_every_form_gives_the_labels_in_the_order_of_the_outputs(source):
    assert read_labels(source) == ["cat", "dog", "neither"]


def test_labels_that_are_digits_are_no_indices():
    assert read_labels({"7": 1, "3": 0}) == ["3", "7"]
    assert read_labels({0: 7, 1: 3}) == ["7", "3"]
    assert read_labels([7, 3]) == ["7", "3"]


def test_number_of_classes():
    assert read_labels(3) == ["class 0", "class 1", "class 2"]


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("names.txt", "cat\ndog\nneither\n\n", ["cat", "dog", "neither"]),
        ("synsets.txt", "n01440764 tench, Tinca tinca\nn01443537 goldfish", ["tench, Tinca tinca", "goldfish"]),
        ("bom.txt", "\ufeffkat\r\nhond\r\n", ["kat", "hond"]),
        ("names.json", json.dumps(["cat", "dog"]), ["cat", "dog"]),
        ("index.JSON", json.dumps({"1": "dog", "0": "cat"}), ["cat", "dog"]),
        ("config.json", json.dumps({"model_type": "vit", "id2label": {"0": "cat", "1": "dog"}}), ["cat", "dog"]),
        ("classes.json", json.dumps({"classes": ["cat", "dog"], "date": "today"}), ["cat", "dog"]),
    ],
)
@pytest.mark.parametrize("make", [str, Path])
def test_files(tmp_path, name, content, expected, make):
    (tmp_path / name).write_text(content, encoding="utf-8")
    assert read_labels(make(tmp_path / name)) == expected


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({0: "cat", 2: "dog"}, "no class 1, but a class 2"),
        ({"1": "cat", "2": "dog"}, "no class 0, but a class 2"),
        ({"cat": 0, "dog": 2}, "no class 1"),
        ({"cat": 0, "dog": 0}, "two labels to the same class index"),
        ({0: "cat", "0": "dog"}, "index twice"),
        ({"cat": "a", "dog": "b"}, "key 'cat', which is not a class index"),
        ({-1: "cat"}, "key -1"),
        ({"cat", "dog"}, "labels is a set; expected a list of labels"),
        ("cat", "labels is the text 'cat'; expected a list of labels"),
        ("missing.txt", "no file missing.txt"),
        (0, "the number 0, expected at least 1"),
        (True, "labels is True"),
        (2.5, "labels is a float"),
        (b"cat", "labels is a bytes"),
        (["cat", None], "labels holds a NoneType"),
    ],
)
def test_what_cannot_be_understood_is_refused(source, message):
    with pytest.raises(ModelError, match=message) as caught:
        read_labels(source)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("names.txt", "cat\n\ndog", "line 2 of names.txt is empty"),  # dropped, it would shift "dog"
        ("names.txt", "", "names.txt is empty"),
        ("names.json", "{", "names.json cannot be read"),
        ("names.json", "3", "names.json holds no labels"),
        ("names.json", "{}", "names.json holds no labels"),
    ],
)
def test_files_that_cannot_be_understood_are_refused(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(ModelError, match=message):
        read_labels(tmp_path / name)
