"""The Inside tab and the receptive fields: library values, for a convolutional network and a transformer."""

from __future__ import annotations

import base64
import math

import numpy as np
import pytest
from bundled_models import load_bundled

import vizlib
from dashboard.api.endpoints import handle_gradient_endpoint
from dashboard.components.ablation_list import describe_effect
from dashboard.components.tree import build_tree, format_count, list_selectable_layers
from dashboard.services.analysis_service import Unit
from dashboard.services.photo_key import compute_photo_key
from dashboard.state.page_address import parse_address
from dashboard.state.selection import Selection
from dashboard.tabs import inspect, inspector_state, kernels, receptive_field
from vizlib.analysis.effective_receptive_field import effective_receptive_field
from vizlib.analysis.units import ablate
from vizlib.core.errors import VizlibError

RESNET, VIT = "resnet18-imagenette", "vit_tiny-imagenette"


def floats(packed: dict) -> np.ndarray:
    return np.frombuffer(base64.b64decode(packed["floats"]), "<f4").reshape(packed["shape"])


def at(service, selection, layer, number=None, off=()) -> inspector_state.InspectorState:
    return inspector_state.normalise_inspector_state(service, selection, None)._replace(
        layer=layer, unit_number=number, ablated=off
    )


# The tree


def test_tree_contains_every_layer_with_the_library_numbers(service, name):
    model = service.catalog.get(name)
    rows = {row["name"]: row for row in build_tree(model, model.stages[0])["rows"]}
    for layer in model.layers:
        if layer.class_name.startswith(("Identity", "Drop")):
            assert layer.name not in rows
            continue
        row = rows[layer.name]
        assert row["shape"] == " × ".join(map(str, layer.shape))
        assert f"{layer.num_parameters:,} parameters" in row["tooltip"]
        assert f"{layer.flops / 1e6:,.1f} MFLOPs" in row["tooltip"]


def test_tree_names_the_kind_of_each_layer(service):
    rows = {row["name"]: row["role"] for row in build_tree(service.catalog.get(RESNET), "layer1")["rows"]}
    roles = [rows[part] for part in ("conv1", "layer2", "layer2.0", "layer2.0.conv1", "layer2.0.downsample")]
    assert roles == ["convolution", "stage", "residual block", "convolution", "shortcut"]
    rows = {row["name"]: row["role"] for row in build_tree(service.catalog.get(VIT), "blocks.0")["rows"]}
    roles = [rows[part] for part in ("patch_embed", "blocks", "blocks.3", "blocks.3.attn", "blocks.3.mlp")]
    assert roles == ["patch embedding", "12 blocks", "block", "attention", "MLP"]


@pytest.mark.parametrize(("count", "text"), [(0, "–"), (999, "999"), (999_600, "1 M"), (87_902_976, "87.9 M")])
def test_large_numbers_are_abbreviated(count, text):
    assert format_count(count) == text


# A layer's units


def test_channels_are_sorted_by_contribution(service, cheetah, selection):
    model = load_bundled(selection.model)
    for layer in (model.stages[1], model.stages[-1]):
        where, parts, _, heat, caption, _, grid, *_ = inspect.compute_content(
            service, cheetah, selection, at(service, selection, layer, 7)
        )
        added = vizlib.contributions(model, cheetah, selection.target, layers=[layer]).channels[layer]
        assert (where.layer, parts["chosen"], grid["chosen"]) == (layer, layer, "7")
        keys = [int(item["key"]) for item in grid["items"]]
        assert len(keys) == min(len(added), inspect.MAX_UNITS_FOR + inspect.MAX_UNITS_AGAINST)
        values = added[keys].tolist()
        assert values == pytest.approx(sorted(values, reverse=True), abs=1e-4)
        assert added.max().item() == pytest.approx(values[0], abs=1e-4)
        assert added.min().item() == pytest.approx(values[-1], abs=1e-4)
        roles = [float(item["note"].replace("\u2212", "-")) for item in grid["items"]]
        assert roles == pytest.approx(values, abs=0.006 * max(map(abs, values)) + 0.05)
        assert np.array_equal(
            floats(heat["map"]), service.get_activations(cheetah, selection.model, layer)[0][7].numpy()
        )
        assert f"Channel 7 of {layer}" in caption
        label = model.labels[selection.target]
        assert f"to the score of {label}, which is " in caption


