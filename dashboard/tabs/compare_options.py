"""What is compared: two models, a method that fits both, and two classes that both know."""

from __future__ import annotations

from typing import NamedTuple

from PIL import Image

import vizlib
from dashboard.services.analysis_service import AnalysisService
from dashboard.state.selection import Selection
from vizlib.attribution.methods.registry import METHODS
from vizlib.attribution.request import MANY_PASSES

DEFAULT_METHOD = "grad-cam"


class Comparison(NamedTuple):
    """What is compared; classes are the first model's, `classes[i][j]` is what model `i` calls class `j`."""

    models: tuple[str, str]
    method: str
    classes: tuple[tuple[int, int], tuple[int, int]]


def match_classes(a: vizlib.Model, b: vizlib.Model) -> dict[int, int]:
    """The classes both models know: the first one's number to the second one's, by label or a name they share."""
    if a.labels == b.labels:
        return {index: index for index in range(len(a.labels))}
    named = {name: index for index, label in reversed(list(enumerate(b.labels))) for name in _split_label(label)}
    whole = {label.lower(): index for index, label in enumerate(b.labels)}
    found = {}
    for index, label in enumerate(a.labels):
        names = [label.lower()] if label.lower() in whole else [name for name in _split_label(label) if name in named]
        if names:
            found[index] = whole.get(names[0], named.get(names[0], 0))
    return found


def choose_comparison(
    service: AnalysisService,
    photo: Image.Image,
    selection: Selection,
    other: str | None = None,
    method: str | None = None,
    second: int | None = None,
) -> Comparison | None:
    """What is compared: as asked for where it fits, else with the other bundled model and what that one sees.

    The second class is the contrast where there is one, else the other model's likeliest, or where that is the chosen
    class already the first one's next likeliest. Nothing where there is no other model, or it
    does not know the chosen class.
    """
    others = [name for name in service.catalog.names if name != selection.model]
    if not others:
        return None
    models = selection.model, other if other in others else others[0]
    common = match_classes(*map(service.catalog.get, models))
    if selection.target not in common:
        return None
    back = {theirs: ours for ours, theirs in common.items()}
    theirs = [back.get(one.index) for one in service.predict(photo, models[1], 1)]
    ours = [one.index for one in service.predict(photo, models[0], 10**6)]
    free = [
        index for index in (second, selection.against, *theirs, *ours) if index in common and index != selection.target
    ]
    if not free:
        return None
    fitting = list_common_methods(service, models)
    method = next(name for name in (method, DEFAULT_METHOD, *fitting) if name in fitting)
    classes = selection.target, free[0]
    return Comparison(models, method, (classes, (common[classes[0]], common[classes[1]])))


def list_common_methods(service: AnalysisService, models: tuple[str, str]) -> list[str]:
    """The methods that fit both models and take no more than a few passes."""
    first, second = (vizlib.list_methods(service.catalog.get(name)) for name in models)
    return [name for name in first if name in second and METHODS[name].cost != MANY_PASSES]


def _split_label(label: str) -> list[str]:
    return [name.strip() for name in label.lower().split(",")]
