"""Contributions and switched-off units against the network written out by hand, and against its own answers."""

from __future__ import annotations

import copy
import random
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import timm
import torch
import torchvision
from torch import nn

import vizlib
from vizlib import ModelError, ablate, contributions
from vizlib.analysis.units import Contributions

RESNET, VIT = "resnet18-imagenette", "vit_tiny-imagenette"
SMALL = {"input_size": (3, 32, 32), "crop_pct": 1.0, "mean": (0.5,) * 3, "std": (0.25,) * 3}


def photo(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (32, 32, 3), np.uint8)


def wrapped(module: nn.Module) -> vizlib.Model:
    return vizlib.wrap(module.eval().double(), preprocessing=SMALL)


@pytest.fixture(scope="module")
def nets() -> dict[str, vizlib.Model]:
    """Small networks in double precision: of convolutions, and of attention three ways."""
    torch.manual_seed(0)
    small = {"img_size": 32, "num_classes": 4}
    vit = {"patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3}
    unfused = timm.models.vision_transformer.VisionTransformer(**small, **vit)
    for block in unfused.blocks:
        block.attn.fused_attn = False  # pyright: ignore
    kept = {
        "resnet": timm.create_model("test_resnet", num_classes=4),
        "fused": timm.models.vision_transformer.VisionTransformer(**small, **vit),
        "unfused": unfused,
        "torchvision": torchvision.models.VisionTransformer(32, 8, 2, 3, 24, 48, num_classes=4),
        "swin": timm.models.swin_transformer.SwinTransformer(
            **small, patch_size=2, window_size=4, embed_dim=12, depths=(2, 2), num_heads=(2, 3)
        ),
    }
    for module in kept.values():
        for parameter in module.parameters():  # untrained, many are 0 or so small that nothing shows
            nn.init.normal_(parameter, 0, 0.2)
    return {name: wrapped(module) for name, module in kept.items()}


def logits_of(predictions: list[vizlib.Prediction]) -> list[float]:
    return [one.logit for one in sorted(predictions)]


# Contributions


def slow_channels(model: vizlib.Model, image: torch.Tensor, layer: str, target: int) -> list[float]:
    """Scale one channel after the other by 1 ± h with a hook, and take the slope of the logit."""
    h = 1e-4
    part = model.module.get_submodule(layer)

    def at(channel: int, scale: float) -> float:
        def scaled(_module, _inputs, output):
            output = output.clone()
            if output.ndim == 4 and model.channel_axis(output) == 1:
                output[:, channel] *= scale
            else:
                output[..., channel] *= scale
            return output

        handle = part.register_forward_hook(scaled)
        try:
            with torch.no_grad():
                return model.module(image)[0, target].item()
        finally:
            handle.remove()

    output = model.run(photo(), layers=[layer]).activations[layer]
    channels = range(output.shape[model.channel_axis(output)])
    return [(at(channel, 1 + h) - at(channel, 1 - h)) / (2 * h) for channel in channels]


@pytest.mark.parametrize(
    ("net", "layer"),
    [
        ("resnet", "layer2"),
        ("resnet", "conv1"),
        ("fused", "blocks.0"),
        ("fused", "blocks.1.mlp.fc1"),
        ("torchvision", "encoder.layers.encoder_layer_0"),
        ("swin", "layers.0"),
    ],
)
def test_a_channels_contribution_is_the_slope_of_the_logit_as_it_is_scaled(nets, net, layer):
    model = nets[net]
    found = contributions(model, photo(), 2, layers=[layer], heads=False)
    slow = slow_channels(model, model.tensor(vizlib.open_image(photo())), layer, 2)
    assert found.channels[layer].tolist() == pytest.approx(slow, rel=1e-4, abs=1e-7)
    assert max(map(abs, slow)) > 1e-3
    assert found.heads == {}


@pytest.mark.parametrize("net", ["fused", "unfused", "torchvision"])
def test_a_heads_contribution_is_what_its_output_alone_adds(nets, net):
    """For the last block what follows a head is a projection, an MLP and a norm: compared with a scaled projection."""
    model = nets[net]
    found, h = contributions(model, photo(), 1), 1e-4
    assert list(found.heads) == list(model.attention_layers)
    image = model.tensor(vizlib.open_image(photo()))
    for layer, heads in found.heads.items():
        assert len(heads) == 3
        part = model.module.get_submodule(layer)
        weight = part.out_proj.weight if net == "torchvision" else part.proj.weight
        kept, slow = weight.detach().clone(), []
        for head in range(3):
            ends = []
            for scale in (1 + h, 1 - h):
                with torch.no_grad():
                    weight[:, head * 8 : (head + 1) * 8] *= scale
                    ends.append(model.module(image)[0, 1].item())
                    weight.copy_(kept)
            slow.append((ends[0] - ends[1]) / (2 * h))
        assert heads.tolist() == pytest.approx(slow, rel=1e-4, abs=1e-8)


def test_in_a_trained_resnets_last_stage_a_contribution_is_exactly_what_switching_off_takes_away(cheetah):
    model = vizlib.load(RESNET)
    for target in (None, 3):
        found = contributions(model, cheetah, target)
        for channel in found.channels["layer4"].abs().topk(4).indices.tolist():
            rest = logits_of(ablate(model, cheetah, channels={"layer4": [channel]}))
            assert found.logit - rest[found.target] == pytest.approx(found.channels["layer4"][channel].item(), abs=2e-5)
        bias = model.module.get_parameter("fc.bias")[found.target].item()
        assert found.channels["layer4"].sum().item() + bias == pytest.approx(found.logit, abs=1e-4)


def test_in_a_trained_transformer_what_the_classifier_reads_adds_up_to_the_logit(cheetah):
    model = vizlib.load(VIT)
    found = contributions(model, cheetah, layers=["norm"])
    bias = model.module.get_parameter("head.bias")[found.target].item()
    assert found.channels["norm"].sum().item() + bias == pytest.approx(found.logit, abs=1e-3)
    channel = int(found.channels["norm"].abs().argmax())
    rest = logits_of(ablate(model, cheetah, channels={"norm": [channel]}))
    assert found.logit - rest[found.target] == pytest.approx(found.channels["norm"][channel].item(), abs=1e-4)


def test_one_run_answers_for_every_class_and_layer(cheetah):
    model = vizlib.load(VIT)
    run = model.run(cheetah, layers=model.stages, attention=True)
    for target in (0, 7):
        shared, alone = contributions(model, cheetah, target, run=run), contributions(model, cheetah, target)
        assert (shared.target, shared.label) == (target, model.labels[target])
        for mine, theirs in ((shared.channels, alone.channels), (shared.heads, alone.heads)):
            assert list(mine) == list(theirs)
            for layer, values in mine.items():
                assert torch.allclose(values, theirs[layer], rtol=1e-3, atol=1e-5)
    with pytest.raises(ModelError, match="does not hold norm"):
        contributions(model, cheetah, layers=["norm"], run=run)


def test_against_another_class_it_is_the_difference_of_the_two(nets):
    model = nets["fused"]
    one, other, lead = (contributions(model, photo(), *classes) for classes in ((2,), (0,), (2, 0)))
    assert (lead.target, lead.against, one.against) == (2, 0, None)
    assert lead.logit == pytest.approx(one.logit - other.logit)
    for name in ("channels", "heads"):
        for layer, values in getattr(lead, name).items():
            assert torch.allclose(values, getattr(one, name)[layer] - getattr(other, name)[layer])


# Switching off


def heads_by_hand(module, image: torch.Tensor, silent: dict[int, list[int]]) -> torch.Tensor:
    """timm's transformer written out, with the slices of the silent heads zeroed before the projection."""
    x = module.patch_embed(image)
    x = torch.cat([module.cls_token, x], 1) + module.pos_embed
    for i, block in enumerate(module.blocks):
        y, attn = block.norm1(x), block.attn
        qkv = attn.qkv(y)
        out, width = torch.zeros_like(y), y.shape[-1] // attn.num_heads
        for head in range(attn.num_heads):
            span = [slice(n * y.shape[-1] + head * width, n * y.shape[-1] + (head + 1) * width) for n in range(3)]
            q, k, v = (qkv[..., s] for s in span)
            if head not in silent.get(i, []):
                out[..., head * width : (head + 1) * width] = ((q @ k.mT) / width**0.5).softmax(-1) @ v
        x = x + attn.proj(out)
        x = x + block.mlp(block.norm2(x))
    return module.head(module.norm(x)[:, 0])


@pytest.mark.parametrize("net", ["fused", "unfused"])
@pytest.mark.parametrize("silent", [{0: [1]}, {1: [0, 2]}, {0: [0, 1, 2], 1: [1]}])
def test_a_silent_head_is_its_slice_zeroed_before_the_projection(nets, net, silent):
    model = nets[net]
    found = ablate(model, photo(), heads={f"blocks.{i}.attn": heads for i, heads in silent.items()})
    with torch.no_grad():
        slow = heads_by_hand(model.module, model.tensor(vizlib.open_image(photo())), silent)
        whole = heads_by_hand(model.module, model.tensor(vizlib.open_image(photo())), {})
    assert logits_of(found) == pytest.approx(slow[0].tolist(), rel=1e-5, abs=1e-6)
    assert logits_of(ablate(model, photo())) == pytest.approx(whole[0].tolist(), rel=1e-5, abs=1e-6)
    assert (slow - whole).abs().max() > 1e-2


def test_a_silent_head_of_torchvision_is_a_projection_that_does_not_read_it(nets):
    model = nets["torchvision"]
    layer = model.attention_layers[1]
    found = ablate(model, photo(), heads={layer: [2, 0]})
    weight = model.module.get_submodule(layer).out_proj.weight
    kept = weight.detach().clone()
    with torch.no_grad():
        weight.view(24, 3, 8)[:, [0, 2]] = 0
        slow = model.module(model.tensor(vizlib.open_image(photo())))
        weight.copy_(kept)
    assert logits_of(found) == pytest.approx(slow[0].tolist(), rel=1e-5, abs=1e-6)


@pytest.mark.parametrize(("net", "layer"), [("resnet", "layer2"), ("fused", "blocks.0"), ("swin", "layers.0")])
def test_silent_channels_are_zero_in_every_place(nets, net, layer):
    model = nets[net]
    contributed = contributions(model, photo(), layers=[layer]).channels[layer]
    lively = contributed.abs().topk(2).indices.tolist()
    found = ablate(model, photo(), channels={layer: lively})

    def silence(_module, _inputs, output):
        output = output.clone()
        (output if net == "resnet" else output.movedim(-1, 1))[:, lively] = 0
        return output

    handle = model.module.get_submodule(layer).register_forward_hook(silence)
    with torch.no_grad():
        slow = model.module(model.tensor(vizlib.open_image(photo())))
    handle.remove()
    assert logits_of(found) == pytest.approx(slow[0].tolist(), rel=1e-5, abs=1e-6)
    assert logits_of(found) != pytest.approx(logits_of(model.predict(photo(), top=4)), abs=1e-3)


@pytest.mark.parametrize("net", ["resnet", "fused", "torchvision"])
def test_ablation_in_training_mode_equals_evaluation_mode(nets, net):
    """The model runs as a copy in evaluation mode, so the hooks must be on that copy."""
    model = nets[net]
    units: dict = {"channels": {model.stages[0]: [1, 3]}}
    if model.attention_layers:
        units["heads"] = {model.attention_layers[0]: [1]}
    expected = ablate(model, photo(), **units)
    assert logits_of(expected) != pytest.approx(logits_of(model.predict(photo(), top=4)), abs=1e-4)
    training = wrapped(copy.deepcopy(model.module))
    training.module.train()
    assert logits_of(ablate(training, photo(), **units)) == pytest.approx(logits_of(expected), abs=1e-9)
    assert all(part.training for part in training.module.modules())
    assert count_traces(training.module) == 0


def test_several_layers_and_heads_at_once_and_nothing_at_all(nets):
    model = nets["fused"]
    some = ablate(model, photo(), channels={"blocks.0": [3], "norm": [5]}, heads={"blocks.1.attn": [1]})
    norm_only = ablate(model, photo(), channels={"norm": [5]})
    assert len(some) == 4
    assert logits_of(some) != pytest.approx(logits_of(norm_only), abs=1e-4)
    assert ablate(model, photo()) == model.predict(photo(), top=4)


@pytest.mark.parametrize(
    ("units", "sentence"),
    [
        ({"channels": {"layer9": [0]}}, "no layer 'layer9'"),
        ({"channels": {"blocks.0": [24]}}, "blocks.0 has no channel 24; its channels are 0 to 23"),
        ({"channels": {"blocks.0": [-1]}}, "no channel -1"),
        ({"heads": {"blocks.0.attn": [3]}}, "blocks.0.attn has no head 3; its heads are 0 to 2"),
        ({"heads": {"blocks.0.atn": [0]}}, "did you mean blocks.0.attn"),
    ],
)
def test_a_unit_that_is_not_there_is_one_sentence(nets, units, sentence):
    with pytest.raises(ModelError, match=sentence) as told:
        ablate(nets["fused"], photo(), **units)
    assert "\n" not in str(told.value)


def test_a_head_that_is_not_there_is_refused_by_other_networks_too(nets):
    layer = nets["torchvision"].attention_layers[0]
    with pytest.raises(ModelError, match=r"has no head 3; its heads are 0 to 2"):
        ablate(nets["torchvision"], photo(), heads={layer: [3]})
    with pytest.raises(ModelError, match=r"computes no attention in 'blocks\.0\.attn'; it has none"):
        ablate(nets["resnet"], photo(), heads={"blocks.0.attn": [0]})


# Leaving no trace


def count_traces(module: nn.Module) -> int:
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_forward_hooks_always_called")
    hooks = sum(len(getattr(part, kind)) for part in module.modules() for kind in kinds)
    return hooks + sum(parameter.grad is not None for parameter in module.parameters())


def test_nothing_is_left_behind_though_an_exception_is_raised(nets):
    for name, layer in (("fused", "blocks.0"), ("torchvision", "encoder.layers.encoder_layer_0")):
        model = nets[name]
        before = {key: value.clone() for key, value in model.module.state_dict().items()}
        attention = model.attention_layers[1]
        contributions(model, photo())
        ablate(model, photo(), channels={layer: [0]}, heads={attention: [0]})
        for units in ({"heads": {attention: [99]}}, {"channels": {layer: [99]}, "heads": {attention: [0]}}):
            with pytest.raises(ModelError):
                ablate(model, photo(), **units)
        assert count_traces(model.module) == 0
        assert all(torch.equal(before[key], value) for key, value in model.module.state_dict().items())
        assert ablate(model, photo()) == model.predict(photo(), top=4)


@pytest.mark.parametrize("net", ["resnet", "fused", "torchvision"])
def test_threads_that_switch_off_different_units_do_not_meet(nets, net):
    model = nets[net]
    layer = model.stages[0]
    attention = model.attention_layers[0] if model.attention_layers else None
    asked: list[dict] = [{}, *({"channels": {layer: [i]}} for i in range(3))]
    if attention:
        asked += [{"heads": {attention: [i]}} for i in range(3)]

    def work(units) -> Contributions | list[vizlib.Prediction]:
        return ablate(model, photo(), **units)

    alone = [work(units) for units in asked]
    assert len({tuple(logits_of(one)) for one in alone}) == len(asked)
    order = list(range(len(asked))) * 6
    random.Random(0).shuffle(order)
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda i: work(asked[i]), order))
    assert together == [alone[i] for i in order]
    assert count_traces(model.module) == 0
