"""Contrasts, methods of many passes that stream and stop, and what keeping the warmest pixels does to the answer."""

from __future__ import annotations

import base64
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

import vizlib
from dashboard.components.progress import build_running, build_waiting
from dashboard.services.analysis_service import AnalysisService
from dashboard.services.model_catalog import ModelCatalog
from dashboard.services.request import ExplanationRequest
from dashboard.state.context import show_errors
from dashboard.tabs import why
from vizlib.attribution.evidence import SignalRequest
from vizlib.attribution.methods.registry import METHODS
from vizlib.attribution.request import MANY_PASSES, Method, PartialHeat, supports_every_model
from vizlib.metrics.faithfulness import keep_top_fraction

PASSES = 40


def floats(packed: dict) -> np.ndarray:
    return np.frombuffer(base64.b64decode(packed["floats"]), "<f4").reshape(packed["shape"])


@pytest.fixture
def counted(monkeypatch):
    """A method of 40 passes, one at a time, that counts them and whether it was ended; its map is the count."""
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
        "Nobody: nothing, nowhere, 2026",
        "It counts.",
        "Nothing.",
        lambda *_: SignalRequest(),
        supports_every_model,
        compute_steps=stream,
        cost=MANY_PASSES,
    )
    monkeypatch.setitem(METHODS, "counted", row)
    return made


@pytest.fixture
def patient(name, monkeypatch):
    """A service of its own, with nothing worked out, where every method takes long."""
    service = AnalysisService(ModelCatalog())
    monkeypatch.setattr(service, "estimate_seconds", lambda *_: 40.0)
    return service


def test_contrast_map_is_diverging_and_names_both_classes(service, cheetah, selection):
    labels = service.catalog.get(selection.model).labels
    rival = next(i for i in range(10) if i != selection.target)
    shown = why.compute_content(service, cheetah, selection._replace(against=rival), "grad-cam", None)
    theirs = vizlib.explain(vizlib.load(selection.model), cheetah, "grad-cam", selection.target, rival)
    near = 1e-2 * theirs.heat.abs().max().item()
    assert np.allclose(floats(shown.heatmap["map"]), theirs.heat.numpy(), atol=near)
    assert theirs.signed
    assert shown.heatmap["signed"]
    assert shown.heatmap["ends"] == (labels[rival], labels[selection.target])
    assert next(one["name"] for one in shown.heatmap["palettes"]) == "RdBu_r"
    assert f"Why {labels[selection.target]} and not {labels[rival]}?" in shown.caption
    assert shown.heatmap["file"] == f"{selection.model}_grad-cam_{selection.target}_vs_{rival}.png"
    assert why.compute_content(service, cheetah, selection, "grad-cam", None).heatmap["file"] != shown.heatmap["file"]


def test_contrast_applies_to_every_thumbnail(service, cheetah, selection):
    rival = next(i for i in range(10) if i != selection.target)
    strip = why.compute_content(service, cheetah, selection._replace(against=rival), "grad-cam", None).strip
    theirs = vizlib.explain_all(vizlib.load(selection.model), cheetah, selection.target, rival)
    for item in strip["items"]:
        if item["key"] in theirs:
            assert item["signed"] == theirs[item["key"]].signed, item["key"]


def test_a_slow_method_states_its_duration_and_waits_for_start(patient, counted, cheetah, selection):
    shown = why.compute_content(patient, cheetah, selection, "counted", None)
    assert shown.progress == build_waiting("counted needs many forward passes: about 40 seconds on this machine.")
    assert "map" not in shown.heatmap
    assert shown.heatmap["photo"].startswith("data:image/jpeg")
    assert "It counts." in shown.caption
    assert "predicts it" in shown.caption
    assert counted["passes"] == 0


def test_a_fast_method_of_many_passes_starts_automatically(patient, counted, cheetah, selection, monkeypatch):
    monkeypatch.setattr(patient, "estimate_seconds", lambda *_: 2.0)
    assert why.compute_content(patient, cheetah, selection, "counted", None).progress["begin"] is True


