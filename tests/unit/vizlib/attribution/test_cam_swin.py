"""Swin keeps its channels last: what of it is a picture, where its channels lie, and which methods fit."""

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


# build, size of the input, stages with their places
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


def wrapped(module, size, dtype=torch.float64):
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=0.4)
    shown = {"input_size": (3, *size), "crop_pct": 1.0, "crop_mode": "squash"}
    return vizlib.wrap(module.to(dtype).eval(), preprocessing=shown)


@pytest.fixture(scope="module", params=SWINS)
def swin(request):
    """A model, a photo, and the places of its stages."""
    build, size, stages = SWINS[request.param]
    photo = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    return wrapped(build(), size), photo, stages


def test_the_stages_lie_on_the_photo_with_their_channels_first(swin):
    model, photo, stages = swin
    assert dict.fromkeys(model.stages) == dict.fromkeys(stages)
    run = model.run(photo, layers=model.stages)
    for stage, (rows, columns) in stages.items():
        output = run.activations[stage]
        picture = model.spatial_map(output)
        assert picture.shape == (output.shape[-1], rows, columns)
        assert torch.equal(picture[2, rows - 1, 1], output[0, rows - 1, 1, 2])
        assert output.shape[model.channel_axis(output)] == len(picture)


def test_convolutions_keep_their_channels_first_and_windows_are_no_picture(swin):
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
    parts = [name for name in layers if name.endswith(("attn_drop", "softmax", "avgpool")) or "cpb_mlp" in name]
    assert all(model.spatial_map(run.activations[name]) is None for name in parts)
    sides = stages.values()
    for rows, columns in sides:
        assert model.spatial_map(torch.rand(4, rows, columns, 6)) is None  # windows as large as a stage
        assert model.spatial_map(torch.rand(1, 2, rows * columns, rows * columns)) is None  # the scores of one window


def test_class_activation_maps_fit_and_attention_between_patches_does_not(swin):
    model, *_ = swin
    names = set(vizlib.list_methods(model))
    assert model.attention_layers
    assert {name for name in vizlib.list_methods() if name.endswith("cam") or "cam+" in name or name == "normgrad"} <= (
        names | {"guided-grad-cam"}
    )
    assert not {"raw-attention", "attention-rollout", "attention-relevance", "legrad"} & names


def test_every_place_of_the_default_layer_has_a_gradient(swin):
    model, photo, stages = swin
    assert model.cam_layer == list(stages)[-1]
    run = model.run(photo, layers=[model.cam_layer])
    for target in range(5):
        (gradient,) = run.gradients(target, of=[run.activations[model.cam_layer]])
        assert (model.spatial_map(gradient).abs().amax(0) > 1e-6).all()


def test_contributions_behind_the_last_normalisation_add_up_to_the_logit(swin):
    """What is left is a mean over places and a linear layer. Before it, they cancel in each place."""
    model, photo, stages = swin
    heat = vizlib.explain(model, photo, "hires-cam", 2, relu=False).heat
    logit = model.logits(model.tensor(vizlib.open_image(photo)))[0, 2]
    assert heat.sum().item() == pytest.approx((logit - model.module.get_parameter(bias_of(model))[2]).item(), rel=1e-6)
    before = vizlib.explain(model, photo, "hires-cam", 2, relu=False, layer=list(stages)[-1]).heat
    assert before.abs().max() < 1e-3 * heat.abs().max()


def bias_of(model):
    return next(name for name, _ in model.module.named_parameters() if name in ("head.bias", "head.fc.bias"))


def from_here_on(model, layer, image, change):
    """The logits where a layer's output was changed, by a plain hook."""
    handle = model.module.get_submodule(layer).register_forward_hook(lambda _part, _inputs, output: change(output))
    try:
        with torch.no_grad():
            return model.module(image)[0]
    finally:
        handle.remove()


@pytest.mark.parametrize("deep", [False, True])
def test_ablation_cam_silences_channels_and_no_columns(swin, deep):
    model, photo, _ = swin
    layer = model.cam_layer if deep else model.stages[0]
    image = model.tensor(vizlib.open_image(photo))
    outputs = []
    whole = from_here_on(model, layer, image, outputs.append)[1]
    expected = torch.zeros(outputs[0].shape[1:3], dtype=torch.float64)
    for channel in range(outputs[0].shape[3]):

        def silenced(output, channel=channel):
            output = output.clone()
            output[:, :, :, channel] = 0
            return output

        drop = whole - from_here_on(model, layer, image, silenced)[1]
        expected += drop / whole.abs() * outputs[0][0, :, :, channel]
    found = vizlib.explain(model, photo, "ablation-cam", 1, layer=layer, relu=False, score="logit").heat
    assert (found - expected).abs().max() < 1e-6 * expected.abs().max()


def test_score_cam_looks_through_channels(swin):
    model, photo, _ = swin
    layer, image = model.stages[-1], model.tensor(vizlib.open_image(photo))
    outputs = []
    from_here_on(model, layer, image, outputs.append)
    pictures = outputs[0][0].permute(2, 0, 1)
    scores = []
    for picture in pictures:
        large = torch.nn.functional.interpolate(picture[None, None], image.shape[2:], mode="bilinear")
        mask = (large - large.min()) / (large.max() - large.min())
        scores.append(model.logits(image * mask).softmax(-1)[0, 1])
    expected = (torch.stack(scores).softmax(0)[:, None, None] * pictures).sum(0)
    found = vizlib.explain(model, photo, "score-cam", 1, layer=layer, relu=False, score="probability").heat
    assert (found - expected).abs().max() < 1e-6 * expected.abs().max()


def test_a_shape_that_can_be_read_both_ways_has_its_channels_last():
    model = wrapped(timm.models.SwinTransformer(24, **TIMM, depths=(1, 1)), (24, 24))  # 6 channels, 6 × 6 places
    output = torch.rand(1, 6, 6, 6)
    assert torch.equal(model.spatial_map(output), output[0].permute(2, 0, 1))
    assert model.channel_axis(output) == -1


def test_stacked_photos_are_no_picture_of_one():
    model = vizlib.wrap(timm.create_model("test_resnet", num_classes=5).eval())
    assert model.spatial_map(torch.rand(1, 4, 5, 5)).shape == (4, 5, 5)
    assert model.spatial_map(torch.rand(2, 4, 5, 5)) is None
