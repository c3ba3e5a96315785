"""What the page is to be about after a visitor's choices, one after the other: plain functions of both."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from dashboard.components.event_queue import Choice
from dashboard.state.selection import find_class


class PageState(NamedTuple):
    """What a visitor asks for; a `target` that is `None` is the likeliest class."""

    model: str
    target: int | None = None
    against: int | None = None
    method: str | None = None
    parameters: Any = None  # of the method's knobs
    tab: str | None = None


def apply_choices(now: PageState, choices: Iterable[Choice], labels: Callable[[str], Sequence[str]]) -> PageState:
    """After these choices, of which the later ones count; `labels` gives the classes of a model.

    A choice names some of: `photo`, a new one; `model`; `target` and `against`, each the index of a class, with the
    model it was chosen `of`; `method`; `parameters`, its menus; `tab`. The same `against` again takes it away.
    """
    for choice in choices:
        if choice.get("photo"):
            now = now._replace(target=None, against=None)
        model = choice.get("model")
        if isinstance(model, str) and model != now.model:
            now = now._replace(model=model, target=None, against=None)
        if "target" in choice:
            target = match_class(choice, "target", now.model, labels)
            now = now._replace(target=target, against=None if target == now.against else now.against)
        if "against" in choice:
            rival = match_class(choice, "against", now.model, labels)
            now = now._replace(against=None if rival in (now.against, now.target) else rival)
        if isinstance(choice.get("method"), str):
            now = now._replace(method=choice["method"], parameters=None)
        if "parameters" in choice:
            now = now._replace(parameters=choice["parameters"])
        if "tab" in choice:
            now = now._replace(tab=choice["tab"])
    return now


def match_class(choice: Choice, key: str, model: str, labels: Callable[[str], Sequence[str]]) -> int | None:
    """The class of this model that was chosen, maybe among another's: the one of that name there, else `None`."""
    index, other = choice[key], choice.get("of")
    if isinstance(other, str) and other != model:
        names = labels(other)
        known = isinstance(index, int) and 0 <= index < len(names)
        if not known:
            return None
        own = labels(model)
        return index if index < len(own) and own[index] == names[index] else find_class(names[index], own)
    return index