def test_a_streamed_map_is_updated_with_each_batch_and_cached_when_complete(patient, counted, cheetah, selection):
    steps = list(why.stream_content(patient, cheetah, selection, "counted", None))
    assert [floats(step.heatmap["map"])[0, 0] for step in steps] == list(range(1, PASSES + 1))
    assert [step.progress.get("share") for step in steps] == [done / PASSES for done in range(1, PASSES)] + [None]
    assert steps[3].progress["text"].startswith("4 of 40 passes, about ")
    assert steps[3].progress["stopped"] == "Stopped after 4 of 40 passes; the map shows the result so far."
    assert counted == {"passes": PASSES, "ended": 1}
    again = why.compute_content(patient, cheetah, selection, "counted", None)
    assert again.progress == {}
    assert floats(again.heatmap["map"])[0, 0] == PASSES
    assert next(item for item in again.strip["items"] if item["key"] == "counted")["map"]
    assert counted["passes"] == PASSES  # nothing ran again


def test_stopping_ends_the_computation_and_caches_nothing(patient, counted, cheetah, selection):
    steps = show_errors(why.stream_content)(patient, cheetah, selection, "counted", None)
    for _ in range(3):
        next(steps)
    steps.close()
    assert counted == {"passes": 3, "ended": 1}
    assert patient.find_explanation(selection.request(cheetah, "counted")) is None
    assert "map" not in why.compute_content(patient, cheetah, selection, "counted", None).heatmap


@pytest.mark.slow
def test_a_streamed_method_yields_the_library_maps(patient, cheetah, name):
    few = {"masks": 90}  # two batches and more
    request = ExplanationRequest(cheetah, name, 4, 2, "rise", few)
    ours = list(patient.stream_explanation(request))
    theirs = list(vizlib.explain_stream(vizlib.load(name), cheetah, "rise", 4, 2, **few))
    assert [(one.done, one.total) for one in ours] == [(one.done, one.total) for one in theirs]
    assert len(ours) > 1
    for one, other in zip(ours, theirs, strict=True):
        assert torch.allclose(one.attribution.heat, other.attribution.heat, rtol=1e-3, atol=1e-5)
    assert patient.find_explanation(request) is ours[-1].attribution
    assert patient.find_explanation(replace(request, against=None)) is None
    assert patient.find_explanation(replace(request, parameters={**few, "masks": 41})) is None


def test_an_error_during_a_stream_is_one_sentence():
    def fails():
        yield 1
        raise vizlib.ModelError("the model is gone")

    steps = show_errors(fails)()
    assert next(steps) == 1
    with pytest.raises(Exception, match=r"^'The model is gone\.'$"):
        next(steps)


def test_duration_of_a_method_is_measured_once(cheetah, name, monkeypatch):
    service, asked = AnalysisService(ModelCatalog()), []
    monkeypatch.setattr(vizlib, "estimate", lambda model, method, photo, **knobs: asked.append((method, knobs)) or 1.5)
    assert [service.estimate_seconds(ExplanationRequest(cheetah, name, method="rise")) for _ in range(3)] == [1.5] * 3
    service.estimate_seconds(ExplanationRequest(cheetah, name, None, None, "rise", {"masks": 9}))
    assert asked == [("rise", {}), ("rise", {"masks": 9})]


def test_top_fraction_check_is_the_library_result_and_cached(cheetah, selection):
    service = AnalysisService(ModelCatalog())
    first = why.compute_content(service, cheetah, selection, "grad-cam", None)
    assert first.metric == ""
    said = why.compute_metric(service, cheetah, selection, "grad-cam", None)
    model = vizlib.load(selection.model)
    numbers = keep_top_fraction(model, vizlib.explain(model, cheetah, "grad-cam", selection.target))
    assert re.findall(r"<strong>([\d.]+)</strong>", said) == [f"{number:.2f}" for number in numbers]
    second = why.compute_content(service, cheetah, selection, "grad-cam", None)
    assert second.metric == said


def test_top_fraction_check_is_empty_without_photo_or_attribution(patient, counted, cheetah, selection):
    assert why.compute_metric(patient, None, None, "grad-cam", None) == ""
    assert why.compute_metric(patient, cheetah, selection, "counted", None) == ""
    assert list(why.stream_content(patient, None, None, "counted", None)) == []


def test_progress_bar_text():
    assert build_running(1312, 2000, "a minute")["text"] == "1,312 of 2,000 passes, about a minute left"
    assert build_running(0, 0, "")["share"] == 0
