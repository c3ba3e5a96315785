"""All tabs display the values of the library, for a convolutional network and a transformer."""

from __future__ import annotations

import base64

import numpy as np
import pytest
from bundled_models import load_bundled

import vizlib
from dashboard.sidebar.prediction_panel import build_prediction_panel
from dashboard.tabs import attention, inspect, kernels, receptive_field, why
from vizlib.attribution.methods.registry import METHODS
from vizlib.attribution.request import MANY_PASSES


def floats(packed: dict) -> np.ndarray:
    return np.frombuffer(base64.b64decode(packed["floats"]), "<f4").reshape(packed["shape"])


def test_prediction_panel_starts_with_the_most_probable_class(service, cheetah, name):
    selection, view, bars, classes, prompts, eye, _ = build_prediction_panel(service, cheetah, name)
    best = service.predict(cheetah, name, 1)[0]
    assert selection is not None
    assert (selection.target, bars["target"], classes["value"]) == (best.index,) * 3
    assert sorted(value for _, value in classes["choices"]) == list(range(10))
    assert "these 10" in bars["note"]
    assert prompts == {}
    height, width = service.catalog.get(name).preprocessing.input_size
    assert f"{height} × {width}" in eye["caption"]
    contrasted, same, *_ = build_prediction_panel(service, cheetah, name, 3)
    assert contrasted is not None
    assert contrasted.target == 3
    assert same == view  # the model input does not depend on the class


def test_tabs_are_empty_without_a_photo(service, name):
    assert build_prediction_panel(service, None, name)[0] is None
    assert why.compute_content(service, None, None, "saliency", None)[1]["empty"]
    assert attention.compute_content(service, None, None)[0] == {}
    assert inspect.compute_content(service, None, None, None)[3]["empty"]
    assert kernels.compute_content(service, None, None) == ("", {}, {})
    assert kernels.build_position_similarity(service, None, None) == ({}, "")
    assert receptive_field.compute_content(service, None, None) == ({}, "")
    assert attention.build_attention_flow(service, None, None) == ({}, "")


def test_why_tab_shows_the_library_map_with_caption_and_notes(service, cheetah, selection):
    model = service.catalog.get(selection.model)
    for method in (name for name in vizlib.list_methods(model) if METHODS[name].cost != MANY_PASSES):
        shown_method, heat, caption, menus, strip, *_ = why.compute_content(service, cheetah, selection, method, None)
        model = load_bundled(selection.model)
        expected = vizlib.explain(model, cheetah, method=method, target=selection.target)
        assert shown_method == menus["method"] == strip["chosen"] == method
        # In a transformer some maps are sums that nearly cancel, which amplifies rounding errors.
        near = 1e-2 * expected.heat.abs().max().item()
        assert np.allclose(floats(heat["map"]), expected.heat.numpy(), atol=near)
        assert heat["signed"] == expected.signed
        for sentence in (METHODS[method].shows, *expected.notes):
            assert sentence.replace("'", "&#x27;") in caption
        assert method in heat["alt"]


def test_why_tab_applies_a_parameter_and_falls_back_to_a_fitting_method(service, cheetah, selection):
    model = service.catalog.get(selection.model)
    menus = why.compute_content(service, cheetah, selection, "grad-cam", None)[3]
    menus["parameters"][0]["chosen"] = 1
    heat = why.compute_content(service, cheetah, selection, "grad-cam", menus)[1]
    expected = vizlib.explain(model, cheetah, method="grad-cam", target=selection.target, layer=model.stages[0])
    assert np.allclose(floats(heat["map"]), expected.heat.numpy(), rtol=1e-4, atol=1e-7)
    assert why.compute_content(service, cheetah, selection, "no such method", None)[0] == "grad-cam"


def test_method_strip_has_the_fitting_methods_with_their_maps(service, cheetah, selection):
    strip = why.compute_content(service, cheetah, selection, "saliency", None)[4]
    model = service.catalog.get(selection.model)
    assert [item["key"] for item in strip["items"]] == vizlib.list_methods(model)
    drawn = {item["key"] for item in strip["items"] if item["map"]}
    one_pass = set(vizlib.explain_all(model, cheetah))
    assert drawn >= one_pass
    assert all(service.find_explanation(selection.make_request(cheetah, name)) for name in drawn - one_pass)


