"""Grad-CAM equals captum, pytorch-grad-cam and the formula of the paper in explicit loops."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchvision
from captum.attr import LayerGradCam
from peer_maps import assert_same_map, pytorch_grad_cam_map
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.image import scale_cam_image
from torch import nn

import vizlib

STAGES = ["layer1", "layer2", "layer3", "layer4"]


@pytest.mark.parametrize("layer", STAGES)
def test_every_stage_equals_captum_layer_grad_cam(resnet, cheetah, layer):
    for target in (resnet.predict(cheetah, top=1)[0].index, 281):
        for relu in (True, False):
            method = LayerGradCam(resnet.module, resnet.module.get_submodule(layer))
            expected = method.attribute(resnet.tensor(cheetah), target=target, relu_attributions=relu)
            assert isinstance(expected, torch.Tensor)
            expected = expected.detach()[0, 0]
            attribution = vizlib.explain(resnet, cheetah, "grad-cam", target, layer=layer, relu=relu)
            assert attribution.signed == (not relu)
            if expected.any():
                assert_same_map(attribution.heat, expected)
            else:
                assert not attribution.heat.any()


@pytest.mark.parametrize("layer", STAGES)
def test_every_stage_equals_pytorch_grad_cam_before_and_after_its_rescaling(resnet, cheetah, layer):
    """The final map of pytorch-grad-cam is upsampled to the input with OpenCV, then rescaled to 0..1.

    The same steps are applied to our map here. The tolerance is 1e-3, because OpenCV upsamples in float32.
    """
    target = resnet.predict(cheetah, top=1)[0].index
    expected, scaled = pytorch_grad_cam_map(GradCAM, resnet, layer, resnet.tensor(cheetah), target)
    heat = vizlib.explain(resnet, cheetah, "grad-cam", layer=layer).heat
    assert_same_map(heat, np.maximum(expected, 0))
    rescaled: Any = scale_cam_image(scale_cam_image(heat.numpy()[None], (224, 224)))
    assert np.abs(rescaled[0] - scaled).max() < 1e-3


def reshape_tokens(tensor):
    """Documented reshape_transform of pytorch-grad-cam: without the class token, patches row by row."""
    side = int((tensor.shape[1] - 1) ** 0.5)
    return tensor[:, 1:].reshape(tensor.shape[0], side, side, tensor.shape[2]).permute(0, 3, 1, 2)


@pytest.mark.parametrize("layer", [None, "blocks.5", "blocks.10.norm1", "patch_embed"])
def test_grad_cam_of_a_transformer_equals_pytorch_grad_cam_at_the_same_layer(deit, cheetah, layer):
    target = deit.predict(cheetah, top=1)[0].index
    name = layer or "blocks.10"

    def reshape(tensor):
        return reshape_tokens(tensor if tensor.shape[1] % 2 else torch.nn.functional.pad(tensor, (0, 0, 1, 0)))

    expected, _ = pytorch_grad_cam_map(GradCAM, deit, name, deit.tensor(cheetah), target, reshape)
    attribution = vizlib.explain(deit, cheetah, "grad-cam", layer=layer)
    assert attribution.heat.shape == (14, 14)
    assert_same_map(attribution.heat, np.maximum(expected, 0))


def test_last_block_of_deit_has_no_gradient_and_a_note_says_so(deit, cheetah):
    assert deit.cam_layer == "blocks.10"
    last = vizlib.explain(deit, cheetah, "grad-cam", layer="blocks.11")
    assert torch.equal(last.heat, torch.zeros(14, 14))
    assert any("gradient at the positions of blocks.11 is exactly zero" in note for note in last.notes)

    before = vizlib.explain(deit, cheetah, "grad-cam")
    assert before.heat.max() > 0
    assert not any("exactly zero" in note for note in before.notes)


# ------------------------------------------------------------------------------------------------ small networks


def tiny_vit(**changes):
    settings = {"img_size": 64, "depth": 4, "num_classes": 5, **changes}
    name = "deit_tiny_distilled_patch16_224" if settings.pop("distilled", False) else "vit_tiny_patch16_224"
    return timm.create_model(name, **settings)


def tiny_torchvision_vit():
    module: Any = torchvision.models.VisionTransformer(64, 16, 4, 3, 48, 96, num_classes=5)
    nn.init.normal_(module.heads.head.weight)
    return module


TRANSFORMERS = {
    "class token": tiny_vit,
    "distilled": lambda: tiny_vit(distilled=True),
    "registers": lambda: tiny_vit(reg_tokens=3),
    "mean of patches": lambda: tiny_vit(global_pool="avg"),
    "mean of patches, no class token": lambda: tiny_vit(global_pool="avg", class_token=False),
    "attention pooling": lambda: tiny_vit(global_pool="map", class_token=False),
    "torchvision": tiny_torchvision_vit,
}
PREPROCESSING = {"input_size": (3, 64, 64), "crop_pct": 1.0, "interpolation": "bilinear"}


def photo(seed=0):
    return np.random.default_rng(seed).integers(0, 256, (64, 64, 3), dtype=np.uint8)


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_default_layer_is_the_last_block_whose_patches_have_a_gradient(name):
    torch.manual_seed(0)
    model = vizlib.wrap(TRANSFORMERS[name]().double().eval(), preprocessing=PREPROCESSING)
    outputs = {}
    handles = [
        model.module.get_submodule(stage).register_forward_hook(
            lambda _part, _inputs, output, stage=stage: outputs.update({stage: output})
        )
        for stage in model.stages
    ]
    score = model.module(model.tensor(vizlib.open_image(photo())).requires_grad_())[0, 3]
    for handle in handles:
        handle.remove()
    gradients = torch.autograd.grad(score, list(outputs.values()))
    assert model.tokens is not None
    with_gradient = [
        stage
        for stage, gradient in zip(outputs, gradients, strict=True)
        if gradient[0, model.tokens.num_prefix_tokens :].abs().any()
    ]
    assert model.cam_layer == with_gradient[-1]
    assert with_gradient == list(model.stages)[: len(with_gradient)]


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 6, 5, stride=3), nn.ReLU(inplace=True))
        self.conv = nn.Conv2d(6, 4, 3)
        self.relu = nn.ReLU(inplace=True)
        self.head = nn.Linear(4, 5)

    def forward(self, x):
        return self.head(self.relu(self.conv(self.body(x))).square().mean((2, 3)))


def slow_grad_cam(activation, gradient, *, relu=True):
    """Selvaraju et al. 2017, equations 1 and 2: alpha = mean of the gradient over positions; ReLU(sum alpha A)."""
    channels, rows, columns = activation.shape
    alphas = []
    for k in range(channels):
        total = 0.0
        for i in range(rows):
            for j in range(columns):
                total += float(gradient[k, i, j])
        alphas.append(total / (rows * columns))
    heat = torch.zeros(rows, columns, dtype=torch.float64)
    for i in range(rows):
        for j in range(columns):
            value = sum(alphas[k] * float(activation[k, i, j]) for k in range(channels))
            heat[i, j] = max(value, 0.0) if relu else value
    return heat


@pytest.mark.parametrize("size", [(40, 40), (30, 52)])
@pytest.mark.parametrize("relu", [True, False])
def test_grad_cam_equals_the_equations_of_the_paper_in_explicit_loops(size, relu):
    torch.manual_seed(3)
    module = Small().double().eval()
    model = vizlib.wrap(module, preprocessing={**PREPROCESSING, "input_size": (3, *size)})
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    image = model.tensor(vizlib.open_image(pixels))
    below = {"body": module.body(image).detach(), "conv": module.conv(module.body(image)).detach()}
    above = {
        "body": lambda a: module.head(module.conv(a).clamp(min=0).square().mean((2, 3))),
        "conv": lambda a: module.head(a.clamp(min=0).square().mean((2, 3))),
    }
    for layer, activation in below.items():
        activation.requires_grad_()
        logits = above[layer](activation)[0]
        probabilities = logits.softmax(-1)
        scores = {
            (): logits[2],
            (("against", 4),): logits[2] - logits[4],
            (("score", "probability"),): probabilities[2],
            (("against", 4), ("score", "probability")): probabilities[2] - probabilities[4],
        }
        for options, score in scores.items():
            (gradient,) = torch.autograd.grad(score, activation, retain_graph=True)
            expected = slow_grad_cam(activation[0].detach(), gradient[0], relu=relu)
            heat = vizlib.explain(model, pixels, "grad-cam", 2, layer=layer, relu=relu, **dict(options)).heat
            assert heat.shape == expected.shape
            assert (heat - expected).abs().max() < 1e-6 * max(1.0, expected.abs().max().item())
            assert relu or expected.abs().max() > 1e-5


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_grad_cam_of_a_transformer_equals_explicit_loops_over_its_patches(name):
    torch.manual_seed(0)
    model = vizlib.wrap(TRANSFORMERS[name]().double().eval(), preprocessing=PREPROCESSING)
    assert model.cam_layer is not None
    assert model.tokens is not None
    stage = model.module.get_submodule(model.cam_layer)
    outputs = []
    handle = stage.register_forward_hook(lambda _part, _inputs, output: outputs.append(output))
    score = model.module(model.tensor(vizlib.open_image(photo())).requires_grad_())[0, 1]
    handle.remove()
    (gradient,) = torch.autograd.grad(score, outputs)
    maps = torch.zeros(2, outputs[0].shape[-1], 4, 4, dtype=torch.float64)
    for row in range(4):
        for column in range(4):
            token = model.tokens.num_prefix_tokens + 4 * row + column
            maps[0, :, row, column], maps[1, :, row, column] = outputs[0][0, token], gradient[0, token]
    expected = slow_grad_cam(*maps.detach(), relu=False)
    heat = vizlib.explain(model, photo(), "grad-cam", 1, relu=False).heat
    assert (heat - expected).abs().max() < 1e-6 * expected.abs().max()


def test_layer_without_spatial_positions_raises_method_error_that_names_the_stages():
    model = vizlib.wrap(timm.create_model("resnet18", num_classes=5).eval(), preprocessing=PREPROCESSING)
    with pytest.raises(
        vizlib.MethodError, match=r"which has no spatial positions; use one of layer1, layer2, layer3, layer4"
    ):
        vizlib.explain(model, photo(), "grad-cam", layer="fc")
    with pytest.raises(vizlib.ModelError, match="did you mean layer4"):
        vizlib.explain(model, photo(), "grad-cam", layer="layer44")


class Wrapper(nn.Module):
    """A transformer of a known family inside another module, where the family is not recognised."""

    def __init__(self):
        super().__init__()
        self.body = timm.models.SwinTransformer(
            64, 4, embed_dim=8, depths=(2, 1), num_heads=(1, 2), window_size=4, num_classes=5
        )

    def forward(self, x):
        return self.body(x)


def test_attention_scores_of_an_unknown_transformer_are_not_taken_for_spatial_maps():
    # As for a transformer that no row of the table matches, and that returns no maps of its stages.
    network = Wrapper().eval()
    vars(network.body)["forward_intermediates"] = None
    model = replace(vizlib.wrap(network, preprocessing=PREPROCESSING), family=None)
    assert model.attention_layers, "the test needs a model with attention"
    assert model.stages == ()
    assert "grad-cam" not in vizlib.list_methods(model)
    assert "saliency" in vizlib.list_methods(model)
