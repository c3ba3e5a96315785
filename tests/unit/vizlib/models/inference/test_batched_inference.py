"""The engine of many passes: batches fit the budget, any layer can be passed onward from, bfloat16 is checked."""

from __future__ import annotations

import copy
import itertools
import re
import threading

import numpy as np
import pytest
import timm
import torch
import torchvision
from timm.models.resnet import BasicBlock, ResNet
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

import vizlib
from vizlib.attribution.methods import scoring as engine
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
    return ResNet(BasicBlock, [1, 1, 1, 1], num_classes=4), (32, 48)


def vit():
    return timm.create_model("vit_tiny_patch16_224", **VIT), (16, 24)


def distilled():
    return timm.create_model("deit_tiny_distilled_patch16_224", **VIT), (16, 24)


def torchvision_vit():
    module = torchvision.models.VisionTransformer(16, 8, 3, 2, 12, 24, num_classes=4)
    nn.init.normal_(module.heads.head.weight)
    return module, (16, 16)


BUILDS = {"resnet": resnet, "vit": vit, "distilled": distilled, "torchvision": torchvision_vit}


def wrapped(build, dtype=torch.float64):
    torch.manual_seed(0)
    module, size = build()
    shown = {"input_size": (3, *size), "crop_pct": 1.0, "crop_mode": "squash"}
    return vizlib.wrap(module.to(dtype).eval(), preprocessing=shown)


@pytest.fixture(scope="module", params=BUILDS)
def model(request):
    return wrapped(BUILDS[request.param])


def picture(model, seed=0):
    size = model.preprocessing.input_size
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def image_of(model, seed=0):
    return model.tensor(vizlib.open_image(picture(model, seed)))


def hooks_on(module):
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return sum(len(getattr(part, kind)) for part in module.modules() for kind in kinds)


# ------------------------------------------------------------------------------------------------ onward


def rest_by_hand(module, layer, x):
    """What comes after a stage, written out for each kind of network."""
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


def others(model, layer, count=3):
    """Outputs a layer never gave: its own for another photo, scaled."""
    seen = model.run(picture(model, 9), layers=[layer]).activations[layer].detach()
    return torch.cat([seen * factor for factor in range(1, count + 1)])


def test_onward_is_the_rest_of_the_network_from_every_stage(model):
    image, passes = image_of(model), BatchedInference(model)
    plain = model.logits(image)
    for layer in model.stages:
        outputs = others(model, layer)
        with torch.no_grad():
            expected = rest_by_hand(model.module, layer, outputs)
        found = passes.logits_from_layer(image, layer, outputs)
        assert torch.allclose(found, expected, rtol=1e-9, atol=1e-12), layer
        assert not torch.allclose(found, plain.expand(3, -1), rtol=1e-3), layer
        own = model.run(picture(model), layers=[layer]).activations[layer].detach()
        assert torch.allclose(passes.logits_from_layer(image, layer, own), plain, rtol=1e-9, atol=1e-12), layer
    assert torch.equal(model.logits(image), plain)


def test_a_substitution_is_not_seen_by_another_thread(model):
    image, layer = image_of(model), model.stages[1]
    plain, seen = model.logits(image), {}
    outputs = others(model, layer, 1)

    def other():
        seen["logits"] = model.logits(image)
        seen["onward"] = BatchedInference(model).logits_from_layer(image, layer, 2 * outputs)

    with substitute_output(model.module, layer, lambda: outputs):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        own = model.logits(image)
    assert torch.equal(seen["logits"], plain)
    assert not torch.allclose(own, plain, rtol=1e-3)
    assert torch.allclose(
        seen["onward"], BatchedInference(model).logits_from_layer(image, layer, 2 * outputs), rtol=1e-9, atol=1e-12
    )


def test_no_hook_outlives_an_exception(model):
    image, layer = image_of(model), model.stages[0]
    with pytest.raises(vizlib.ModelError, match="cannot be run on"):
        BatchedInference(model).logits_from_layer(image, layer, torch.zeros(2, 5, 7, dtype=image.dtype))
    assert hooks_on(model.module) == 0
    with pytest.raises(vizlib.ModelError, match="has no layer 'nowhere'"):
        BatchedInference(model).logits_from_layer(image, "nowhere", torch.zeros(2, 5, 7, dtype=image.dtype))
    assert hooks_on(model.module) == 0
    with pytest.raises(KeyboardInterrupt), substitute_output(model.module, layer, lambda: image):
        raise KeyboardInterrupt
    assert hooks_on(model.module) == 0


