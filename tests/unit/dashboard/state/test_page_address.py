"""The page's address restores the selection, and an invalid one gives a sentence instead of an error."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from bundled_models import resnet_by_default

import vizlib
from dashboard.components.copy_link import build_copy_link
from dashboard.components.parameters import apply_parameter_settings, get_changed_parameters, parse_parameter_menus
from dashboard.i18n.translate import get_page_texts
from dashboard.services.analysis_service import AnalysisService
from dashboard.services.example_photos import open_example_photos
from dashboard.services.explanation_request import ExplanationRequest
from dashboard.services.model_catalog import ModelCatalog
from dashboard.services.photo_key import compute_photo_key
from dashboard.sidebar.deep_links import open_deep_link
from dashboard.sidebar.prediction_panel import build_prediction_panel
from dashboard.state.page_address import (
    ADDRESS_KEYS,
    MAX_VALUE_LENGTH,
    Link,
    build_selection_address,
    name_class_in_address,
    parse_address,
)
from dashboard.state.selection import Selection
from vizlib.attribution.methods.registry import METHODS
from vizlib.core.class_labels import find_class
from vizlib.core.errors import ModelError

RESNET, VIT = "resnet18-imagenette", "vit_tiny-imagenette"
TABS = ("why", "attention", "inside", "model")
AVAILABLE = {"m": (RESNET, VIT), "img": ("ex:tower", "ex:cheetah"), "v": TABS, "w": METHODS, "s": ("1", "8")}
FULL = Link(
    *(VIT, "ex:cheetah", "golf ball", "church", "attention", "9", "mean", "6,8;0,13", "grad-cam++", "layer:b.4"),
    unit="blocks.9.attn:2",
    ablated="blocks.4.mlp.fc1:17;blocks.9.attn:0",
    step="8",
    prompts="a dog\na cat, asleep",
)


def query(link: Link) -> dict[str, str]:
    """Return the keys of an address with the values of a link."""
    values = {key: getattr(link, field) for key, (field, _) in ADDRESS_KEYS.items()}
    return {key: value for key, value in values.items() if value is not None}


@pytest.mark.parametrize("left_out", [None, *Link._fields])
def test_every_key_of_the_address_is_read_into_its_field(left_out):
    link = FULL if left_out is None else FULL._replace(**{left_out: None})
    assert len(query(link)) == len(Link._fields) - (left_out is not None)
    assert parse_address(query(link), AVAILABLE) == (link, [])


@pytest.mark.parametrize("key", ADDRESS_KEYS)
@pytest.mark.parametrize(
    "value",
    [
        "",
        "x" * (25 * MAX_VALUE_LENGTH + 1),
        "<script>alert(1)</script>",
        "\0\x1b[31m",
        "../../etc/passwd",
        "９",
        "٣",
        "%00",
    ],
)
def test_invalid_value_is_left_out_and_described(key, value):
    link, unknown = parse_address({key: value, "m": RESNET} if key != "m" else {key: value}, AVAILABLE)
    parsed = getattr(link, ADDRESS_KEYS[key].field)
    if key in ("c", "vs", "q") and 0 < len(value) <= MAX_VALUE_LENGTH:  # classes and prompts are resolved later
        assert (parsed, unknown) == (value, [])
        return
    assert parsed is None
    assert len(unknown) == bool(value)
    assert all(len(text) < 60 and text.isprintable() for text in unknown)


def test_foreign_keys_of_the_query_are_ignored():
    assert parse_address({"__theme": "dark", "utm": "x", "M": RESNET}, AVAILABLE) == (Link(), [])


def test_name_of_a_class_in_the_address_is_the_first_name_or_the_index():
    labels = ["tench, Tinca tinca", "crane, a bird", "golf ball", "crane, a machine", "7"]
    assert [name_class_in_address(i, labels) for i in range(5)] == ["tench", "1", "golf ball", "3", "7"]
    assert [find_class(name_class_in_address(i, labels), labels) for i in range(5)] == [0, 1, 2, 3, 4]
    assert [find_class(name, labels) for name in ("Tench", "2", "tinca tinca", "crane, a machine")] == [0, 2, 0, 3]
    assert [find_class(name, labels) for name in ("5", "-1", "²", "٣", "9" * 99, "", "crane")] == [None] * 7


@pytest.mark.slow
def test_every_imagenet_class_has_its_own_address(real_network):
    labels = real_network("resnet18").labels
    assert len(labels) == 1000
    assert [find_class(name_class_in_address(i, labels), labels) for i in range(1000)] == list(range(1000))


def test_only_example_photos_have_an_address(service, name, tower):
    assert list(open_example_photos()) == ["ex:lion", "ex:cheetah", "ex:grace_hopper", "ex:tower", "ex:digits"]
    target = service.resolve_target(tower, name, "church")
    assert build_selection_address(service, Selection(compute_photo_key(tower), name, target, 0)) == {
        "m": name,
        "q": None,
        "img": "ex:tower",
        "c": "church",
        "vs": service.catalog.get(name).labels[0],
    }
    own = vizlib.open_image(np.asarray(tower)[:300, :300])
    assert build_prediction_panel(service, own, name).copy_link["keys"]["img"] is None
    assert build_prediction_panel(service, own, name).copy_link["hint"] == get_page_texts("en")["address.own"]
    assert build_prediction_panel(service, tower, name).copy_link["hint"] == get_page_texts("en")["address.hint"]


def test_link_restores_photo_model_classes_method_and_parameters(service, name):
    model = service.catalog.get(name)
    expected = Link(
        name, "ex:cheetah", "church", "golf ball", "inside", method="grad-cam", parameters=f"layer:{model.stages[1]}"
    )
    link, photo, panel, menus = open_deep_link(service, query(expected), TABS)
    assert link == expected
    assert panel.selection == (
        compute_photo_key(open_example_photos()["ex:cheetah"]),
        name,
        model.labels.index("church"),
        model.labels.index("golf ball"),
    )
    assert photo is open_example_photos()["ex:cheetah"]
    assert parse_parameter_menus(menus, model, "grad-cam") == {"layer": model.stages[1]}
    assert get_changed_parameters(menus) == expected.parameter_texts()
    assert panel.copy_link["note"] == ""
    assert panel.copy_link["keys"] == {**{"m": name, "q": None, "img": "ex:cheetah", "c": "church", "vs": "golf ball"}}


def test_empty_address_gives_the_default_page_without_a_message(service):
    link, photo, panel, menus = open_deep_link(service, {"__theme": "dark"}, TABS)
    assert (link, photo, menus) == (Link(), open_example_photos()["ex:tower"], None)
    assert panel.selection == build_prediction_panel(service, photo, service.catalog.names[0]).selection
    assert panel.copy_link["note"] == ""


@pytest.mark.parametrize(("model", "photo"), [("resnet18-imagenette", "ex:tower"), ("vit_tiny-imagenet", "ex:lion")])
def test_address_of_a_model_alone_opens_a_photo_that_it_knows(model, photo):
    service = AnalysisService(ModelCatalog(only=["vit_tiny-imagenet", "resnet18-imagenette"]))
    assert open_deep_link(service, {"m": model}, TABS).photo is open_example_photos()[photo]


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"m": "resnet1001"}, "model “resnet1001”"),
        ({"c": "unicorn"}, "class “unicorn”"),
        ({"c": "<img src=x onerror=alert(1)>"}, "class “<img src=x onerror=alert(1)>”"),
        ({"vs": "10"}, "class “10”"),
        ({"v": "settings"}, "tab “settings”"),
        ({"l": "layer9"}, "layer “layer9”"),
        ({"l": "0"}, "layer “0”"),
        ({"p": "a,b"}, "patch “a,b”"),
        ({"w": "attention-rollout"}, "method “attention-rollout”"),
        ({"w": "grad-cam", "k": "layer:nowhere"}, "setting “layer:nowhere”"),
        ({"k": "layer:layer2"}, "setting “layer:layer2”"),
        ({"u": "layer9"}, "channel or head “layer9”"),
        ({"u": "layer4:512"}, "channel or head “layer4:512”"),
        ({"u": "layer4:-1"}, "channel or head “layer4:-1”"),
        ({"o": "layer4"}, "channel or head “layer4”"),
        ({"o": "layer4:1;layer4:512"}, "channel or head “layer4:1;layer4:512”"),
        ({"s": "12"}, "step “12”"),
        ({"img": "/etc/passwd"}, "photo “/etc/passwd”"),
        ({"m": "x" * 999, "v": "y"}, "model “" + "x" * 40 + "…”, tab “y”"),
    ],
)
def test_invalid_address_gives_the_default_page_and_one_sentence(service, wrong, sentence):
    page = open_deep_link(service, {"img": "ex:tower", **wrong}, TABS)
    first = open_deep_link(service, {}, TABS)
    assert page.panel.copy_link["note"] == f"This link contains values that are not available here: {sentence}."
    assert page.panel.selection == first.panel.selection
    assert page.link._replace(example=None, target=None, against=None, method=None, parameters=None) == Link()
    assert get_changed_parameters(page.parameters) == {}


def test_link_to_an_own_photo_gets_a_message(service):
    note = open_deep_link(service, {"m": VIT, "c": "church"}, TABS).panel.copy_link["note"]
    assert note == "This link does not contain its photo, so an example is shown."
    photo_independent = open_deep_link(service, {"m": VIT, "v": "model", "s": "2"}, TABS)
    assert photo_independent.panel.copy_link["note"] == ""


def test_link_to_a_model_whose_download_fails_gives_the_default_model():
    def refuse() -> vizlib.Model:
        raise ModelError("the hub cannot be reached")

    service = AnalysisService(ModelCatalog([], extra={"first": lambda: vizlib.load(RESNET), "far": refuse}))
    page = open_deep_link(service, {"img": "ex:tower", "m": "far"}, TABS)
    assert page.panel.selection is not None
    assert page.panel.selection.model == "first"
    assert "model “far” (the hub cannot be reached)" in page.panel.copy_link["note"]


def test_target_equal_to_the_contrast_class_removes_the_contrast(service, cheetah, name):
    panel = build_prediction_panel(service, cheetah, name, 4, 2)
    assert panel.selection is not None
    assert (panel.selection.target, panel.selection.against, panel.bars["against"]) == (4, 2, 2)
    assert {4, 2} <= {row["index"] for row in panel.bars["rows"]}
    selection = build_prediction_panel(service, cheetah, name, 2, 2).selection
    assert selection is not None
    assert selection.against is None


@resnet_by_default
def test_contrast_equals_the_librarys_however_it_is_given(service, cheetah, name):
    theirs = vizlib.explain(vizlib.load(name), cheetah, method="saliency", target=4, against=2)
    contrast = ExplanationRequest(cheetah, name, 4, 2, "saliency")
    ours = service.explain(contrast)
    assert ours is service.explain(replace(contrast, against=None, parameters={"against": 2}))
    assert torch.allclose(ours.heat, theirs.heat, rtol=1e-3, atol=1e-5 * theirs.heat.max().item())
    assert not np.allclose(ours.heat, service.explain(replace(contrast, against=None)).heat)
    runner_up = next(row.index for row in service.predict(cheetah, name, 2) if row.index != 4)
    assert service.explain(replace(contrast, against="runner-up")) is service.explain(
        replace(contrast, against=runner_up)
    )


def test_address_of_a_space_is_its_public_url(monkeypatch):
    assert build_copy_link({"img": "ex:tower"})["base"] == ""
    monkeypatch.setenv("SPACE_ID", "someone/vizlib")
    assert build_copy_link({"img": "ex:tower"})["base"] == "https://huggingface.co/spaces/someone/vizlib"


def test_address_sets_only_existing_parameters(service, name):
    model = service.catalog.get(name)
    assert get_changed_parameters(apply_parameter_settings(model, "grad-cam", {"layer": "nowhere", "steps": "3"})) == {}
    assert get_changed_parameters(apply_parameter_settings(model, "grad-cam", {"score": "probability"})) == {
        "score": "probability"
    }
