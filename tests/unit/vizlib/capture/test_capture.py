"""A recorded pass holds what the network computed, and recording leaves the network unchanged."""

from __future__ import annotations

import contextlib
import copy
import gc
import warnings
import weakref
from collections import namedtuple
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from random_weights import randomise_weights
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import _get_current_function_mode_stack
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack
from torch.utils.flop_counter import FlopCounterMode

import vizlib
from vizlib.attribution.methods import registry
from vizlib.capture import compute_gradients, count_flops, record_pass
from vizlib.models.evaluation_copy import make_evaluation_copy
from vizlib.models.inference.folded_copy import make_folded_copy

HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks_with_kwargs",
)


@pytest.fixture(autouse=True)
def _same_weights_every_time():
    torch.manual_seed(0)


def snapshot(module):
    """Return everything about a network that recording must not change."""
    return {
        "hooks": [len(getattr(part, kind)) for part in module.modules() for kind in HOOKS],
        "training": [part.training for part in module.modules()],
        "requires_grad": [parameter.requires_grad for parameter in module.parameters()],
        "grad": [parameter.grad is None for parameter in module.parameters()],
        "values": [value.clone() for value in module.state_dict().values()],
        "modules": [id(part) for part in module.modules()],
        "modes": len(_get_current_function_mode_stack()) + len(_get_current_dispatch_mode_stack()),
        "attributes": [sorted(vars(part)) for part in module.modules()],
    }


def assert_untouched(module, before):
    after = snapshot(module)
    values = zip(before.pop("values"), after.pop("values"), strict=True)
    assert all(torch.equal(old, new) for old, new in values)
    assert after == before
    assert sum(after["hooks"]) == 0
    assert all(after["grad"])
    assert after["modes"] == 0


def build_timm_vit(size: int | tuple[int, int] = 32, **changes):
    settings: dict[str, Any] = {
        "img_size": size,
        "patch_size": 8,
        "embed_dim": 24,
        "depth": 3,
        "num_heads": 3,
        "num_classes": 5,
    }
    return randomise_weights(timm.create_model("vit_tiny_patch16_224", **settings | changes))


def build_torchvision_vit(size=32, layers=3):
    return randomise_weights(
        torchvision.models.VisionTransformer(
            image_size=size, patch_size=8, num_layers=layers, num_heads=3, hidden_dim=24, mlp_dim=48, num_classes=5
        )
    )


def make_noise(*size, seed=1):
    return torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def wrap_model(module, *size, **more):
    config = {"input_size": (3, *size), "crop_pct": 1.0, "crop_mode": "squash", "interpolation": "bilinear"}
    return vizlib.wrap(module, preprocessing=config, **more)


def make_photo(*size, seed=2):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def make_unfused_copy(module):
    """Return a copy whose timm attention computes its softmax explicitly."""
    module = copy.deepcopy(module)
    for part in module.modules():
        if hasattr(part, "fused_attn"):
            part.fused_attn = False
    return module


def compute_heads_slowly(q, k, v, scale, replace=None):
    """Return attention weights and outputs by definition, query by query; `replace` substitutes the weights."""
    heads, tokens, _ = q.shape
    weights = []
    for h in range(heads):
        rows = []
        for i in range(tokens):
            scores = torch.stack([(q[h, i] * k[h, j]).sum() * scale for j in range(tokens)])
            powers = (scores - scores.max()).exp()
            rows.append(powers / powers.sum())
        weights.append(torch.stack(rows))
    weights = torch.stack(weights) if replace is None else replace
    mixed: list[Any] = [sum(weights[h, :, j, None] * v[h, j][None] for j in range(tokens)) for h in range(heads)]
    return weights, torch.cat(mixed, dim=-1)


def split_heads(projected, heads):
    """Return (tokens, heads * width) as (heads, tokens, width)."""
    return projected.unflatten(1, (heads, -1)).transpose(0, 1)


def run_timm_vit_slowly(module, image, replace=None):
    """Return the logits and attention weights of timm's ViT, computed by hand."""
    replace = replace or {}
    attention = {}
    x = module.norm_pre(module._pos_embed(module.patch_embed(image)))[0]  # (tokens, width)
    for i, block in enumerate(module.blocks):
        q, k, v = (split_heads(part, block.attn.num_heads) for part in block.attn.qkv(block.norm1(x)).chunk(3, dim=-1))
        attention[f"blocks.{i}.attn"], mixed = compute_heads_slowly(
            q, k, v, q.shape[-1] ** -0.5, replace.get(f"blocks.{i}.attn")
        )
        x = x + block.ls1(block.attn.proj(mixed))
        x = x + block.ls2(block.mlp(block.norm2(x)))
    return module.forward_head(module.norm(x)[None]), attention


