"""Receptive fields against the recursion over layers, and against perturbing every pixel."""

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
from vizlib import ModelError, receptive_field
from vizlib.analysis.effective_receptive_field import EffectiveReceptiveField, effective_receptive_field

RESNET, VIT = "resnet18-imagenette", "vit_tiny-imagenette"


def wrap_model(module: nn.Module, size: tuple[int, int] = (32, 32)) -> vizlib.Model:
    return vizlib.wrap(module.eval(), preprocessing={"input_size": (3, *size), "crop_pct": 1.0})


# Receptive fields of ResNets, by the recursion over layers (Araujo et al. 2019)

FIRST_WINDOWS = [(7, 2), (3, 2)]  # (kernel, stride)


def compute_size_and_jump(windows) -> tuple[int, int]:
    size = jump = 1
    for kernel, stride in windows:
        size += (kernel - 1) * jump
        jump *= stride
    return size, jump


def list_basic_block_windows(blocks) -> list:
    """Return the windows up to the end of each stage, where a block is 3 × 3 and 3 × 3."""
    windows, stages = list(FIRST_WINDOWS), []
    for stage, count in enumerate(blocks):
        for block in range(count):
            windows += [(3, 2 if stage and not block else 1), (3, 1)]
        stages.append(list(windows))
    return stages


def list_bottleneck_windows(blocks) -> list:
    windows, stages = list(FIRST_WINDOWS), []
    for stage, count in enumerate(blocks):
        for block in range(count):
            windows += [(1, 1), (3, 2 if stage and not block else 1), (1, 1)]
        stages.append(list(windows))
    return stages


@pytest.mark.parametrize(
    ("make", "stages"),
    [
        (lambda: timm.create_model("resnet18"), list_basic_block_windows([2, 2, 2, 2])),
        (lambda: timm.create_model("resnet34"), list_basic_block_windows([3, 4, 6, 3])),
        (lambda: timm.create_model("resnet50"), list_bottleneck_windows([3, 4, 6, 3])),
        (lambda: torchvision.models.resnet18(), list_basic_block_windows([2, 2, 2, 2])),
    ],
    ids=["resnet18", "resnet34", "resnet50", "torchvision"],
)
def test_receptive_fields_of_resnets_follow_the_recursion(make, stages):
    model = wrap_model(make(), (64, 64))
    for layer, windows in zip(model.stages, stages, strict=True):
        size, jump = compute_size_and_jump(windows)
        field = receptive_field(model, layer)
        assert field.size == (size, size)
        assert field.jump == (jump, jump)
        assert field.centre == (0.5, 0.5)  # every padding is half of its kernel


# Every pixel perturbed: what a position really depends on


class IrregularNetwork(nn.Module):
    """A network with uneven kernels, strides, dilation and padding, a branch, and a pooling layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, (3, 5), stride=(1, 2), padding=(0, 2))
        self.wide = nn.Conv2d(4, 4, 3, padding=2, dilation=2)
        self.narrow = nn.Conv2d(4, 4, 1)
        self.pool = nn.AvgPool2d(3, 2, 1)
        self.last = nn.Conv2d(4, 2, 2)

    def forward(self, images):
        x = self.first(images).tanh()
        x = torch.cat([self.wide(x), self.narrow(x) * 2], 1)[:, :4].sigmoid_()
        x = nn.functional.pad(self.pool(x), (2, 1, 1, 0))
        return self.last(x).flatten(2).mean(2)


class ChannelsLastNetwork(nn.Module):
    """A network with a norm and linear layers over channels-last tensors, as in ConvNeXt."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 4, stride=4)
        self.mix = nn.Conv2d(4, 4, 3, padding=1, groups=4)
        self.norm, self.widen, self.back = nn.LayerNorm(4), nn.Linear(4, 8), nn.Linear(8, 4)
        self.last = nn.Conv2d(4, 2, 1)

    def forward(self, images):
        x = self.stem(images)
        y = self.norm(self.mix(x).permute(0, 2, 3, 1))
        x = x + self.back(nn.functional.gelu(self.widen(y))).permute(0, 3, 1, 2)
        return self.last(x).mean((2, 3))


