"""First-layer kernels, position similarities, layer tables and spatial maps against values by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchvision
from torch import nn

import vizlib
from vizlib.models.layer_summary import summarise_layers

PREPROCESSING = {"input_size": (3, 64, 64), "crop_pct": 1.0, "interpolation": "bilinear"}


def tiny_torchvision_vit():
    return torchvision.models.VisionTransformer(64, 16, 2, 3, 48, 96, num_classes=10)


BUILDS = {
    "resnet18": lambda: timm.create_model("resnet18", num_classes=10),
    "resnet50d": lambda: timm.create_model("resnet50d", num_classes=10),
    "vit": lambda: timm.create_model("vit_tiny_patch16_224", img_size=64, num_classes=10, depth=2),
    "deit distilled": lambda: timm.create_model(
        "deit_tiny_distilled_patch16_224", img_size=64, num_classes=10, depth=2
    ),
    "torchvision resnet18": lambda: torchvision.models.resnet18(num_classes=10),
    "torchvision vit": tiny_torchvision_vit,
    "unknown": lambda: nn.Sequential(
        nn.Conv2d(3, 4, 5), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10)
    ),
}
FIRST = {
    "resnet18": "conv1",
    "resnet50d": "conv1.0",
    "vit": "patch_embed.proj",
    "deit distilled": "patch_embed.proj",
    "torchvision resnet18": "conv1",
    "torchvision vit": "conv_proj",
    "unknown": "0",
}


def wrapped(name):
    torch.manual_seed(0)
    return vizlib.wrap(BUILDS[name]().eval(), preprocessing=PREPROCESSING)


@pytest.mark.parametrize("name", BUILDS)
def test_kernels_returns_a_copy_of_the_first_convolutions_weights(name):
    model = wrapped(name)
    kernels = vizlib.kernels(model)
    assert kernels.layer == FIRST[name]
    weight = model.module.get_parameter(f"{kernels.layer}.weight")
    # The layer's input is the image itself.
    inputs = []
    handle = model.module.get_submodule(kernels.layer).register_forward_pre_hook(
        lambda _, arguments: inputs.append(arguments[0])
    )
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        model.module(image)
    handle.remove()
    assert torch.equal(inputs[0], image)
    assert torch.equal(kernels.weights, weight)
    assert not kernels.weights.requires_grad
    kernels.weights.zero_()
    assert weight.abs().sum() > 0


def similarity_by_hand(vectors, rows, columns):
    similarity = torch.zeros(rows, columns, rows, columns)
    for r in range(rows):
        for c in range(columns):
            for r2 in range(rows):
                for c2 in range(columns):
                    a, b = vectors[r * columns + c], vectors[r2 * columns + c2]
                    lengths = math.sqrt((a * a).sum()) * math.sqrt((b * b).sum())
                    similarity[r, c, r2, c2] = (a * b).sum() / lengths
    return similarity


@pytest.mark.parametrize(
    ("build", "prefix", "grid"),
    [
        (lambda: timm.create_model("vit_tiny_patch16_224", img_size=(32, 80), depth=1), 1, (2, 5)),
        (lambda: timm.create_model("deit_tiny_distilled_patch16_224", img_size=64, depth=1), 2, (4, 4)),
        (
            lambda: timm.create_model(
                "vit_tiny_patch16_224", img_size=(48, 64), depth=1, reg_tokens=3, no_embed_class=True
            ),
            *(0, (3, 4)),
        ),
        (lambda: timm.create_model("vit_tiny_patch16_224", img_size=(48, 64), depth=1, reg_tokens=3), 4, (3, 4)),
        (tiny_torchvision_vit, 1, (4, 4)),
    ],
    ids=[
        "wide",
        "distilled",
        "registers without position embedding",
        "registers with position embedding",
        "torchvision",
    ],
)
def test_position_similarity_equals_cosines_by_hand_without_prefix_tokens(build, prefix, grid):
    torch.manual_seed(0)
    module = build().eval()
    embedding = module.pos_embed if hasattr(module, "pos_embed") else module.encoder.pos_embedding
    nn.init.normal_(embedding)
    rows, columns = grid
    size = (3, rows * 16, columns * 16)
    model = vizlib.wrap(module, preprocessing={**PREPROCESSING, "input_size": size})
    similarity = vizlib.kernels(model).position_similarity
    assert similarity is not None
    with torch.no_grad():
        expected = similarity_by_hand(embedding[0, prefix:], rows, columns)
    assert embedding.shape[1] == prefix + rows * columns
    assert similarity.shape == expected.shape
    assert (similarity - expected).abs().max() < 1e-6
    assert torch.allclose(similarity[1, 2, 1, 2], torch.tensor(1.0))


def test_kernels_has_no_position_similarity_without_position_embedding():
    assert vizlib.kernels(wrapped("resnet18")).position_similarity is None
    module = timm.create_model("vit_tiny_patch16_224", img_size=64, depth=1, pos_embed="none").eval()
    assert vizlib.kernels(vizlib.wrap(module, preprocessing=PREPROCESSING)).position_similarity is None


def test_kernels_of_a_network_that_reads_bgr_are_in_rgb():
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    reversed_channels = {"image_processor_type": "MobileViTImageProcessor", "size": 64, "crop_size": 64}
    weights = vizlib.kernels(vizlib.wrap(module, preprocessing=reversed_channels)).weights
    convolution: Any = module[0]
    assert torch.equal(weights, convolution.weight[:, [2, 1, 0]])


def test_kernels_raises_for_a_network_without_an_rgb_convolution():
    module = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64 * 64, 5)).eval()
    with pytest.raises(vizlib.ModelError, match="no convolution that reads the three colours"):
        vizlib.kernels(vizlib.wrap(module, preprocessing=PREPROCESSING))


@pytest.mark.parametrize("name", BUILDS)
def test_model_layers_has_the_shapes_and_parameters_of_the_network(name):
    model = wrapped(name)
    shapes, handles = {}, []
    for layer, part in model.module.named_modules():

        def record(_module, _inputs, output, layer=layer):
            output = output[0] if isinstance(output, tuple) else output
            shapes[layer] = tuple(output.shape)[1:]

        handles.append(part.register_forward_hook(record))
    model.module(torch.randn(1, 3, 64, 64, requires_grad=True))
    for handle in handles:
        handle.remove()
    assert [layer.name for layer in model.layers] == [layer for layer, _ in model.module.named_modules() if layer]
    for layer in model.layers:
        part = model.module.get_submodule(layer.name)
        counts = {}
        for child in part.modules():
            counts.update({id(p): math.prod(p.shape) for p in child._parameters.values() if p is not None})
        assert layer.shape == shapes.get(layer.name, ()), layer.name
        assert layer.num_parameters == sum(counts.values()), layer.name
        assert layer.class_name == type(part).__name__
    assert sum(bool(layer.shape) for layer in model.layers) >= 0.8 * len(model.layers)


def test_model_layers_has_the_published_numbers_of_resnet18():
    model = vizlib.wrap(
        timm.create_model("resnet18").eval(), preprocessing={**PREPROCESSING, "input_size": (3, 224, 224)}
    )
    layers = {layer.name: layer for layer in model.layers}
    direct = [layer for layer in model.layers if layer.depth == 1]
    assert sum(layer.num_parameters for layer in direct) == 11_689_512  # torchvision's model card
    assert sum(layer.flops for layer in direct) == 2 * 1_814_073_344  # its 1.81 billion multiply-adds
    assert layers["layer3"].shape == (256, 14, 14)
    assert layers["conv1"].num_parameters == 64 * 3 * 7 * 7
    assert layers["layer2.0.downsample.0"].flops == 2 * 64 * 128 * 28 * 28
    row = next(line for line in model.summary().splitlines() if line.lstrip().startswith("layer2.0.downsample.0 "))
    assert row.split() == ["layer2.0.downsample.0", "Conv2d", "128", "×", "28", "×", "28", "8,192", "12.8"]


def test_summarise_layers_returns_layers_and_attention_layers_for_any_output():
    class DictOutput(nn.Module):
        def __init__(self):
            super().__init__()
            self.convolution = nn.Conv2d(3, 4, 5)

        def forward(self, image):
            return {"features": self.convolution(image)}  # the number of outputs is not part of the summary

    summary = summarise_layers(DictOutput().eval(), (8, 8))
    assert [(layer.name, layer.shape) for layer in summary.layers] == [("convolution", (4, 4, 4))]
    assert summary.attention_layers == ()


def test_to_spatial_map_returns_none_without_spatial_positions():
    from vizlib.models.families.layouts import to_spatial_map

    vit = timm.models.VisionTransformer(img_size=40, patch_size=4, embed_dim=16, depth=1, num_heads=2, num_classes=3)
    model = vizlib.wrap(vit.eval(), preprocessing={"input_size": (3, 40, 40)})  # 10 x 10 patches and a class token
    names = ["patch_embed.proj", "patch_embed", "blocks.0", "blocks.0.attn.q_norm", "head"]
    run = model.run(np.zeros((50, 50, 3), np.uint8), layers=names)
    maps = {name: to_spatial_map(output, model.tokens) for name, output in run.activations.items()}
    maps = {name: spatial for name, spatial in maps.items() if spatial is not None}
    assert list(maps) == names[:3]
    assert all(spatial.shape[1:] == (10, 10) for spatial in maps.values())
    block = run.activations["blocks.0"][0, 1:]  # without the class token, row by row
    assert torch.equal(maps["blocks.0"][:, 3, 7], block[3 * 10 + 7])
    convolution = torch.rand(1, 8, 5, 7)
    spatial = to_spatial_map(convolution, None)
    assert spatial is not None
    assert torch.equal(spatial, convolution[0])
