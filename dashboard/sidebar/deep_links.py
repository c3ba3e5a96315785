"""The page as an address asks for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from PIL import Image

from dashboard.components.knobs import asked, chosen
from dashboard.i18n.translate import translate
from dashboard.services.analysis_service import Study
from dashboard.services.examples import addressed
from dashboard.sidebar.prediction_panel import look
from dashboard.state.selection import KEYS, Link, find_class, named, parse
from dashboard.tabs.inspector_state import linked
from dashboard.tabs.learn import STEPS
from vizlib import VizlibError
from vizlib.attribution.methods.registry import METHODS

WITHOUT_PHOTO = ("m", "v", "s")  # an address of no more than these says nothing of a photo
LESSONS = [str(number + 1) for number in range(len(STEPS))]


class Visit(NamedTuple):
    """What an address makes of the page."""

    link: Link  # without what nobody knows
    photo: Image.Image
    looked: tuple  # as from `look`, with a sentence on what nobody knows
    menus: dict[str, Any] | None  # of the method's knobs


def visit(study: Study, address: Mapping[str, str], tabs: Sequence[str]) -> Visit:
    """The page that an address asks for; of a wrong one what is known, and a sentence, but never an error."""
    photos, first = addressed(), study.catalog.names[0]
    models = [name for name in [address.get("m", "")] if study.catalog.linked(name)]
    link, unknown = parse(address, {"m": models, "img": photos, "v": tabs, "w": METHODS, "s": LESSONS})
    photo = photos[link.example or next(iter(photos))]
    name = link.model or first
    try:
        model = study.catalog.get(name)
    except VizlibError as error:  # a download that failed
        unknown.append(f"{named('m', name)} ({error})")
        link, name, model = link._replace(model=None), first, study.catalog.get(first)

    def refused(key: str, value: str) -> None:
        unknown.append(named(key, value))

    classes: list[int | None] = []
    for key, asked_for in (("c", link.target), ("vs", link.against)):
        classes.append(None if asked_for is None else find_class(asked_for, model.labels))
        if asked_for is not None and classes[-1] is None:
            refused(key, asked_for)
    if link.method and METHODS[link.method].fits(model) is not None:
        refused("w", link.method)
        link = link._replace(method=None)
    layers = {layer.name for layer in model.layers} | {str(i + 1) for i in range(len(model.attention_layers))}
    if link.layer and link.layer not in layers:
        refused("l", link.layer)
        link = link._replace(layer=None)
    looked = look(study, photo, name, *classes)
    for key in linked(study, photo, looked[0], link.unit, link.off)[1]:
        field = KEYS[key][0]
        refused(key, getattr(link, field))
        link = link._replace(**{field: None})
    menus = asked(model, link.method, link.settings()) if link.method else None
    if link.knobs and set(chosen(menus).items()) != set(link.settings().items()):
        refused("k", link.knobs)
    said = [translate("link.unknown", names=", ".join(unknown))] if unknown else []
    if "img" not in address and any(address.get(key) for key in KEYS if key not in WITHOUT_PHOTO):
        said.append(translate("link.unsent"))
    looked[-1]["said"] = " ".join(said)
    return Visit(link, photo, looked, menus)
