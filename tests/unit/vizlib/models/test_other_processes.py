"""Models and attributions sent to other processes."""

from __future__ import annotations

import io
import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn

import vizlib

PHOTO = np.random.default_rng(0).integers(0, 256, (40, 48, 3), dtype=np.uint8)
METHODS = ("saliency", "grad-cam", "occlusion")
SETTINGS: dict[str, dict[str, Any]] = {"occlusion": {"window": 32, "stride": 32}}


def make_model(name: str = "resnet10t", **arguments: Any) -> vizlib.Model:
    torch.manual_seed(0)
    network = timm.create_model(name, num_classes=3, **arguments).eval()
    return vizlib.wrap(network, preprocessing={"input_size": (3, 64, 64)}, labels=["a", "b", "c"])


def make_vit() -> vizlib.Model:
    return make_model("vit_tiny_patch16_224", img_size=64, depth=2)


def compute_maps(model: vizlib.Model) -> list[Tensor]:
    return [vizlib.explain(model, PHOTO, method, target="b", **SETTINGS.get(method, {})).heat for method in METHODS]


def compute_maps_of_bytes(data: bytes) -> list[np.ndarray]:
    torch.set_num_threads(1)
    return [heat.numpy() for heat in compute_maps(pickle.loads(data))]


@pytest.mark.parametrize("make", [make_model, make_vit])
def test_a_pickled_model_has_the_same_maps_layers_and_family(make):
    model = make()
    before = compute_maps(model)  # also fills the caches, which hold locks
    copy = pickle.loads(pickle.dumps(model))
    assert (copy.labels, copy.layers, copy.stages, copy.tokens) == (
        model.labels,
        model.layers,
        model.stages,
        model.tokens,
    )
    assert copy.family is model.family
    for heat, expected in zip(compute_maps(copy), before, strict=True):
        assert torch.equal(heat, expected)


def test_a_model_of_an_unknown_network_is_pickled_with_what_it_was_told():
    network = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    model = vizlib.wrap(network, preprocessing={"input_size": (3, 32, 32)}, labels=list("abcd"), output_kind="sigmoid")
    copy = pickle.loads(pickle.dumps(model))
    assert (copy.output_kind, copy.family, copy.name) == ("sigmoid", None, "Sequential")
    assert copy.predict(PHOTO) == model.predict(PHOTO)


def test_models_and_attributions_survive_torch_save():
    model = make_model()
    attribution, file = vizlib.explain(model, PHOTO, "grad-cam"), io.BytesIO()
    torch.save((model, attribution), file)
    file.seek(0)
    loaded_model, loaded = torch.load(file, weights_only=False)
    assert torch.equal(loaded.heat, attribution.heat)
    assert loaded.notes == attribution.notes
    assert [vars(note) for note in loaded.notes] == [vars(note) for note in attribution.notes]  # code and facts
    assert torch.equal(vizlib.explain(loaded_model, PHOTO, "grad-cam").heat, attribution.heat)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_worker_computes_the_same_maps(method):
    model = make_model()
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(method)) as pool:
        heats = pool.submit(compute_maps_of_bytes, pickle.dumps(model)).result()
    for heat, expected in zip(heats, compute_maps(model), strict=True):
        np.testing.assert_allclose(heat, expected.numpy(), rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_a_forked_worker_computes_the_same_maps():
    """Forked from a process of one thread: a fork of this one would copy locks that other threads hold."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        assert pool.submit(run_forked_worker).result()


def run_forked_worker() -> bool:
    torch.set_num_threads(1)
    model = make_model()
    expected = [heat.numpy() for heat in compute_maps(model)]
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")) as pool:
        heats = pool.submit(compute_maps_of_bytes, pickle.dumps(model)).result()
    return all(np.allclose(a, b, atol=1e-6) for a, b in zip(heats, expected, strict=True))
