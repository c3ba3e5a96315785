"""Summed probabilities of groups of classes."""

from __future__ import annotations

import pytest
import timm
import torch

import vizlib
from vizlib.core.imagenet_groups import index_groups, list_imagenet_classes
from vizlib.models.class_groups import group_predictions


def wrap(output_kind: str, labels=None) -> vizlib.Model:
    torch.manual_seed(0)
    labels = list_imagenet_classes()[0] if labels is None else labels
    network = timm.create_model("test_vit", num_classes=len(labels))
    return vizlib.wrap(network, labels=labels, output_kind=output_kind)


@pytest.fixture
def photo():
    return vizlib.open_image(torch.rand(3, 40, 50, generator=torch.Generator().manual_seed(0)))


def test_probabilities_of_similar_classes_are_summed(photo):
    model = wrap("softmax")
    with torch.no_grad():
        model.module.get_parameter("head.bias")[151:269] += 5  # dogs
    probabilities = model.logits(model.tensor(photo)).softmax(-1)[0].double()
    expected: dict[str, list[float]] = {}
    for groups, probability in zip(index_groups(), probabilities.tolist(), strict=True):
        expected.setdefault(groups[-1], []).append(probability)
    groups = group_predictions(model, model.predict(photo, top=1000))
    assert (groups[0].name, groups[0].larger, groups[0].count) == ("dog", "animal", 118)
    assert groups[0].probability > 0.9
    assert {group.name: group.probability for group in groups} == pytest.approx(
        {name: sum(values) for name, values in expected.items()}, rel=1e-4
    )
    assert sum(group.count for group in groups) == 1000
    assert groups == sorted(groups, key=lambda group: -group.probability)


def test_independent_labels_and_other_classes_have_no_groups(photo):
    for model in (wrap("sigmoid"), wrap("softmax", ["red", "orange", "lemon"])):
        assert group_predictions(model, model.predict(photo, top=1000)) == []
