"""The Why tab: contrast classes, streamed methods of many passes, and the check that keeps the top pixels."""

from __future__ import annotations

import base64
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from bundled_models import load_bundled, resnet_by_default

import vizlib
from dashboard.components.error_messages import show_errors
from dashboard.components.progress import build_running_progress, build_waiting_progress
from dashboard.services.analysis_service import AnalysisService
from dashboard.services.explanation_request import ExplanationRequest
from dashboard.services.model_catalog import ModelCatalog
from dashboard.tabs import why
from vizlib.attribution.evidence import RequiredSignals
from vizlib.attribution.methods.registry import METHODS
from vizlib.attribution.request import MANY_PASSES, Method, PartialHeat, supports_every_model
from vizlib.metrics import keep_top_fraction

PASSES = 40


def floats(packed: dict) -> np.ndarray:
    return np.frombuffer(base64.b64decode(packed["floats"]), "<f4").reshape(packed["shape"])


@pytest.fixture
def counting_method(monkeypatch):
    """A method of 40 passes that counts its passes and its ends; its map is the number of passes."""
    made = {"passes": 0, "ended": 0}

    def stream(evidence, **_):
        try:
            for done in range(1, PASSES + 1):
                made["passes"] += 1
                yield PartialHeat(torch.full((2, 2), float(done)), done, PASSES)
        finally:
            made["ended"] += 1

    row = Method(
        "counted",
        "A. Author: A Paper, 2026",
        "https://arxiv.org/abs/0000.00000",
        "H = n",
        "It counts.",
        "Nothing.",
        lambda *_: RequiredSignals(),
        supports_every_model,
        compute_steps=stream,
        cost=MANY_PASSES,
    )
    monkeypatch.setitem(METHODS, "counted", row)
    return made


@pytest.fixture
def slow_service(name, monkeypatch):
    """A service with an empty cache, in which every method has a long estimated duration."""
    service = AnalysisService(ModelCatalog())
    monkeypatch.setattr(service, "estimate_seconds", lambda *_: 40.0)
    return service


@resnet_by_default
def test_contrast_map_is_diverging_and_names_both_classes(service, cheetah, selection):
    labels = service.catalog.get(selection.model).labels
    contrast = next(i for i in range(10) if i != selection.target)
    content = why.compute_content(service, cheetah, selection._replace(against=contrast), "grad-cam", None)
    expected = vizlib.explain(load_bundled(selection.model), cheetah, "grad-cam", selection.target, contrast)
    near = 1e-2 * expected.heat.abs().max().item()
    assert np.allclose(floats(content.heatmap["map"]), expected.heat.numpy(), atol=near)
    assert expected.signed
    assert content.heatmap["signed"]
    assert content.heatmap["ends"] == (labels[contrast], labels[selection.target])
    assert next(one["name"] for one in content.heatmap["palettes"]) == "RdBu_r"
    assert f"Why {labels[selection.target]} and not {labels[contrast]}?" in content.caption
    assert content.heatmap["file"] == f"{selection.model}_grad-cam_{selection.target}_vs_{contrast}.png"
    assert why.compute_content(service, cheetah, selection, "grad-cam", None).heatmap["file"] != content.heatmap["file"]


def test_contrast_applies_to_every_thumbnail(service, cheetah, selection):
    contrast = next(i for i in range(10) if i != selection.target)
    strip = why.compute_content(service, cheetah, selection._replace(against=contrast), "grad-cam", None).strip
    expected = vizlib.explain_all(load_bundled(selection.model), cheetah, selection.target, contrast)
    for item in strip["items"]:
        if item["key"] in expected:
            assert item["signed"] == expected[item["key"]].signed, item["key"]


@resnet_by_default
def test_a_slow_method_states_its_duration_and_waits_for_start(slow_service, counting_method, cheetah, selection):
    content = why.compute_content(slow_service, cheetah, selection, "counted", None)
    assert content.progress == build_waiting_progress(
        "counted needs many forward passes: about 40 seconds on this machine."
    )
    assert "map" not in content.heatmap
    assert content.heatmap["photo"].startswith("data:image/jpeg")
    assert "It counts." in content.caption
    assert "predicts it" in content.caption
    assert counting_method["passes"] == 0


@resnet_by_default
def test_a_fast_method_of_many_passes_starts_automatically(
    slow_service, counting_method, cheetah, selection, monkeypatch
):
    monkeypatch.setattr(slow_service, "estimate_seconds", lambda *_: 2.0)
    assert why.compute_content(slow_service, cheetah, selection, "counted", None).progress["begin"] is True


