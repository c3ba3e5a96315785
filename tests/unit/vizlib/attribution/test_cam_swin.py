"""Swin has channels last: which outputs are spatial maps, which axis holds the channels, which methods apply."""

from __future__ import annotations

import numpy as np
import pytest
import timm
import torch
import torchvision
from torch import nn
from torchvision.models.swin_transformer import PatchMergingV2, SwinTransformerBlockV2

import vizlib

TIMM = {"patch_size": 4, "embed_dim": 6, "num_heads": (1, 2, 2), "window_size": 4, "num_classes": 5}


def torchvision_swin(**changes):
    return torchvision.models.SwinTransformer([4, 4], 6, [2, 2], [1, 2], [4, 4], num_classes=5, **changes)


# build, size of the input, stages with their rows and columns
SWINS = {
    "timm": (
        lambda: timm.models.SwinTransformer((64, 32), **TIMM, depths=(2, 2)),
        *((64, 32), {"layers.0": (16, 8), "layers.1": (8, 4)}),
    ),
    "timm, an odd side": (
        lambda: timm.models.SwinTransformer(40, **TIMM, depths=(1, 1, 1)),
        *((40, 40), {"layers.0": (10, 10), "layers.1": (5, 5), "layers.2": (3, 3)}),
    ),
    "timm 2": (
        lambda: timm.models.SwinTransformerV2(32, **TIMM, depths=(1, 1)),
        *((32, 32), {"layers.0": (8, 8), "layers.1": (4, 4)}),
    ),
    "torchvision": (torchvision_swin, (40, 56), {"features.1": (10, 14), "features.3": (5, 7)}),
    "torchvision 2": (
        lambda: torchvision_swin(block=SwinTransformerBlockV2, downsample_layer=PatchMergingV2),
        *((32, 32), {"features.1": (8, 8), "features.3": (4, 4)}),
    ),
}


def wrap_with_random_weights(module, size, dtype=torch.float64):
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=0.4)
    preprocessing = {"input_size": (3, *size), "crop_pct": 1.0, "crop_mode": "squash"}
    return vizlib.wrap(module.to(dtype).eval(), preprocessing=preprocessing)


@pytest.fixture(scope="module", params=SWINS)
def swin(request):
    """A model, a photo, and the rows and columns of its stages."""
    build, size, stages = SWINS[request.param]
    photo = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    return wrap_with_random_weights(build(), size), photo, stages


def test_stages_are_spatial_maps_with_their_channels_first(swin):
    model, photo, stages = swin
    assert dict.fromkeys(model.stages) == dict.fromkeys(stages)
    run = model.run(photo, layers=model.stages)
    for stage, (rows, columns) in stages.items():
        output = run.activations[stage]
        spatial_map = model.spatial_map(output)
        assert spatial_map.shape == (output.shape[-1], rows, columns)
        assert torch.equal(spatial_map[2, rows - 1, 1], output[0, rows - 1, 1, 2])
        assert output.shape[model.channel_axis(output)] == len(spatial_map)


def test_convolutions_are_channels_first_and_windows_are_not_spatial_maps(swin):
    model, photo, stages = swin
    first = model.family.first_convolution(model.module)
    assert isinstance(model.module.get_submodule(first), nn.Conv2d)
    assert vizlib.kernels(model).layer == first
    layers = [layer.name for layer in model.layers if len(layer.shape) == 3]
    run = model.run(photo, layers=layers)
    shape = next(iter(stages.values()))
    for name in (first, *(name for name in ("permute",) if name in run.activations)):
        output = run.activations[name]
        assert torch.equal(model.spatial_map(output), output[0])
        assert model.channel_axis(output) == 1
    assert model.spatial_map(run.activations[first]).shape[1:] == shape
    other_layers = [name for name in layers if name.endswith(("attn_drop", "softmax", "avgpool")) or "cpb_mlp" in name]
    assert all(model.spatial_map(run.activations[name]) is None for name in other_layers)
    stage_sizes = stages.values()
    for rows, columns in stage_sizes:
        assert model.spatial_map(torch.rand(4, rows, columns, 6)) is None  # windows as large as a stage
        assert model.spatial_map(torch.rand(1, 2, rows * columns, rows * columns)) is None  # the scores of one window


def test_class_activation_maps_and_raw_attention_are_supported_and_other_attention_methods_are_not(swin):
    model, *_ = swin
    names = set(vizlib.list_methods(model))
    assert model.attention_layers
    assert {name for name in vizlib.list_methods() if name.endswith("cam") or "cam+" in name or name == "normgrad"} <= (
        names | {"guided-grad-cam"}
    )
    assert "raw-attention" in names
    assert not {"attention-rollout", "attention-relevance", "legrad"} & names