def run_torchvision_vit_slowly(module, image, replace=None):
    """Return the logits and attention weights of torchvision's ViT, q, k and v cut out of `in_proj_weight`."""
    replace = replace or {}
    attention = {}
    patches = module.conv_proj(image).flatten(2).transpose(1, 2)
    x = (torch.cat([module.class_token, patches], dim=1) + module.encoder.pos_embedding)[0]
    for name, layer in module.encoder.layers.named_children():
        module_attention, y = layer.self_attention, layer.ln_1(x)
        q, k, v = (
            split_heads(y @ weight.T + bias, module_attention.num_heads)
            for weight, bias in zip(
                module_attention.in_proj_weight.chunk(3), module_attention.in_proj_bias.chunk(3), strict=True
            )
        )
        key = f"encoder.layers.{name}.self_attention"
        attention[key], mixed = compute_heads_slowly(q, k, v, q.shape[-1] ** -0.5, replace.get(key))
        x = x + mixed @ module_attention.out_proj.weight.T + module_attention.out_proj.bias
        x = x + layer.mlp(layer.ln_2(x))
    return module.heads(module.encoder.ln(x)[None, 0]), attention


# ------------------------------------------------------------------------------------------------ activations


def test_activation_before_an_in_place_relu_is_the_pre_activation():
    module: Any = timm.create_model("resnet18", num_classes=5).eval()
    assert module.act1.inplace
    image = torch.randn(1, 3, 64, 64)
    with record_pass(module, ["bn1", "layer1.0.bn1", "layer4"]) as recording:
        module(image)
    bn = module.bn1
    true = F.batch_norm(module.conv1(image), bn.running_mean, bn.running_var, bn.weight, bn.bias, eps=bn.eps)
    assert true.min() < -1
    assert torch.equal(recording.activations["bn1"], true)
    assert recording.activations["layer1.0.bn1"].min() < -0.1
    stem = module.maxpool(true.clamp(min=0))
    assert torch.equal(
        recording.activations["layer4"], module.layer4(module.layer3(module.layer2(module.layer1(stem))))
    )