def test_another_target_changes_the_channel_order(service, cheetah, selection):
    layer = service.catalog.get(selection.model).stages[-1]
    first, second = (
        [
            item["key"]
            for item in inspect.compute_content(
                service, cheetah, selection._replace(target=target), at(service, selection, layer)
            )[6]["items"]
        ]
        for target in (0, 1)
    )
    assert first != second


def test_with_a_contrast_class_channels_are_sorted_by_the_logit_difference(service, cheetah, selection):
    model, layer = service.catalog.get(selection.model), service.catalog.get(selection.model).stages[-2]
    contrast = (selection.target + 1) % 10
    *_, caption, _, grid, _, _, _ = inspect.compute_content(
        service, cheetah, selection._replace(against=contrast), at(service, selection, layer)
    )
    added = vizlib.contributions(model, cheetah, selection.target, contrast, layers=[layer]).channels[layer]
    assert grid["items"][0]["key"] == str(added.argmax().item())
    assert f"to the score of {model.labels[selection.target]} against {model.labels[contrast]}, which is" in caption


def test_heads_of_an_attention_layer_are_sorted_by_contribution(service, cheetah):
    model = load_bundled(VIT)
    layer = "blocks.9.attn"
    selection = inspect.Selection("cheetah", VIT, service.predict(cheetah, VIT)[1].index)
    *_, heat, caption, switch, grid, _, _, _ = inspect.compute_content(
        service, cheetah, selection, at(service, selection, layer)
    )
    added = vizlib.contributions(model, cheetah, selection.target).heads[layer]
    order = added.argsort(descending=True).tolist()
    assert [int(item["key"]) for item in grid["items"]] == order
    assert [item["name"] for item in grid["items"]] == [f"head {i + 1}" for i in order]
    expected = vizlib.explain(model, cheetah, "raw-attention", layer=layer, head=order[0], query="class").heat
    assert np.allclose(floats(heat["map"]), expected.numpy(), atol=1e-6)
    assert f"Head {order[0] + 1} of {layer}" in caption
    assert "the class token attends to" in caption
    assert switch["label"] == f"Switch head {order[0] + 1} off"


@pytest.mark.slow
def test_every_layer_of_the_tree_can_be_selected(service, cheetah, selection):
    names = list_selectable_layers(service.catalog.get(selection.model))
    for layer in names[:: max(1, len(names) // 12)] + names[-1:]:
        where, *_, grid, _, _, _ = inspect.compute_content(service, cheetah, selection, at(service, selection, layer))
        assert where.layer == layer
        assert grid["items"]


def test_an_invalid_layer_or_unit_gives_the_default_view(service, cheetah, selection):
    first = inspect.compute_content(service, cheetah, selection, None)
    assert first[0].layer == service.catalog.get(selection.model).cam_layer
    assert inspect.compute_content(service, cheetah, selection, at(service, selection, "no.such.layer"))[0] == first[0]
    invalid = inspect.compute_content(service, cheetah, selection, first[0]._replace(unit_number=10**9))
    assert invalid[6]["chosen"] == first[6]["items"][0]["key"]
    other_model = first[0]._replace(model="another", ablated=(Unit("x", 1, False),))
    assert inspect.compute_content(service, cheetah, selection, other_model)[0] == first[0]


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ([0.394, -0.01, 0.0], ["+0.39", "\u22120.01", "0"]),
        ([12.34, -3.0], ["+12", "\u22123"]),
        ([4e-4], ["+0.00040"]),
        ([], []),
    ],
)
def test_contributions_are_signed_with_decimals_for_the_largest(values, texts):
    assert inspect.format_contributions(values) == texts


# Ablation


