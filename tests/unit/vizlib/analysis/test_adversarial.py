"""Adversarial examples: bounded change of each pixel, another predicted class."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import vizlib
from vizlib.analysis.adversarial import bypass_resizing, pgd
from vizlib.models.preprocessing import TimmPreprocessing

PREPROCESSING = {"input_size": (3, 8, 8), "crop_pct": 1.0, "mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}


@pytest.fixture
def linear_model():
    torch.manual_seed(3)
    return vizlib.wrap(
        nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 4)), preprocessing=PREPROCESSING, labels=list("abcd")
    )


@pytest.fixture
def noise_photo():
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8))


@pytest.mark.parametrize("levels", [1, 2, 5])
def test_pgd_on_a_linear_network_moves_every_pixel_by_the_maximum_in_the_direction_of_its_weight(
    linear_model, noise_photo, levels
):
    weight = (
        (linear_model.module[1].weight[2] - linear_model.module[1].weight[1]).detach().reshape(3, 8, 8).permute(1, 2, 0)
    )
    expected = (np.asarray(noise_photo).astype(int) + levels * weight.sign().numpy().astype(int)).clip(0, 255)
    adversarial = pgd(linear_model, noise_photo, 2, 1, levels=levels)
    assert np.array_equal(np.asarray(adversarial), expected)


@pytest.mark.slow
def test_pgd_changes_the_prediction_of_a_real_photo_within_two_levels(cheetah):
    for name in ("resnet18-imagenette", "vit_tiny-imagenette"):
        model = vizlib.load(name)
        first, second = model.predict(cheetah, top=2)
        adversarial = pgd(model, cheetah, second.index, first.index)
        before = model.preprocessing.denormalise(model.tensor(cheetah))
        change = np.abs(np.asarray(adversarial).astype(int) - np.asarray(before))
        assert change.max() == 2
        assert bypass_resizing(model).predict(adversarial)[0].index == second.index


def test_bypass_resizing_leaves_a_photo_of_the_input_size_unchanged(cheetah):
    model = vizlib.load("resnet18-imagenette")
    assert isinstance(model.preprocessing, TimmPreprocessing)
    input_photo = model.preprocessing.denormalise(model.tensor(cheetah))
    for crop in (0.7, 1.0):
        cropping_model = vizlib.wrap(model.module, preprocessing={**model.preprocessing.to_config(), "crop_pct": crop})
        plain_model = bypass_resizing(cropping_model)
        assert np.array_equal(
            np.asarray(plain_model.preprocessing.denormalise(plain_model.tensor(input_photo))), np.asarray(input_photo)
        )
        assert isinstance(cropping_model.preprocessing, TimmPreprocessing)
        assert cropping_model.preprocessing.crop_pct == crop


def test_bypass_resizing_keeps_the_order_of_the_channels(noise_photo):
    preprocessing = {"image_processor_type": "MobileViTImageProcessor", "size": 11, "crop_size": 8}
    model = vizlib.wrap(nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 4)), preprocessing=preprocessing)
    pixels = torch.from_numpy(np.array(noise_photo)).permute(2, 0, 1)[[2, 1, 0]] / 255
    assert torch.allclose(bypass_resizing(model).tensor(noise_photo)[0], pixels, atol=1e-6)


def test_pgd_leaves_the_network_unchanged(linear_model, noise_photo):
    before = [parameter.clone() for parameter in linear_model.module.parameters()]
    pgd(linear_model, noise_photo, 0, 1)
    assert all(torch.equal(a, b) for a, b in zip(before, linear_model.module.parameters(), strict=True))
    assert all(parameter.grad is None for parameter in linear_model.module.parameters())


@pytest.mark.parametrize("options", [{"levels": 0}, {"steps": 0}])
def test_pgd_without_levels_or_steps_raises_an_error(linear_model, noise_photo, options):
    with pytest.raises(vizlib.VizlibError, match="at least 1 level in at least 1 step"):
        pgd(linear_model, noise_photo, 0, 1, **options)