class ReusingNetwork(nn.Module):
    """One convolution and one ReLU, each used twice."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.head = nn.Linear(3, 4)

    def forward(self, x):
        x = self.relu(self.conv(x))
        return self.head(self.relu(self.conv(x)).mean((2, 3)))


def test_module_that_runs_twice_has_its_last_output_and_gradient_recorded():
    module = randomise_weights(ReusingNetwork())
    image = make_noise(9, 9).requires_grad_()
    with record_pass(module, ["conv", "relu"]) as recording:
        score = module(image)[0, 2]
    gradients = compute_gradients(score, [recording.activations["conv"], image])

    first = F.conv2d(image, module.conv.weight, module.conv.bias, padding=1).clamp(min=0)
    second = F.conv2d(first, module.conv.weight, module.conv.bias, padding=1)
    score = (second.clamp(min=0).mean((2, 3)) @ module.head.weight.T + module.head.bias)[0, 2]
    assert torch.allclose(recording.activations["conv"], second, atol=1e-12)
    assert torch.allclose(recording.activations["relu"], second.clamp(min=0), atol=1e-12)
    by_hand = module.head.weight[2].view(1, 3, 1, 1) / 81 * (second > 0)
    assert torch.allclose(gradients[0], by_hand, atol=1e-12)
    assert torch.allclose(gradients[1], torch.autograd.grad(score, image)[0], atol=1e-12)


Pair = namedtuple("Pair", ["main", "extra"])


class TupleNetwork(nn.Module):
    """A network whose first module returns more than a tensor, all of which the head reads."""

    def __init__(self, kind):
        super().__init__()
        self.part = self.Part(kind)
        self.head = nn.Linear(3, 4)

    def forward(self, x):
        output = self.part(x)
        values = list(output.values()) if isinstance(output, dict) else output
        return self.head(values[0].relu_().mean((2, 3)) + values[1])

    class Part(nn.Module):
        def __init__(self, kind):
            super().__init__()
            self.kind = kind
            self.conv = nn.Conv2d(3, 3, 3)

        def forward(self, x):
            y = self.conv(x)
            return self.kind(y, x.mean((2, 3)))


@pytest.mark.parametrize("kind", [lambda a, b: (a, b), lambda a, b: [a, b], Pair], ids=["tuple", "list", "namedtuple"])
def test_first_tensor_of_a_tuple_is_recorded_and_the_tuple_is_passed_on(kind):
    module = randomise_weights(TupleNetwork(kind))
    image = make_noise(8, 8)
    with record_pass(module, ["part"]) as recording:
        logits = module(image)
    assert torch.equal(logits, module(image))
    true = F.conv2d(image, module.part.conv.weight, module.part.conv.bias)
    assert true.min() < 0
    assert torch.equal(recording.activations["part"], true)


def test_layer_whose_output_is_not_a_tensor_raises_an_error_with_its_name():
    module = randomise_weights(TupleNetwork(lambda a, b: {"a": a, "b": b}))
    with pytest.raises(vizlib.ModelError, match=r"'part' returns dict, not a tensor"), record_pass(module, ["part"]):
        module(make_noise(8, 8))
    assert_untouched(module, snapshot(module))


def test_unknown_layer_raises_an_error_with_similar_names_before_hooking():
    module = timm.create_model("resnet18", num_classes=5).eval()
    before = snapshot(module)
    with (
        pytest.raises(vizlib.ModelError, match=r"no layer 'layer9'; did you mean .*layer4"),
        record_pass(module, ["layer9"]),
    ):
        pass
    with pytest.raises(vizlib.ModelError, match=r"did you mean layer4\.1\.conv2"):
        wrap_model(module, 64, 64).run(make_photo(64, 64), layers=["layer4", "layer4.1.cnov2"])
    assert_untouched(module, before)


def test_layer_that_does_not_run_raises_an_error_with_its_name():
    class IdleLayerNetwork(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.idle = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3)

        def forward(self, x):
            return self.used(x).mean((2, 3))

    module = IdleLayerNetwork().eval()
    with pytest.raises(vizlib.ModelError, match=r"'idle' exists but did not run"), record_pass(module, ["idle"]):
        module(torch.zeros(1, 3, 8, 8))
    assert_untouched(module, snapshot(module))


def explain_all_methods(model, few_passes, target=1):
    names = vizlib.list_methods(model)
    attributions = {name: vizlib.explain(model, make_photo(40, 56), name, target, **few_passes(name)) for name in names}
    return {name: attribution.heat for name, attribution in attributions.items()}


@pytest.mark.slow
@pytest.mark.parametrize(
    "build", [lambda: timm.create_model("resnet18", num_classes=5).eval(), lambda: build_timm_vit(64)]
)
def test_frozen_network_has_the_same_maps_and_stays_frozen(build, few_passes):
    module = build()
    usual = explain_all_methods(wrap_model(module, 64, 64), few_passes)
    module.requires_grad_(False)
    before = snapshot(module)
    frozen = explain_all_methods(wrap_model(module, 64, 64), few_passes)
    assert_untouched(module, before)
    assert not any(before["requires_grad"])
    assert list(frozen) == list(usual)
    for name, heat in usual.items():
        assert heat.abs().sum() > 0, name
        assert torch.equal(frozen[name], heat), name


@pytest.mark.slow
@pytest.mark.parametrize("switch", [torch.no_grad, torch.inference_mode])
def test_maps_are_the_same_inside_no_grad_and_inference_mode(switch, few_passes):
    for module in (timm.create_model("resnet18", num_classes=5).eval(), build_timm_vit()):
        usual = explain_all_methods(wrap_model(module, 32, 32), few_passes)
        with switch():
            inside = explain_all_methods(wrap_model(module, 32, 32), few_passes)
            shared = vizlib.run_for_all(wrap_model(module, 32, 32), make_photo(40, 56))
            again = vizlib.explain_all(wrap_model(module, 32, 32), target=1, run=shared)
        for name, heat in usual.items():
            assert torch.equal(inside[name], heat), name
            assert name not in again or torch.equal(again[name].heat, heat), name


# ------------------------------------------------------------------------------------------------ attention


VARIANTS = {
    "plain": (32, 32, build_timm_vit),
    "wide": (16, 40, lambda: build_timm_vit((16, 40))),
    "dynamic": (24, 40, lambda: build_timm_vit(32, dynamic_img_size=True)),
    "registers": (32, 32, lambda: build_timm_vit(reg_tokens=2, no_embed_class=True)),
    "no class token": (32, 32, lambda: build_timm_vit(class_token=False, global_pool="avg")),
    "layer scale": (32, 32, lambda: build_timm_vit(init_values=0.7)),
    "distilled": (
        *(32, 32),
        lambda: randomise_weights(
            timm.create_model(
                "deit_tiny_distilled_patch16_224",
                img_size=32,
                patch_size=8,
                embed_dim=24,
                depth=3,
                num_heads=3,
                num_classes=5,
            )
        ),
    ),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_fused_attention_weights_equal_a_slow_computation_from_q_and_k(variant):
    height, width, build = VARIANTS[variant]
    module = build()
    image = make_noise(height, width)
    assert all(block.attn.fused_attn for block in module.blocks)
    with torch.no_grad():
        with record_pass(module, attention=True) as fused:
            recorded_logits = module(image)
        logits, slow = run_timm_vit_slowly(module, image)
        plain_logits = module(image)
    assert list(fused.attention) == list(slow)
    assert (recorded_logits - plain_logits).abs().max() < 1e-12
    assert (recorded_logits - logits).abs().max() < 1e-10
    for name, weights in slow.items():
        assert weights.max() > 3 / weights.shape[-1], "the attention of this network should not be uniform"
        assert (fused.attention[name][0] - weights).abs().max() < 1e-12, name


def test_attention_with_an_explicit_softmax_is_recorded():
    module = build_timm_vit()
    image = make_noise(32, 32)
    unfused = make_unfused_copy(module)
    with torch.no_grad():
        with record_pass(module, attention=True) as fused:
            module(image)
        with record_pass(unfused, attention=True) as explicit:
            unfused(image)
    assert list(explicit.attention) == list(fused.attention) == [f"blocks.{i}.attn" for i in range(3)]
    for name, weights in fused.attention.items():
        assert (explicit.attention[name] - weights).abs().max() < 1e-14


def test_windowed_attention_of_swin_is_recorded_fused_and_unfused():
    sizes: dict[str, Any] = {"img_size": 32, "window_size": 4, "embed_dim": 8, "depths": (2, 2), "num_heads": (1, 2)}
    module: Any = timm.create_model("swin_tiny_patch4_window7_224", num_classes=5, **sizes)
    module = randomise_weights(module)
    unfused, image = make_unfused_copy(module), make_noise(32, 32).requires_grad_()
    with record_pass(module, attention=True) as fused:
        fused_score = module(image)[0, 1]
    with record_pass(unfused, attention=True) as explicit:
        explicit_score = unfused(image)[0, 1]
    names = [f"layers.{i}.blocks.{j}.attn" for i in range(2) for j in range(2)]
    assert list(fused.attention) == list(explicit.attention) == names
    fused_gradients = compute_gradients(fused_score, list(fused.attention.values()))
    explicit_gradients = compute_gradients(explicit_score, list(explicit.attention.values()))
    for name, first, second in zip(names, fused_gradients, explicit_gradients, strict=True):
        assert torch.allclose(fused.attention[name], explicit.attention[name], atol=1e-13)
        assert torch.allclose(first, second, atol=1e-12)
        assert first.abs().max() > 0
    # The first block is not shifted, so its windows are those of `window_partition` and no mask applies.
    attention = module.layers[0].blocks[0].attn
    x = module.layers[0].blocks[0].norm1(module.patch_embed(image))[0]  # (8, 8, width)
    for window, (top, left) in enumerate([(0, 0), (0, 4), (4, 0), (4, 4)]):
        q, k, _ = attention.qkv(x[top : top + 4, left : left + 4].flatten(0, 1)).chunk(3, dim=-1)
        slow = (q @ k.T * attention.scale + attention._get_rel_pos_bias()[0, 0]).softmax(-1)
        assert torch.allclose(fused.attention[names[0]][window, 0], slow, atol=1e-12)
    # The shape annotations hold for it too: one entry per window.
    run = wrap_model(module.float(), 32, 32).run(make_photo(32, 32), attention=True)
    assert run.attention[names[0]].shape == (4, 1, 16, 16)


def test_attention_of_torchvision_equals_a_slow_computation_from_in_proj_weights():
    module = build_torchvision_vit()
    image = make_noise(32, 32)
    with torch.no_grad():
        with record_pass(module, attention=True) as recording:
            recorded_logits = module(image)
        plain_logits = module(image)
        logits, slow = run_torchvision_vit_slowly(module, image)
    assert recorded_logits.abs().max() > 0.1
    assert (recorded_logits - plain_logits).abs().max() < 1e-12
    assert (recorded_logits - logits).abs().max() < 1e-10
    assert list(recording.attention) == list(slow)
    for name, weights in slow.items():
        assert weights.max() > 3 / weights.shape[-1]
        assert (recording.attention[name][0] - weights).abs().max() < 1e-12, name


@pytest.mark.parametrize(
    ("build", "run_slowly"),
    [(build_timm_vit, run_timm_vit_slowly), (build_torchvision_vit, run_torchvision_vit_slowly)],
    ids=["timm", "torchvision"],
)
def test_gradients_at_attention_weights_equal_a_slow_computation_and_finite_differences(build, run_slowly):
    module = build()
    image = make_noise(32, 32)
    run_image = image.clone().requires_grad_()
    with record_pass(module, attention=True) as recording:
        score = module(run_image)[0, 2]
    gradients = dict(
        zip(recording.attention, compute_gradients(score, list(recording.attention.values())), strict=True)
    )

    logits, slow = run_slowly(module, image)
    expected = torch.autograd.grad(logits[0, 2], list(slow.values()))
    for (name, gradient), slow_gradient in zip(gradients.items(), expected, strict=True):
        assert gradient.shape == recording.attention[name].shape
        assert slow_gradient.abs().max() > 1e-3
        assert (gradient[0] - slow_gradient).abs().max() < 1e-10, name

    step = 1e-4
    with torch.no_grad():
        for name, index in zip(gradients, [(0, 3, 5), (2, 0, 7), (1, 0, 16)], strict=True):
            ends = []
            for sign in (1, -1):
                moved = slow[name].detach().clone()
                moved[index] += sign * step
                ends.append(run_slowly(module, image, {name: moved})[0][0, 2])
            difference = (ends[0] - ends[1]) / (2 * step)
            assert abs(difference) > 1e-6
            assert abs(gradients[name][(0, *index)] - difference) < 1e-6


@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("averaged", [True, False])
def test_multihead_attention_returns_the_weights_its_caller_requests(need_weights, averaged):
    class AttentionModule(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, x):
            return self.attention(x, x, x, need_weights=need_weights, average_attn_weights=averaged)

    module = randomise_weights(AttentionModule())
    for x in (torch.randn(1, 5, 8, dtype=torch.float64), torch.randn(5, 8, dtype=torch.float64)):
        x.requires_grad_()
        with record_pass(module, attention=True) as recording:
            output, weights = module(x)
        expected_output, expected_weights = module(x)
        assert torch.allclose(output, expected_output, atol=1e-13)
        assert (weights is None) == (expected_weights is None) == (not need_weights)
        if need_weights and x.ndim == 3:
            assert torch.allclose(weights, expected_weights, atol=1e-13)
        assert recording.attention["attention"].shape == (1, 2, 5, 5)


@pytest.mark.parametrize("causal", [False, True])
def test_masks_scales_and_grouped_heads_follow_pytorchs_definition(causal):
    class FusedAttention(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Identity()

        def forward(self, q, k, v, **options):
            return F.scaled_dot_product_attention(self.inner(q), k, v, **options)

    generator = torch.Generator().manual_seed(3)
    q, k, v = (torch.randn(1, heads, 6, 8, generator=generator, dtype=torch.float64) for heads in (4, 2, 2))
    keep = torch.rand(6, 6, generator=generator) > 0.3
    keep.fill_diagonal_(True)
    masks = [None] if causal else [None, keep, torch.randn(6, 6, generator=generator, dtype=torch.float64)]
    module = FusedAttention()
    for mask in masks:
        options = {"attn_mask": mask, "is_causal": causal, "scale": 0.4, "enable_gqa": True}
        with record_pass(module, attention=True) as recording:
            output = module(q, k, v, **options)
        assert torch.allclose(output, module(q, k, v, **options), atol=1e-13)
        weights = recording.attention[""][0]
        assert torch.allclose(weights.sum(-1), torch.ones(4, 6, dtype=torch.float64))
        for head in range(4):
            for row in range(6):
                for column in range(6):
                    shut = (causal and column > row) or (mask is keep and not keep[row, column])
                    assert (weights[head, row, column] == 0) == bool(shut)


def test_module_path_is_right_after_an_exception_that_the_network_catches():
    class CatchingNetwork(nn.Module):
        def __init__(self):
            super().__init__()
            self.broken = nn.Sequential(nn.Linear(3, 3))
            self.whole = nn.Sequential(nn.Linear(4, 4))

        def forward(self, q):
            with contextlib.suppress(RuntimeError):
                self.broken(q)
            q = F.scaled_dot_product_attention(q, q, q)
            return self.whole(q)

    module = CatchingNetwork()
    with torch.no_grad(), count_flops(module) as flops, record_pass(module, attention=True) as recording:
        module(torch.randn(1, 1, 5, 4))
    assert list(recording.attention) == [""]
    assert flops["broken"] == 0
    assert flops["whole"] == 2 * 4 * 4 * 5
    assert flops[""] == flops["whole"] + 2 * (2 * 5 * 5 * 4)


TOKEN_LAYOUTS = {
    "distilled": (("class", "distillation"), (4, 4), (0, 1)),
    "registers": (("class", "register 1", "register 2"), (4, 4), (0,)),
    "no class token": ((), (4, 4), ()),
    "wide": (("class",), (2, 5), (0,)),
    "dynamic": (("class",), (3, 5), (0,)),
}


@pytest.mark.parametrize("variant", TOKEN_LAYOUTS)
def test_token_layout_of_transformer_variants(variant):
    height, width, build = VARIANTS[variant]
    module = build()
    model = wrap_model(module, height, width)
    tokens = model.tokens
    assert tokens is not None
    assert (tokens.names, tokens.grid, tokens.classifier_tokens) == TOKEN_LAYOUTS[variant]
    run = model.run(make_photo(50, 70), attention=True)
    assert {weights.shape[-1] for weights in run.attention.values()} == {tokens.num_tokens}
    # The tokens the classifier reads are exactly those whose last output the logits depend on.
    with record_pass(module, ["norm"]) as recording:
        logits = module(make_noise(height, width).requires_grad_())
    (gradient,) = compute_gradients(logits.square().sum(), [recording.activations["norm"]])
    reading = gradient[0].abs().sum(-1).nonzero().flatten().tolist()
    assert reading == (list(tokens.classifier_tokens) or list(range(tokens.num_prefix_tokens, tokens.num_tokens)))


@pytest.mark.parametrize("settings", [{"img_size": (160, 320)}, {"dynamic_img_size": True}], ids=["fixed", "dynamic"])
def test_input_of_160_by_320_has_ten_rows_of_twenty_patches(settings):
    module = timm.create_model("vit_tiny_patch16_224", depth=2, num_classes=5, **settings).eval()
    model = wrap_model(module, 160, 320)
    run = model.run(make_photo(90, 180), attention=True)
    assert model.tokens is not None
    assert model.tokens.grid == (10, 20)
    assert run.attention["blocks.1.attn"].shape == (1, 3, 201, 201)
    assert vizlib.explain(model, make_photo(90, 180), "attention-rollout").heat.shape == (10, 20)
    unfused = make_unfused_copy(module)
    with torch.no_grad(), record_pass(unfused, attention=True) as explicit:
        unfused(run.image)
    for name, weights in explicit.attention.items():
        assert (run.attention[name] - weights).abs().max() < 1e-6


@pytest.mark.parametrize(
    ("architecture", "settings"),
    [
        ("resnet18", {}),
        ("vit_tiny_patch16_224", {"img_size": 64}),
        ("deit_tiny_distilled_patch16_224", {"img_size": 64}),
        ("torchvision", {}),
    ],
)
def test_recording_every_layer_changes_logits_by_rounding_only(architecture, settings):
    if architecture == "torchvision":
        module: Any = torchvision.models.VisionTransformer(64, 16, 4, 3, 48, 96, num_classes=10).eval()
        nn.init.trunc_normal_(module.heads.head.weight, std=0.02)  # torchvision starts it at 0, where all logits are 0
    else:
        module = timm.create_model(architecture, num_classes=10, **settings).eval()
    image = torch.randn(1, 3, 64, 64)
    names = [name for name, _ in module.named_modules() if name and "drop" not in name and name != "self_attention"]
    names = [name for name in names if not name.endswith(("self_attention", "out_proj"))]  # run inside another function
    with torch.no_grad():
        before = module(image)
        ran = []
        with record_pass(module, attention=True, shapes=True) as recording:
            module(image)
            ran = [name for name in names if name in recording.shapes]
        with record_pass(module, ran, attention=True, shapes=True):
            recorded_logits = module(image)
        assert torch.equal(module(image), before)
    assert before.std() > 1e-2
    assert (recorded_logits - before).abs().max() <= 1e-6


def test_recording_pretrained_weights_changes_logits_by_rounding_and_not_at_all_for_a_resnet(data, cheetah):
    """Fused attention sums in another order than its definition; in float32 the seventh digit differs."""
    for name, share in (("deit_tiny_patch16_224", 2e-6), ("resnet18", 0.0)):
        model = vizlib.load(data / "weights" / f"{name}.in1k.safetensors", architecture=name)
        image = model.tensor(cheetah)
        with torch.no_grad():
            before = model.module(image)
            with record_pass(model.module, model.stages, attention=True):
                recorded_logits = model.module(image)
        assert (recorded_logits - before).abs().max() <= share * before.abs().max()


# ------------------------------------------------------------------------------------------------ FLOPs


class SmallNetwork(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 5, 3, stride=2, padding=1), nn.ReLU(inplace=True))
        self.conv = nn.Conv2d(5, 5, 3, padding=1, groups=5)
        self.head = nn.Linear(5, 7)

    def forward(self, x):
        x = self.conv(self.conv(self.body(x)))
        return self.head(x.mean((2, 3)))


@pytest.mark.parametrize("switch", [contextlib.nullcontext, torch.no_grad, torch.inference_mode])
def test_flops_equal_a_count_by_hand_in_every_gradient_mode(switch):
    with switch():
        layers = {layer.name: layer.flops for layer in wrap_model(SmallNetwork().eval(), 16, 24).layers}
    first = 2 * (3 * 3 * 3) * 5 * (8 * 12)  # a multiplication and an addition for each weight at each position
    depthwise = 2 * (3 * 3 * 1) * 5 * (8 * 12)
    assert layers == {
        "body": first,
        "body.0": first,
        "body.1": 0,
        "conv": 2 * depthwise,  # it runs twice
        "head": 2 * 5 * 7,
    }


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224", "torchvision"])
def test_flops_equal_pytorchs_own_counter(name):
    if name == "torchvision":
        module = torchvision.models.VisionTransformer(64, 16, 2, 3, 48, 96, num_classes=10).eval()
    else:
        size: dict[str, Any] = {"img_size": 64} if "vit" in name else {}
        module = timm.create_model(name, num_classes=10, **size).eval()
    model = wrap_model(module, 64, 64)
    # PyTorch's counter misses torchvision's fused encoder without gradients, so it counts with them; and some releases
    # have no formula for fused attention on a processor, so the math backend is used.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        module(torch.zeros(1, 3, 64, 64).requires_grad_())
    expected = counter.get_flop_counts()
    with count_flops(module) as total, torch.no_grad(), record_pass(module, attention=True):
        module(torch.zeros(1, 3, 64, 64))
    assert total[""] == counter.get_total_flops() > 0
    kind = type(module).__name__
    compared = 0
    for layer in model.layers:
        if f"{kind}.{layer.name}" in expected:
            assert layer.flops == sum(expected[f"{kind}.{layer.name}"].values()), layer.name
            compared += layer.flops > 0
    assert compared > 10


# ------------------------------------------------------------------------------------------------ training mode


class TrainingNetwork(nn.Module):
    """A network with batch norm, dropout and attention dropout, which compute differently in training mode."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 12, 8, stride=8)
        self.bn = nn.BatchNorm2d(12)
        self.relu = nn.ReLU(inplace=True)
        self.drop = nn.Dropout(0.5)
        self.attention = nn.MultiheadAttention(12, 2, dropout=0.5, batch_first=True)
        self.head = nn.Linear(12, 5)
        self.alias = [self.relu]

    def forward(self, x):
        x = self.drop(self.relu(self.bn(self.conv(x)))).flatten(2).transpose(1, 2)
        return self.head(self.attention(x, x, x, need_weights=False)[0].mean(1))


