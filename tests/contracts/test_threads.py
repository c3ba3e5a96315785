"""Several threads that use one network get exactly the results of a single thread."""

from __future__ import annotations

import copy
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations

import vizlib
from vizlib.attribution.evidence import BLOCK_ATTENTION_GRADIENTS, RequiredSignals, gather_evidence

NUM_THREADS = 4


def wrap_model(module, size=64, **options):
    preprocessing = {"input_size": (3, size, size), "crop_pct": 1.0, "interpolation": "bilinear"}
    return vizlib.wrap(module, preprocessing=preprocessing, **options)


def build_module(name, size=64):
    torch.manual_seed(0)
    options: dict[str, Any] = {"img_size": size} if "vit" in name else {}
    return timm.create_model(name, num_classes=10, **options)


def make_photos(count=4):
    generator = np.random.default_rng(0)
    return [generator.integers(0, 256, (64, 64, 3), dtype=np.uint8) for _ in range(count)]


def count_traces(module):
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    kinds += ("_forward_hooks_always_called", "_forward_hooks_with_kwargs", "_forward_pre_hooks_with_kwargs")
    hooks = sum(len(getattr(part, kind)) for part in module.modules() for kind in kinds)
    return hooks + sum(parameter.grad is not None for parameter in module.parameters())


def run_in_threads(work, calls, threads=NUM_THREADS):
    """Run the calls in threads that start together, and return the results in the order of the calls."""
    barrier = threading.Barrier(threads)

    def start():
        torch.set_num_threads(1)
        barrier.wait()

    with ThreadPoolExecutor(threads, initializer=start) as pool:
        return list(pool.map(work, calls))


class Fault(nn.Module):
    """A part of a network that raises in the threads that request it."""

    requests = threading.local()

    def forward(self, values: Tensor) -> Tensor:
        if getattr(self.requests, "fails", False):
            raise RuntimeError("requested")
        return values