def test_ablating_a_unit_shows_predictions_before_and_after(service, cheetah, selection):
    model = load_bundled(selection.model)
    layer = model.stages[-2]
    number = int(vizlib.contributions(model, cheetah, selection.target).channels[layer].argmax())
    here = at(service, selection, layer, number)
    unit = Unit(layer, number, head=False)
    here = inspector_state.toggle_ablation(here, unit, "toggle")
    assert here.ablated == (unit,)
    *_, switch, grid, _, _, _ = inspect.compute_content(service, cheetah, selection, here)
    expected = ablate(model, cheetah, channels={layer: [number]})
    before, after = switch["comparison"]
    assert [row["name"] for row in after["rows"][:5]] == [one.label for one in expected[:5]]
    assert [row["probability"] for row in after["rows"][:5]] == pytest.approx(
        [one.probability for one in expected[:5]], abs=1e-5
    )
    old = model.predict(cheetah)
    assert [row["probability"] for row in before["rows"][:5]] == pytest.approx([p.probability for p in old], abs=1e-5)
    assert switch["label"] == f"Switch channel {number} on again"
    assert switch["off"] == [f"{layer} · channel {number}"]
    assert [item["key"] for item in grid["items"] if item["note"] == "off"] == [str(number)]


def test_ablated_units_are_restored_one_by_one_or_all():
    a, b, c = Unit("x", 1, False), Unit("y", 2, True), Unit("x", 4, False)
    here = inspector_state.InspectorState("m", "x", None, ())
    for unit in (a, b, c):
        here = inspector_state.toggle_ablation(here, unit, "toggle")
    assert here.ablated == (a, b, c)
    assert inspector_state.toggle_ablation(here, b, "toggle").ablated == (a, c)
    assert inspector_state.toggle_ablation(here, a, "1").ablated == (a, c)
    assert inspector_state.toggle_ablation(here, a, "all").ablated == ()
    for invalid in ("9", "-1", None, 3, "<b>"):
        assert inspector_state.toggle_ablation(here, a, invalid) == here


def test_a_changed_top_class_is_stated():
    old = [vizlib.Prediction(0, "tench", 0.6, 2.0), vizlib.Prediction(1, "church", 0.4, 1.5)]
    new = [vizlib.Prediction(1, "church", 0.7, 1.5), vizlib.Prediction(0, "tench", 0.3, 0.7)]
    assert describe_effect(old, new, 0) == (
        "The probability of tench goes from 60 % to 30 %, its score changes by \u22121.30; the top class is now church."
    )
    assert (
        describe_effect(old, old, 1) == "The probability of church goes from 40 % to 40 %, its score changes by +0.00."
    )


# Kernels


def test_kernel_response_is_its_channel_of_the_first_layer(service, cheetah, selection):
    caption, grid, heat = kernels.compute_content(service, cheetah, selection, 5)
    found = vizlib.kernels(load_bundled(selection.model))
    assert found.layer in caption
    assert (grid["count"], grid["chosen"]) == (len(found.weights), 5)
    run = load_bundled(selection.model).run(cheetah, layers=[found.layer])
    expected = run.activations[found.layer][0, 5].detach().numpy()
    assert np.allclose(floats(heat["map"]), expected, atol=1e-4)
    assert (
        kernels.compute_content(service, cheetah, selection, 10**6)[1]["chosen"]
        == kernels.compute_content(service, cheetah, selection)[1]["chosen"]
    )


def test_only_a_transformer_has_position_similarities(service, cheetah, selection):
    similar, caption = kernels.build_position_similarity(service, cheetah, selection)
    has = vizlib.kernels(load_bundled(selection.model)).position_similarity is not None
    assert bool(similar) == bool(caption) == has
    if has:
        assert similar["maps"]["shape"] == [1, 1, 196, 14, 14]


# Receptive fields