@pytest.mark.slow
def test_network_in_training_mode_is_explained_as_in_evaluation_mode_and_stays_in_training_mode(few_passes):
    for build in (
        lambda: timm.create_model("resnet18", num_classes=5, drop_rate=0.5),
        lambda: timm.create_model(
            "vit_tiny_patch16_224", img_size=32, num_classes=5, drop_rate=0.5, attn_drop_rate=0.5
        ),
        TrainingNetwork,
    ):
        module = build()
        module.train()
        module(torch.randn(4, 3, 32, 32))  # running means that differ from their initial values
        expected_module = copy.deepcopy(module).eval()
        before = snapshot(module)
        model, expected_model = wrap_model(module, 32, 32), wrap_model(expected_module, 32, 32)
        assert vizlib.list_methods(model) == vizlib.list_methods(expected_model)
        assert model.predict(make_photo(32, 32)) == expected_model.predict(make_photo(32, 32))
        for name in vizlib.list_methods(model):
            few = few_passes(name)
            result = vizlib.explain(model, make_photo(32, 32), name, target=1, **few)
            expected = vizlib.explain(expected_model, make_photo(32, 32), name, target=1, **few)
            assert torch.equal(result.heat, expected.heat), name
            added_notes = set(result.notes) - set(expected.notes)
            assert len(added_notes) == 1
            assert "training mode" in added_notes.pop()
        assert model.layers == expected_model.layers
        assert_untouched(module, before)
        assert all(before["training"])


