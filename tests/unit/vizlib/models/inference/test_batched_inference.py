"""Batched inference: batches fit the budget, passes continue from any layer, bfloat16 is verified."""

from __future__ import annotations

import copy
import itertools
import re
import threading
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchvision
from timm.models.resnet import BasicBlock, ResNet
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

import vizlib
from vizlib.attribution.methods import scoring
from vizlib.capture import substitute_output
from vizlib.models.inference.batched_inference import (
    MAX_BATCH_FLOPS,
    MAX_BATCH_SIZE,
    BatchedInference,
    InputCost,
    _CostMeter,
    benefits_from_bfloat16,
    supports_bfloat16,
)

VIT = {"img_size": (16, 24), "patch_size": 8, "embed_dim": 12, "depth": 3, "num_heads": 2, "num_classes": 4}


def resnet():
    block: Any = BasicBlock  # the annotation of timm is an instance of it
    return ResNet(block, (1, 1, 1, 1), num_classes=4), (32, 48)


def vit():
    return timm.create_model("vit_tiny_patch16_224", **VIT), (16, 24)


def distilled():
    return timm.create_model("deit_tiny_distilled_patch16_224", **VIT), (16, 24)


def torchvision_vit():
    module: Any = torchvision.models.VisionTransformer(16, 8, 3, 2, 12, 24, num_classes=4)
    nn.init.normal_(module.heads.head.weight)
    return module, (16, 16)


BUILDS = {"resnet": resnet, "vit": vit, "distilled": distilled, "torchvision": torchvision_vit}


def build_model(build, dtype=torch.float64):
    torch.manual_seed(0)
    module, size = build()
    preprocessing = {"input_size": (3, *size), "crop_pct": 1.0, "crop_mode": "squash"}
    return vizlib.wrap(module.to(dtype).eval(), preprocessing=preprocessing)


@pytest.fixture(scope="module", params=BUILDS)
def model(request):
    return build_model(BUILDS[request.param])


def make_photo(model, seed=0):
    size = model.preprocessing.input_size
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def make_image(model, seed=0):
    return model.tensor(vizlib.open_image(make_photo(model, seed)))


def count_hooks(module):
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return sum(len(getattr(part, kind)) for part in module.modules() for kind in kinds)


# ------------------------------------------------------------------------------------------------ passes from a layer


def run_remaining_layers(module, layer, x):
    """Return the logits from a stage's output, with the remaining layers written out for each architecture."""
    if isinstance(module, ResNet):
        for name in ("layer1", "layer2", "layer3", "layer4"):
            x = getattr(module, name)(x) if name > layer else x
        return module.fc(x.mean((2, 3)))
    at = int(re.findall(r"\d+", layer)[-1])
    if hasattr(module, "blocks"):
        for block in module.blocks[at + 1 :]:
            x = x + block.attn(block.norm1(x))
            x = x + block.mlp(block.norm2(x))
        x = module.norm(x)
        if hasattr(module, "head_dist"):
            return (module.head(x[:, 0]) + module.head_dist(x[:, 1])) / 2
        return module.head(x[:, 0])
    for block in list(module.encoder.layers)[at + 1 :]:
        y = block.ln_1(x)
        x = x + block.self_attention(y, y, y, need_weights=False)[0]
        x = x + block.mlp(block.ln_2(x))
    return module.heads(module.encoder.ln(x)[:, 0])


def make_layer_outputs(model, layer, count=3):
    """Return other outputs for a layer: its outputs for another photo, scaled."""
    activation = model.run(make_photo(model, 9), layers=[layer]).activations[layer].detach()
    return torch.cat([activation * factor for factor in range(1, count + 1)])