class Wrapper(nn.Module):
    """A network that returns a dictionary with the logits of another, and normalises spectrally before it."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.first = parametrizations.spectral_norm(nn.Conv2d(3, 3, 3, padding=1))
        self.backbone = backbone

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        return {"logits": self.backbone(F.relu(self.first(image)))}


CNNS = ("training", "evaluation", "wrapped", "one logit")
FAMILY_METHODS = {"transformer": "attention-relevance", "checkpoints": "legrad"}  # of the CNNs guided-backprop


def build_models() -> dict[str, vizlib.Model]:
    """Return six models with a `Fault` in their middle: in training mode, with checkpoints, wrapped, of one logit."""
    networks: dict[str, Any] = {
        name: build_module("resnet18") for name in ("training", "evaluation", "wrapped", "one logit")
    }
    networks |= {name: build_module("test_vit", 32) for name in FAMILY_METHODS}
    for name, network in networks.items():
        part = "layer2" if hasattr(network, "layer2") else "patch_drop"
        network.set_submodule(part, nn.Sequential(network.get_submodule(part), Fault()))
        network.train(name in ("training", "checkpoints"))
    networks["checkpoints"].set_grad_checkpointing(True)
    networks["one logit"].reset_classifier(1)
    options: dict[str, dict[str, Any]] = {
        "wrapped": {"output": lambda output: output["logits"]},
        "one logit": {"output_kind": "sigmoid", "labels": ["llama"]},
    }
    networks["wrapped"] = Wrapper(networks["wrapped"]).eval()
    return {name: wrap_model(network, 32, **options.get(name, {})) for name, network in networks.items()}


METHODS: dict[str, dict[str, Any]] = {
    "saliency": {},
    "grad-cam": {},
    "smoothgrad": {"samples": 2},
    "occlusion": {"window": 16, "stride": 16},
    "layer-cam": {},
}


@pytest.mark.slow
def test_thousand_results_of_eight_threads_with_failures_equal_the_serial_results_bit_for_bit():
    models, photos = build_models(), make_photos()
    before = {name: copy.deepcopy(model.module.state_dict()) for name, model in models.items()}
    modes = {name: [part.training for part in model.module.modules()] for name, model in models.items()}
    calls = [
        (name, method, photo)
        for name in models
        for method in (*METHODS, FAMILY_METHODS.get(name, "guided-backprop"))
        for photo in range(len(photos))
    ]

    def explain_call(call):
        name, method, photo = call
        return vizlib.explain(models[name], photos[photo], method, 0, **METHODS.get(method, {})).heat

    def explain_or_fail(request):
        call, Fault.requests.fails = request
        if not Fault.requests.fails:
            return explain_call(call)
        with pytest.raises(vizlib.ModelError, match="requested"):
            explain_call(call)
        return torch.empty(0)

    serial = {call: explain_call(call) for call in calls}
    # Most results differ, so that a mix-up would be noticed.
    assert len({heat.numpy().tobytes() for heat in serial.values()}) > len(calls) / 2
    generator = random.Random(0)
    order = [(generator.choice(calls), False) for _ in range(1000)] + [
        (generator.choice(calls), True) for _ in range(200)
    ]
    generator.shuffle(order)
    results = run_in_threads(explain_or_fail, order, threads=8)
    equal = [torch.equal(heat, serial[call]) for (call, fails), heat in zip(order, results, strict=True) if not fails]
    assert (sum(equal), len(equal)) == (1000, 1000)
    for name, model in models.items():
        assert count_traces(model.module) == 0
        assert [part.training for part in model.module.modules()] == modes[name]
        state = model.module.state_dict()
        assert all(torch.equal(value, before[name][key]) for key, value in state.items()), name


def test_threads_that_share_a_run_do_not_share_its_backward_rule():
    module = build_module("resnet18").eval()
    model = wrap_model(module)
    run = vizlib.run_for_all(model, make_photos(1)[0])
    calls = [(rule, target) for rule in (None, "guided") for target in range(4)]

    def compute_call(call):
        rule, target = call
        return run.gradients(target, of=[run.image], rule=rule)[0]

    serial = {call: compute_call(call) for call in calls}
    assert not torch.equal(serial[None, 1], serial["guided", 1])
    order = calls * 10
    random.Random(0).shuffle(order)
    results = run_in_threads(compute_call, order)
    assert sum(not torch.equal(gradient, serial[call]) for call, gradient in zip(order, results, strict=True)) == 0
    assert count_traces(module) == 0


class ObservedLock:
    """A lock that sets an event when a thread has to wait for it."""

    def __init__(self):
        self.lock, self.contended = threading.RLock(), threading.Event()

    def __enter__(self):
        if not self.lock.acquire(blocking=False):
            self.contended.set()
            self.lock.acquire()

    def __exit__(self, *_error):
        self.lock.release()


def test_backward_rule_of_another_thread_does_not_apply_to_the_block_gradients_of_legrad():
    """While the score of the only block is computed, another thread sets the guided rule, or waits until it may."""
    module = timm.create_model("vit_tiny_patch16_224", img_size=64, depth=1, num_classes=10, act_layer=torch.nn.ReLU)
    model = wrap_model(module.eval())
    run = vizlib.run_for_all(model, make_photos(1)[0])
    request = RequiredSignals(frozenset({BLOCK_ATTENTION_GRADIENTS}), model.stages)
    run.recording.active_rule.lock = lock = ObservedLock()
    scored = threading.Event()

    def set_rule():
        with run.recording.backward_rule("guided"):
            lock.contended.set()
            assert scored.wait(60)

    def compute_score(logits):
        other.start()
        assert lock.contended.wait(60)
        return logits[:, 2]

    (expected,) = gather_evidence(model, run, lambda logits: logits[:, 2], request).block_attention_gradients.values()
    other = threading.Thread(target=set_rule, daemon=True)
    try:
        (computed,) = gather_evidence(model, run, compute_score, request).block_attention_gradients.values()
    finally:
        scored.set()
        other.join(60)
    assert torch.equal(computed, expected)
    # The guided rule would have changed the gradients.
    (weights,) = run.attention.values()
    assert not torch.equal(run.gradients(2, of=[weights], rule="guided")[0], run.gradients(2, of=[weights])[0])


def test_prediction_in_another_thread_is_not_recorded():
    """The other thread runs the network inside this thread's `record_pass` block."""
    from vizlib.capture import record_pass

    for name, layer in (("resnet18", "layer4"), ("vit_tiny_patch16_224", "blocks.5")):
        module = build_module(name).eval()
        own_image, other_image = torch.randn(2, 1, 3, 64, 64)
        with torch.no_grad():
            with record_pass(module, [layer], attention=True, shapes=True) as expected:
                module(own_image)
            with record_pass(module, [layer], attention=True, shapes=True) as recording:
                module(own_image)
                thread = threading.Thread(target=lambda: module(other_image), daemon=True)  # noqa: B023 - joined right away
                thread.start()
                thread.join()
        assert torch.equal(recording.activations[layer], expected.activations[layer])
        assert list(recording.attention) == list(expected.attention)
        assert all(torch.equal(recording.attention[key], expected.attention[key]) for key in expected.attention)
        assert count_traces(module) == 0