def test_network_with_one_module_in_training_mode_keeps_that_mode():
    module: Any = timm.create_model("resnet18", num_classes=5).eval()
    module.layer2.train()
    before = snapshot(module)
    result = vizlib.explain(wrap_model(module, 32, 32), make_photo(32, 32), "grad-cam", target=1)
    assert_untouched(module, before)
    expected = vizlib.explain(
        wrap_model(copy.deepcopy(module).eval(), 32, 32), make_photo(32, 32), "grad-cam", target=1
    )
    assert torch.equal(result.heat, expected.heat)


def test_evaluation_copy_shares_every_parameter_and_buffer():
    module = timm.create_model("resnet18", num_classes=5).train()
    evaluation_copy = make_evaluation_copy(module)
    original, copied = module.state_dict(keep_vars=True), evaluation_copy.state_dict(keep_vars=True)
    assert list(original) == list(copied)
    assert all(original[name] is copied[name] for name in original)
    assert not any(submodule.training for submodule in evaluation_copy.modules())
    assert not {id(part) for part in module.modules()} & {id(part) for part in evaluation_copy.modules()}


@pytest.mark.parametrize(
    "make_copy", [make_evaluation_copy, lambda module: make_folded_copy(module, {})], ids=["evaluation", "folded"]
)
def test_copies_have_their_own_hooks_and_start_with_those_of_the_user(make_copy):
    module: Any = timm.create_model("resnet18", num_classes=5).train()
    calls = []
    module.layer1.register_forward_hook(lambda *_: calls.append("user"))
    copied = make_copy(module)
    for register in ("register_forward_hook", "register_forward_pre_hook", "register_full_backward_hook"):
        getattr(copied.layer2, register)(lambda *_: calls.append("copy"))
    module.layer3.register_forward_hook(lambda *_: calls.append("original"))
    assert not any(getattr(module.layer2, kind) for kind in HOOKS)
    assert not any(getattr(copied.layer3, kind) for kind in HOOKS)
    with torch.no_grad():
        copied(torch.randn(1, 3, 32, 32))
    assert calls == ["user", "copy", "copy"]


