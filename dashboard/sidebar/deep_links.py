"""The page as an address asks for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from PIL import Image

from dashboard.components.parameters import apply_settings, get_changed_names
from dashboard.i18n.translate import translate
from dashboard.services.analysis_service import AnalysisService
from dashboard.services.examples import load_examples
from dashboard.sidebar.prediction_panel import PredictionPanel, draw_panel
from dashboard.state.selection import ADDRESS_KEYS, Link, describe_value, find_class, parse_address
from dashboard.tabs.inspector_state import parse_link
from dashboard.tabs.learn import STEPS
from vizlib import VizlibError
from vizlib.attribution.methods.registry import METHODS

PHOTO_INDEPENDENT_KEYS = ("m", "v", "s")  # an address of no more than these says nothing of a photo
LESSON_STEPS = [str(number + 1) for number in range(len(STEPS))]


class LinkedPage(NamedTuple):
    """What an address makes of the page."""

    link: Link  # without what nobody knows
    photo: Image.Image
    panel: PredictionPanel  # its address carries a sentence on unknown values
    parameters: dict[str, Any] | None  # of the method's knobs


def open_link(service: AnalysisService, address: Mapping[str, str], tabs: Sequence[str]) -> LinkedPage:
    """The page that an address asks for; of a wrong one what is known, and a sentence, but never an error."""
    photos, first = load_examples(), service.catalog.names[0]
    models = [name for name in [address.get("m", "")] if service.catalog.is_linkable(name)]
    link, unknown = parse_address(address, {"m": models, "img": photos, "v": tabs, "w": METHODS, "s": LESSON_STEPS})
    photo = photos[link.example or next(iter(photos))]
    name = link.model or first
    try:
        model = service.catalog.get(name)
    except VizlibError as error:  # a download that failed
        unknown.append(f"{describe_value('m', name)} ({error})")
        link, name, model = link._replace(model=None), first, service.catalog.get(first)

    def refused(key: str, value: str) -> None:
        unknown.append(describe_value(key, value))

    classes: list[int | None] = []
    for key, asked_for in (("c", link.target), ("vs", link.against)):
        classes.append(None if asked_for is None else find_class(asked_for, model.labels))
        if asked_for is not None and classes[-1] is None:
            refused(key, asked_for)
    if link.method and METHODS[link.method].unsupported_reason(model) is not None:
        refused("w", link.method)
        link = link._replace(method=None)
    layers = {layer.name for layer in model.layers} | {str(i + 1) for i in range(len(model.attention_layers))}
    if link.layer and link.layer not in layers:
        refused("l", link.layer)
        link = link._replace(layer=None)
    panel = draw_panel(service, photo, name, *classes)
    assert panel.selection is not None
    for key in parse_link(service, photo, panel.selection, link.unit, link.off)[1]:
        field = ADDRESS_KEYS[key][0]
        refused(key, getattr(link, field))
        link = link._replace(**{field: None})
    menus = apply_settings(model, link.method, link.parameter_texts()) if link.method else None
    if link.parameters and set(get_changed_names(menus).items()) != set(link.parameter_texts().items()):
        refused("k", link.parameters)
    said = [translate("link.unknown", names=", ".join(unknown))] if unknown else []
    if "img" not in address and any(address.get(key) for key in ADDRESS_KEYS if key not in PHOTO_INDEPENDENT_KEYS):
        said.append(translate("link.unsent"))
    panel.address["note"] = " ".join(said)
    return LinkedPage(link, photo, panel, menus)
