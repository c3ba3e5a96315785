"""Receptive fields against the textbook's recursion, and against a network whose every pixel is nudged."""

from __future__ import annotations

import math

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


def wrapped(module: nn.Module, size: tuple[int, int] = (32, 32)) -> vizlib.Model:
    return vizlib.wrap(module.eval(), preprocessing={"input_size": (3, *size), "crop_pct": 1.0})


# The fields of ResNets, by the recursion every textbook gives

STEM = [(7, 2), (3, 2)]  # (kernel, stride)


def recursion(windows) -> tuple[int, int]:
    size = jump = 1
    for kernel, stride in windows:
        size += (kernel - 1) * jump
        jump *= stride
    return size, jump


def basic(blocks) -> list:
    """The windows up to the end of each stage, where a block is 3 × 3 and 3 × 3."""
    windows, stages = list(STEM), []
    for stage, count in enumerate(blocks):
        for block in range(count):
            windows += [(3, 2 if stage and not block else 1), (3, 1)]
        stages.append(list(windows))
    return stages


def bottleneck(blocks) -> list:
    windows, stages = list(STEM), []
    for stage, count in enumerate(blocks):
        for block in range(count):
            windows += [(1, 1), (3, 2 if stage and not block else 1), (1, 1)]
        stages.append(list(windows))
    return stages


@pytest.mark.parametrize(
    ("make", "stages"),
    [
        (lambda: timm.create_model("resnet18"), basic([2, 2, 2, 2])),
        (lambda: timm.create_model("resnet34"), basic([3, 4, 6, 3])),
        (lambda: timm.create_model("resnet50"), bottleneck([3, 4, 6, 3])),
        (lambda: torchvision.models.resnet18(), basic([2, 2, 2, 2])),
    ],
    ids=["resnet18", "resnet34", "resnet50", "torchvision"],
)
def test_a_resnets_fields_are_the_textbooks(make, stages):
    model = wrapped(make(), (64, 64))
    for layer, windows in zip(model.stages, stages, strict=True):
        size, jump = recursion(windows)
        found = receptive_field(model, layer)
        assert found.size == (size, size)
        assert found.jump == (jump, jump)
        assert found.centre == (0.5, 0.5)  # every padding is half of its kernel


# Every pixel nudged: what a place really depends on


class Odd(nn.Module):
    """Uneven kernels, strides, dilation and padding, a branch, and a pool."""

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


class ChannelsLast(nn.Module):
    """As ConvNeXt: a norm and a linear layer over the channels, in another layout."""

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