# ------------------------------------------------------------------------------------------------ no side effects


class FailingNetwork(nn.Module):
    """A network that raises a given error in the middle of a pass."""

    def __init__(self, error=None):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True))
        self.middle = nn.Sequential(nn.Conv2d(4, 4, 3), self.FailingModule(error))
        self.head = nn.Linear(4, 5)

    def forward(self, x):
        return self.head(self.middle(self.stem(x)).mean((2, 3)))

    class FailingModule(nn.Module):
        def __init__(self, error):
            super().__init__()
            self.error = error

        def forward(self, x):
            if self.error is not None:
                raise self.error
            return x


ERRORS = [RuntimeError("broken"), KeyError("broken"), KeyboardInterrupt(), MemoryError()]


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_exception_in_a_layer_leaves_the_network_unchanged(error, training):
    module = FailingNetwork().train(training)
    module.stem[0].weight.requires_grad_(False)
    model = wrap_model(module, 16, 16, labels=list("abcde"))
    module.middle[1].error = error
    before = snapshot(module)
    expected_error = vizlib.ModelError if isinstance(error, Exception) else type(error)
    for call in (
        lambda: model.run(make_photo(16, 16), layers=["stem", "stem.1"], attention=True),
        lambda: vizlib.explain(model, make_photo(16, 16), "guided-backprop"),
        lambda: vizlib.explain(model, make_photo(16, 16), "saliency"),
        lambda: model.predict(make_photo(16, 16)),
        lambda: wrap_model(module, 16, 16).layers,
    ):
        with pytest.raises(expected_error):
            call()
        assert_untouched(module, copy.copy(before))


