"""A question as ZeroGPU answers it: in another process, which gets and gives pickles and whose errors are lost."""

from __future__ import annotations

import importlib.util
import inspect
import pickle
import sys
from types import ModuleType

import pytest
import torch

import vizlib
from dashboard.services import executor as gpu
from dashboard.services.analysis_service import AnalysisService
from dashboard.services.forward_cache import ForwardCache
from dashboard.services.metrics import RunMetrics
from dashboard.services.model_catalog import ModelCatalog
from dashboard.services.request import ExplanationRequest

VIT = "vit_tiny-imagenette"


class Lent:
    """Stands for the package `spaces` on ZeroGPU: nothing but pickles passes, and an error becomes a plain one."""

    def __init__(self) -> None:
        self.seconds: list[int] = []

    def GPU(self, *, duration):  # noqa: N802 - the package's own name
        def decorate(task):
            def many(*args):
                self.seconds.append(duration(*args))
                for answer in task(*pickle.loads(pickle.dumps(args))):
                    yield pickle.loads(pickle.dumps(answer))

            def run(*args):
                self.seconds.append(duration(*args))
                try:
                    answer = task(*pickle.loads(pickle.dumps(args)))
                except Exception as error:
                    raise RuntimeError(f"ZeroGPU worker error: {type(error).__name__}") from None
                return pickle.loads(pickle.dumps(answer))

            return many if inspect.isgeneratorfunction(task) else run

        return decorate


@pytest.fixture
def lent(monkeypatch) -> Lent:
    fake = Lent()
    monkeypatch.setattr(gpu, "spaces", fake)
    return fake


def test_all_that_runs_a_model_runs_there_and_answers_as_here(lent, service, cheetah):
    there, target = AnalysisService(ModelCatalog()), service.predict(cheetah, VIT)[1].index
    assert there.predict(cheetah, VIT) == service.predict(cheetah, VIT)
    request = ExplanationRequest(cheetah, VIT, target)
    for name, attribution in service.explain_all(request).items():
        assert torch.equal(there.explain_all(request)[name].heat, attribution.heat)
    few = {"masks": 16, "cells": 4}
    ours, theirs = (where.explain(request.with_method("rise", few)) for where in (service, there))
    assert torch.equal(ours.heat, theirs.heat)
    assert theirs.overlay().tobytes() == ours.overlay().tobytes()  # its photo and geometry came along
    for layer, weights in service.get_attention(cheetah, VIT).items():
        assert torch.equal(there.get_attention(cheetah, VIT)[layer], weights)
    assert torch.equal(
        there.get_activations(cheetah, VIT, "blocks.2")[0], service.get_activations(cheetah, VIT, "blocks.2")[0]
    )
    occlusion = request.with_method("occlusion", {"window": 64, "stride": 64})
    *_, last = there.stream_explanation(occlusion)
    theirs = service.explain(occlusion)
    assert torch.equal(last.attribution.heat, theirs.heat)
    assert there.keep_top_fraction(VIT, last.attribution) == pytest.approx(service.keep_top_fraction(VIT, theirs))
    assert there.estimate_seconds(request.with_method("rise", few)) > 0
    assert len(lent.seconds) == 8  # each question once; the rest was remembered here


def test_a_mistake_is_still_its_own_sentence(lent, cheetah):
    there = AnalysisService(ModelCatalog())
    with pytest.raises(vizlib.MethodError, match="did you mean grad-cam"):
        there.explain(ExplanationRequest(cheetah, VIT, method="gradcam"))
    with pytest.raises(vizlib.MethodError, match="whole number"):
        list(there.stream_explanation(ExplanationRequest(cheetah, VIT, None, None, "rise", {"masks": -1})))
    with pytest.raises(vizlib.ModelError, match="there is no model"):
        there.predict(cheetah, "hf-hub:someone/model")
    with pytest.raises(vizlib.VizlibError, match="blocks"):
        there.get_activations(cheetah, VIT, "blocks.99")


def test_the_model_is_loaded_where_it_is_remembered_and_found_without_waiting_for_a_lock(lent, cheetah):
    loaded: list[int] = []

    def load():
        loaded.append(1)
        return vizlib.load(VIT)

    catalog = ModelCatalog([], extra={"mine": load})
    executor = gpu.ModelExecutor(catalog, RunMetrics(), ForwardCache(0))
    executor.run("predictions", "mine", cheetah)
    with catalog._lock:  # as a thread may hold it at the moment of the fork
        assert catalog.get_loaded("mine").name == VIT
    executor.run("attention", "mine", cheetah)
    assert loaded == [1]


def request(method: str, parameters: dict) -> ExplanationRequest:
    """Return a request for a method without a photo: the estimate reads none."""
    return ExplanationRequest(None, VIT, 3, None, method, parameters)


@pytest.mark.parametrize(
    ("task", "argument", "least", "most"),
    [
        ("predictions", None, 5, 15),
        ("explanation", request("saliency", {}), 5, 15),
        ("explanation", request("occlusion", {}), 15, 20),
        ("explanation", request("rise", {"masks": 2000}), 40, 60),
        ("explanation", request("rise", {"masks": 10**9}), 60, 120),
        ("explanation", request("rise", {"masks": "many"}), 10, 20),
        ("explanation", request("no such method", {}), 5, 15),
    ],
)
def test_the_seconds_asked_for_follow_what_is_asked(task, argument, least, most):
    assert least <= gpu.estimate_gpu_seconds(task, VIT, argument) <= most


def test_the_package_is_used_where_it_is_there(monkeypatch):
    fake = ModuleType("spaces")
    for package, expected in ((fake, fake), (None, None)):  # None: the import fails
        monkeypatch.setitem(sys.modules, "spaces", package)
        spec = importlib.util.spec_from_file_location("gpu_again", gpu.__file__)
        again = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, "gpu_again", again)  # where dataclasses look their module up
        spec.loader.exec_module(again)
        assert again.spaces is expected


def test_the_model_moves_only_where_zerogpu_says_so(monkeypatch):
    moved: list[str] = []
    model = vizlib.wrap(torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()))
    monkeypatch.setattr(type(model.module), "to", lambda module, device: moved.append(device))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    gpu._move_to_lent_gpu(model)
    assert moved == []
    monkeypatch.setenv("SPACES_ZERO_GPU", "true")
    gpu._move_to_lent_gpu(model)
    assert moved == ["cuda"]
