"""Contributions and ablation against networks written out by hand and finite differences."""

from __future__ import annotations

import copy
import random
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import numpy as np
import pytest
import timm
import torch
import torchvision
from torch import nn

import vizlib
from vizlib import ModelError, ablate, contributions

RESNET, VIT = "resnet18-imagenette", "vit_tiny-imagenette"
PREPROCESSING = {"input_size": (3, 32, 32), "crop_pct": 1.0, "mean": (0.5,) * 3, "std": (0.25,) * 3}


def make_photo(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (32, 32, 3), np.uint8)


def wrap_model(module: nn.Module) -> vizlib.Model:
    return vizlib.wrap(module.eval().double(), preprocessing=PREPROCESSING)


@pytest.fixture(scope="module")
def models() -> dict[str, vizlib.Model]:
    """Small models in double precision: convolutional, and with attention computed in three ways."""
    torch.manual_seed(0)
    small: dict[str, Any] = {"img_size": 32, "num_classes": 4}
    vit: dict[str, Any] = {"patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3}
    unfused: Any = timm.models.vision_transformer.VisionTransformer(**small, **vit)
    for block in unfused.blocks:
        block.attn.fused_attn = False
    modules = {
        "resnet": timm.create_model("test_resnet", num_classes=4),
        "fused": timm.models.vision_transformer.VisionTransformer(**small, **vit),
        "unfused": unfused,
        "torchvision": torchvision.models.VisionTransformer(32, 8, 2, 3, 24, 48, num_classes=4),
        "swin": timm.models.swin_transformer.SwinTransformer(
            **small, patch_size=2, window_size=4, embed_dim=12, depths=(2, 2), num_heads=(2, 3)
        ),
    }
    for module in modules.values():
        for parameter in module.parameters():  # untrained, many are 0 or so small that the effects vanish
            nn.init.normal_(parameter, 0, 0.2)
    return {name: wrap_model(module) for name, module in modules.items()}


def get_logits(predictions: list[vizlib.Prediction]) -> list[float]:
    return [prediction.logit for prediction in sorted(predictions)]


# Contributions


def compute_channel_contributions_slowly(
    model: vizlib.Model, image: torch.Tensor, layer: str, target: int
) -> list[float]:
    """Scale one channel after the other by 1 ± h with a hook, and return the derivative of the logit."""
    h = 1e-4
    part = model.module.get_submodule(layer)

    def logit_at(channel: int, scale: float) -> float:
        def scale_channel(_module, _inputs, output):
            output = output.clone()
            if output.ndim == 4 and model.channel_axis(output) == 1:
                output[:, channel] *= scale
            else:
                output[..., channel] *= scale
            return output

        handle = part.register_forward_hook(scale_channel)
        try:
            with torch.no_grad():
                return model.module(image)[0, target].item()
        finally:
            handle.remove()

    output = model.run(make_photo(), layers=[layer]).activations[layer]
    channels = range(output.shape[model.channel_axis(output)])
    return [(logit_at(channel, 1 + h) - logit_at(channel, 1 - h)) / (2 * h) for channel in channels]


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("resnet", "layer2"),
        ("resnet", "conv1"),
        ("fused", "blocks.0"),
        ("fused", "blocks.1.mlp.fc1"),
        ("torchvision", "encoder.layers.encoder_layer_0"),
        ("swin", "layers.0"),
    ],
)
def test_channel_contribution_is_the_derivative_of_the_logit_with_respect_to_its_scale(models, name, layer):
    model = models[name]
    result = contributions(model, make_photo(), 2, layers=[layer], heads=False)
    slow = compute_channel_contributions_slowly(model, model.tensor(vizlib.open_image(make_photo())), layer, 2)
    assert result.channels[layer].tolist() == pytest.approx(slow, rel=1e-4, abs=1e-7)
    assert max(map(abs, slow)) > 1e-3
    assert result.heads == {}


