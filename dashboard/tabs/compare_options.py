"""The options of the Compare tab: two models, a method that fits both, and two classes, the same if both have them."""

from __future__ import annotations

from typing import NamedTuple

from PIL import Image

import vizlib
from dashboard.services.analysis_service import AnalysisService
from dashboard.services.explanation_request import DEFAULT_METHOD
from dashboard.services.prompted_name import get_catalog_name
from dashboard.state.selection import Selection
from vizlib.attribution.methods.registry import METHODS
from vizlib.attribution.request import MANY_PASSES
from vizlib.core.text import split_label


class Comparison(NamedTuple):
    """What is compared.

    Attributes:
        models: Names of the two models.
        method: Name of the method.
        classes: `classes[i][j]` is the index of class `j` in model `i`.
        same_classes: Whether these are the same classes of both models, or of each those that it finds most probable.
    """

    models: tuple[str, str]
    method: str
    classes: tuple[tuple[int, int], tuple[int, int]]
    same_classes: bool = True


def match_classes(a: vizlib.Model, b: vizlib.Model) -> dict[int, int]:
    """Return the classes to compare, which both models have: index in the first -> index in the second.

    Classes are matched by label, or by one of the names in it.
    """
    if a.labels == b.labels:
        return {index: index for index in range(len(a.labels))}
    by_name = {name: index for index, label in reversed(list(enumerate(b.labels))) for name in _split_label(label)}
    by_label = {label.lower(): index for index, label in enumerate(b.labels)}
    matches = {}
    for index, label in enumerate(a.labels):
        names = (
            [label.lower()] if label.lower() in by_label else [name for name in _split_label(label) if name in by_name]
        )
        if names:
            matches[index] = by_label.get(names[0], by_name.get(names[0], 0))
    return matches


def choose_comparison(
    service: AnalysisService,
    photo: Image.Image,
    selection: Selection,
    other: str | None = None,
    method: str | None = None,
    second: int | None = None,
) -> Comparison | None:
    """Return what to compare: the given options where they fit, defaults otherwise.

    Args:
        service: The analysis service.
        photo: The photo.
        selection: The first model, its target class and contrast class.
        other: Name of the second model; by default the first other model of the catalog.
        method: Name of the method; by default `DEFAULT_METHOD`.
        second: Index of the second class in the first model; by default the contrast class, else the most probable
            class of the second model, else the most probable class of the first model that is not the target.

    Returns:
        The comparison; `None` where there is no other model, or one of them has a single class. If the other model does
        not have the target class, its two most probable classes are compared with those of the first model.
    """
    others = [name for name in service.catalog.names if name != get_catalog_name(selection.model)]
    if not others:
        return None
    models = selection.model, other if other in others else others[0]
    common = match_classes(*map(service.catalog.get, models))
    to_first = {index_in_second: index for index, index_in_second in common.items()}
    ranking_of_second = [row.index for row in service.predict(photo, models[1], 2)]
    ranking_of_first = [row.index for row in service.predict(photo, models[0], 10**6)]
    same_classes = selection.target in common and len(common) > 1
    shared_top = map(to_first.get, ranking_of_second[:1]) if same_classes else ()
    candidates = [
        index
        for index in (second, selection.against, *shared_top, *ranking_of_first)
        if index is not None and index != selection.target and index in (common if same_classes else ranking_of_first)
    ]
    if not candidates or len(ranking_of_second) < 2:
        return None
    fitting = list_common_methods(service, models)
    method = next(name for name in (method, DEFAULT_METHOD, *fitting) if name in fitting)
    classes = selection.target, candidates[0]
    others_classes = (
        (common[classes[0]], common[classes[1]]) if same_classes else (ranking_of_second[0], ranking_of_second[1])
    )
    return Comparison(models, method, (classes, others_classes), same_classes)


def list_common_methods(service: AnalysisService, models: tuple[str, str]) -> list[str]:
    """Return the options for the method of a comparison: those of few passes that fit both models."""
    first, second = (vizlib.list_methods(service.catalog.get(name)) for name in models)
    return [name for name in first if name in second and METHODS[name].cost != MANY_PASSES]


def _split_label(label: str) -> list[str]:
    """Return the names in a label by which classes of two compared models are matched."""
    return [name.lower() for name in split_label(label)]
