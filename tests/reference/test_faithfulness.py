"""Deletion against the paper's loop written out, and on a network whose reason is known."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

import vizlib
from vizlib import VizlibError
from vizlib.metrics.faithfulness import centred_gaussian, deletion, keep_top_fraction


class Corner(nn.Module):
    """Class 1 is the brightness of the upper left quarter, and nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.5))

    def forward(self, images):
        bright = images[:, :, :16, :16].mean((1, 2, 3)) * self.scale
        return torch.stack([-bright, bright], 1)


@pytest.fixture
def corner():
    shown = {"input_size": (3, 32, 32), "crop_pct": 1.0, "mean": (0.0,) * 3, "std": (1.0,) * 3}
    return vizlib.wrap(Corner().eval(), preprocessing=shown, labels=["dark", "bright"])


@pytest.fixture
def why(corner):
    photo = np.random.default_rng(0).integers(100, 255, (32, 32, 3), np.uint8)
    return vizlib.explain(corner, photo, "saliency", target="bright")


def slow(model, why, steps):
    """Petsiuk's loop: sort the pixels, blank them a share at a time, ask again; then the trapezoid rule by hand."""
    image = model.tensor(why.photo)
    order = np.argsort(-why.heat.numpy().ravel(), kind="stable")
    curve = []
    for step in range(steps + 1):
        blanked = image.clone()
        for pixel in order[: round(len(order) * step / steps)]:
            blanked[0, :, pixel // image.shape[-1], pixel % image.shape[-1]] = 0
        with torch.no_grad():
            curve.append(model.module(blanked).softmax(-1)[0, why.target].item())
    return curve, sum((a + b) / 2 / steps for a, b in pairwise(curve))


@pytest.mark.parametrize(("steps", "batch"), [(1, 32), (7, 3), (20, 32)])
def test_deletion_is_the_papers_loop(corner, why, steps, batch):
    chance = torch.rand(32, 32, generator=torch.Generator().manual_seed(1))
    for heat in (why.heat, chance):
        asked = replace(why, heat=heat)
        found = deletion(corner, asked, steps=steps, batch_size=batch)
        curve, area = slow(corner, asked, steps)
        assert found.probability.tolist() == pytest.approx(curve, abs=1e-6)
        assert found.removed.tolist() == pytest.approx([step / steps for step in range(steps + 1)])
        assert found.auc == pytest.approx(area, abs=1e-6)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.2, 0.5, 1.0])
def test_keeping_the_warmest_pixels_is_a_loop_over_them(corner, why, share):
    image = corner.tensor(why.photo)
    order = np.argsort(-why.heat.numpy().ravel(), kind="stable")
    blank = torch.zeros_like(image)
    for pixel in order[: round(len(order) * share)]:
        row, column = divmod(int(pixel), image.shape[-1])
        blank[0, :, row, column] = image[0, :, row, column]
    with torch.no_grad():
        expected = [corner.module(each).softmax(-1)[0, why.target].item() for each in (image, blank)]
    assert keep_top_fraction(corner, why, fraction=share) == pytest.approx(expected, rel=1e-5)


def test_what_the_answer_rests_on_is_kept_by_a_true_map_and_lost_by_its_opposite(corner, why):
    before, true = keep_top_fraction(corner, why, fraction=0.25)  # the quarter of the photo the network looks at
    _, false = keep_top_fraction(corner, replace(why, heat=-why.heat), fraction=0.25)
    assert true == pytest.approx(before, rel=1e-5)
    assert false == pytest.approx(0.5, abs=1e-5)


@pytest.mark.parametrize("share", [-0.1, 1.1, 20.0, float("nan")])
def test_a_share_that_is_none_is_refused(corner, why, share):
    with pytest.raises(VizlibError, match="a number from 0 to 1"):
        keep_top_fraction(corner, why, fraction=share)


def test_the_map_that_knows_the_reason_beats_the_middle_and_the_wrong_corner(corner, why):
    right, wrong = torch.zeros(2, 2), torch.zeros(2, 2)
    right[0, 0], wrong[1, 1] = 1, 1
    areas = [deletion(corner, replace(why, heat=heat)).auc for heat in (right, centred_gaussian((32, 32)), wrong)]
    assert areas == sorted(areas)
    assert areas[0] < areas[1] - 0.02 < areas[2] - 0.04


def test_a_whole_photo_and_none_are_the_ends_of_the_curve(corner, why):
    found = deletion(corner, why)
    assert found.probability[0].item() == pytest.approx(why.probability)
    assert found.probability[-1].item() == pytest.approx(0.5)  # an empty input leaves this network undecided


def test_deletion_leaves_no_trace(corner, why):
    before = {key: value.clone() for key, value in corner.module.state_dict().items()}
    deletion(corner, why)
    assert all(torch.equal(before[key], value) for key, value in corner.module.state_dict().items())
    assert all(part.grad is None for part in corner.module.parameters())
    assert not corner.module.training


def test_fewer_than_one_step_is_refused(corner, why):
    with pytest.raises(VizlibError, match="at least 1 step, not 0"):
        deletion(corner, why, steps=0)


def test_the_gaussian_is_highest_in_the_middle_and_falls_off_evenly():
    map_ = centred_gaussian((5, 8))
    assert map_.shape == (5, 8)
    assert torch.allclose(map_, map_.flip(0))
    assert torch.allclose(map_, map_.flip(1))
    y, x = 0.1 - 0.5, 0.0625 - 0.5  # the middle of the first cell, in sides from the photo's middle
    assert map_[0, 0].item() == pytest.approx(np.exp(-(x * x + y * y) / (2 * 0.25**2)), rel=1e-5)
    assert map_.argmax().item() in (2 * 8 + 3, 2 * 8 + 4)