@resnet_by_default
def test_a_streamed_map_is_updated_with_each_batch_and_cached_when_complete(
    slow_service, counting_method, cheetah, selection
):
    steps = list(why.stream_content(slow_service, cheetah, selection, "counted", None))
    assert [floats(step.heatmap["map"])[0, 0] for step in steps] == list(range(1, PASSES + 1))
    assert [step.progress.get("share") for step in steps] == [done / PASSES for done in range(1, PASSES)] + [None]
    assert steps[3].progress["text"].startswith("4 of 40 passes, about ")
    assert steps[3].progress["stopped"] == "Stopped after 4 of 40 passes; the map shows the result so far."
    assert counting_method == {"passes": PASSES, "ended": 1}
    again = why.compute_content(slow_service, cheetah, selection, "counted", None)
    assert again.progress == {}
    assert floats(again.heatmap["map"])[0, 0] == PASSES
    assert next(item for item in again.strip["items"] if item["key"] == "counted")["map"]
    assert counting_method["passes"] == PASSES  # from the cache


@resnet_by_default
def test_stopping_ends_the_computation_and_caches_nothing(slow_service, counting_method, cheetah, selection):
    steps = show_errors(why.stream_content)(slow_service, cheetah, selection, "counted", None)
    for _ in range(3):
        next(steps)
    steps.close()
    assert counting_method == {"passes": 3, "ended": 1}
    assert slow_service.find_explanation(selection.make_request(cheetah, "counted")) is None
    assert "map" not in why.compute_content(slow_service, cheetah, selection, "counted", None).heatmap


@pytest.mark.slow
def test_a_streamed_method_yields_the_library_maps(slow_service, cheetah, name):
    few: dict[str, Any] = {"masks": 90}  # more than two batches
    request = ExplanationRequest(cheetah, name, 4, 2, "rise", few)
    steps = list(slow_service.stream_explanation(request))
    expected = list(vizlib.explain_stream(load_bundled(name), cheetah, "rise", 4, 2, **few))
    assert [(one.done, one.total) for one in steps] == [(one.done, one.total) for one in expected]
    assert len(steps) > 1
    for one, other in zip(steps, expected, strict=True):
        assert torch.allclose(one.attribution.heat, other.attribution.heat, rtol=1e-3, atol=1e-5)
    assert slow_service.find_explanation(request) is steps[-1].attribution
    assert slow_service.find_explanation(replace(request, against=None)) is None
    assert slow_service.find_explanation(replace(request, parameters={**few, "masks": 41})) is None


def test_an_error_during_a_stream_is_one_sentence():
    def fails():
        yield 1
        raise vizlib.ModelError("the model is gone")

    steps = show_errors(fails)()
    assert next(steps) == 1
    with pytest.raises(Exception, match=r"^'The model is gone\.'$"):
        next(steps)


@resnet_by_default
def test_duration_of_a_method_is_measured_once(cheetah, name, monkeypatch):
    service, calls = AnalysisService(ModelCatalog()), []
    monkeypatch.setattr(
        vizlib, "estimate", lambda model, method, photo, **parameters: calls.append((method, parameters)) or 1.5
    )
    assert [service.estimate_seconds(ExplanationRequest(cheetah, name, method="rise")) for _ in range(3)] == [1.5] * 3
    service.estimate_seconds(ExplanationRequest(cheetah, name, None, None, "rise", {"masks": 9}))
    assert calls == [("rise", {}), ("rise", {"masks": 9})]


@resnet_by_default
def test_top_fraction_check_is_the_library_result_and_cached(cheetah, selection):
    service = AnalysisService(ModelCatalog())
    first = why.compute_content(service, cheetah, selection, "grad-cam", None)
    assert first.metric == ""
    text = why.compute_top_fraction_check(service, cheetah, selection, "grad-cam", None)
    model = load_bundled(selection.model)
    numbers = keep_top_fraction(model, vizlib.explain(model, cheetah, "grad-cam", selection.target))
    assert re.findall(r"<strong>([\d.]+)</strong>", text) == [f"{number:.2f}" for number in numbers]
    second = why.compute_content(service, cheetah, selection, "grad-cam", None)
    assert second.metric == text


@resnet_by_default
def test_top_fraction_check_is_empty_without_photo_or_attribution(slow_service, counting_method, cheetah, selection):
    assert why.compute_top_fraction_check(slow_service, None, None, "grad-cam", None) == ""
    assert why.compute_top_fraction_check(slow_service, cheetah, selection, "counted", None) == ""
    assert list(why.stream_content(slow_service, None, None, "counted", None)) == []


def test_progress_bar_text():
    assert build_running_progress(1312, 2000, "a minute")["text"] == "1,312 of 2,000 passes, about a minute left"
    assert build_running_progress(0, 0, "")["share"] == 0