def test_logits_from_layer_equal_the_remaining_layers_from_every_stage(model):
    image, inference = make_image(model), BatchedInference(model)
    unchanged = model.logits(image)
    for layer in model.stages:
        outputs = make_layer_outputs(model, layer)
        with torch.no_grad():
            expected = run_remaining_layers(model.module, layer, outputs)
        result = inference.logits_from_layer(image, layer, outputs)
        assert torch.allclose(result, expected, rtol=1e-9, atol=1e-12), layer
        assert not torch.allclose(result, unchanged.expand(3, -1), rtol=1e-3), layer
        own_output = model.run(make_photo(model), layers=[layer]).activations[layer].detach()
        assert torch.allclose(
            inference.logits_from_layer(image, layer, own_output), unchanged, rtol=1e-9, atol=1e-12
        ), layer
    assert torch.equal(model.logits(image), unchanged)


def test_substitute_output_does_not_affect_another_thread(model):
    image, layer = make_image(model), model.stages[1]
    expected, results = model.logits(image), {}
    outputs = make_layer_outputs(model, layer, 1)

    def run_in_thread():
        results["logits"] = model.logits(image)
        results["from layer"] = BatchedInference(model).logits_from_layer(image, layer, 2 * outputs)

    with substitute_output(model.module, layer, lambda: outputs):
        thread = threading.Thread(target=run_in_thread)
        thread.start()
        thread.join()
        own_output = model.logits(image)
    assert torch.equal(results["logits"], expected)
    assert not torch.allclose(own_output, expected, rtol=1e-3)
    assert torch.allclose(
        results["from layer"],
        BatchedInference(model).logits_from_layer(image, layer, 2 * outputs),
        rtol=1e-9,
        atol=1e-12,
    )


def test_no_hook_outlives_an_exception(model):
    image, layer = make_image(model), model.stages[0]
    with pytest.raises(vizlib.ModelError, match="cannot be run on"):
        BatchedInference(model).logits_from_layer(image, layer, torch.zeros(2, 5, 7, dtype=image.dtype))
    assert count_hooks(model.module) == 0
    with pytest.raises(vizlib.ModelError, match="has no layer 'nowhere'"):
        BatchedInference(model).logits_from_layer(image, "nowhere", torch.zeros(2, 5, 7, dtype=image.dtype))
    assert count_hooks(model.module) == 0
    with pytest.raises(KeyboardInterrupt), substitute_output(model.module, layer, lambda: image):
        raise KeyboardInterrupt
    assert count_hooks(model.module) == 0


def test_batched_inference_leaves_the_network_unchanged(model):
    before = {name: value.clone() for name, value in model.module.state_dict().items()}
    inference, image = BatchedInference(model), make_image(model)
    inference.batch_size(gradient=True)
    inference.gradients(image.repeat(2, 1, 1, 1), lambda logits: logits[:, 1])
    inference.logits_from_layer(image, model.stages[0], make_layer_outputs(model, model.stages[0]))
    assert count_hooks(model.module) == 0
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.module.parameters())
    after = model.module.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_gradients_of_a_batch_equal_those_of_each_input_alone(model):
    images = torch.cat([make_image(model, seed) for seed in range(3)])
    result = BatchedInference(model).gradients(images, lambda logits: logits[:, 1] - logits[:, 3])
    for i in range(3):
        one = images[i : i + 1].clone().requires_grad_()
        logits = model.module(one)[0]
        (expected,) = torch.autograd.grad(logits[1] - logits[3], one)
        assert torch.allclose(result[i], expected[0], rtol=1e-6, atol=1e-9 * expected.abs().max().item())


# ------------------------------------------------------------------------------------------------ batches


class WideNetwork(nn.Module):
    """A network of known memory: for each input, two tensors of 64 channels of its size."""

    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 64, 1), nn.Linear(64, 3)

    def forward(self, x):
        return self.head(self.conv(x).sin().mean((2, 3)))


@pytest.fixture(scope="module")
def wide_model():
    torch.manual_seed(0)
    return vizlib.wrap(WideNetwork().eval(), preprocessing={"input_size": (3, 128, 128), "crop_pct": 1.0})


def measure(run):
    with _CostMeter() as meter:
        run()
    return meter.peak_bytes, meter.flops