def nudged(model: vizlib.Model, layer: str) -> torch.Tensor:
    """Which pixels move which place: "rows columns height width", one pass a pixel."""
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, 3, *model.preprocessing.input_size, generator=generator, dtype=torch.float64)
    kept: list[torch.Tensor] = []
    handle = model.module.get_submodule(layer).register_forward_hook(lambda _m, _i, output: kept.append(output))
    height, width = image.shape[2:]
    images = image.repeat(height * width + 1, 1, 1, 1)
    for pixel in range(height * width):
        images[pixel + 1, :, pixel // width, pixel % width] += 0.25
    with torch.no_grad():
        model.module(images)
    handle.remove()
    moved = ((kept[0][1:] - kept[0][:1]).abs() > 1e-13).any(1)
    return moved.unflatten(0, (height, width)).permute(2, 3, 0, 1)


@pytest.mark.parametrize(
    ("make", "layer"),
    [(Odd, "first"), (Odd, "wide"), (Odd, "pool"), (Odd, "last")]
    + [(ChannelsLast, name) for name in ("stem", "mix", "last")],
)
def test_a_field_is_exactly_the_pixels_that_move_a_place(make, layer):
    torch.manual_seed(1)
    model = wrapped(make().double(), (16, 20))
    truth, found = nudged(model, layer), receptive_field(model, layer)
    rows, columns, height, width = truth.shape
    for row in range(rows):
        for column in range(columns):
            top, left, bottom, right = found.box(row, column)
            own = truth[row, column]
            if layer == "last" and make is Odd and not own.any():
                continue  # a place that sees nothing but padding
            seen_rows, seen_columns = own.any(1).nonzero().flatten(), own.any(0).nonzero().flatten()
            # A dilated window has gaps at the edge, so the box may reach one step further than what moves.
            slack = 2 if make is Odd and layer != "first" else 0
            assert 0 <= seen_rows.min() - max(0, top) <= slack
            assert 0 <= min(height, bottom) - 1 - seen_rows.max() <= slack
            assert 0 <= seen_columns.min() - max(0, left) <= 2 * slack
            assert 0 <= min(width, right) - 1 - seen_columns.max() <= 2 * slack
    middle = truth[rows // 2, columns // 2]
    top, left, bottom, right = found.box(rows // 2, columns // 2)
    assert (middle.any(1).sum().item(), middle.any(0).sum().item()) == (
        min(height, bottom) - max(0, top),
        min(width, right) - max(0, left),
    )


def test_a_real_resnets_field_holds_all_that_a_place_depends_on_and_no_less(cheetah):
    model = vizlib.load(RESNET)
    run = model.run(cheetah, layers=["layer1"])
    found, cell = receptive_field(model, "layer1"), (20, 31)
    heat = effective_receptive_field(model, cheetah, "layer1", cell, run=run).heat
    top, left, bottom, right = map(int, found.box(*cell))
    outside = heat.clone()
    outside[top:bottom, left:right] = 0
    assert outside.max() == 0
    rows, columns = heat.any(1).nonzero(), heat.any(0).nonzero()
    assert (rows.min(), rows.max() + 1, columns.min(), columns.max() + 1) == (top, bottom, left, right)


def test_a_patch_sees_itself_until_attention_looks_everywhere(cheetah):
    model = vizlib.load(VIT)
    patch = receptive_field(model, "patch_embed")
    assert patch == receptive_field(model, "patch_embed.proj")
    assert (patch.size, patch.jump, patch.centre) == ((16, 16), (16, 16), (8, 8))
    assert patch.box(2, 3) == (32, 48, 48, 64)
    assert receptive_field(model, "blocks.0.norm1").size == (16, 16)
    for layer in ("blocks.0", "blocks.11.norm2"):
        assert receptive_field(model, layer).size == (math.inf, math.inf)
    assert receptive_field(model, "blocks.0").box(3, 4) == (-math.inf, -math.inf, math.inf, math.inf)


def test_a_squeeze_and_excitation_sees_the_whole_photo():
    model = wrapped(timm.create_model("seresnet18"), (64, 64))
    assert receptive_field(model, "conv1").size == (7, 7)
    assert receptive_field(model, "layer1").size == (math.inf, math.inf)


def test_what_cannot_be_followed_is_said_and_not_guessed():
    swin = wrapped(timm.create_model("swin_tiny_patch4_window7_224", img_size=64, window_size=4), (64, 64))
    with pytest.raises(ModelError, match=r"field of layers\.1 is not known: \w+ cannot be traced"):
        receptive_field(swin, "layers.1")
    with pytest.raises(ModelError, match="no layer 'layer9'"):
        receptive_field(swin, "layer9")
    with pytest.raises(ModelError, match="without spatial positions"):
        receptive_field(vizlib.load(RESNET), "fc")


# The effective field


def test_an_effective_field_is_the_gradient_of_one_place_by_finite_differences():
    torch.manual_seed(0)
    model = wrapped(Odd().double(), (12, 14))
    photo = np.random.default_rng(0).integers(0, 256, (12, 14, 3), np.uint8)
    image, h = model.tensor(vizlib.open_image(photo)), 1e-5

    def place(images: torch.Tensor) -> float:
        kept = []
        handle = model.module.get_submodule("wide").register_forward_hook(lambda _m, _i, output: kept.append(output))
        with torch.no_grad():
            model.module(images)
        handle.remove()
        return sum(kept[0][0, channel, 4, 3].item() for channel in range(4))

    slow = torch.zeros(12, 14)
    for colour, row, column in np.ndindex(3, 12, 14):
        ends = []
        for sign in (h, -h):
            moved = image.clone()
            moved[0, colour, row, column] += sign
            ends.append(place(moved))
        slow[row, column] += abs(ends[0] - ends[1]) / (2 * h)
    assert torch.allclose(effective_receptive_field(model, photo, "wide", (4, 3)).heat, slow, rtol=1e-4, atol=1e-7)


def test_the_size_of_a_gaussian_is_that_of_its_disc_of_about_two_and_a_half_deviations():
    """A Gaussian is above 4.55 % within a radius of sqrt(-2 ln 0.0455) = 2.486 deviations."""
    y, x = torch.meshgrid(torch.arange(200.0), torch.arange(200.0), indexing="ij")
    field = EffectiveReceptiveField(torch.exp(-((y - 100) ** 2 + (x - 100) ** 2) / (2 * 15**2)))
    assert field.size == pytest.approx(math.sqrt(math.pi) * 2.486 * 15, rel=0.01)
    assert field.fraction_inside((0, 0, 200, 200)) == pytest.approx(1)
    assert field.fraction_inside((-math.inf, -math.inf, 100, math.inf)) == pytest.approx(0.5, abs=0.02)


def test_a_trained_resnet_goes_by_far_less_than_it_can_see(cheetah):
    model = vizlib.load(RESNET)
    for layer in ("layer2", "layer3"):
        whole, used = receptive_field(model, layer), effective_receptive_field(model, cheetah, layer, (7, 7))
        assert used.size < whole.size[0] / 2
        assert used.fraction_inside(whole.box(7, 7)) == pytest.approx(1)


def test_a_place_that_is_not_there_is_one_sentence(cheetah):
    model = vizlib.load(RESNET)
    with pytest.raises(ModelError, match=r"layer4 has 6 × 6 positions, so there is none at row 7, column 0"):
        effective_receptive_field(model, cheetah, "layer4", (7, 0))
    with pytest.raises(ModelError, match="no spatial positions; use one of layer1"):
        effective_receptive_field(model, cheetah, "fc", (0, 0))


def test_a_field_leaves_no_trace(cheetah):
    model = vizlib.load(RESNET)
    receptive_field(model, "layer2")
    effective_receptive_field(model, cheetah, "layer2", (0, 0))
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in model.module.modules())
    assert all(parameter.grad is None for parameter in model.module.parameters())
