"""The page that a URL query restores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from PIL import Image

from dashboard.components.parameters import apply_parameter_settings, get_changed_parameters
from dashboard.i18n.translate import translate
from dashboard.services.analysis_service import AnalysisService
from dashboard.services.example_photos import choose_first_example, open_example_photos
from dashboard.services.prompted_name import SEPARATOR, PromptedName, check_page_prompts
from dashboard.sidebar.prediction_panel import PredictionPanel, build_prediction_panel
from dashboard.state.page_address import ADDRESS_KEYS, Link, describe_address_value, parse_address
from dashboard.tabs.inspector_state import parse_inspector_link
from dashboard.tabs.learn import STEPS
from vizlib import VizlibError
from vizlib.attribution.methods.registry import METHODS
from vizlib.core.class_labels import find_class

PHOTO_INDEPENDENT_KEYS = ("m", "v", "s")  # a URL with no other keys describes no view of a photo
LESSON_STEPS = [str(number + 1) for number in range(len(STEPS))]


class LinkedPage(NamedTuple):
    """The page that a URL query restores."""

    link: Link  # without values that are not available
    photo: Image.Image
    panel: PredictionPanel  # its address holds a sentence on values that are not available
    parameters: dict[str, Any] | None  # the menus of the method's parameters


def open_deep_link(service: AnalysisService, address: Mapping[str, str], tabs: Sequence[str]) -> LinkedPage:
    """Return the page of a deep link; values that are not available are replaced by defaults and named.

    Args:
        service: Source of models and predictions.
        address: The query by key.
        tabs: Names of the tabs.
    """
    photos, first = open_example_photos(), service.catalog.names[0]
    models = [name for name in [address.get("m", "")] if service.catalog.is_linkable(name)]
    link, unknown = parse_address(address, {"m": models, "img": photos, "v": tabs, "w": METHODS, "s": LESSON_STEPS})
    name = link.model or first
    photo = photos[link.example or choose_first_example(service.catalog.get_entry(name))]
    try:
        model = service.catalog.get(name)
    except VizlibError as error:  # a download that failed
        unknown.append(f"{describe_address_value('m', name)} ({error})")
        link, name, model = link._replace(model=None), first, service.catalog.get(first)
    if link.prompts is not None:
        try:
            prompted = str(PromptedName(name, check_page_prompts(link.prompts.split(SEPARATOR))))
            name, model = prompted, service.catalog.get(prompted)
        except VizlibError as error:  # prompts that cannot be used, or a model that reads none
            unknown.append(f"{describe_address_value('q', link.prompts)} ({error})")
            link = link._replace(prompts=None)

    def reject(key: str, value: str) -> None:
        unknown.append(describe_address_value(key, value))

    classes: list[int | None] = []
    for key, text in (("c", link.target), ("vs", link.against)):
        classes.append(None if text is None else find_class(text, model.labels))
        if text is not None and classes[-1] is None:
            reject(key, text)
    if link.method and METHODS[link.method].unsupported_reason(model) is not None:
        reject("w", link.method)
        link = link._replace(method=None)
    layers = {layer.name for layer in model.layers} | {str(i + 1) for i in range(len(model.attention_layers))}
    if link.layer and link.layer not in layers:
        reject("l", link.layer)
        link = link._replace(layer=None)
    panel = build_prediction_panel(service, photo, name, *classes)
    assert panel.selection is not None
    _, unknown_keys = parse_inspector_link(service, photo, panel.selection, link.unit, link.ablated)
    for key in unknown_keys:
        field = ADDRESS_KEYS[key].field
        reject(key, getattr(link, field))
        link = link._replace(**{field: None})
    menus = apply_parameter_settings(model, link.method, link.parameter_texts()) if link.method else None
    if link.parameters and set(get_changed_parameters(menus).items()) != set(link.parameter_texts().items()):
        reject("k", link.parameters)
    sentences = [translate("link.unknown", names=", ".join(unknown))] if unknown else []
    if "img" not in address and any(address.get(key) for key in ADDRESS_KEYS if key not in PHOTO_INDEPENDENT_KEYS):
        sentences.append(translate("link.unsent"))
    panel.copy_link["note"] = " ".join(sentences)
    return LinkedPage(link, photo, panel, menus)
