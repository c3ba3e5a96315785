"""The page's address, a URL query such as `?m=resnet18-imagenette&img=ex:tower&c=church&v=attention`: parts and parser.

The browser writes it: scripts/url_state.js sets the keys whose values this module and the tabs compute.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from dashboard.components.custom_component import read_script
from dashboard.i18n.translate import translate
from dashboard.services.analysis_service import AnalysisService
from dashboard.services.example_photos import open_example_photos
from dashboard.services.photo_key import compute_photo_key
from dashboard.services.prompted_name import (
    MAX_PROMPT_CHARACTERS,
    MAX_PROMPTS,
    MAX_TOTAL_CHARACTERS,
    SEPARATOR,
    PromptedName,
)
from dashboard.state.selection import Selection
from vizlib.core.class_labels import find_class
from vizlib.core.text import shorten_label

MAX_VALUE_LENGTH = 100  # characters of one value; no name on offer is longer
MAX_LENGTHS = {  # characters of the values that list several
    "c": MAX_PROMPT_CHARACTERS,
    "k": 500,
    "q": MAX_TOTAL_CHARACTERS + MAX_PROMPTS,
    "vs": MAX_PROMPT_CHARACTERS,
}
MAX_ECHO_LENGTH = 40  # characters of an unknown value that a message repeats
VALUE_PATTERNS = {  # of values that only the browser can check further, as it holds the maps
    "l": re.compile(r"[\w.-]+", re.ASCII),
    "h": re.compile(r"mean|max|\d{1,3}", re.ASCII),
    "p": re.compile(r"\d{1,3},\d{1,3}(;\d{1,3},\d{1,3})?", re.ASCII),
    "u": re.compile(r"[\w.-]+(:\d{1,5})?(@(all|\d{1,3},\d{1,3}))?", re.ASCII),
    "o": re.compile(r"[\w.-]+:\d{1,5}(;[\w.-]+:\d{1,5})*", re.ASCII),
}
PARAMETERS_PATTERN = re.compile(r"[\w-]+:[^,:]+(,[\w-]+:[^,:]+)*", re.ASCII)  # name:value,name:value


class Link(NamedTuple):
    """The values of the page's address, `None` where it has none; a class is given by the first name of its label."""

    model: str | None = None
    example: str | None = None
    target: str | None = None
    against: str | None = None
    tab: str | None = None
    layer: str | None = None
    head: str | None = None
    patch: str | None = None
    method: str | None = None
    parameters: str | None = None  # name:value,name:value
    unit: str | None = None  # of the Inside tab: layer, or layer:number of a channel or head; @row,column or @all
    ablated: str | None = None  # units ablated there: layer:number;layer:number
    step: str | None = None  # of the lessons, from 1
    prompts: str | None = None  # of a model that reads text, one a line

    def parameter_texts(self) -> dict[str, str]:
        """Return the method parameters of the address: the text of each value by name."""
        return dict(pair.split(":") for pair in (self.parameters or "").split(",") if pair)


class AddressKey(NamedTuple):
    """What a key of the page's address stands for."""

    field: str  # of `Link`
    term: str  # key of its translation, in messages


ADDRESS_KEYS = {
    "m": AddressKey("model", "model"),
    "img": AddressKey("example", "photo"),
    "c": AddressKey("target", "class"),
    "vs": AddressKey("against", "class"),
    "v": AddressKey("tab", "tab"),
    "l": AddressKey("layer", "layer"),
    "h": AddressKey("head", "head"),
    "p": AddressKey("patch", "patch"),
    "w": AddressKey("method", "method"),
    "k": AddressKey("parameters", "setting"),
    "u": AddressKey("unit", "unit"),
    "o": AddressKey("ablated", "unit"),
    "s": AddressKey("step", "step"),
    "q": AddressKey("prompts", "prompts"),
}


class ParsedAddress(NamedTuple):
    """The values of the page's address, and a description of each one that is not available."""

    link: Link
    unknown: list[str]


def parse_address(address: Mapping[str, str], offered: Mapping[str, Collection[str]]) -> ParsedAddress:
    """Parse the page's address; values that are not available are described, and left out of the link.

    Args:
        address: The query by key.
        offered: The available values by key: for `m` the models, for `v` the tabs. Classes are resolved later, as this
            needs a loaded model.

    >>> link, unknown = parse_address({"c": "church", "v": "nonsense"}, {"v": ["why", "attention"]})
    >>> link.target, link.tab, unknown
    ('church', None, ['tab “nonsense”'])
    """
    values: dict[str, str] = {}
    unknown = []
    for key, (field, _) in ADDRESS_KEYS.items():
        value = address.get(key)
        if not isinstance(value, str) or not value:
            continue
        if _is_valid_value(key, value, offered):
            values[field] = value
        else:
            unknown.append(describe_address_value(key, value))
    return ParsedAddress(Link(**values), unknown)


def describe_address_value(key: str, value: str) -> str:
    """Return a value of the page's address as messages name it, shortened and without control characters."""
    text = "".join(letter if letter.isprintable() else " " for letter in value[: MAX_ECHO_LENGTH + 1])
    if len(text) > MAX_ECHO_LENGTH:
        text = text[:MAX_ECHO_LENGTH] + "…"
    return f"{translate(f'link.{ADDRESS_KEYS[key].term}')} “{text}”"


def name_class_in_address(index: int, labels: Sequence[str]) -> str:
    """Return the name of a class in the page's address: the first of its label, or its number if that is ambiguous."""
    name = shorten_label(labels[index])
    return name if find_class(name, labels) == index else str(index)


def build_selection_address(service: AnalysisService, selection: Selection) -> dict[str, str | None]:
    """Return the selection as keys of the page's address; a photo that is no example has none."""
    labels = service.catalog.get(selection.model).labels
    name = PromptedName.parse(selection.model)
    return {
        "m": name.model,
        "q": SEPARATOR.join(name.prompts) or None,
        "img": {compute_photo_key(photo): name for name, photo in open_example_photos().items()}.get(selection.photo),
        "c": name_class_in_address(selection.target, labels),
        "vs": None if selection.against is None else name_class_in_address(selection.against, labels),
    }


def update_address_js(key: str, value: str) -> str:
    """Return a JavaScript event handler that sets one key of the page's address, after the page load is handled.

    gradio also fires the event for the tab that is open first, sometimes before the page has read its address.
    """
    ready = "document.querySelector('.viz-event_queue[data-ready]')"
    update = f"setUrlState({json.dumps(key)}, {json.dumps(value)})"
    return f"() => {{ {read_script('url_state.js')} if ({ready}) {update}; }}"


def _is_valid_value(key: str, value: str, offered: Mapping[str, Collection[str]]) -> bool:
    """Return whether a value of the page's address is an available one, or has the form of its key."""
    if len(value) > MAX_LENGTHS.get(key, MAX_VALUE_LENGTH):
        return False
    if key in offered:
        return value in offered[key]
    pattern = PARAMETERS_PATTERN if key == "k" else VALUE_PATTERNS.get(key)
    return pattern is None or pattern.fullmatch(value) is not None