def test_passes_leave_the_network_as_it_was(model):
    before = {name: value.clone() for name, value in model.module.state_dict().items()}
    passes, image = BatchedInference(model), image_of(model)
    passes.batch_size(gradient=True)
    passes.gradients(image.repeat(2, 1, 1, 1), lambda logits: logits[:, 1])
    passes.logits_from_layer(image, model.stages[0], others(model, model.stages[0]))
    assert hooks_on(model.module) == 0
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.module.parameters())
    after = model.module.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_the_gradients_of_a_batch_are_those_of_each_input_alone(model):
    images = torch.cat([image_of(model, seed) for seed in range(3)])
    found = BatchedInference(model).gradients(images, lambda logits: logits[:, 1] - logits[:, 3])
    for i in range(3):
        one = images[i : i + 1].clone().requires_grad_()
        logits = model.module(one)[0]
        (expected,) = torch.autograd.grad(logits[1] - logits[3], one)
        assert torch.allclose(found[i], expected[0], rtol=1e-6, atol=1e-9 * expected.abs().max().item())


# ------------------------------------------------------------------------------------------------ batches


class Wide(nn.Module):
    """A network whose batches are known: of each input 64 channels as large as itself, twice."""

    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 64, 1), nn.Linear(64, 3)

    def forward(self, x):
        return self.head(self.conv(x).sin().mean((2, 3)))


@pytest.fixture(scope="module")
def wide():
    torch.manual_seed(0)
    return vizlib.wrap(Wide().eval(), preprocessing={"input_size": (3, 128, 128), "crop_pct": 1.0})


def metered(run):
    with _CostMeter() as meter:
        run()
    return meter.peak_bytes, meter.flops


def test_a_larger_budget_makes_larger_batches_and_each_fits_its_budget(wide):
    blank, sizes = torch.zeros(1, 3, 128, 128), []
    for budget in (64, 100, 150):
        passes = BatchedInference(wide, budget_mb=budget)
        for gradient in (False, True):
            size = passes.batch_size(gradient=gradient)
            sizes.append((gradient, budget, size))

            def run(count, passes=passes, gradient=gradient):
                images = blank.repeat(count, 1, 1, 1)
                return passes.gradients(images, lambda out: out[:, 0]) if gradient else passes.logits(images)

            assert metered(lambda run=run, size=size: run(size))[0] <= budget * 1e6
            assert metered(lambda run=run, size=size: run(size + 2))[0] > budget * 7e5  # it is not needlessly small
    for gradient in (False, True):
        one, two, three = (size for which, _, size in sizes if which == gradient)
        assert 1 <= one < two < three
    assert sizes[0][2] > sizes[1][2], "a gradient keeps more of the pass alive"