@pytest.mark.parametrize("name", ["fused", "unfused", "torchvision"])
def test_head_contribution_is_that_of_its_output(models, name):
    """Compared with a scaled projection, as a head's output is read only by the projection."""
    model = models[name]
    result, h = contributions(model, make_photo(), 1), 1e-4
    assert list(result.heads) == list(model.attention_layers)
    image = model.tensor(vizlib.open_image(make_photo()))
    for layer, heads in result.heads.items():
        assert len(heads) == 3
        part = model.module.get_submodule(layer)
        weight = part.out_proj.weight if name == "torchvision" else part.proj.weight
        original, slow = weight.detach().clone(), []
        for head in range(3):
            ends = []
            for scale in (1 + h, 1 - h):
                with torch.no_grad():
                    weight[:, head * 8 : (head + 1) * 8] *= scale
                    ends.append(model.module(image)[0, 1].item())
                    weight.copy_(original)
            slow.append((ends[0] - ends[1]) / (2 * h))
        assert heads.tolist() == pytest.approx(slow, rel=1e-4, abs=1e-8)


def test_contribution_in_a_resnets_last_stage_equals_the_effect_of_ablation(cheetah):
    model = vizlib.load(RESNET)
    for target in (None, 3):
        result = contributions(model, cheetah, target)
        for channel in result.channels["layer4"].abs().topk(4).indices.tolist():
            rest = get_logits(ablate(model, cheetah, channels={"layer4": [channel]}))
            assert result.logit - rest[cast(int, result.target)] == pytest.approx(
                result.channels["layer4"][channel].item(), abs=2e-5
            )
        bias = model.module.get_parameter("fc.bias")[cast(int, result.target)].item()
        assert result.channels["layer4"].sum().item() + bias == pytest.approx(result.logit, abs=1e-4)


def test_contributions_at_a_transformers_final_norm_sum_to_the_logit(cheetah):
    model = vizlib.load(VIT)
    result = contributions(model, cheetah, layers=["norm"])
    bias = model.module.get_parameter("head.bias")[cast(int, result.target)].item()
    assert result.channels["norm"].sum().item() + bias == pytest.approx(result.logit, abs=1e-3)
    channel = int(result.channels["norm"].abs().argmax())
    rest = get_logits(ablate(model, cheetah, channels={"norm": [channel]}))
    assert result.logit - rest[cast(int, result.target)] == pytest.approx(
        result.channels["norm"][channel].item(), abs=1e-4
    )


def test_one_run_gives_the_contributions_of_every_class_and_layer(cheetah):
    model = vizlib.load(VIT)
    run = model.run(cheetah, layers=model.stages, attention=True)
    for target in (0, 7):
        from_run, separate = contributions(model, cheetah, target, run=run), contributions(model, cheetah, target)
        assert (from_run.target, from_run.label) == (target, model.labels[target])
        for run_values, separate_values in ((from_run.channels, separate.channels), (from_run.heads, separate.heads)):
            assert list(run_values) == list(separate_values)
            for layer, values in run_values.items():
                assert torch.allclose(values, separate_values[layer], rtol=1e-3, atol=1e-5)
    with pytest.raises(ModelError, match="does not hold norm"):
        contributions(model, cheetah, layers=["norm"], run=run)


def test_contributions_against_a_class_are_the_difference_of_both_classes(models):
    model = models["fused"]
    target, contrast, difference = (contributions(model, make_photo(), *classes) for classes in ((2,), (0,), (2, 0)))
    assert (difference.target, difference.against, target.against) == (2, 0, None)
    assert difference.logit == pytest.approx(target.logit - contrast.logit)
    for name in ("channels", "heads"):
        for layer, values in getattr(difference, name).items():
            assert torch.allclose(values, getattr(target, name)[layer] - getattr(contrast, name)[layer])


# Ablation


