"""Many threads on one network get exactly what one thread gets."""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import timm
import torch

import vizlib

THREADS, CALLS = 4, 200


def wrapped(module):
    return vizlib.wrap(module, preprocessing={"input_size": (3, 64, 64), "crop_pct": 1.0, "interpolation": "bilinear"})


def build(name):
    torch.manual_seed(0)
    size = {"img_size": 64} if "vit" in name else {}
    return timm.create_model(name, num_classes=10, **size)


def photos(count=4):
    generator = np.random.default_rng(0)
    return [generator.integers(0, 256, (64, 64, 3), dtype=np.uint8) for _ in range(count)]


def left_behind(module):
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    kinds += ("_forward_hooks_always_called", "_forward_hooks_with_kwargs", "_forward_pre_hooks_with_kwargs")
    hooks = sum(len(getattr(part, kind)) for part in module.modules() for kind in kinds)
    return hooks + sum(parameter.grad is not None for parameter in module.parameters())


def at_once(work, calls):
    """Run the calls in threads that all start together, and give the answers in the order of the calls."""
    barrier = threading.Barrier(THREADS)

    def start():
        torch.set_num_threads(1)
        barrier.wait()

    with ThreadPoolExecutor(THREADS, initializer=start) as pool:
        return list(pool.map(work, calls))


@pytest.mark.slow
@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
@pytest.mark.parametrize(
    ("name", "methods"),
    [
        ("resnet18", ["saliency", "guided-backprop", "grad-cam", "input-x-gradient"]),
        ("vit_tiny_patch16_224", ["saliency", "grad-cam", "raw-attention", "attention-rollout", "attention-relevance"]),
    ],
)
def test_200_of_200_results_of_four_threads_equal_the_serial_ones_to_the_bit(name, methods, training):
    module = build(name).train(training)
    model, pictures = wrapped(module), photos()
    calls = [(method, picture, target) for method in methods for picture in range(4) for target in (2, 7)]
    order = (calls * (CALLS // len(calls) + 1))[:CALLS]
    random.Random(0).shuffle(order)

    def work(call):
        method, picture, target = call
        return vizlib.explain(model, pictures[picture], method, target).heat

    serial = {call: work(call) for call in calls}
    assert len({heat.numpy().tobytes() for heat in serial.values()}) > len(calls) / 2  # they could be mixed up
    found = at_once(work, order)
    wrong = sum(not torch.equal(heat, serial[call]) for call, heat in zip(order, found, strict=True))
    assert (len(found), wrong) == (CALLS, 0)
    assert left_behind(module) == 0
    assert all(part.training == training for part in module.modules())


def test_threads_that_share_one_run_do_not_share_its_backward_rule():
    module = build("resnet18").eval()
    model = wrapped(module)
    run = vizlib.run_for_all(model, photos(1)[0])
    calls = [(rule, target) for rule in (None, "guided") for target in range(4)]

    def work(call):
        rule, target = call
        return run.gradients(target, of=[run.image], rule=rule)[0]

    serial = {call: work(call) for call in calls}
    assert not torch.equal(serial[None, 1], serial["guided", 1])
    order = calls * 10
    random.Random(0).shuffle(order)
    found = at_once(work, order)
    assert sum(not torch.equal(one, serial[call]) for call, one in zip(order, found, strict=True)) == 0
    assert left_behind(module) == 0


def test_a_thread_that_only_predicts_is_not_recorded_by_one_that_watches():
    """The other thread runs the network inside this thread's `watch` block, at a place where it could do harm."""
    from vizlib.capture import record_pass

    for name, layer in (("resnet18", "layer4"), ("vit_tiny_patch16_224", "blocks.5")):
        module = build(name).eval()
        mine, other = torch.randn(2, 1, 3, 64, 64)
        with torch.no_grad():
            with record_pass(module, [layer], attention=True, shapes=True) as alone:
                module(mine)
            with record_pass(module, [layer], attention=True, shapes=True) as seen:
                module(mine)
                thread = threading.Thread(target=lambda: module(other), daemon=True)  # noqa: B023 - joined at once
                thread.start()
                thread.join()
        assert torch.equal(seen.activations[layer], alone.activations[layer])
        assert list(seen.attention) == list(alone.attention)
        assert all(torch.equal(seen.attention[key], alone.attention[key]) for key in alone.attention)
        assert left_behind(module) == 0