@pytest.mark.filterwarnings("error")  # PyTorch only warns if a hook of vizlib fails while another error is raised
@pytest.mark.parametrize("register", ["register_forward_hook", "register_forward_pre_hook"])
def test_exception_in_a_users_hook_leaves_only_that_hook(register):
    module = FailingNetwork().eval()
    model = wrap_model(module, 16, 16, labels=list("abcde"))
    clean = snapshot(module)

    def hook(*_):
        raise RuntimeError("the user's own")

    with contextlib.closing(contextlib.ExitStack()) as stack:
        stack.callback(getattr(module.middle, register)(hook).remove)
        before = snapshot(module)
        for call in (
            lambda: model.run(make_photo(16, 16), layers=["stem"], attention=True),
            lambda: model.run(make_photo(16, 16), layers=["middle", "middle.0"]),
            lambda: model.layers,
        ):
            with pytest.raises(vizlib.ModelError, match="the user's own"):
                call()
            assert snapshot(module)["hooks"] == before["hooks"]
    assert_untouched(module, clean)


def test_hooks_of_the_user_run_and_stay():
    module = FailingNetwork().eval()
    model = wrap_model(module, 16, 16, labels=list("abcde"))
    calls = []

    def triple(_part, _inputs, output):
        return output * 3

    module.middle.register_forward_pre_hook(lambda *_: calls.append("pre"))
    module.middle.register_forward_hook(triple)
    doubled = model.predict(make_photo(16, 16), top=5)
    run = model.run(make_photo(16, 16), layers=["middle"], attention=True)
    assert calls == ["pre", "pre"]
    assert torch.allclose(run.logits[0].max(), torch.tensor(doubled[0].logit))
    by_hand = module.head(3 * module.middle[0](module.stem(run.image)).mean((2, 3)))
    assert torch.allclose(run.logits, by_hand, atol=1e-6)
    assert [len(part._forward_hooks) for part in module.modules() if part._forward_hooks] == [1]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("name", ["saliency", "guided-backprop", "grad-cam"])