def test_cells_have_the_library_receptive_fields_and_strongest_channels(service, cheetah):
    selection = inspect.Selection("cheetah", RESNET, 0)
    model = load_bundled(RESNET)
    value, caption = receptive_field.compute_content(service, cheetah, selection, ["layer2", 3, 4])
    assert "How large is the receptive field?" in caption
    assert [one["name"] for one in value["layers"]] == list(model.stages)
    for one in value["layers"]:
        theory = vizlib.receptive_field(model, one["name"])
        assert (one["size"], one["jump"], one["centre"]) == (list(theory.size), list(theory.jump), list(theory.centre))
        maps = model.run(cheetah, layers=[one["name"]]).activations[one["name"]][0].detach()
        best = maps.topk(5, dim=0)
        assert np.allclose(floats(one["values"]), best.values.numpy(), atol=1e-4)
        chosen = floats(one["channels"]).astype(int)
        assert np.allclose(np.take_along_axis(maps.numpy(), chosen, 0), best.values.numpy(), atol=1e-4)
    used = effective_receptive_field(model, cheetah, "layer2", (3, 4))
    assert value["cell"] == ["layer2", 3, 4]
    assert value["effective"]["size"] == pytest.approx(used.size, rel=0.05)
    assert not any(math.isinf(side) for one in value["layers"] for side in one["size"])


@pytest.mark.parametrize("invalid", [None, "x", ["layer2", 99, 0], ["layer9", 0, 0], ["layer2", "0", 0], ["layer2"]])
def test_an_invalid_cell_gives_the_default_cell(service, cheetah, invalid):
    value, _ = receptive_field.compute_content(service, cheetah, inspect.Selection("cheetah", RESNET, 0), invalid)
    assert value["cell"] == ["layer2", 12, 12]


def test_a_transformer_has_no_receptive_fields(service, cheetah):
    assert receptive_field.compute_content(service, cheetah, inspect.Selection("cheetah", VIT, 0)) == ({}, "")


# The address


@pytest.mark.parametrize(("name", "layer", "heads"), [(RESNET, "layer3", False), (VIT, "blocks.7.attn", True)])
def test_an_address_restores_the_unit_and_the_ablated_units(service, cheetah, name, layer, heads):
    selection = Selection(compute_photo_key(cheetah), name, 0)
    off = (Unit(layer, 1, heads), Unit(layer, 0, heads))
    state = inspector_state.normalise_inspector_state(service, selection, None)._replace(
        layer=layer, unit_number=2, ablated=off
    )
    keys = inspector_state.format_inspector_link(service, selection, state)
    assert keys == {"u": f"{layer}:2", "o": f"{layer}:1;{layer}:0"}
    assert inspector_state.parse_inspector_link(service, cheetah, selection, keys["u"], keys["o"]) == (state, [])
    assert inspector_state.apply_inspector_choices(service, cheetah, selection, None, [keys]) == state
    assert (
        inspector_state.apply_inspector_choices(
            service, cheetah, selection, None, [keys, {"unit": "0", "of": layer}]
        ).unit_number
        == 0
    )
    assert inspector_state.format_inspector_link(service, selection, state._replace(unit_number=None, ablated=())) == {
        "u": layer,
        "o": None,
    }


@pytest.mark.parametrize(("place", "text"), [("all", "@all"), ((3, 11), "@3,11")])
def test_an_address_restores_the_place_whose_gradient_is_shown(service, cheetah, place, text):
    selection = Selection(compute_photo_key(cheetah), RESNET, 0)
    default = inspector_state.normalise_inspector_state(service, selection, None)
    for state, unit in ((default, "layer4"), (default._replace(layer="layer3", unit_number=7), "layer3:7")):
        shown = state._replace(place=place)
        keys = inspector_state.format_inspector_link(service, selection, shown)
        assert keys["u"] == unit + text
        assert parse_address({"u": unit + text}, {}).unknown == []
        assert inspector_state.parse_inspector_link(service, cheetah, selection, keys["u"], None) == (shown, [])
    for wrong in ("layer3@", "layer3@3", "layer3@1,2,3", "layer3@none", "layer3@1,2@all"):
        assert len(parse_address({"u": wrong}, {}).unknown) == 1


