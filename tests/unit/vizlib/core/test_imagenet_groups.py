"""Groups of ImageNet's classes: each class is in one group, and only complete labels are recognised."""

from __future__ import annotations

from collections import Counter

import pytest

from vizlib.core.imagenet_groups import GROUPS, find_imagenet_classes, index_groups, list_imagenet_classes


def test_no_class_is_in_two_groups():
    counts = Counter()
    for _, ranges in GROUPS.values():
        for part in ranges.split():
            first, _, last = part.partition("-")
            counts.update(range(int(first), int(last or first) + 1))
    assert [index for index, count in counts.items() if count > 1] == []
    assert set(counts) <= set(range(1000))
    assert len(counts) == sum(groups != ("other object",) for groups in index_groups()) > 950


@pytest.mark.parametrize(
    ("name", "groups"),
    [
        ("great white shark", ("animal", "fish")),
        ("puffer", ("animal", "fish")),
        ("cock", ("animal", "bird")),
        ("axolotl", ("animal", "amphibian")),
        ("sidewinder", ("animal", "reptile")),
        ("tick", ("animal", "spider or scorpion")),
        ("lycaenid", ("animal", "insect")),
        ("trilobite", ("animal", "other invertebrate")),
        ("Chihuahua", ("animal", "dog")),
        ("Mexican hairless", ("animal", "dog")),
        ("timber wolf", ("animal", "wolf, wild dog or fox")),
        ("Egyptian cat", ("animal", "cat")),
        ("cheetah", ("animal", "wild cat")),
        ("giant panda", ("animal", "bear")),
        ("lesser panda", ("animal", "other mammal")),
        ("hyena", ("animal", "other mammal")),
        ("llama", ("animal", "hoofed animal")),
        ("squirrel monkey", ("animal", "ape or monkey")),
        ("trolleybus", ("vehicle", "road vehicle")),
        ("streetcar", ("vehicle", "train")),
        ("yawl", ("vehicle", "boat or ship")),
        ("airliner", ("vehicle", "aircraft")),
        ("church", ("building or place",)),
        ("cellular telephone", ("electronic device",)),
        ("coffee mug", ("container or kitchenware",)),
        ("espresso", ("food", "drink")),
        ("Granny Smith", ("food", "fruit or vegetable")),
        ("pizza", ("food", "dish or snack")),
        ("daisy", ("plant",)),
        ("bolete", ("mushroom",)),
        ("volcano", ("landscape",)),
        ("groom", ("person",)),
        ("jigsaw puzzle", ("other object",)),
    ],
)
def test_classes_are_in_the_group_that_people_expect(name, groups):
    labels, classes = list_imagenet_classes()
    (found,) = [known for label, known in zip(labels, classes, strict=True) if label.split(",")[0] == name]
    assert found.groups == groups


def test_only_complete_labels_are_recognised():
    labels, classes = list_imagenet_classes()
    assert find_imagenet_classes(labels) is classes
    assert labels[134] == labels[517] == "crane"  # told apart only by their place among all
    assert [classes[index].groups[-1] for index in (134, 517)] == ["bird", "tool or instrument"]
    assert find_imagenet_classes(labels[281:283]) == classes[281:283]
    assert find_imagenet_classes(["crane", labels[281]]) is None
    assert find_imagenet_classes(["orange", labels[281]]) == (classes[950], classes[281])
    for unknown in ([], ["red", "orange"], [labels[281].upper()], [*labels, "mine"]):
        assert find_imagenet_classes(unknown) is None


def test_definitions_do_not_repeat_the_label():
    labels, classes = list_imagenet_classes()
    assert classes[0].definition.startswith("freshwater dace-like game fish")
    assert [label for label, known in zip(labels, classes, strict=True) if not known.definition] == []
    assert len({known.synset for known in classes}) == 1000
