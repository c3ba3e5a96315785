"""Copies with random parameters: which parameters form a level, and that the model itself keeps all of them."""

from __future__ import annotations

import copy

import pytest
import timm
import torch
import torchvision
from torch import nn

import vizlib
from vizlib.models.randomised_copy import iterate_randomised_copies, list_levels

SMALL = {"preprocessing": {"input_size": (3, 64, 64)}}


def make_model(module: nn.Module, side: int = 64) -> vizlib.Model:
    return vizlib.wrap(module.eval(), preprocessing={"input_size": (3, side, side)})


NETWORKS = {
    "resnet": lambda: make_model(timm.create_model("resnet10t", num_classes=4)),
    "vit": lambda: make_model(timm.create_model("test_vit", num_classes=4, img_size=64)),
    "swin": lambda: make_model(
        timm.create_model("swin_tiny_patch4_window7_224", num_classes=4, embed_dim=24, depths=(2, 2, 2, 2)), 224
    ),
    "vgg": lambda: make_model(torchvision.models.vgg11(num_classes=4)),
    "torchvision's vit": lambda: make_model(
        torchvision.models.VisionTransformer(
            64, 16, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32, num_classes=4
        )
    ),
}
EXPECTED = {  # some levels, in their order
    "resnet": ["layer1.0", "layer2.0", "layer3.0", "layer4.0", "fc"],
    "vit": ["", "patch_embed", "blocks.0", "blocks.1", "norm", "head"],
    "swin": ["patch_embed", "layers.0.blocks.0", "layers.1.downsample", "layers.1.blocks.0", "norm", "head"],
    "vgg": ["features.0", "features.18", "classifier.0", "classifier.6"],
    "torchvision's vit": [
        *("", "conv_proj", "encoder", "encoder.layers.encoder_layer_0", "encoder.layers.encoder_layer_1"),
        *("encoder.ln", "heads"),
    ],
}


@pytest.mark.parametrize("name", NETWORKS)
def test_levels_are_blocks_in_running_order_and_hold_each_parameter_once(name):
    model = NETWORKS[name]()
    levels = list_levels(model)
    names = [level.name for level in levels]
    assert [level for level in names if level in EXPECTED[name]] == EXPECTED[name]
    parameters = [parameter for level in levels for parameter in level.parameters]
    assert sorted(parameters) == sorted(key for key, _ in model.module.named_parameters())


@pytest.mark.parametrize("cascading", [True, False])
def test_only_the_parameters_of_the_levels_are_random_and_the_model_keeps_its_own(cascading):
    model = NETWORKS["vit"]()
    before = copy.deepcopy(model.module.state_dict())
    originals = dict(model.module.named_parameters())
    levels, changed = list_levels(model)[::-1], set()
    for level, (found, randomised) in zip(levels, iterate_randomised_copies(model, cascading=cascading), strict=True):
        assert found == level
        changed = changed | set(level.parameters) if cascading else set(level.parameters)
        for name, parameter in randomised.module.named_parameters():
            assert (parameter is originals[name]) == (name not in changed), name
            varies = originals[name].std(correction=0) > 0
            assert name not in changed or torch.equal(parameter, originals[name]) == (not varies), name
    assert all(torch.equal(value, before[name]) for name, value in model.module.state_dict().items())
    assert all(originals[name] is parameter for name, parameter in model.module.named_parameters())


def test_random_parameters_have_the_moments_of_the_trained_ones_and_depend_on_the_seed_alone():
    model = NETWORKS["resnet"]()
    *_, (_, first) = iterate_randomised_copies(model, seed=1)
    *_, (_, again) = iterate_randomised_copies(model, seed=1)
    *_, (_, other) = iterate_randomised_copies(model, seed=2)
    for name, trained in model.module.named_parameters():
        drawn = first.module.get_parameter(name)
        assert torch.equal(drawn, again.module.get_parameter(name))
        if trained.numel() > 1000:
            assert not torch.equal(drawn, other.module.get_parameter(name))
            assert drawn.std().item() == pytest.approx(trained.std().item(), rel=0.1)
            assert abs(drawn.mean() - trained.mean()) < 0.1 * trained.std()


class Tied(nn.Module):
    """A network that uses one weight in two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
        self.second.weight = self.first.weight

    def forward(self, image):
        return self.second(self.first(image)).mean((2, 3))


def test_a_parameter_of_two_layers_stays_shared():
    model = make_model(Tied())
    copies = {level.name: found for level, found in iterate_randomised_copies(model, cascading=False)}
    module = copies["first"].module
    assert module.get_submodule("first").weight is module.get_submodule("second").weight
    assert not torch.equal(module.get_parameter("first.weight"), model.module.get_parameter("first.weight"))
