"""The passes that are kept: their numbers, their bytes, and when they are forgotten."""

from __future__ import annotations

import gc
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

import vizlib
from dashboard.services.forward_cache import ForwardCache, record_pass


@pytest.fixture
def model(name):
    return vizlib.load(name)


@pytest.fixture
def passes(monkeypatch):
    """The photos for which a forward pass was made."""
    made, real = [], vizlib.run_for_all
    monkeypatch.setattr(vizlib, "run_for_all", lambda model, photo, **kwargs: made.append(photo) or real(model, photo, **kwargs))
    return made


def test_another_class_of_a_kept_pass_has_the_librarys_numbers(model, cheetah, passes):
    kept = ForwardCache(10**9)
    for target, against in ((0, None), (7, None), (7, 2), (0, None)):
        ours = vizlib.explain_all(model, cheetah, target=target, against=against, run=kept.find_or_run(model, cheetah))
        for method, answer in vizlib.explain_all(model, cheetah, target=target, against=against).items():
            assert torch.equal(ours[method].heat, answer.heat), method
            for layer, one in answer.by_layer.items():
                assert torch.equal(ours[method].by_layer[layer].heat, one.heat), (method, layer)
    assert len(passes) == 1


def test_a_pass_is_counted_at_about_the_bytes_of_all_its_layers_outputs(model, cheetah):
    """Counted another way: by a hook at every layer without layers of its own."""
    held = record_pass(model, cheetah)
    outputs = sum(one.nbytes for one in (*held.run.activations.values(), *held.run.attention.values()))
    assert held.size > outputs
    layers = [one for one in model.module.modules() if not list(one.children())]
    shown: dict[int, int] = {}

    def note(module, inputs, output) -> None:
        if isinstance(output, torch.Tensor):
            shown[output.untyped_storage().data_ptr()] = output.untyped_storage().nbytes()

    hooks = [layer.register_forward_hook(note) for layer in layers]
    run = vizlib.run_for_all(model, cheetah)
    for hook in hooks:
        hook.remove()
    del run
    assert 0.5 < held.size / sum(shown.values()) < 2


def test_no_more_bytes_are_kept_than_the_budget_and_the_photo_seen_longest_ago_goes_first(
    model, cheetah, tower, passes
):
    one = record_pass(model, cheetah).size
    passes.clear()
    kept = ForwardCache(int(1.5 * one))
    for photo in (cheetah, tower, tower, cheetah, cheetah):
        kept.find_or_run(model, photo)
        assert one <= kept.cache.held_bytes <= kept.cache.max_bytes
    assert passes == [cheetah, tower, cheetah]
    small = ForwardCache(one // 2)
    assert small.find_or_run(model, cheetah).logits.shape[0] == 1
    assert small.cache.held_bytes == 0


def test_a_model_that_leaves_the_memory_takes_its_passes_along(name, cheetah):
    kept, model = ForwardCache(10**9), vizlib.load(name)
    other = vizlib.load(name)
    gone = weakref.ref(kept.find_or_run(model, cheetah))
    kept.find_or_run(other, cheetah)
    both = kept.cache.held_bytes
    del model
    gc.collect()
    assert gone() is None
    assert kept.cache.held_bytes == both // 2


def test_four_threads_at_once_get_the_numbers_of_one(model, cheetah):
    kept = ForwardCache(10**9)
    alone = {target: vizlib.explain_all(model, cheetah, target=target) for target in range(4)}

    def ask(target: int):
        return target, vizlib.explain_all(model, cheetah, target=target, run=kept.find_or_run(model, cheetah))

    with ThreadPoolExecutor(4) as pool:
        for target, answers in pool.map(ask, [0, 1, 2, 3] * 3):
            for method, answer in answers.items():
                assert torch.equal(answer.heat, alone[target][method].heat), (target, method)
    assert kept.cache.held_bytes == record_pass(model, cheetah).size


def test_nothing_of_a_pass_that_is_forgotten_stays_in_the_memory(model, cheetah, tower):
    """A pass is a graph, and a graph that holds itself is never collected: it would be one photo's share for ever."""
    kept = ForwardCache(int(1.5 * record_pass(model, cheetah).size))
    gc.collect()
    before = tensor_bytes(model)
    for photo in (cheetah, tower) * 3:
        vizlib.explain_all(model, photo, run=kept.find_or_run(model, photo))
    gc.collect()
    assert tensor_bytes(model) - before <= kept.cache.max_bytes


def tensor_bytes(model) -> int:
    """Bytes of all tensors that Python knows of but for the model's weights, each memory once."""
    weights = {one.untyped_storage().data_ptr() for one in model.module.state_dict().values()}
    storages = [one.untyped_storage() for one in gc.get_objects() if type(one) is torch.Tensor]
    return sum({one.data_ptr(): one.nbytes() for one in storages if one.data_ptr() not in weights}.values())