def test_patch_grid_has_the_library_attention(service, cheetah):
    name = "vit_tiny-imagenette"
    model = service.catalog.get(name)
    maps = attention.compute_attention_maps(service, cheetah, name)
    assert maps is not None
    assert maps.shape == (12, 3, 197, 14, 14)
    for layer, head, query, token in ((0, 0, (0, 0), 1), (11, 2, (13, 13), 196), (5, 1, "class", 0)):
        expected = vizlib.explain(
            model, cheetah, "raw-attention", layer=model.attention_layers[layer], head=head, query=query
        )
        assert np.allclose(maps[layer, head, token], expected.heat.numpy())


def test_patch_grid_has_position_similarities_and_a_stable_key(service, cheetah):
    selection = build_prediction_panel(service, cheetah, "vit_tiny-imagenette")[0]
    grid, _ = attention.compute_content(service, cheetah, selection)
    assert grid["maps"]["shape"] == [12, 3, 197, 14, 14]
    assert "heads" not in grid
    places = np.frombuffer(base64.b64decode(grid["positionSimilarity"]["bytes"]), np.uint8).reshape(196, 14, 14)
    ends = np.frombuffer(base64.b64decode(grid["positionSimilarity"]["ends"]), "<f4").reshape(196, 2)
    drawn = ends[:, :1, None] + places / 255 * (ends[:, 1:, None] - ends[:, :1, None])
    similar = vizlib.kernels(load_bundled("vit_tiny-imagenette")).position_similarity
    assert similar is not None
    assert np.allclose(drawn[3 * 14 + 5], similar[3, 5].numpy(), atol=0.01)
    other = build_prediction_panel(service, cheetah, "vit_tiny-imagenette", 3)[0]
    assert (
        attention.compute_content(service, cheetah, other)[0]["key"] == grid["key"]
    )  # another class does not change the pinned patches


def test_heads_of_another_layer_are_sent_on_request(service, cheetah, monkeypatch):
    monkeypatch.setattr("dashboard.components.patches.MAX_MAP_BYTES", 10**6)
    selection = build_prediction_panel(service, cheetah, "vit_tiny-imagenette")[0]
    grid = attention.compute_content(service, cheetah, selection, 4)[0]
    assert grid["maps"]["shape"] == [12, 1, 197, 14, 14]
    assert (grid["of"], grid["heads"]["shape"]) == (4, [3, 197, 14, 14])


@pytest.mark.slow
def test_attention_flow_shows_the_three_library_methods(service, cheetah):
    name = "vit_tiny-imagenette"
    selection = build_prediction_panel(service, cheetah, name, 3)[0]
    value, caption = attention.build_attention_flow(service, cheetah, selection)
    model = load_bundled(name)
    raw, rolled, relevant = value["rows"][0]["items"]
    for layer, heat in enumerate(floats(raw["maps"])):
        expected = vizlib.explain(model, cheetah, "raw-attention", layer=model.attention_layers[layer])
        assert np.allclose(heat, expected.heat.numpy(), atol=1e-6)
        assert value["scales"][0]["limits"][layer] == pytest.approx([heat.min(), np.percentile(heat, 99.5)], rel=1e-4)
    for shown_method, method in ((rolled, "attention-rollout"), (relevant, "attention-relevance")):
        expected = vizlib.explain(model, cheetah, method, target=3)
        assert np.allclose(floats(shown_method["maps"])[0], expected.heat.numpy(), atol=1e-6)
        assert shown_method["text"] == METHODS[method].shows
    assert value["follows"] == "layer"
    assert "only relevance depends on the class" in caption


def test_attention_tab_explains_a_convolutional_network(service, cheetah):
    selection = build_prediction_panel(service, cheetah, "resnet18-imagenette")[0]
    grid, caption = attention.compute_content(service, cheetah, selection)
    assert grid == {}
    assert attention.build_attention_flow(service, cheetah, selection) == ({}, "")
    assert "is a convolutional network" in caption


@pytest.mark.parametrize("invalid", [99, -1, "nonsense"])
def test_an_invalid_class_raises_one_sentence(service, cheetah, name, invalid):
    with pytest.raises(vizlib.TargetError):
        build_prediction_panel(service, cheetah, name, invalid)
