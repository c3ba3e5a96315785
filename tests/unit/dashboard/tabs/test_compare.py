"""The Compare tab: default options, common colour scale, differences and agreement of two models and two classes."""

from __future__ import annotations

import base64
from dataclasses import replace

import numpy as np
import pytest
from bundled_models import load_bundled

import vizlib
from dashboard.components.training_comparison import build_training_comparison
from dashboard.sidebar.prediction_panel import build_prediction_panel
from dashboard.tabs import compare, compare_options
from vizlib.attribution.methods.registry import METHODS
from vizlib.attribution.request import MANY_PASSES

RESNET, VIT = "resnet18-imagenette", "vit_tiny-imagenette"


def floats(packed: dict) -> np.ndarray:
    return np.frombuffer(base64.b64decode(packed["floats"]), "<f4").reshape(packed["shape"])


@pytest.fixture
def tower_selection(service, tower):
    """The tower photo, for which the two models predict different classes."""
    return build_prediction_panel(service, tower, RESNET)[0]


def explain_both(photo, method: str, selection, second: int) -> list[list[vizlib.Attribution]]:
    return [
        [vizlib.explain(load_bundled(name), photo, method, target=target) for target in (selection.target, second)]
        for name in (RESNET, VIT)
    ]


def choose_comparison(*args, **options) -> compare_options.Comparison:
    comparison = compare_options.choose_comparison(*args, **options)
    assert comparison is not None
    return comparison


def test_compare_defaults_to_the_other_bundled_model_and_its_prediction(service, tower, tower_selection):
    theirs = service.predict(tower, VIT, 1)[0].index
    assert theirs != tower_selection.target
    chosen = choose_comparison(service, tower, tower_selection)
    assert chosen.models == (RESNET, VIT)
    assert chosen.classes == ((tower_selection.target, theirs),) * 2
    agreed = tower_selection._replace(target=theirs)  # with equal predictions the runner-up is the second class
    runner_up = next(one.index for one in service.predict(tower, RESNET, 2) if one.index != theirs)
    assert choose_comparison(service, tower, agreed).classes[0] == (theirs, runner_up)


def test_compare_offers_and_accepts_only_what_fits_both_models(service, tower, tower_selection):
    offered = compare.list_common_methods(service, (RESNET, VIT))
    slow = [name for name in METHODS if METHODS[name].cost == MANY_PASSES]
    for name in METHODS:
        fits = all(name in vizlib.list_methods(service.catalog.get(model)) for model in (RESNET, VIT))
        assert (name in offered) == (fits and name not in slow), name
    for invalid in ("raw-attention", "rise", "nonsense", None):
        assert choose_comparison(service, tower, tower_selection, method=invalid).method == "grad-cam"
    assert choose_comparison(service, tower, tower_selection, RESNET, "saliency", 99).models == (RESNET, VIT)
    assert choose_comparison(service, tower, tower_selection, "nonsense", "saliency", 5).classes[0][1] == 5
    assert choose_comparison(service, tower, tower_selection, second=tower_selection.target).classes[0][1] != (
        tower_selection.target
    )


def test_classes_are_matched_by_name_between_models(service):
    one = service.catalog.get(RESNET)
    imagenet = ("goldfish", "chain saw, chainsaw", "tench, Tinca tinca", "church")
    other = replace(one, labels=imagenet)
    common = compare.match_classes(one, other)
    assert {one.labels[i]: imagenet[j] for i, j in common.items()} == {
        "tench": "tench, Tinca tinca",
        "chain saw": "chain saw, chainsaw",
        "church": "church",
    }
    assert {j: i for i, j in common.items()} == compare.match_classes(other, one)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["grad-cam", "input-x-gradient"])
def test_compare_draws_the_four_library_maps_on_one_scale(service, tower, tower_selection, method):
    value = compare.compute_content(service, tower, tower_selection, VIT, method, 5)[3]
    attributions = explain_both(tower, method, tower_selection, 5)
    factors = [
        1 / max(abs(v) for attribution in row for v in attribution.heat.flatten().tolist()) for row in attributions
    ]
    shares, raw = [], []
    for i, name in enumerate((RESNET, VIT)):
        assert value["rows"][i]["heading"] == name
        for j in (0, 1):
            item, attribution = value["rows"][i]["items"][j], attributions[i][j]
            near = 1e-3 * attribution.heat.abs().max().item()
            assert np.allclose(floats(item["maps"])[0], attribution.heat.numpy(), atol=near)
            assert item["factors"] == [pytest.approx(factors[i], rel=1e-3), 1]
            assert item["scale"] == 0
            assert item["box"] == pytest.approx(
                [
                    edge / side
                    for edge, side in zip(attribution.geometry.visible_box, tower.size[::-1] * 2, strict=True)
                ],
                abs=1e-6,
            )
            shares += (attribution.heat.flatten() * factors[i]).tolist()
            raw += attribution.heat.flatten().tolist()
    for limits, values in zip(value["scales"][0]["limits"], (shares, raw), strict=True):
        if METHODS[method].is_signed({}):
            top = np.percentile(np.abs(values), 99.5)
            assert limits == pytest.approx([-top, top], rel=1e-3)
        else:
            assert limits == pytest.approx([min(values), np.percentile(values, 99.5)], rel=1e-3, abs=1e-6)
    assert value["scales"][0]["signed"] == METHODS[method].is_signed({})