def test_the_default_unit_is_not_in_the_address(service, cheetah, name):
    selection = Selection(compute_photo_key(cheetah), name, 0)
    nothing = {"u": None, "o": None}
    assert (
        inspector_state.format_inspector_link(
            service, selection, inspector_state.normalise_inspector_state(service, selection, None)
        )
        == nothing
    )
    assert inspector_state.format_inspector_link(service, None, None) == nothing
    many = tuple(Unit(service.catalog.get(name).cam_layer, number, False) for number in range(60))
    assert (
        inspector_state.format_inspector_link(service, selection, at(service, selection, many[0].layer, off=many))["o"]
        is None
    )  # longer than an address may be


@pytest.mark.parametrize(
    "wrong", [7, ["layer4:1"], {"a": 1}, "layer4:99999", "layer4:1:2", "\0", "nowhere:1", "x" * 999]
)
def test_an_invalid_unit_in_the_address_gives_the_default_unit(service, cheetah, wrong):
    selection = Selection(compute_photo_key(cheetah), RESNET, 0)
    start = inspector_state.normalise_inspector_state(service, selection, None)
    assert (
        inspector_state.apply_inspector_choices(service, cheetah, selection, None, [{"u": wrong, "o": wrong}]) == start
    )


def test_gradient_of_a_channel_and_of_one_position_is_that_of_the_library(service, cheetah, selection, name):
    model = load_bundled(name)
    layer = model.stages[-1]
    hidden = inspect.compute_content(service, cheetah, selection, at(service, selection, layer, 5))[-3:]
    assert hidden[0]["choice"] == {"raise": "all"}
    assert hidden[1:] == ({}, "")
    for choice, place in (("all", None), ("2,3", (2, 3))):
        state = inspector_state.apply_inspector_choices(
            service, cheetah, selection, at(service, selection, layer, 5), [{"raise": choice}]
        )
        button, heat, caption = inspect.compute_content(service, cheetah, selection, state)[-3:]
        assert button["pressed"]
        expected = vizlib.gradient(model, cheetah, layer, unit=5, at=place)
        near = 1e-3 * expected.heat(reduction="sum").abs().max().item()
        assert np.allclose(floats(heat["map"]), expected.heat(reduction="sum"), atol=near)
        assert ("row 2, column 3" in caption) == (place is not None)
        assert "dual identity" in caption
    beyond = inspect.compute_content(service, cheetah, selection, state._replace(place=(99, 99)))
    assert beyond[-1] == inspect.compute_content(service, cheetah, selection, state._replace(place="all"))[-1]


@pytest.mark.parametrize("text", ["", "1", "1,", "-1,2", "1,2,3", "a,b", "9" * 40 + ",1", None, 3, ["1,2"]])
def test_a_place_that_is_none_shows_no_gradient(text):
    assert inspector_state.parse_place(text) is None


def test_gradient_endpoint_equals_the_library(service, cheetah, selection, name):
    model = load_bundled(name)
    layer, early = model.stages[-1], model.stages[0]
    parameters = {"unit": 5, "at": [2, 3], "of": early}
    facts, picture = handle_gradient_endpoint(service, cheetah, name, layer, "", parameters)
    expected = vizlib.gradient(model, cheetah, layer, unit=5, at=(2, 3), of=early)
    assert facts["label"] == expected.label
    assert np.allclose(facts["values"], expected.heat(early), atol=1e-3 * float(expected.heat(early).max()))
    assert picture.size == cheetah.size
    difference, _ = handle_gradient_endpoint(service, cheetah, name, "", '{"church": 1, "parachute": -1}', None)
    assert difference["label"] == "church − parachute"
    for wrong, message in (
        ({"at": [1]}, r"at is a position such as \[3, 4\]"),
        ({"unit": "5"}, "unit takes whole numbers from 0, not '5'"),
        ({"of": 3}, "of is the name of one layer"),
        ({"place": 3}, "there is no parameter 'place' of a gradient; expected unit, at and of"),
        ({"unit": 10**9}, f"{layer} has the channels 0 to"),
    ):
        with pytest.raises(VizlibError, match=message):
            handle_gradient_endpoint(service, cheetah, name, layer, "", wrong)
