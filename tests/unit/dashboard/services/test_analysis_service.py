"""The dashboard's numbers are the library's."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch

import vizlib
from dashboard.services.analysis_service import AnalysisService
from dashboard.services.model_catalog import ModelCatalog
from dashboard.services.request import ExplanationRequest
from dashboard.sidebar.prediction_panel import draw_panel
from vizlib.models.families import to_spatial_map
from vizlib.models.ood import OodScore


def test_predictions_are_the_librarys(service, cheetah, name):
    ours, theirs = service.predict(cheetah, name, 3), vizlib.load(name).predict(cheetah, top=3)
    assert [row.index for row in ours] == [row.index for row in theirs]
    # The kept pass computes attention explicitly, which differs from the fused kernel in the last digits.
    assert [row.logit for row in ours] == pytest.approx([row.logit for row in theirs], rel=1e-5)
    assert [row.probability for row in ours] == pytest.approx([row.probability for row in theirs], rel=1e-5)


def of_threshold(name: str, threshold: float) -> AnalysisService:
    """A service of one model that calls a photo unfamiliar whose energy is under a threshold."""
    ood_score = OodScore("energy", threshold, 0.95, "the photos it knows")
    return AnalysisService(ModelCatalog([], extra={name: lambda: replace(vizlib.load(name), ood_score=ood_score)}))


def test_a_doubt_is_the_librarys_about_the_logits_in_class_order(cheetah, name):
    model = vizlib.load(name)
    logits = model.logits(model.tensor(cheetah))
    energy = float(logits.logsumexp(-1))
    doubting = of_threshold(name, energy + 0.5)
    assert doubting.get_ood_note(cheetah, name) == doubting.catalog.get(name).ood_note(logits)
    assert doubting.get_ood_note(cheetah, name).startswith("This photo is unlike")
    assert of_threshold(name, energy - 0.5).get_ood_note(cheetah, name) is None
    assert draw_panel(doubting, cheetah, name)[2]["oodNote"] == doubting.get_ood_note(cheetah, name)


def test_the_logits_of_a_doubt_stand_in_class_order(service, cheetah, name, monkeypatch):
    seen = []
    model = service.catalog.get(name)
    monkeypatch.setattr(type(model), "ood_note", lambda self, logits: seen.append(logits))
    service.get_ood_note(cheetah, name)
    assert torch.allclose(seen[0], model.logits(model.tensor(cheetah)), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_every_method_that_fits_gives_the_librarys_map(service, cheetah, name, few_passes):
    model = vizlib.load(name)
    for method in vizlib.list_methods(model):
        ours = service.explain(ExplanationRequest(cheetah, name, 4, None, method, few_passes(method)))
        theirs = vizlib.explain(model, cheetah, method=method, target=4, **few_passes(method))
        assert torch.allclose(ours.heat, theirs.heat, rtol=1e-3, atol=1e-2 * theirs.heat.abs().max().item()), method
        assert (ours.target, ours.label, ours.notes) == (4, theirs.label, theirs.notes)


def test_a_turned_knob_reaches_the_method(service, cheetah, name):
    layer = service.catalog.get(name).stages[1]
    ours = service.explain(ExplanationRequest(cheetah, name, 4, None, "grad-cam", {"layer": layer}))
    theirs = vizlib.explain(vizlib.load(name), cheetah, method="grad-cam", target=4, layer=layer)
    assert torch.allclose(ours.heat, theirs.heat, rtol=1e-4, atol=1e-6)
    assert not torch.equal(ours.heat, service.explain(ExplanationRequest(cheetah, name, 4)).heat)


def test_a_class_by_label_by_index_or_by_default_is_one_and_the_same_result(service, cheetah, name):
    best = service.predict(cheetah, name, 1)[0]
    requests = [
        ExplanationRequest(cheetah, name, target, method="saliency") for target in (None, "", best.index, best.label)
    ]
    answers = [service.explain(request) for request in requests]
    assert len({id(answer) for answer in answers}) == 1


def test_attention_is_the_librarys_raw_attention(service, cheetah):
    maps = service.get_attention(cheetah, "vit_tiny-imagenette")
    model = service.catalog.get("vit_tiny-imagenette")
    assert list(maps) == list(model.attention_layers)
    theirs = vizlib.explain(model, cheetah, method="raw-attention", layer="blocks.3.attn", head=0, query=(2, 5))
    rows, columns = model.tokens.grid
    ours = maps["blocks.3.attn"][0, model.tokens.num_prefix_tokens + 2 * columns + 5, model.tokens.num_prefix_tokens :]
    assert torch.allclose(ours.view(rows, columns), theirs.heat)


def test_a_convolutional_network_has_no_attention(service, cheetah):
    assert service.get_attention(cheetah, "resnet18-imagenette") == {}


def test_activations_are_the_runs(service, cheetah, name):
    model = vizlib.load(name)
    layer = model.stages[1]
    maps, placed = service.get_activations(cheetah, name, layer)
    assert placed
    theirs = to_spatial_map(model.run(cheetah, layers=[layer], attention=True).activations[layer], model.tokens)
    assert torch.allclose(maps, theirs)


def test_an_output_without_places_is_one_number_a_channel(service, cheetah, name):
    last = service.catalog.get(name).layers[-1].name  # the classifier
    maps, placed = service.get_activations(cheetah, name, last)
    assert not placed
    assert maps.shape == (10, 1, 1)
    logits = {one.index: one.logit for one in service.predict(cheetah, name, 10)}
    assert maps.flatten().tolist() == pytest.approx([logits[i] for i in range(10)], rel=1e-4)


def test_the_models_eye_is_its_input(service, cheetah, name):
    model = service.catalog.get(name)
    assert service.render_model_input(cheetah, name).size == model.preprocessing.input_size[::-1]


@pytest.mark.parametrize(
    ("ask", "sentence"),
    [
        (lambda s, p: s.predict(p, "nonsense"), "there is no model 'nonsense'"),
        (
            lambda s, p: s.explain(ExplanationRequest(p, "resnet18-imagenette", 99, None, "saliency")),
            "there is no class 99",
        ),
        (
            lambda s, p: s.explain(ExplanationRequest(p, "resnet18-imagenette", "chruch", None, "saliency")),
            "did you mean church",
        ),
        (
            lambda s, p: s.explain(ExplanationRequest(p, "resnet18-imagenette", 0, None, "gradcam")),
            "there is no method 'gradcam'",
        ),
        (
            lambda s, p: s.explain(ExplanationRequest(p, "resnet18-imagenette", 0, None, "legrad-2")),
            "there is no method",
        ),
        (
            lambda s, p: s.explain(ExplanationRequest(p, "resnet18-imagenette", 0, None, "raw-attention")),
            "does not support",
        ),
        (
            lambda s, p: s.explain(ExplanationRequest(p, "resnet18-imagenette", 0, None, "saliency", {"steps": 3})),
            "has no parameter 'steps'",
        ),
        (lambda s, p: s.get_activations(p, "resnet18-imagenette", "layer9"), "has no layer 'layer9'"),
    ],
)
def test_a_wrong_choice_is_one_sentence(service, cheetah, ask, sentence):
    with pytest.raises(vizlib.VizlibError, match=sentence) as told:
        ask(service, cheetah)
    assert "\n" not in str(told.value)


def test_visitors_who_ask_at_once_never_get_each_others_answers(service, cheetah, tower):
    asked = [
        (photo, name, target)
        for photo in (cheetah, tower)
        for name in ("resnet18-imagenette", "vit_tiny-imagenette")
        for target in (0, 4)
    ]
    alone = [
        vizlib.explain(service.catalog.get(name), photo, method="grad-cam", target=target).heat
        for photo, name, target in asked
    ]
    with ThreadPoolExecutor(4) as visitors:
        together = list(visitors.map(lambda one: service.explain(ExplanationRequest(*one)).heat, asked * 2))
    for got, expected in zip(together, alone * 2, strict=True):
        assert torch.allclose(got, expected, rtol=1e-4, atol=1e-7)