def find_dependencies(model: vizlib.Model, layer: str) -> torch.Tensor:
    """Return which pixels change which position: "rows columns height width", one pass per pixel."""
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, 3, *model.preprocessing.input_size, generator=generator, dtype=torch.float64)
    outputs: list[Any] = []
    handle = model.module.get_submodule(layer).register_forward_hook(lambda _m, _i, output: outputs.append(output))
    height, width = image.shape[2:]
    images = image.repeat(height * width + 1, 1, 1, 1)
    for pixel in range(height * width):
        images[pixel + 1, :, pixel // width, pixel % width] += 0.25
    with torch.no_grad():
        model.module(images)
    handle.remove()
    changed = ((outputs[0][1:] - outputs[0][:1]).abs() > 1e-13).any(1)
    return changed.unflatten(0, (height, width)).permute(2, 3, 0, 1)


@pytest.mark.parametrize(
    ("make", "layer"),
    [(IrregularNetwork, "first"), (IrregularNetwork, "wide"), (IrregularNetwork, "pool"), (IrregularNetwork, "last")]
    + [(ChannelsLastNetwork, name) for name in ("stem", "mix", "last")],
)
def test_receptive_field_is_exactly_the_pixels_that_change_a_position(make, layer):
    torch.manual_seed(1)
    model = wrap_model(make().double(), (16, 20))
    dependencies, field = find_dependencies(model, layer), receptive_field(model, layer)
    rows, columns, height, width = dependencies.shape
    for row in range(rows):
        for column in range(columns):
            top, left, bottom, right = field.box(row, column)
            position = dependencies[row, column]
            if layer == "last" and make is IrregularNetwork and not position.any():
                continue  # a position that depends on padding only
            changing_rows, changing_columns = position.any(1).nonzero().flatten(), position.any(0).nonzero().flatten()
            # A dilated window has gaps at the edge, so the box may extend one step beyond the last dependency.
            slack = 2 if make is IrregularNetwork and layer != "first" else 0
            assert 0 <= changing_rows.min() - max(0, top) <= slack
            assert 0 <= min(height, bottom) - 1 - changing_rows.max() <= slack
            assert 0 <= changing_columns.min() - max(0, left) <= 2 * slack
            assert 0 <= min(width, right) - 1 - changing_columns.max() <= 2 * slack
    middle = dependencies[rows // 2, columns // 2]
    top, left, bottom, right = field.box(rows // 2, columns // 2)
    assert (middle.any(1).sum().item(), middle.any(0).sum().item()) == (
        min(height, bottom) - max(0, top),
        min(width, right) - max(0, left),
    )


def test_receptive_field_of_a_pretrained_resnet_bounds_its_gradients_tightly(cheetah):
    model = vizlib.load(RESNET)
    run = model.run(cheetah, layers=["layer1"])
    field, cell = receptive_field(model, "layer1"), (20, 31)
    heat = effective_receptive_field(model, cheetah, "layer1", cell, run=run).heat
    top, left, bottom, right = map(int, field.box(*cell))
    outside = heat.clone()
    outside[top:bottom, left:right] = 0
    assert outside.max() == 0
    rows, columns = heat.any(1).nonzero(), heat.any(0).nonzero()
    assert (rows.min(), rows.max() + 1, columns.min(), columns.max() + 1) == (top, bottom, left, right)


def test_receptive_field_of_a_transformer_is_its_patch_until_the_first_attention(cheetah):
    model = vizlib.load(VIT)
    patch = receptive_field(model, "patch_embed")
    assert patch == receptive_field(model, "patch_embed.proj")
    assert (patch.size, patch.jump, patch.centre) == ((16, 16), (16, 16), (8, 8))
    assert patch.box(2, 3) == (32, 48, 48, 64)
    assert receptive_field(model, "blocks.0.norm1").size == (16, 16)
    for layer in ("blocks.0", "blocks.11.norm2"):
        assert receptive_field(model, layer).size == (math.inf, math.inf)
    assert receptive_field(model, "blocks.0").box(3, 4) == (-math.inf, -math.inf, math.inf, math.inf)


def test_receptive_field_after_squeeze_and_excitation_is_the_whole_input():
    model = wrap_model(timm.create_model("seresnet18"), (64, 64))
    assert receptive_field(model, "conv1").size == (7, 7)
    assert receptive_field(model, "layer1").size == (math.inf, math.inf)


def test_unknown_receptive_fields_raise_an_error():
    swin = wrap_model(timm.create_model("swin_tiny_patch4_window7_224", img_size=64, window_size=4), (64, 64))
    with pytest.raises(ModelError, match=r"field of layers\.1 is not known: \w+ cannot be traced"):
        receptive_field(swin, "layers.1")
    with pytest.raises(ModelError, match="no layer 'layer9'"):
        receptive_field(swin, "layer9")
    with pytest.raises(ModelError, match="without spatial positions"):
        receptive_field(vizlib.load(RESNET), "fc")


# The effective receptive field


def test_effective_receptive_field_equals_finite_differences():
    torch.manual_seed(0)
    model = wrap_model(IrregularNetwork().double(), (12, 14))
    photo = np.random.default_rng(0).integers(0, 256, (12, 14, 3), np.uint8)
    image, h = model.tensor(vizlib.open_image(photo)), 1e-5

    def sum_position(images: torch.Tensor) -> float:
        outputs = []
        handle = model.module.get_submodule("wide").register_forward_hook(lambda _m, _i, output: outputs.append(output))
        with torch.no_grad():
            model.module(images)
        handle.remove()
        return sum(outputs[0][0, channel, 4, 3].item() for channel in range(4))

    slow = torch.zeros(12, 14)
    for colour, row, column in np.ndindex(3, 12, 14):
        ends = []
        for sign in (h, -h):
            changed = image.clone()
            changed[0, colour, row, column] += sign
            ends.append(sum_position(changed))
        slow[row, column] += abs(ends[0] - ends[1]) / (2 * h)
    assert torch.allclose(effective_receptive_field(model, photo, "wide", (4, 3)).heat, slow, rtol=1e-4, atol=1e-7)


def test_effective_size_of_a_gaussian_is_that_of_a_disc_of_2_5_deviations():
    """A Gaussian is above 4.55 % within a radius of sqrt(-2 ln 0.0455) = 2.486 deviations."""
    y, x = torch.meshgrid(torch.arange(200.0), torch.arange(200.0), indexing="ij")
    field = EffectiveReceptiveField(torch.exp(-((y - 100) ** 2 + (x - 100) ** 2) / (2 * 15**2)))
    assert field.size == pytest.approx(math.sqrt(math.pi) * 2.486 * 15, rel=0.01)
    assert field.fraction_inside((0, 0, 200, 200)) == pytest.approx(1)
    assert field.fraction_inside((-math.inf, -math.inf, 100, math.inf)) == pytest.approx(0.5, abs=0.02)


def test_effective_receptive_field_of_a_trained_resnet_is_smaller_than_the_theoretical_one(cheetah):
    model = vizlib.load(RESNET)
    for layer in ("layer2", "layer3"):
        theoretical, effective = receptive_field(model, layer), effective_receptive_field(model, cheetah, layer, (7, 7))
        assert effective.size < theoretical.size[0] / 2
        assert effective.fraction_inside(theoretical.box(7, 7)) == pytest.approx(1)


def test_effective_receptive_field_of_an_unknown_position_raises_an_error(cheetah):
    model = vizlib.load(RESNET)
    with pytest.raises(ModelError, match=r"layer4 has 6 × 6 positions, so there is none at row 7, column 0"):
        effective_receptive_field(model, cheetah, "layer4", (7, 0))
    with pytest.raises(ModelError, match="no spatial positions; use one of layer1"):
        effective_receptive_field(model, cheetah, "fc", (0, 0))


def test_receptive_fields_leave_the_network_unchanged(cheetah):
    model = vizlib.load(RESNET)
    receptive_field(model, "layer2")
    effective_receptive_field(model, cheetah, "layer2", (0, 0))
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in model.module.modules())
    assert all(parameter.grad is None for parameter in model.module.parameters())