def test_batch_size_grows_with_the_budget_and_fits_it(wide_model):
    blank, sizes = torch.zeros(1, 3, 128, 128), []
    for budget in (64, 100, 150):
        inference = BatchedInference(wide_model, budget_mb=budget)
        for gradient in (False, True):
            size = inference.batch_size(gradient=gradient)
            sizes.append((gradient, budget, size))

            def run(count, inference=inference, gradient=gradient):
                images = blank.repeat(count, 1, 1, 1)
                return inference.gradients(images, lambda out: out[:, 0]) if gradient else inference.logits(images)

            assert measure(lambda run=run, size=size: run(size))[0] <= budget * 1e6
            # The batch is not much smaller than necessary.
            assert measure(lambda run=run, size=size: run(size + 2))[0] > budget * 7e5
    for gradient in (False, True):
        one, two, three = (size for which, _, size in sizes if which == gradient)
        assert 1 <= one < two < three
    assert sizes[0][2] > sizes[1][2], "a backward pass keeps more tensors alive"


@pytest.mark.parametrize(
    ("cost", "expected"),
    [
        (InputCost(10**12, 1), 1),  # one input is more than the budget
        (InputCost(1, int(MAX_BATCH_FLOPS["cpu"]) * 9), 1),  # one input exceeds the limit of operations
        (InputCost(1, int(MAX_BATCH_FLOPS["cpu"]) // 9), 9),
        (InputCost(1, 1), MAX_BATCH_SIZE),
        (InputCost(10**7, 1), 76),  # three quarters of the budget, as memory is fragmented
    ],
)
def test_batch_size_is_bounded_by_memory_and_operations_and_at_least_one(monkeypatch, cost, expected):
    monkeypatch.setattr(BatchedInference, "_input_cost", lambda *_: cost)
    assert BatchedInference(build_model(vit)).batch_size() == expected


@pytest.mark.parametrize("total", [1, 6, 7, 25, 40])
def test_split_batches_keeps_all_indices_in_batches_of_similar_size(total):
    batches = BatchedInference.split_batches(torch.arange(total), 6)
    assert torch.equal(torch.cat(batches), torch.arange(total))
    sizes = {len(batch) for batch in batches}
    assert max(sizes) <= 6
    assert max(sizes) - min(sizes) <= 1
    assert BatchedInference.split_batches(torch.arange(0), 6) == ()


def test_cost_from_a_layer_counts_only_the_following_layers():
    model = vizlib.wrap(WideNetwork().eval(), preprocessing={"input_size": (3, 128, 128), "crop_pct": 1.0})
    image, last = torch.zeros(1, 3, 128, 128), model.stages[-1]
    cost = BatchedInference(model)._input_cost(False, image, last)
    whole = BatchedInference(model)._input_cost(False, None, None)
    assert cost.memory_bytes < whole.memory_bytes
    assert 0 < cost.flops < whole.flops / 2
    output = model.forward(image, [last])[2].activations[last].detach()
    with _CostMeter() as meter:
        outputs = output.repeat(8, 1, 1, 1)  # eight inputs cost at most eight times as much
        BatchedInference(model)._run_from_layer(image, last, lambda: (meter.restart(), outputs.clone())[1], 8)
    assert meter.flops == 8 * cost.flops
    assert meter.peak_bytes <= 8 * cost.memory_bytes


def test_cost_of_a_pass_is_measured_once_per_model(wide_model):
    model, calls = vizlib.wrap(wide_model.module, preprocessing=wide_model.preprocessing), []
    handle = model.module.register_forward_hook(lambda *_: calls.append(1))
    try:
        first = BatchedInference(model).batch_size(gradient=True)
        assert calls
        calls.clear()
        assert BatchedInference(model).batch_size(gradient=True) == first
        assert not calls
    finally:
        handle.remove()


@pytest.mark.parametrize("budget", [63, 65537, 0, -5])
def test_budget_out_of_range_raises_an_error_with_the_range(wide_model, budget):
    with pytest.raises(vizlib.MethodError, match="from 64 to 65536"):
        BatchedInference(wide_model, budget_mb=budget)
    with pytest.raises(vizlib.MethodError, match="takes a whole number from 64 to 65536 for budget_mb"):
        vizlib.explain(wide_model, np.zeros((9, 9, 3), dtype=np.uint8), "occlusion", budget_mb=budget)


def test_cost_meter_peak_is_the_memory_of_simultaneously_live_tensors():
    def allocate():
        a = torch.zeros(1000)  # 4,000 bytes
        b = a + 1  # 8,000
        del a  # 4,000
        c = torch.cat([b, b])  # 12,000: the peak
        view = c[:500].view(5, 100)  # no memory of its own
        del b  # 8,000
        view.mul_(2)
        d = torch.zeros(500)  # 10,000
        del c
        return d + view.sum()  # the view keeps c's memory alive: 12,004 with the sum would be 12,004 + 2,000

    peak, flops = measure(allocate)
    assert peak == 8_000 + 2_000 + 4 + 2_000
    assert flops == 0

    def allocate_and_free():
        for _ in range(50):
            torch.zeros(1000)  # each is freed before the next

    assert measure(allocate_and_free)[0] == 4_000


def test_cost_meter_counts_the_flops_of_matrix_products_and_convolutions():
    a, b = torch.ones(3, 5), torch.ones(5, 7)
    assert measure(lambda: a @ b)[1] == 2 * 3 * 5 * 7
    images, kernels = torch.ones(2, 3, 8, 8), torch.ones(4, 3, 3, 3)
    assert measure(lambda: nn.functional.conv2d(images, kernels))[1] == 2 * (2 * 4 * 6 * 6) * (3 * 3 * 3)


# ------------------------------------------------------------------------------------------------ bfloat16


@pytest.fixture
def always_bfloat16(monkeypatch):
    """Use bfloat16 even where the processor computes it slowly: every processor can."""
    monkeypatch.setattr(scoring, "benefits_from_bfloat16", lambda model: True)


def find_bfloat16_notes(notes) -> list[Any]:
    return [note for note in notes if "bfloat16" in note]


PARAMETERS: dict[str, Any] = {"window": 8, "stride": 8}


def fold_batchnorm(module):
    """Return a copy of a ResNet whose batch norms PyTorch has folded into the convolutions before them."""
    module = copy.deepcopy(module)
    for part in module.modules():
        names = [name for name, _ in part.named_children()]
        for one, other in itertools.pairwise(names):
            if isinstance(part.get_submodule(other), nn.BatchNorm2d):
                setattr(part, one, fuse_conv_bn_eval(part.get_submodule(one), part.get_submodule(other)))
                setattr(part, other, nn.Identity())
    return module


def compute_scores_in_both_precisions(model, parameters):
    """Return the scores of the first inputs in single precision and in bfloat16."""
    total = (32 // 8) * (48 // 8)
    order = np.random.Generator(np.random.PCG64([0, 0])).permutation(total)
    image = make_image(model)
    inputs = image.repeat(total, 1, 1, 1)
    for changed, window in zip(inputs, order, strict=True):
        row, column = divmod(int(window), 6)
        changed[:, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8] = 0
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        fast = fold_batchnorm(model.module)(inputs.contiguous(memory_format=torch.channels_last)).float()
    with torch.no_grad():
        return model.module(inputs[:4])[:, parameters["target"]], fast[:, parameters["target"]]


def test_auto_precision_reports_the_measured_error_of_bfloat16(always_bfloat16):
    model = build_model(resnet, torch.float32)
    exact, fast = compute_scores_in_both_precisions(model, {"target": 0})
    share = ((exact - fast[:4]).square().mean().sqrt() / fast.std()).item()
    assert 0 < share < 0.1
    result = vizlib.explain(model, make_photo(model), "occlusion", 0, **PARAMETERS)
    (note,) = find_bfloat16_notes(result.notes)
    assert note.code == "score.bfloat16"
    assert abs(float(note.facts["share"].rstrip("%")) - 100 * share) < 0.3
    expected = vizlib.explain(model, make_photo(model), "occlusion", 0, **PARAMETERS, precision="float32")
    assert not find_bfloat16_notes(expected.notes)
    assert not torch.equal(result.heat, expected.heat)
    steps = vizlib.explain_stream(model, make_photo(model), "occlusion", 0, **PARAMETERS)
    assert all(find_bfloat16_notes(step.attribution.notes) == [note] for step in steps)


@pytest.mark.parametrize("bias", [2.0, 60.0, 1e4])
def test_auto_precision_falls_back_where_bfloat16_cannot_distinguish_the_scores(always_bfloat16, bias):
    model = build_model(resnet, torch.float32)
    module: Any = model.module
    with torch.no_grad():
        module.fc.bias.add_(bias)
    result = vizlib.explain(model, make_photo(model), "occlusion", 0, **PARAMETERS)
    (note,) = find_bfloat16_notes(result.notes)
    assert note.code in ("score.bfloat16-refused", "score.bfloat16-too-coarse")
    assert not re.search("nan|inf%", note)
    expected = vizlib.explain(model, make_photo(model), "occlusion", 0, **PARAMETERS, precision="float32")
    assert torch.equal(result.heat, expected.heat)


@pytest.mark.parametrize("size", [1, 3])
def test_bfloat16_check_works_with_small_batches(always_bfloat16, size, monkeypatch):
    model = build_model(resnet, torch.float32)
    whole = vizlib.explain(model, make_photo(model), "occlusion", 0, **PARAMETERS)
    monkeypatch.setattr(BatchedInference, "batch_size", lambda *_, **__: size)
    steps = list(vizlib.explain_stream(model, make_photo(model), "occlusion", 0, **PARAMETERS))
    expected = {1: [*range(5, 25)], 3: [5, 8, 11, 14, 17, 20, 22, 24]}  # the first step holds what the check needs
    assert [step.done for step in steps] == expected[size]
    result = steps[-1].attribution
    assert find_bfloat16_notes(result.notes)[0].code == "score.bfloat16"
    assert (result.heat - whole.heat).abs().max() < 0.1 * (whole.heat.max() - whole.heat.min())


@pytest.mark.parametrize("method", ["rise", "score-cam", "ablation-cam"])
def test_scoring_methods_can_be_computed_in_bfloat16(always_bfloat16, method):
    model = build_model(resnet, torch.float32)
    parameters: dict[str, Any] = {"layer": "layer1"} if "cam" in method else {"masks": 40, "score": "logit"}
    fast = vizlib.explain(model, make_photo(model), method, 0, **parameters)
    expected = vizlib.explain(model, make_photo(model), method, 0, **parameters, precision="float32")
    assert find_bfloat16_notes(fast.notes)
    assert not find_bfloat16_notes(expected.notes)
    assert torch.corrcoef(torch.stack([fast.heat.flatten(), expected.heat.flatten()]))[0, 1] > 0.95


def test_a_network_in_double_precision_is_never_computed_in_bfloat16():
    model = build_model(vit)
    assert not benefits_from_bfloat16(model)
    assert not find_bfloat16_notes(vizlib.explain(model, make_photo(model), "occlusion", 0, **PARAMETERS).notes)


def rank_values(values):
    return values.flatten().argsort().argsort().double()


@pytest.mark.slow
def test_occlusion_of_a_real_photo_keeps_its_order_in_bfloat16(always_bfloat16, tower):
    model = vizlib.load("resnet18-imagenette")
    parameters: dict[str, Any] = {"window": 32, "stride": 24}
    fast = vizlib.explain(model, tower, "occlusion", **parameters)
    expected = vizlib.explain(model, tower, "occlusion", **parameters, precision="float32")
    assert find_bfloat16_notes(fast.notes)[0].code == "score.bfloat16"
    pair = [rank_values(result.heat[::8, ::8]) for result in (fast, expected)]
    assert torch.corrcoef(torch.stack(pair))[0, 1] >= 0.99  # Spearman's: that of the ranks


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"avx512_bf16": True}, True),
        ({"amx_bf16": True}, True),
        ({"avx2": True, "avx512_bf16": False}, False),
        ({}, False),
    ],
)
def test_supports_bfloat16_follows_the_capabilities_of_the_processor(monkeypatch, capabilities, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert supports_bfloat16(torch.device("cpu")) is expected
