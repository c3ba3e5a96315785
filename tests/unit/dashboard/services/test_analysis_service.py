"""The results of the service equal those of the library."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from bundled_models import load_bundled, resnet_by_default

import vizlib
from dashboard.services.analysis_service import AnalysisService
from dashboard.services.explanation_request import ExplanationRequest
from dashboard.services.model_catalog import ModelCatalog
from dashboard.sidebar.prediction_panel import build_prediction_panel
from vizlib.models.families.layouts import to_spatial_map
from vizlib.models.ood import OodScore


@resnet_by_default
def test_predictions_equal_the_librarys(service, cheetah, name):
    ours, theirs = service.predict(cheetah, name, 3), load_bundled(name).predict(cheetah, top=3)
    assert [row.index for row in ours] == [row.index for row in theirs]
    # The cached pass computes attention explicitly, which differs from the fused kernel in the last digits.
    assert [row.logit for row in ours] == pytest.approx([row.logit for row in theirs], rel=1e-5)
    assert [row.probability for row in ours] == pytest.approx([row.probability for row in theirs], rel=1e-5)


def make_service(name: str, threshold: float) -> AnalysisService:
    """Return a service of one model that marks photos whose energy is below a threshold as out of distribution."""
    ood_score = OodScore("energy", threshold, 0.95, "the photos it knows")
    return AnalysisService(ModelCatalog([], extra={name: lambda: replace(vizlib.load(name), ood_score=ood_score)}))


@resnet_by_default
def test_ood_note_equals_the_librarys(cheetah, name):
    model = load_bundled(name)
    logits = model.logits(model.tensor(cheetah))
    energy = float(logits.logsumexp(-1))
    strict = make_service(name, energy + 0.5)
    note = strict.get_ood_note(cheetah, name)
    assert note is not None
    assert note == strict.catalog.get(name).ood_note(logits)
    assert note.startswith("This photo is unlike")
    assert make_service(name, energy - 0.5).get_ood_note(cheetah, name) is None
    assert build_prediction_panel(strict, cheetah, name).bars["oodNote"] == strict.get_ood_note(cheetah, name)


def test_ood_note_is_given_logits_in_class_order(service, cheetah, name, monkeypatch):
    calls = []
    model = service.catalog.get(name)
    monkeypatch.setattr(type(model), "ood_note", lambda self, logits: calls.append(logits))
    service.get_ood_note(cheetah, name)
    assert torch.allclose(calls[0], model.logits(model.tensor(cheetah)), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_every_supported_method_gives_the_librarys_map(service, cheetah, name, few_passes):
    model = load_bundled(name)
    for method in vizlib.list_methods(model):
        ours = service.explain(ExplanationRequest(cheetah, name, 4, None, method, few_passes(method)))
        theirs = vizlib.explain(model, cheetah, method=method, target=4, **few_passes(method))
        assert torch.allclose(ours.heat, theirs.heat, rtol=1e-3, atol=1e-2 * theirs.heat.abs().max().item()), method
        assert (ours.target, ours.label, ours.notes) == (4, theirs.label, theirs.notes)


@resnet_by_default
def test_parameters_reach_the_method(service, cheetah, name):
    layer = service.catalog.get(name).stages[1]
    ours = service.explain(ExplanationRequest(cheetah, name, 4, None, "grad-cam", {"layer": layer}))
    theirs = vizlib.explain(load_bundled(name), cheetah, method="grad-cam", target=4, layer=layer)
    assert torch.allclose(ours.heat, theirs.heat, rtol=1e-4, atol=1e-6)
    assert not torch.equal(ours.heat, service.explain(ExplanationRequest(cheetah, name, 4)).heat)


def test_class_by_label_index_or_default_is_one_cached_result(service, cheetah, name):
    best = service.predict(cheetah, name, 1)[0]
    requests = [
        ExplanationRequest(cheetah, name, target, method="saliency") for target in (None, "", best.index, best.label)
    ]
    attributions = [service.explain(request) for request in requests]
    assert len({id(attribution) for attribution in attributions}) == 1


def test_attention_equals_raw_attention(service, cheetah):
    maps = service.get_attention(cheetah, "vit_tiny-imagenette")
    model = service.catalog.get("vit_tiny-imagenette")
    assert list(maps) == list(model.attention_layers)
    theirs = vizlib.explain(model, cheetah, method="raw-attention", layer="blocks.3.attn", head=0, query=(2, 5))
    rows, columns = model.tokens.grid
    ours = maps["blocks.3.attn"][0, model.tokens.num_prefix_tokens + 2 * columns + 5, model.tokens.num_prefix_tokens :]
    assert torch.allclose(ours.view(rows, columns), theirs.heat)


def test_a_convolutional_network_has_no_attention(service, cheetah):
    assert service.get_attention(cheetah, "resnet18-imagenette") == {}


def test_activations_equal_those_of_a_run(service, cheetah, name):
    model = load_bundled(name)
    layer = model.stages[1]
    maps, on_photo = service.get_activations(cheetah, name, layer)
    assert on_photo
    theirs = to_spatial_map(model.run(cheetah, layers=[layer], attention=True).activations[layer], model.tokens)
    assert theirs is not None
    assert torch.allclose(maps, theirs)


def test_output_without_places_gives_one_value_per_channel(service, cheetah, name):
    last = service.catalog.get(name).layers[-1].name  # the classifier
    maps, on_photo = service.get_activations(cheetah, name, last)
    assert not on_photo
    assert maps.shape == (10, 1, 1)
    logits = {row.index: row.logit for row in service.predict(cheetah, name, 10)}
    assert maps.flatten().tolist() == pytest.approx([logits[i] for i in range(10)], rel=1e-4)


def test_model_input_preview_has_the_input_size(service, cheetah, name):
    model = service.catalog.get(name)
    assert service.render_model_input(cheetah, name).size == model.preprocessing.input_size[::-1]


@pytest.mark.parametrize(
    ("call", "sentence"),
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
def test_invalid_arguments_raise_one_sentence(service, cheetah, call, sentence):
    with pytest.raises(vizlib.VizlibError, match=sentence) as raised:
        call(service, cheetah)
    assert "\n" not in str(raised.value)


def test_concurrent_requests_are_not_mixed_up(service, cheetah, tower):
    requests = [
        ExplanationRequest(photo, name, target)
        for photo in (cheetah, tower)
        for name in ("resnet18-imagenette", "vit_tiny-imagenette")
        for target in (0, 4)
    ]
    sequential = [
        vizlib.explain(service.catalog.get(request.model), request.photo, target=request.target).heat
        for request in requests
    ]
    with ThreadPoolExecutor(4) as pool:
        concurrent = list(pool.map(lambda request: service.explain(request).heat, requests * 2))
    for heat, expected in zip(concurrent, sequential * 2, strict=True):
        assert torch.allclose(heat, expected, rtol=1e-4, atol=1e-7)
