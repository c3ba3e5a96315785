"""The selection of the page, and its URL query: `?m=resnet18-imagenette&img=ex:tower&c=church&v=attention`."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import quote

from PIL import Image

from dashboard.i18n.translate import translate
from dashboard.services.request import DEFAULT_METHOD, ExplanationRequest
from vizlib.core.class_labels import resolve_class
from vizlib.core.errors import TargetError
from vizlib.core.text import shorten_label

MAX_VALUE_LENGTH = 100  # characters of one value; no name on offer is longer
MAX_PARAMETERS_LENGTH = 500  # characters of all parameters of a method
MAX_ECHO_LENGTH = 40  # characters of an unknown value that a message repeats
VALUE_PATTERNS = {  # of values that only the browser can check further, as it holds the maps
    "l": re.compile(r"[\w.-]+", re.ASCII),
    "h": re.compile(r"mean|max|\d{1,3}", re.ASCII),
    "p": re.compile(r"\d{1,3},\d{1,3}(;\d{1,3},\d{1,3})?", re.ASCII),
    "u": re.compile(r"[\w.-]+(:\d{1,5})?", re.ASCII),
    "o": re.compile(r"[\w.-]+:\d{1,5}(;[\w.-]+:\d{1,5})*", re.ASCII),
}
PARAMETERS_PATTERN = re.compile(r"[\w-]+:[^,:]+(,[\w-]+:[^,:]+)*", re.ASCII)  # name:value,name:value


class PhotoAndModel(NamedTuple):
    """The part of a selection that views without a class depend on."""

    photo: str  # key of the photo
    model: str


class Selection(NamedTuple):
    """Photo, model and classes that the page shows; it changes as a whole, and every tab draws again when it does."""

    photo: str  # key of the photo, so that a new photo is a new selection
    model: str
    target: int
    against: int | None = None  # contrast class: "why the target and not this class"

    @property
    def photo_and_model(self) -> PhotoAndModel:
        """The selection without its classes."""
        return PhotoAndModel(self.photo, self.model)

    def request(
        self, photo: Image.Image, method: str = DEFAULT_METHOD, parameters: Mapping[str, Any] | None = None
    ) -> ExplanationRequest:
        """Return the request for an explanation of the selected class; `photo` is the one the key stands for."""
        return ExplanationRequest(photo, self.model, self.target, self.against, method, dict(parameters or {}))


class Link(NamedTuple):
    """The values of a URL query, `None` where it has none; a class is given by the first name of its label."""

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
    unit: str | None = None  # of the Inside tab: layer, or layer:number of a channel or head
    ablated: str | None = None  # units ablated there: layer:number;layer:number
    step: str | None = None  # of the lessons, from 1

    def parameter_texts(self) -> dict[str, str]:
        """Return the text of the value of each parameter by name."""
        return dict(pair.split(":") for pair in (self.parameters or "").split(",") if pair)


class AddressKey(NamedTuple):
    """What a key of the URL query stands for."""

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
}


class ParsedAddress(NamedTuple):
    """The values of a URL query, and a description of each one that is not available."""

    link: Link
    unknown: list[str]


def parse_address(address: Mapping[str, str], offered: Mapping[str, Collection[str]]) -> ParsedAddress:
    """Parse a URL query; values that are not available are described, and left out of the link.

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
        if _is_valid(key, value, offered):
            values[field] = value
        else:
            unknown.append(describe_value(key, value))
    return ParsedAddress(Link(**values), unknown)


def format_address(link: Link) -> str:
    """Return the URL query of a link, from `?` on, which `parse_address` parses again."""
    values = {key: getattr(link, field) for key, (field, _) in ADDRESS_KEYS.items()}
    return "?" + "&".join(f"{key}={quote(value, safe=':,;/')}" for key, value in values.items() if value is not None)


def describe_value(key: str, value: str) -> str:
    """Return a value of a URL query as messages name it, shortened and without control characters."""
    text = "".join(letter if letter.isprintable() else " " for letter in value[: MAX_ECHO_LENGTH + 1])
    if len(text) > MAX_ECHO_LENGTH:
        text = text[:MAX_ECHO_LENGTH] + "…"
    return f"{translate(f'link.{ADDRESS_KEYS[key].term}')} “{text}”"


def class_address(index: int, labels: Sequence[str]) -> str:
    """Return the name of a class in a URL: the first name of its label, or its number if that name is ambiguous."""
    name = shorten_label(labels[index])
    return name if find_class(name, labels) == index else str(index)


def find_class(name: str, labels: Sequence[str]) -> int | None:
    """Return the index of the class with a label, name or number (see `resolve_class`), `None` if there is none."""
    try:
        return resolve_class(name, labels)
    except TargetError:
        return None


def _is_valid(key: str, value: str, offered: Mapping[str, Collection[str]]) -> bool:
    """Return whether a value is one of the available ones, or has the form of its key."""
    if len(value) > (MAX_PARAMETERS_LENGTH if key == "k" else MAX_VALUE_LENGTH):
        return False
    if key in offered:
        return value in offered[key]
    pattern = PARAMETERS_PATTERN if key == "k" else VALUE_PATTERNS.get(key)
    return pattern is None or pattern.fullmatch(value) is not None