def test_every_position_of_the_default_layer_has_a_gradient(swin):
    model, photo, stages = swin
    assert model.cam_layer == list(stages)[-1]
    run = model.run(photo, layers=[model.cam_layer])
    for target in range(5):
        (gradient,) = run.gradients(target, of=[run.activations[model.cam_layer]])
        assert (model.spatial_map(gradient).abs().amax(0) > 1e-6).all()


def test_contributions_after_the_last_normalisation_sum_to_the_logit(swin):
    """After it follow a mean over positions and a linear layer. Before it, contributions cancel at each position."""
    model, photo, stages = swin
    heat = vizlib.explain(model, photo, "hires-cam", 2, relu=False).heat
    logit = model.logits(model.tensor(vizlib.open_image(photo)))[0, 2]
    assert heat.sum().item() == pytest.approx((logit - model.module.get_parameter(bias_of(model))[2]).item(), rel=1e-6)
    before_normalisation = vizlib.explain(model, photo, "hires-cam", 2, relu=False, layer=list(stages)[-1]).heat
    assert before_normalisation.abs().max() < 1e-3 * heat.abs().max()


def bias_of(model):
    return next(name for name, _ in model.module.named_parameters() if name in ("head.bias", "head.fc.bias"))


def logits_with_altered_layer(model, layer, image, alter):
    """Return the logits with the output of a layer altered by a forward hook."""
    handle = model.module.get_submodule(layer).register_forward_hook(lambda _part, _inputs, output: alter(output))
    try:
        with torch.no_grad():
            return model.module(image)[0]
    finally:
        handle.remove()


@pytest.mark.parametrize("deep", [False, True])
def test_ablation_cam_ablates_channels_and_not_columns(swin, deep):
    model, photo, _ = swin
    layer = model.cam_layer if deep else model.stages[0]
    image = model.tensor(vizlib.open_image(photo))
    outputs = []
    full_score = logits_with_altered_layer(model, layer, image, outputs.append)[1]
    expected = torch.zeros(outputs[0].shape[1:3], dtype=torch.float64)
    for channel in range(outputs[0].shape[3]):

        def ablate_channel(output, channel=channel):
            output = output.clone()
            output[:, :, :, channel] = 0
            return output

        drop = full_score - logits_with_altered_layer(model, layer, image, ablate_channel)[1]
        expected += drop / full_score.abs() * outputs[0][0, :, :, channel]
    heat = vizlib.explain(model, photo, "ablation-cam", 1, layer=layer, relu=False, score="logit").heat
    assert (heat - expected).abs().max() < 1e-6 * expected.abs().max()


def test_score_cam_masks_by_channels(swin):
    model, photo, _ = swin
    layer, image = model.stages[-1], model.tensor(vizlib.open_image(photo))
    outputs = []
    logits_with_altered_layer(model, layer, image, outputs.append)
    channels = outputs[0][0].permute(2, 0, 1)
    scores = []
    for spatial_map in channels:
        upsampled = torch.nn.functional.interpolate(spatial_map[None, None], image.shape[2:], mode="bilinear")
        mask = (upsampled - upsampled.min()) / (upsampled.max() - upsampled.min())
        scores.append(model.logits(image * mask).softmax(-1)[0, 1])
    expected = (torch.stack(scores).softmax(0)[:, None, None] * channels).sum(0)
    heat = vizlib.explain(model, photo, "score-cam", 1, layer=layer, relu=False, score="probability").heat
    assert (heat - expected).abs().max() < 1e-6 * expected.abs().max()


def test_ambiguous_shape_is_read_as_channels_last():
    network = timm.models.SwinTransformer(24, **TIMM, depths=(1, 1))
    model = wrap_with_random_weights(network, (24, 24))  # 6 channels, 6 × 6 positions
    output = torch.rand(1, 6, 6, 6)
    spatial_map = model.spatial_map(output)
    assert spatial_map is not None
    assert torch.equal(spatial_map, output[0].permute(2, 0, 1))
    assert model.channel_axis(output) == -1


def test_batch_of_several_photos_is_not_a_spatial_map():
    model = vizlib.wrap(timm.create_model("test_resnet", num_classes=5).eval())
    spatial_map = model.spatial_map(torch.rand(1, 4, 5, 5))
    assert spatial_map is not None
    assert spatial_map.shape == (4, 5, 5)
    assert model.spatial_map(torch.rand(2, 4, 5, 5)) is None