def run_with_ablated_heads_slowly(module, image: torch.Tensor, ablated: dict[int, list[int]]) -> torch.Tensor:
    """Return timm's ViT logits written out, with the slices of the ablated heads set to 0 before the projection."""
    x = module.patch_embed(image)
    x = torch.cat([module.cls_token, x], 1) + module.pos_embed
    for i, block in enumerate(module.blocks):
        y, attn = block.norm1(x), block.attn
        qkv = attn.qkv(y)
        out, width = torch.zeros_like(y), y.shape[-1] // attn.num_heads
        for head in range(attn.num_heads):
            span = [slice(n * y.shape[-1] + head * width, n * y.shape[-1] + (head + 1) * width) for n in range(3)]
            q, k, v = (qkv[..., s] for s in span)
            if head not in ablated.get(i, []):
                out[..., head * width : (head + 1) * width] = ((q @ k.mT) / width**0.5).softmax(-1) @ v
        x = x + attn.proj(out)
        x = x + block.mlp(block.norm2(x))
    return module.head(module.norm(x)[:, 0])


@pytest.mark.parametrize("name", ["fused", "unfused"])
@pytest.mark.parametrize("ablated", [{0: [1]}, {1: [0, 2]}, {0: [0, 1, 2], 1: [1]}])
def test_ablating_a_head_zeroes_its_slice_before_the_projection(models, name, ablated):
    model = models[name]
    result = ablate(model, make_photo(), heads={f"blocks.{i}.attn": heads for i, heads in ablated.items()})
    with torch.no_grad():
        slow = run_with_ablated_heads_slowly(model.module, model.tensor(vizlib.open_image(make_photo())), ablated)
        unchanged = run_with_ablated_heads_slowly(model.module, model.tensor(vizlib.open_image(make_photo())), {})
    assert get_logits(result) == pytest.approx(slow[0].tolist(), rel=1e-5, abs=1e-6)
    assert get_logits(ablate(model, make_photo())) == pytest.approx(unchanged[0].tolist(), rel=1e-5, abs=1e-6)
    assert (slow - unchanged).abs().max() > 1e-2


def test_ablating_a_head_of_torchvision_zeroes_its_columns_of_the_projection(models):
    model = models["torchvision"]
    layer = model.attention_layers[1]
    result = ablate(model, make_photo(), heads={layer: [2, 0]})
    weight = model.module.get_submodule(layer).out_proj.weight
    original = weight.detach().clone()
    with torch.no_grad():
        weight.view(24, 3, 8)[:, [0, 2]] = 0
        slow = model.module(model.tensor(vizlib.open_image(make_photo())))
        weight.copy_(original)
    assert get_logits(result) == pytest.approx(slow[0].tolist(), rel=1e-5, abs=1e-6)


@pytest.mark.parametrize(("name", "layer"), [("resnet", "layer2"), ("fused", "blocks.0"), ("swin", "layers.0")])
def test_ablated_channels_are_zero_at_every_position(models, name, layer):
    model = models[name]
    channel_contributions = contributions(model, make_photo(), layers=[layer]).channels[layer]
    channels = channel_contributions.abs().topk(2).indices.tolist()
    result = ablate(model, make_photo(), channels={layer: channels})

    def zero_channels(_module, _inputs, output):
        output = output.clone()
        (output if name == "resnet" else output.movedim(-1, 1))[:, channels] = 0
        return output

    handle = model.module.get_submodule(layer).register_forward_hook(zero_channels)
    with torch.no_grad():
        slow = model.module(model.tensor(vizlib.open_image(make_photo())))
    handle.remove()
    assert get_logits(result) == pytest.approx(slow[0].tolist(), rel=1e-5, abs=1e-6)
    assert get_logits(result) != pytest.approx(get_logits(model.predict(make_photo(), top=4)), abs=1e-3)


@pytest.mark.parametrize("name", ["resnet", "fused", "torchvision"])
def test_ablation_in_training_mode_equals_evaluation_mode(models, name):
    """The model runs as a copy in evaluation mode, so the hooks must be on that copy."""
    model = models[name]
    units: dict = {"channels": {model.stages[0]: [1, 3]}}
    if model.attention_layers:
        units["heads"] = {model.attention_layers[0]: [1]}
    expected = ablate(model, make_photo(), **units)
    assert get_logits(expected) != pytest.approx(get_logits(model.predict(make_photo(), top=4)), abs=1e-4)
    training = wrap_model(copy.deepcopy(model.module))
    training.module.train()
    assert get_logits(ablate(training, make_photo(), **units)) == pytest.approx(get_logits(expected), abs=1e-9)
    assert all(part.training for part in training.module.modules())
    assert count_traces(training.module) == 0


