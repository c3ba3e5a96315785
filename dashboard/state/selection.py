"""What the page is about, and the same as an address: `?m=resnet18-imagenette&img=ex:tower&c=church&v=attention`."""

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

MAX_VALUE_LENGTH = 100  # characters of one value; nothing on offer has a longer name
MAX_ECHO_LENGTH = 40  # of an unknown value are repeated to whoever followed the link
VALUE_PATTERNS = {  # what only the browser can check further, as it holds the maps
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
    """What an address asks for, `None` where it does not say; a class is called by the first name of its label."""

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
    unit: str | None = None  # under Inside: layer, or layer:number of a channel or head
    off: str | None = None  # what is switched off there: layer:number;layer:number
    step: str | None = None  # of the lessons, from 1

    def parameter_texts(self) -> dict[str, str]:
        """The knobs, each with the text of its value."""
        return dict(pair.split(":") for pair in (self.parameters or "").split(",") if pair)  # pyright: ignore


ADDRESS_KEYS = {  # of an address -> field of a Link, and what a person calls it
    "m": ("model", "model"),
    "img": ("example", "photo"),
    "c": ("target", "class"),
    "vs": ("against", "class"),
    "v": ("tab", "tab"),
    "l": ("layer", "layer"),
    "h": ("head", "head"),
    "p": ("patch", "patch"),
    "w": ("method", "method"),
    "k": ("parameters", "setting"),
    "u": ("unit", "unit"),
    "o": ("off", "unit"),
    "s": ("step", "step"),
}


def parse_address(address: Mapping[str, str], offered: Mapping[str, Collection[str]]) -> tuple[Link, list[str]]:
    """What an address asks for, and in words what it asks for that nobody knows: that is left out of the link.

    `offered` names all there is to choose from, by key of the address: for `m` the models, for `v` the tabs. Classes
    are looked up later, as only a loaded model knows its own.

    >>> link, unknown = parse({"c": "church", "v": "nonsense"}, {"v": ["why", "attention"]})
    >>> link.target, link.tab, unknown
    ('church', None, ['tab “nonsense”'])
    """
    found: dict[str, str] = {}
    unknown = []
    for key, (field, _) in ADDRESS_KEYS.items():
        value = address.get(key)
        if not isinstance(value, str) or not value:
            continue
        if _takes(key, value, offered):
            found[field] = value
        else:
            unknown.append(describe_value(key, value))
    return Link(**found), unknown


def format_address(link: Link) -> str:
    """The address of a link, from `?` on; `parse` reads it back. Nothing but a question mark asks for nothing."""
    given = {key: getattr(link, field) for key, (field, _) in ADDRESS_KEYS.items()}
    return "?" + "&".join(f"{key}={quote(value, safe=':,;/')}" for key, value in given.items() if value is not None)


def describe_value(key: str, value: str) -> str:
    """What an address asks for in one of its keys, as a sentence can name it."""
    text = "".join(letter if letter.isprintable() else " " for letter in value[: MAX_ECHO_LENGTH + 1])
    if len(text) > MAX_ECHO_LENGTH:
        text = text[:MAX_ECHO_LENGTH] + "…"
    return f"{translate(f'link.{ADDRESS_KEYS[key][1]}')} “{text}”"


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


def _takes(key: str, value: str, offered: Mapping[str, Collection[str]]) -> bool:
    if len(value) > MAX_VALUE_LENGTH * (5 if key == "k" else 1):
        return False
    if key in offered:
        return value in offered[key]
    form = PARAMETERS_PATTERN if key == "k" else VALUE_PATTERNS.get(key)
    return form is None or form.fullmatch(value) is not None
