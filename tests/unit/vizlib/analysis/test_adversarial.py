"""A nudged photo looks the same and is answered otherwise."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import vizlib
from vizlib.analysis.adversarial import bypass_resizing, pgd

PLAIN = {"input_size": (3, 8, 8), "crop_pct": 1.0, "mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}


@pytest.fixture
def linear():
    torch.manual_seed(3)
    return vizlib.wrap(nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 4)), preprocessing=PLAIN, labels=list("abcd"))


@pytest.fixture
def noise():
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8))


@pytest.mark.parametrize("levels", [1, 2, 5])
def test_of_a_linear_network_every_pixel_goes_all_the_way_with_its_weight(linear, noise, levels):
    weight = (linear.module[1].weight[2] - linear.module[1].weight[1]).detach().reshape(3, 8, 8).permute(1, 2, 0)
    expected = (np.asarray(noise).astype(int) + levels * weight.sign().numpy().astype(int)).clip(0, 255)
    found = pgd(linear, noise, 2, 1, levels=levels)
    assert np.array_equal(np.asarray(found), expected)


def test_a_real_photo_is_answered_otherwise_though_no_pixel_moves_by_more_than_two_levels(cheetah):
    for name in ("resnet18-imagenette", "vit_tiny-imagenette"):
        model = vizlib.load(name)
        first, second = model.predict(cheetah, top=2)
        found = pgd(model, cheetah, second.index, first.index)
        before = model.preprocessing.denormalise(model.tensor(cheetah))
        change = np.abs(np.asarray(found).astype(int) - np.asarray(before))
        assert change.max() == 2
        assert bypass_resizing(model).predict(found)[0].index == second.index


def test_an_unprepared_model_is_shown_a_picture_of_its_own_size_pixel_by_pixel(cheetah):
    model = vizlib.load("resnet18-imagenette")
    seen = model.preprocessing.denormalise(model.tensor(cheetah))
    for crop in (0.7, 1.0):
        prepared = vizlib.wrap(model.module, preprocessing={**model.preprocessing.to_config(), "crop_pct": crop})
        plain = bypass_resizing(prepared)
        assert np.array_equal(np.asarray(plain.preprocessing.denormalise(plain.tensor(seen))), np.asarray(seen))
        assert prepared.preprocessing.crop_pct == crop


def test_the_network_and_its_gradients_are_left_alone(linear, noise):
    before = [one.clone() for one in linear.module.parameters()]
    pgd(linear, noise, 0, 1)
    assert all(torch.equal(a, b) for a, b in zip(before, linear.module.parameters(), strict=True))
    assert all(one.grad is None for one in linear.module.parameters())


@pytest.mark.parametrize("how", [{"levels": 0}, {"steps": 0}])
def test_no_level_or_no_step_is_one_sentence(linear, noise, how):
    with pytest.raises(vizlib.VizlibError, match="at least 1 level in at least 1 step"):
        pgd(linear, noise, 0, 1, **how)
