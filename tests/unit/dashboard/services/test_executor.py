"""Tasks as ZeroGPU runs them: in another process that exchanges pickles and loses the types of errors."""

from __future__ import annotations

import importlib.util
import inspect
import pickle
import sys
from types import ModuleType
from typing import Any

import pytest
import torch

import vizlib
from dashboard.services import executor as executor_module
from dashboard.services.analysis_service import AnalysisService
from dashboard.services.explanation_request import ExplanationRequest
from dashboard.services.forward_cache import ForwardCache
from dashboard.services.metrics import RunMetrics
from dashboard.services.model_catalog import ModelCatalog

VIT = "vit_tiny-imagenette"


class FakeSpaces:
    """Replace the package `spaces` of ZeroGPU: arguments and results are pickled, and errors become RuntimeErrors."""

    def __init__(self) -> None:
        self.seconds: list[int] = []

    def GPU(self, *, duration):  # noqa: N802 - the package's own name
        def decorate(task):
            def stream(*args):
                self.seconds.append(duration(*args))
                for result in task(*pickle.loads(pickle.dumps(args))):
                    yield pickle.loads(pickle.dumps(result))

            def run(*args):
                self.seconds.append(duration(*args))
                try:
                    result = task(*pickle.loads(pickle.dumps(args)))
                except Exception as error:
                    raise RuntimeError(f"ZeroGPU worker error: {type(error).__name__}") from None
                return pickle.loads(pickle.dumps(result))

            return stream if inspect.isgeneratorfunction(task) else run

        return decorate


@pytest.fixture
def spaces(monkeypatch) -> FakeSpaces:
    fake = FakeSpaces()
    monkeypatch.setattr(executor_module, "spaces", fake)
    return fake


@pytest.mark.slow
def test_zero_gpu_results_equal_local_results(spaces, service, cheetah):
    remote, target = AnalysisService(ModelCatalog()), service.predict(cheetah, VIT)[1].index
    assert remote.predict(cheetah, VIT) == service.predict(cheetah, VIT)
    request = ExplanationRequest(cheetah, VIT, target)
    for name, attribution in service.explain_all(request).items():
        assert torch.equal(remote.explain_all(request)[name].heat, attribution.heat)
    few = {"masks": 16, "cells": 4}
    ours, theirs = (where.explain(request.with_method("rise", few)) for where in (service, remote))
    assert torch.equal(ours.heat, theirs.heat)
    assert theirs.overlay().tobytes() == ours.overlay().tobytes()  # its photo and geometry were pickled too
    for layer, weights in service.get_attention(cheetah, VIT).items():
        assert torch.equal(remote.get_attention(cheetah, VIT)[layer], weights)
    assert torch.equal(
        remote.get_activations(cheetah, VIT, "blocks.2")[0], service.get_activations(cheetah, VIT, "blocks.2")[0]
    )
    occlusion = request.with_method("occlusion", {"window": 64, "stride": 64})
    *_, last = remote.stream_explanation(occlusion)
    theirs = service.explain(occlusion)
    assert torch.equal(last.attribution.heat, theirs.heat)
    assert remote.keep_top_fraction(VIT, last.attribution) == pytest.approx(service.keep_top_fraction(VIT, theirs))
    assert remote.estimate_seconds(request.with_method("rise", few)) > 0
    assert len(spaces.seconds) == 8  # each task once; the other results were cached


def test_zero_gpu_errors_keep_their_message(spaces, cheetah):
    remote = AnalysisService(ModelCatalog())
    with pytest.raises(vizlib.MethodError, match="did you mean grad-cam"):
        remote.explain(ExplanationRequest(cheetah, VIT, method="gradcam"))
    with pytest.raises(vizlib.MethodError, match="whole number"):
        list(remote.stream_explanation(ExplanationRequest(cheetah, VIT, None, None, "rise", {"masks": -1})))
    with pytest.raises(vizlib.ModelError, match="there is no model"):
        remote.predict(cheetah, "hf-hub:someone/model")
    with pytest.raises(vizlib.VizlibError, match="blocks"):
        remote.get_activations(cheetah, VIT, "blocks.99")


def test_model_is_loaded_in_the_parent_process_and_found_without_a_lock(spaces, cheetah):
    loads: list[int] = []

    def load():
        loads.append(1)
        return vizlib.load(VIT)

    catalog = ModelCatalog([], extra={"mine": load})
    executor = executor_module.ModelExecutor(catalog, RunMetrics(), ForwardCache(0))
    executor.run("predictions", "mine", cheetah)
    with catalog._lock:  # as another thread may hold it during the fork
        assert catalog.get_loaded("mine").name == VIT
    executor.run("attention", "mine", cheetah)
    assert loads == [1]


def request(method: str, parameters: dict) -> ExplanationRequest:
    """Return a request for a method without a photo: the estimate reads none."""
    no_photo: Any = None
    return ExplanationRequest(no_photo, VIT, 3, None, method, parameters)


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
def test_gpu_seconds_follow_the_task_and_its_parameters(task, argument, least, most):
    assert least <= executor_module.estimate_gpu_seconds(task, VIT, argument) <= most


def test_spaces_package_is_optional(monkeypatch):
    fake = ModuleType("spaces")
    for package, expected in ((fake, fake), (None, None)):  # None: the import fails
        monkeypatch.setitem(sys.modules, "spaces", package)
        spec = importlib.util.spec_from_file_location("gpu_again", executor_module.__file__)
        assert spec is not None
        assert spec.loader is not None
        again = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, "gpu_again", again)  # where dataclasses look their module up
        spec.loader.exec_module(again)
        assert again.spaces is expected


def test_model_moves_to_the_gpu_only_on_zero_gpu(monkeypatch):
    devices: list[str] = []
    model = vizlib.wrap(torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()))
    monkeypatch.setattr(type(model.module), "to", lambda module, device: devices.append(device))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    executor_module._move_to_lent_gpu(model)
    assert devices == []
    monkeypatch.setenv("SPACES_ZERO_GPU", "true")
    executor_module._move_to_lent_gpu(model)
    assert devices == ["cuda"]