@pytest.mark.parametrize(
    ("cost", "expected"),
    [
        (InputCost(10**12, 1), 1),  # one input is more than the budget
        (InputCost(1, int(MAX_BATCH_FLOPS["cpu"]) * 9), 1),  # one input is more work than a person wants to wait for
        (InputCost(1, int(MAX_BATCH_FLOPS["cpu"]) // 9), 9),
        (InputCost(1, 1), MAX_BATCH_SIZE),
        (InputCost(10**7, 1), 76),  # three quarters of the budget, as memory has holes
    ],
)
def test_a_batch_is_bounded_by_memory_and_work_and_holds_one_at_least(monkeypatch, cost, expected):
    monkeypatch.setattr(BatchedInference, "_cost", lambda *_: cost)
    assert BatchedInference(wrapped(vit)).batch_size() == expected


@pytest.mark.parametrize("total", [1, 6, 7, 25, 40])
def test_batches_hold_all_and_are_about_as_large(total):
    batches = BatchedInference.split_batches(torch.arange(total), 6)
    assert torch.equal(torch.cat(batches), torch.arange(total))
    sizes = {len(batch) for batch in batches}
    assert max(sizes) <= 6
    assert max(sizes) - min(sizes) <= 1
    assert BatchedInference.split_batches(torch.arange(0), 6) == ()


def test_from_a_layer_onward_only_what_follows_it_counts():
    model = vizlib.wrap(Wide().eval(), preprocessing={"input_size": (3, 128, 128), "crop_pct": 1.0})
    image, last = torch.zeros(1, 3, 128, 128), model.stages[-1]
    cost = BatchedInference(model)._cost(False, image, last)
    whole = BatchedInference(model)._cost(False, None, None)
    assert cost.memory_bytes < whole.memory_bytes
    assert 0 < cost.flops < whole.flops / 2
    output = model.forward(image, [last])[2].activations[last].detach()
    with _CostMeter() as meter:
        outputs = output.repeat(8, 1, 1, 1)  # eight inputs are what each of them costs, at most
        BatchedInference(model)._onward(image, last, lambda: (meter.restart(), outputs.clone())[1], 8)
    assert meter.flops == 8 * cost.flops
    assert meter.peak_bytes <= 8 * cost.memory_bytes


def test_what_a_pass_costs_is_measured_once(wide):
    model, calls = vizlib.wrap(wide.module, preprocessing=wide.preprocessing), []
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
def test_a_budget_out_of_range_is_one_sentence_that_names_the_range(wide, budget):
    with pytest.raises(vizlib.MethodError, match="from 64 to 65536"):
        BatchedInference(wide, budget_mb=budget)
    with pytest.raises(vizlib.MethodError, match="takes a whole number from 64 to 65536 for budget_mb"):
        vizlib.explain(wide, np.zeros((9, 9, 3), dtype=np.uint8), "occlusion", budget_mb=budget)


def test_the_meters_peak_is_what_is_alive_at_once():
    def work():
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

    most, flops = metered(work)
    assert most == 8_000 + 2_000 + 4 + 2_000
    assert flops == 0

    def smaller():
        for _ in range(50):
            torch.zeros(1000)  # each is let go before the next

    assert metered(smaller)[0] == 4_000


def test_the_meter_counts_the_floating_point_operations_of_products():
    a, b = torch.ones(3, 5), torch.ones(5, 7)
    assert metered(lambda: a @ b)[1] == 2 * 3 * 5 * 7
    images, kernels = torch.ones(2, 3, 8, 8), torch.ones(4, 3, 3, 3)
    assert metered(lambda: nn.functional.conv2d(images, kernels))[1] == 2 * (2 * 4 * 6 * 6) * (3 * 3 * 3)


# ------------------------------------------------------------------------------------------------ bfloat16


@pytest.fixture
def quick(monkeypatch):
    """Every processor has bfloat16; some are only slow at it."""
    monkeypatch.setattr(engine, "benefits_from_bfloat16", lambda model: True)


def said(notes):
    return [note for note in notes if "bfloat16" in note]


KNOBS = {"window": 8, "stride": 8}


def folded(module):
    """A copy of a ResNet whose normalisations PyTorch has folded into the convolutions before them."""
    module = copy.deepcopy(module)
    for part in module.modules():
        names = [name for name, _ in part.named_children()]
        for one, other in itertools.pairwise(names):
            if isinstance(part.get_submodule(other), nn.BatchNorm2d):
                setattr(part, one, fuse_conv_bn_eval(part.get_submodule(one), part.get_submodule(other)))
                setattr(part, other, nn.Identity())
    return module


def exact_and_quick(model, knobs):
    """Scores of the first trials in both precisions, by hand."""
    total = (32 // 8) * (48 // 8)
    order = np.random.Generator(np.random.PCG64([0, 0])).permutation(total)
    image = image_of(model)
    inputs = image.repeat(total, 1, 1, 1)
    for one, place in zip(inputs, order, strict=True):
        row, column = divmod(int(place), 6)
        one[:, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8] = 0
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        fast = folded(model.module)(inputs.contiguous(memory_format=torch.channels_last)).float()
    with torch.no_grad():
        return model.module(inputs[:4])[:, knobs["target"]], fast[:, knobs["target"]]


def test_auto_tells_the_error_of_bfloat16_that_it_measured(quick):
    model = wrapped(resnet, torch.float32)
    exact, fast = exact_and_quick(model, {"target": 0})
    share = ((exact - fast[:4]).square().mean().sqrt() / fast.std()).item()
    assert 0 < share < 0.1
    found = vizlib.explain(model, picture(model), "occlusion", 0, **KNOBS)
    (note,) = said(found.notes)
    told = re.fullmatch(r"Computed in bfloat16, whose error in a score is (\d+\.\d)% of their spread\.", note)
    assert told, note
    assert abs(float(told[1]) - 100 * share) < 0.3
    plain = vizlib.explain(model, picture(model), "occlusion", 0, **KNOBS, precision="float32")
    assert not said(plain.notes)
    assert not torch.equal(found.heat, plain.heat)
    steps = vizlib.explain_stream(model, picture(model), "occlusion", 0, **KNOBS)
    assert all(said(step.attribution.notes) == [note] for step in steps)


@pytest.mark.parametrize("by", [2.0, 60.0, 1e4])
def test_auto_falls_back_where_bfloat16_has_no_digits_left_to_tell_the_scores_apart(quick, by):
    model = wrapped(resnet, torch.float32)
    with torch.no_grad():
        model.module.fc.bias.add_(by)
    found = vizlib.explain(model, picture(model), "occlusion", 0, **KNOBS)
    (note,) = said(found.notes)
    assert note.startswith("Computed in single precision: bfloat16")
    assert not re.search("nan|inf%", note)
    plain = vizlib.explain(model, picture(model), "occlusion", 0, **KNOBS, precision="float32")
    assert torch.equal(found.heat, plain.heat)


@pytest.mark.parametrize("size", [1, 3])
def test_the_check_works_however_few_inputs_a_batch_holds(quick, size, monkeypatch):
    model = wrapped(resnet, torch.float32)
    whole = vizlib.explain(model, picture(model), "occlusion", 0, **KNOBS)
    monkeypatch.setattr(BatchedInference, "batch_size", lambda *_, **__: size)
    steps = list(vizlib.explain_stream(model, picture(model), "occlusion", 0, **KNOBS))
    expected = {1: [*range(5, 25)], 3: [5, 8, 11, 14, 17, 20, 22, 24]}  # the first step holds what the check needs
    assert [step.done for step in steps] == expected[size]
    found = steps[-1].attribution
    assert re.search(r"is \d+\.\d% of their spread", said(found.notes)[0])
    assert (found.heat - whole.heat).abs().max() < 0.1 * (whole.heat.max() - whole.heat.min())


@pytest.mark.parametrize("method", ["rise", "score-cam", "ablation-cam"])
def test_every_method_of_trials_can_be_computed_in_bfloat16(quick, method):
    model = wrapped(resnet, torch.float32)
    knobs = {"layer": "layer1"} if "cam" in method else {"masks": 40, "score": "logit"}
    fast = vizlib.explain(model, picture(model), method, 0, **knobs)
    plain = vizlib.explain(model, picture(model), method, 0, **knobs, precision="float32")
    assert said(fast.notes)
    assert not said(plain.notes)
    assert torch.corrcoef(torch.stack([fast.heat.flatten(), plain.heat.flatten()]))[0, 1] > 0.95


def test_a_network_of_double_precision_is_never_computed_in_less():
    model = wrapped(vit)
    assert not benefits_from_bfloat16(model)
    assert not said(vizlib.explain(model, picture(model), "occlusion", 0, **KNOBS).notes)


def ranks(values):
    return values.flatten().argsort().argsort().double()


@pytest.mark.slow
def test_the_squares_of_a_real_photo_keep_their_order_in_bfloat16(quick, tower):
    model = vizlib.load("resnet18-imagenette")
    knobs = {"window": 32, "stride": 24}
    fast = vizlib.explain(model, tower, "occlusion", **knobs)
    plain = vizlib.explain(model, tower, "occlusion", **knobs, precision="float32")
    assert said(fast.notes)[0].startswith("Computed in bfloat16")
    pair = [ranks(one.heat[::8, ::8]) for one in (fast, plain)]
    assert torch.corrcoef(torch.stack(pair))[0, 1] >= 0.99  # Spearman's: that of the ranks


@pytest.mark.parametrize(
    ("can", "expected"),
    [
        ({"avx512_bf16": True}, True),
        ({"amx_bf16": True}, True),
        ({"avx2": True, "avx512_bf16": False}, False),
        ({}, False),
    ],
)
def test_bfloat16_is_computed_in_only_where_the_processor_has_it(monkeypatch, can, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: can, raising=False)
    assert supports_bfloat16(torch.device("cpu")) is expected