def test_exception_in_a_method_leaves_the_network_unchanged(name, error, monkeypatch):
    import dataclasses

    module = timm.create_model("resnet18", num_classes=5).eval()
    model = wrap_model(module, 32, 32)
    before = snapshot(module)

    def compute(*_, **__):
        raise error

    broken = dataclasses.replace(registry.METHODS[name], compute=compute)
    monkeypatch.setitem(registry.METHODS, name, broken)
    with pytest.raises(type(error)):
        vizlib.explain(model, make_photo(32, 32), name)
    assert_untouched(module, before)
    run = vizlib.run_for_all(model, make_photo(32, 32))
    with pytest.raises(ZeroDivisionError):
        run.gradients(lambda logits: logits.sum() / (1 // 0), of=[run.image], rule="guided")
    assert run.recording.active_rule.name is None
    assert_untouched(module, snapshot(module))


@pytest.mark.parametrize("layers", [["layer1"], ["layer1.0.act1"], ["layer4"], []])
def test_run_is_freed_when_its_last_reference_is_deleted(layers):
    """A tensor hook that held the recording would keep the whole graph in memory: 30 MB per run."""
    model = wrap_model(timm.create_model("resnet18", num_classes=5).eval(), 32, 32)
    run = model.run(make_photo(32, 32), layers=layers, attention=True)
    run.gradients(1, of=[run.image, *run.activations.values()], rule="guided")
    references = [weakref.ref(run.recording), *map(weakref.ref, run.activations.values())]
    del run
    gc.collect()
    assert all(reference() is None for reference in references)


# ------------------------------------------------------------------------------------------------ errors


def test_compiled_or_scripted_networks_raise_an_error():
    module = timm.create_model("resnet18", num_classes=5).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # newer PyTorch deprecates tracing
        traced: Any = torch.jit.trace(nn.Conv2d(3, 3, 3).eval(), torch.zeros(1, 3, 16, 16))
    compiled: Any = torch.compile(module)
    for whole in (compiled, traced):
        with pytest.raises(vizlib.ModelError, match="compiled or scripted"):
            vizlib.wrap(whole)
    in_place: Any = timm.create_model("resnet18", num_classes=5).eval()
    in_place.layer2.compile()
    for outer in (nn.Sequential(compiled), nn.Sequential(traced, nn.Flatten()), in_place):
        with pytest.raises(vizlib.ModelError, match="compiled or scripted"):
            wrap_model(outer.eval(), 16, 16)


def test_pass_recorded_without_rules_raises_an_error_for_a_backward_rule():
    module, inputs = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)), torch.rand(1, 3, requires_grad=True)
    with record_pass(module, rules=False) as recording:
        output = module(inputs)
    with pytest.raises(ValueError, match="without rules"), recording.backward_rule("guided"):
        pass
    with recording.backward_rule(None):
        assert torch.autograd.grad(output.sum(), inputs)[0].any()


def test_unknown_backward_rule_raises_an_error():
    run = wrap_model(timm.create_model("resnet18", num_classes=5).eval(), 32, 32).run(make_photo(32, 32))
    with pytest.raises(ValueError, match="no backward rule 'deconv'; there are guided"):
        run.gradients(1, of=[run.image], rule="deconv")