def test_ablating_several_layers_and_heads_together_and_none(models):
    model = models["fused"]
    several = ablate(model, make_photo(), channels={"blocks.0": [3], "norm": [5]}, heads={"blocks.1.attn": [1]})
    norm_only = ablate(model, make_photo(), channels={"norm": [5]})
    assert len(several) == 4
    assert get_logits(several) != pytest.approx(get_logits(norm_only), abs=1e-4)
    assert ablate(model, make_photo()) == model.predict(make_photo(), top=4)


@pytest.mark.parametrize(
    ("units", "message"),
    [
        ({"channels": {"layer9": [0]}}, "no layer 'layer9'"),
        ({"channels": {"blocks.0": [24]}}, "blocks.0 has no channel 24; its channels are 0 to 23"),
        ({"channels": {"blocks.0": [-1]}}, "no channel -1"),
        ({"heads": {"blocks.0.attn": [3]}}, "blocks.0.attn has no head 3; its heads are 0 to 2"),
        ({"heads": {"blocks.0.atn": [0]}}, "did you mean blocks.0.attn"),
    ],
)
def test_ablating_an_unknown_unit_raises_a_one_line_error(models, units, message):
    with pytest.raises(ModelError, match=message) as error:
        ablate(models["fused"], make_photo(), **units)
    assert "\n" not in str(error.value)


def test_ablating_an_unknown_head_raises_an_error_for_every_kind_of_network(models):
    layer = models["torchvision"].attention_layers[0]
    with pytest.raises(ModelError, match=r"has no head 3; its heads are 0 to 2"):
        ablate(models["torchvision"], make_photo(), heads={layer: [3]})
    with pytest.raises(ModelError, match=r"computes no attention in 'blocks\.0\.attn'; it has none"):
        ablate(models["resnet"], make_photo(), heads={"blocks.0.attn": [0]})


# No side effects


def count_traces(module: nn.Module) -> int:
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_forward_hooks_always_called")
    hooks = sum(len(getattr(part, kind)) for part in module.modules() for kind in kinds)
    return hooks + sum(parameter.grad is not None for parameter in module.parameters())


def test_exceptions_leave_the_network_unchanged(models):
    for name, layer in (("fused", "blocks.0"), ("torchvision", "encoder.layers.encoder_layer_0")):
        model = models[name]
        before = {key: value.clone() for key, value in model.module.state_dict().items()}
        attention = model.attention_layers[1]
        contributions(model, make_photo())
        ablate(model, make_photo(), channels={layer: [0]}, heads={attention: [0]})
        for units in ({"heads": {attention: [99]}}, {"channels": {layer: [99]}, "heads": {attention: [0]}}):
            with pytest.raises(ModelError):
                ablate(model, make_photo(), **units)
        assert count_traces(model.module) == 0
        assert all(torch.equal(before[key], value) for key, value in model.module.state_dict().items())
        assert ablate(model, make_photo()) == model.predict(make_photo(), top=4)


@pytest.mark.parametrize("name", ["resnet", "fused", "torchvision"])
def test_threads_that_ablate_different_units_do_not_affect_each_other(models, name):
    model = models[name]
    layer = model.stages[0]
    attention = model.attention_layers[0] if model.attention_layers else None
    ablations: list[dict] = [{}, *({"channels": {layer: [i]}} for i in range(3))]
    if attention:
        ablations += [{"heads": {attention: [i]}} for i in range(3)]

    def run_ablation(units) -> list[vizlib.Prediction]:
        return ablate(model, make_photo(), **units)

    expected = [run_ablation(units) for units in ablations]
    assert len({tuple(get_logits(predictions)) for predictions in expected}) == len(ablations)
    order = list(range(len(ablations))) * 6
    random.Random(0).shuffle(order)
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda i: run_ablation(ablations[i]), order))
    assert results == [expected[i] for i in order]
    assert count_traces(model.module) == 0