def test_maximum_of_a_model_is_taken_over_both_classes(service, tower, tower_selection):
    (row, _) = explain_both(tower, "input-x-gradient", tower_selection, 5)
    largest = max(abs(value) for attribution in row for value in attribution.heat.flatten().tolist())
    assert compare.find_maximum(row) == compare.find_maximum(row[::-1]) == pytest.approx(largest)
    assert compare.find_maximum([replace(row[0], heat=row[0].heat * 0)]) == 1  # no division by zero


def test_differences_cover_the_common_region_and_state_the_agreement(service, tower, tower_selection):
    value = compare.compute_content(service, tower, tower_selection, VIT, "grad-cam", 5)[3]
    attributions = explain_both(tower, "grad-cam", tower_selection, 5)
    factors = [1 / max(attribution.heat.abs().max().item() for attribution in row) for row in attributions]
    pairs = {(0, 2): ((0, 0), (0, 1)), (1, 2): ((1, 0), (1, 1)), (2, 0): ((0, 0), (1, 0)), (2, 1): ((0, 1), (1, 1))}
    differences = []
    for (row, column), (a, b) in pairs.items():
        item = value["rows"][row]["items"][column]
        share, raw = floats(item["maps"])
        differences.append(share)
        height, width = 168, round(168 * tower.width / tower.height)
        whole = [
            attributions[i][j].geometry.project_to_photo(attributions[i][j].heat, (height, width)) for i, j in (a, b)
        ]
        top, left, below, beyond = (
            round(edge * side) for edge, side in zip(item["box"], (height, width) * 2, strict=True)
        )
        for values, (f, g) in ((share, (factors[a[0]], factors[b[0]])), (raw, (1, 1))):
            expected = whole[0] * f - whole[1] * g
            assert np.isfinite(expected).sum() == values.size  # the whole common region
            assert np.allclose(values, expected[top:below, left:beyond], atol=1e-3 * np.abs(values).max())
        found = vizlib.agreement(attributions[a[0]][a[1]], attributions[b[0]][b[1]])
        assert f"rank correlation {found.correlation:.2f}".replace("-", "−") in item["text"]
        assert f"{found.overlap * 100:.0f} % of the top 20 % shared" in item["text"]
    edge = np.percentile(np.abs(np.concatenate([one.ravel() for one in differences])), 99.5)
    assert value["scales"][1]["limits"][0] == pytest.approx([-edge, edge], rel=1e-3)


def test_compare_caption_states_the_agreement(service, tower, tower_selection):
    caption = compare.compute_content(service, tower, tower_selection, VIT, "grad-cam", 5)[4]
    (first, _), (second, _) = explain_both(tower, "grad-cam", tower_selection, 5)
    found = vizlib.agreement(first, second)
    assert f"rank correlation {found.correlation:.2f}.".replace("-", "−") in caption
    assert f"overlap by {found.overlap * 100:.0f} %" in caption
    assert (found.correlation >= 0.7) == ("high agreement" in caption)


@pytest.mark.parametrize("shared", [False, True])
def test_each_models_own_classes_are_compared_if_the_other_lacks_the_selected_one(
    service, tower, tower_selection, monkeypatch, shared
):
    labels = service.catalog.get(RESNET).labels
    own, other = ([row.index for row in service.predict(tower, name, 10)] for name in (RESNET, VIT))
    common = {}
    if shared:  # the top class of the second model is shared, but not among the first of the first model
        common = {own[-1]: other[0], own[-2]: other[-1]}
    for module in (compare_options, compare):
        monkeypatch.setattr(module, "match_classes", lambda a, b: common)
    target = next(index for index in own if index not in common)
    second = next(index for index in own if index not in (target, tower_selection.against))
    selection = tower_selection._replace(target=target, against=None)
    comparison = choose_comparison(service, tower, selection)
    assert comparison.classes == ((target, second), tuple(other[:2]))
    assert not comparison.same_classes
    *_, menu, value, caption = compare.compute_content(service, tower, selection)
    assert len(menu["choices"]) == 9
    for i, (model, classes) in enumerate(zip((RESNET, VIT), comparison.classes, strict=True)):
        for j, index in enumerate(classes):
            heat = vizlib.explain(vizlib.load(model), tower, "grad-cam", target=index).heat
            item = value["rows"][i]["items"][j]
            assert item["name"] == service.catalog.get(model).labels[index]
            assert np.allclose(floats(item["maps"])[-1], heat, atol=1e-6)
    names = ", ".join(labels[index] for index in own if index in common)
    shared_sentence = f" Classes that both models have: {names}." if shared else ""
    own_sentence = "So each model’s most probable classes are compared."
    assert f"{VIT} has no class {labels[target]}. {own_sentence}{shared_sentence} For " in caption


def test_models_of_a_single_class_are_not_compared(service, tower, tower_selection, monkeypatch):
    predict = service.predict
    monkeypatch.setattr(
        service, "predict", lambda photo, model, top=5: predict(photo, model, 1 if model == VIT else top)
    )
    *_, value, caption = compare.compute_content(service, tower, tower_selection)
    assert value == {}
    assert "has a single class" in caption


def test_compare_is_empty_without_a_photo(service):
    assert compare.compute_content(service, None, None)[3] == {}


def test_pretraining_caption_states_the_recorded_accuracies():
    value = build_training_comparison()[0]
    if not value:
        pytest.skip("the recorded comparison is not in checkpoints/")
    for name, label in (("resnet18-from-scratch", "from scratch"), ("resnet18-fine-tuned", "everything fine-tuned")):
        assert f"{label} {vizlib.training_history(name)['val_top1'][-1]:.1f} %" in compare.build_pretraining_caption(
            value
        )
