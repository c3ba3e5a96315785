"""The state of the page after a visitor's choices, as pure functions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from dashboard.components.event_queue import Choice
from dashboard.services.prompted_name import PromptedName, check_page_prompts, get_catalog_name
from vizlib.core.class_labels import find_class


class PageState(NamedTuple):
    """What a visitor has chosen; a `target` of `None` is the most probable class."""

    model: str
    target: int | None = None
    against: int | None = None
    method: str | None = None
    parameters: Any = None  # the menus of the method's parameters
    tab: str | None = None


def apply_choices(state: PageState, choices: Iterable[Choice], labels: Callable[[str], Sequence[str]]) -> PageState:
    """Return the state of the page after some choices, of which later ones override earlier ones.

    Args:
        state: The state before.
        choices: Each holds some of these keys: `photo`, a new one; `model`; `prompts`, the classes of a model that
            reads text; `target` and `against`, indices of classes, with the model `of` which they are; `method`;
            `parameters`, its menus; `tab`. The same `against` again removes it.
        labels: Returns the class labels of a model.

    Raises:
        TargetError: For prompts that cannot be used.
    """
    for choice in choices:
        if choice.get("photo"):
            state = state._replace(target=None, against=None)
        model = choice.get("model")
        if isinstance(model, str) and model != get_catalog_name(state.model):
            state = state._replace(model=model, target=None, against=None)
        if isinstance(choice.get("prompts"), list):
            state = replace_prompts(state, choice["prompts"], labels)
        if "target" in choice:
            target = match_chosen_class(choice, "target", state.model, labels)
            state = state._replace(target=target, against=None if target == state.against else state.against)
        if "against" in choice:
            against = match_chosen_class(choice, "against", state.model, labels)
            state = state._replace(against=None if against in (state.against, state.target) else against)
        if isinstance(choice.get("method"), str):
            state = state._replace(method=choice["method"], parameters=None)
        if "parameters" in choice:
            state = state._replace(parameters=choice["parameters"])
        if "tab" in choice:
            state = state._replace(tab=choice["tab"])
    return state


def replace_prompts(state: PageState, lines: Sequence[object], labels: Callable[[str], Sequence[str]]) -> PageState:
    """Return the state with other prompts, and the same classes where they are among them.

    Args:
        state: The state before.
        lines: The prompts as they were typed.
        labels: Returns the class labels of a model.

    Raises:
        TargetError: For prompts that cannot be used.
    """
    before, name = labels(state.model), get_catalog_name(state.model)
    prompts = check_page_prompts(lines)
    own = prompts == tuple(labels(name))
    after = state._replace(model=name if own else str(PromptedName(name, prompts)), target=None, against=None)

    def find(index: int | None) -> int | None:
        if index is None or not 0 <= index < len(before):
            return None
        return next((i for i, prompt in enumerate(prompts) if prompt == before[index]), None)

    return after._replace(target=find(state.target), against=find(state.against))


def match_chosen_class(choice: Choice, key: str, model: str, labels: Callable[[str], Sequence[str]]) -> int | None:
    """Return the chosen class of the page's model; for a class of another model, the one with its label or `None`."""
    index, source = choice[key], choice.get("of")
    if not isinstance(source, str) or source == model:
        return index
    source_labels = labels(source)
    if not isinstance(index, int) or not 0 <= index < len(source_labels):
        return None
    own_labels = labels(model)
    same = index < len(own_labels) and own_labels[index] == source_labels[index]
    return index if same else find_class(source_labels[index], own_labels)
