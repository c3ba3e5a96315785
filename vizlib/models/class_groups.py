"""Sum the probabilities of similar classes, as a photo of a dog may have no breed that is probable."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from vizlib.core.imagenet_groups import find_imagenet_classes
from vizlib.models.model import Model
from vizlib.models.run import Prediction


class ClassGroup(NamedTuple):
    """The summed probability of a group of classes.

    Attributes:
        name: Name of the group.
        larger: Name of the larger group that contains it; empty if there is none.
        probability: Sum of the probabilities of its classes, from 0 to 1.
        count: Number of its classes.
    """

    name: str
    larger: str
    probability: float
    count: int


def group_predictions(model: Model, predictions: Sequence[Prediction]) -> list[ClassGroup]:
    """Return the groups of a model's classes with their summed probabilities, the most probable first.

    Args:
        model: The model.
        predictions: Its predictions of all classes, in any order.

    Returns:
        One row for each group; none if the classes are not ImageNet's, or do not exclude each other.

    Example:
        >>> import vizlib
        >>> from vizlib.models.class_groups import group_predictions
        >>> model = vizlib.load("vit_tiny-imagenet")
        >>> group_predictions(model, model.predict(vizlib.open_image("church.jpg"), top=1000))[0].name
        'building or place'
    """
    if not model.output_row.are_exclusive(torch.tensor([prediction.logit for prediction in predictions])):
        return []
    by_index = sorted(predictions)
    classes = find_imagenet_classes([prediction.label for prediction in by_index])
    sums: dict[tuple[str, ...], list[float]] = {}
    for prediction, known in zip(by_index, classes or (), strict=False):
        sums.setdefault(known.groups, []).append(prediction.probability or 0.0)
    groups = [
        ClassGroup(names[-1], names[0] if len(names) > 1 else "", sum(probabilities), len(probabilities))
        for names, probabilities in sums.items()
    ]
    return sorted(groups, key=lambda group: -group.probability)
