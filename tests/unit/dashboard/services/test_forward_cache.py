"""Cached forward passes: their results, their size, and their eviction."""

from __future__ import annotations

import gc
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from bundled_models import resnet_by_default

import vizlib
from dashboard.services.forward_cache import ForwardCache, record_pass


@pytest.fixture
def model(name):
    return vizlib.load(name)


@pytest.fixture
def passes(monkeypatch):
    """Record the photos for which a forward pass is run."""
    photos, run_for_all = [], vizlib.run_for_all
    monkeypatch.setattr(
        vizlib,
        "run_for_all",
        lambda model, photo, **kwargs: photos.append(photo) or run_for_all(model, photo, **kwargs),
    )
    return photos


@resnet_by_default
def test_another_class_of_a_cached_pass_equals_a_new_pass(model, cheetah, passes):
    cache = ForwardCache(10**9)
    for target, against in ((0, None), (7, None), (7, 2), (0, None)):
        ours = vizlib.explain_all(model, cheetah, target=target, against=against, run=cache.find_or_run(model, cheetah))
        for method, expected in vizlib.explain_all(model, cheetah, target=target, against=against).items():
            assert torch.equal(ours[method].heat, expected.heat), method
            for layer, attribution in expected.by_layer.items():
                assert torch.equal(ours[method].by_layer[layer].heat, attribution.heat), (method, layer)
    assert len(passes) == 1


@resnet_by_default
def test_size_of_a_pass_is_about_that_of_all_layer_outputs(model, cheetah):
    """The reference counts with a hook at every layer without children."""
    cached = record_pass(model, cheetah)
    outputs = sum(tensor.nbytes for tensor in (*cached.run.activations.values(), *cached.run.attention.values()))
    assert cached.size > outputs
    layers = [module for module in model.module.modules() if not list(module.children())]
    sizes: dict[int, int] = {}

    def record(module, inputs, output) -> None:
        if isinstance(output, torch.Tensor):
            sizes[output.untyped_storage().data_ptr()] = output.untyped_storage().nbytes()

    hooks = [layer.register_forward_hook(record) for layer in layers]
    run = vizlib.run_for_all(model, cheetah)
    for hook in hooks:
        hook.remove()
    del run
    assert 0.5 < cached.size / sum(sizes.values()) < 2


@resnet_by_default
def test_forward_cache_evicts_the_least_recently_used_pass(model, cheetah, tower, passes):
    size = record_pass(model, cheetah).size
    passes.clear()
    cache = ForwardCache(int(1.5 * size))
    for photo in (cheetah, tower, tower, cheetah, cheetah):
        cache.find_or_run(model, photo)
        assert size <= cache.cache.held_bytes <= cache.cache.max_bytes
    assert passes == [cheetah, tower, cheetah]
    small = ForwardCache(size // 2)
    run = small.find_or_run(model, cheetah)
    assert run is not None
    assert run.logits.shape[0] == 1
    assert small.cache.held_bytes == 0


@pytest.mark.slow
def test_passes_of_a_freed_model_are_evicted(name, cheetah):
    cache, model = ForwardCache(10**9), vizlib.load(name)
    other = vizlib.load(name)
    freed = weakref.ref(cache.find_or_run(model, cheetah))
    cache.find_or_run(other, cheetah)
    both = cache.cache.held_bytes
    del model
    gc.collect()
    assert freed() is None
    assert cache.cache.held_bytes == both // 2


@pytest.mark.slow
def test_concurrent_backward_passes_equal_sequential_ones(model, cheetah):
    cache = ForwardCache(10**9)
    sequential = {target: vizlib.explain_all(model, cheetah, target=target) for target in range(4)}

    def explain(target: int):
        return target, vizlib.explain_all(model, cheetah, target=target, run=cache.find_or_run(model, cheetah))

    with ThreadPoolExecutor(4) as pool:
        for target, attributions in pool.map(explain, [0, 1, 2, 3] * 3):
            for method, attribution in attributions.items():
                assert torch.equal(attribution.heat, sequential[target][method].heat), (target, method)
    assert cache.cache.held_bytes == record_pass(model, cheetah).size


@resnet_by_default
def test_evicted_passes_are_freed(model, cheetah, tower):
    """A graph in a reference cycle would never be freed."""
    cache = ForwardCache(int(1.5 * record_pass(model, cheetah).size))
    gc.collect()
    before = tensor_bytes(model)
    for photo in (cheetah, tower) * 2:
        vizlib.explain_all(model, photo, run=cache.find_or_run(model, photo))
    gc.collect()
    assert tensor_bytes(model) - before <= cache.cache.max_bytes


def tensor_bytes(model) -> int:
    """Return the bytes of all tensors known to the garbage collector except the model's weights, each storage once."""
    weights = {tensor.untyped_storage().data_ptr() for tensor in model.module.state_dict().values()}
    storages = [item.untyped_storage() for item in gc.get_objects() if type(item) is torch.Tensor]
    return sum({item.data_ptr(): item.nbytes() for item in storages if item.data_ptr() not in weights}.values())
