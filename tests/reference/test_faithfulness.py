"""Faithfulness metrics against the loop of the paper, and on a network whose evidence is known."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

import vizlib
from vizlib import VizlibError
from vizlib.metrics import centred_gaussian, deletion, insertion, keep_top_fraction
from vizlib.metrics.perturbation_curves import Perturbation, iterate_curves
from vizlib.metrics.scored_photo import ScoredPhoto


class CornerNetwork(nn.Module):
    """A network whose logit of class 1 is the brightness of the upper left quarter."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.5))

    def forward(self, images):
        bright = images[:, :, :16, :16].mean((1, 2, 3)) * self.scale
        return torch.stack([-bright, bright], 1)


@pytest.fixture
def corner_model():
    preprocessing = {"input_size": (3, 32, 32), "crop_pct": 1.0, "mean": (0.0,) * 3, "std": (1.0,) * 3}
    return vizlib.wrap(CornerNetwork().eval(), preprocessing=preprocessing, labels=["dark", "bright"])


@pytest.fixture
def attribution(corner_model):
    photo = np.random.default_rng(0).integers(100, 255, (32, 32, 3), np.uint8)
    return vizlib.explain(corner_model, photo, "saliency", target="bright")


def make_covers(model, image):
    """Return the covers of the parameters `baseline` that the papers name, made from their definitions."""
    height = image.shape[-1]
    sigma = height / 10
    radius = min(round(2 * sigma), (height - 1) // 2)
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float64)
    kernel = (-(offsets**2) / (2 * sigma**2)).exp()
    kernel /= kernel.sum()
    padded = torch.nn.functional.pad(image.double(), (radius,) * 4, mode="reflect")
    blurred = torch.einsum(
        "bcyxij,i,j->bcyx", padded.unfold(2, len(kernel), 1).unfold(3, len(kernel), 1), kernel, kernel
    )
    return {"mean": torch.zeros_like(image), "black": torch.zeros_like(image), "blur": blurred.float()}


def compute_curve_slowly(model, attribution, steps, baseline, *, inserts):
    """Return the curve of Petsiuk et al. (sort pixels, change a part, predict) and its area by the trapezoid rule."""
    image = model.tensor(attribution.photo)
    cover = make_covers(model, image)[baseline]
    order = np.argsort(-attribution.heat.numpy().ravel(), kind="stable")
    curve = []
    for step in range(steps + 1):
        changed, new = (cover.clone(), image) if inserts else (image.clone(), cover)
        for pixel in order[: round(len(order) * step / steps)]:
            row, column = divmod(int(pixel), image.shape[-1])
            changed[0, :, row, column] = new[0, :, row, column]
        with torch.no_grad():
            curve.append(model.module(changed).softmax(-1)[0, attribution.target].item())
    return curve, sum((a + b) / 2 / steps for a, b in pairwise(curve))


@pytest.mark.parametrize("compute", [deletion, insertion])
@pytest.mark.parametrize(("steps", "baseline"), [(1, "mean"), (7, "blur"), (20, "black")])
def test_curves_equal_the_loop_of_the_paper(corner_model, attribution, compute, steps, baseline):
    random_heat = torch.rand(32, 32, generator=torch.Generator().manual_seed(1))
    for heat in (attribution.heat, random_heat):
        changed = replace(attribution, heat=heat)
        result = compute(corner_model, changed, steps=steps, baseline=baseline, precision="float32")
        curve, area = compute_curve_slowly(corner_model, changed, steps, baseline, inserts=compute is insertion)
        assert result.score.tolist() == pytest.approx(curve, abs=1e-6)
        assert result.fraction.tolist() == pytest.approx([step / steps for step in range(steps + 1)])
        assert result.auc == pytest.approx(area, abs=1e-6)


def test_curve_of_a_map_does_not_depend_on_the_maps_measured_with_it(corner_model, attribution):
    photo = ScoredPhoto.make(corner_model, attribution, precision="float32", budget_mb=64)
    heats = torch.rand(5, 32, 32, generator=torch.Generator().manual_seed(1))
    perturbations = (Perturbation(False, "mean"), Perturbation(True, "blur"), Perturbation(False, "black"))
    *steps, last = iterate_curves(photo, heats, perturbations, 6)
    assert last.done == last.total == 4 + 5 * 3 * 5  # the photo and the three covers once
    assert all(step.scores.isfinite().sum() <= last.scores.isfinite().sum() for step in steps)
    for kind, perturbation in enumerate(perturbations):
        for number, heat in enumerate(heats):
            compute = insertion if perturbation.inserts else deletion
            alone = compute(
                corner_model,
                replace(attribution, heat=heat),
                steps=6,
                baseline=perturbation.baseline,
                precision="float32",
            )
            assert torch.allclose(last.scores[kind, number].float(), alone.score, atol=1e-6)


@pytest.mark.parametrize("fraction", [0.0, 0.001, 0.2, 0.5, 1.0])
def test_keep_top_fraction_equals_a_loop_over_the_pixels(corner_model, attribution, fraction):
    image = corner_model.tensor(attribution.photo)
    order = np.argsort(-attribution.heat.numpy().ravel(), kind="stable")
    reduced = torch.zeros_like(image)
    for pixel in order[: round(len(order) * fraction)]:
        row, column = divmod(int(pixel), image.shape[-1])
        reduced[0, :, row, column] = image[0, :, row, column]
    with torch.no_grad():
        expected = [
            corner_model.module(pixels).softmax(-1)[0, attribution.target].item() for pixels in (image, reduced)
        ]
    assert keep_top_fraction(corner_model, attribution, fraction=fraction) == pytest.approx(expected, rel=1e-5)


def test_keep_top_fraction_keeps_the_evidence_for_a_true_map_and_loses_it_for_its_negative(corner_model, attribution):
    # The network reads a quarter of the photo.
    whole, with_evidence = keep_top_fraction(corner_model, attribution, fraction=0.25)
    _, without_evidence = keep_top_fraction(corner_model, replace(attribution, heat=-attribution.heat), fraction=0.25)
    assert with_evidence == pytest.approx(whole, rel=1e-5)
    assert without_evidence == pytest.approx(0.5, abs=1e-5)


@pytest.mark.parametrize("fraction", [-0.1, 1.1, 20.0, float("nan")])
def test_keep_top_fraction_raises_an_error_for_an_invalid_fraction(corner_model, attribution, fraction):
    with pytest.raises(VizlibError, match="a number from 0 to 1"):
        keep_top_fraction(corner_model, attribution, fraction=fraction)


def test_deletion_ranks_the_true_map_before_the_centred_gaussian_and_a_wrong_map(corner_model, attribution):
    right, wrong = torch.zeros(2, 2), torch.zeros(2, 2)
    right[0, 0], wrong[1, 1] = 1, 1
    areas = [
        deletion(corner_model, replace(attribution, heat=heat)).auc
        for heat in (right, centred_gaussian((32, 32)), wrong)
    ]
    assert areas == sorted(areas)
    assert areas[0] < areas[1] - 0.02 < areas[2] - 0.04


def test_deletion_curve_runs_from_the_whole_photo_to_an_empty_one(corner_model, attribution):
    result = deletion(corner_model, attribution)
    assert result.score[0].item() == pytest.approx(attribution.probability)
    # For an empty input this network gives both classes the same logit.
    assert result.score[-1].item() == pytest.approx(0.5)


def test_deletion_leaves_the_network_unchanged(corner_model, attribution):
    before = {key: value.clone() for key, value in corner_model.module.state_dict().items()}
    deletion(corner_model, attribution)
    assert all(torch.equal(before[key], value) for key, value in corner_model.module.state_dict().items())
    assert all(part.grad is None for part in corner_model.module.parameters())
    assert not corner_model.module.training


def test_deletion_with_fewer_than_one_step_raises_an_error(corner_model, attribution):
    with pytest.raises(VizlibError, match="at least 1 step, not 0"):
        deletion(corner_model, attribution, steps=0)


def test_centred_gaussian_is_symmetric_with_its_maximum_in_the_middle():
    gaussian = centred_gaussian((5, 8))
    assert gaussian.shape == (5, 8)
    assert torch.allclose(gaussian, gaussian.flip(0))
    assert torch.allclose(gaussian, gaussian.flip(1))
    y, x = 0.1 - 0.5, 0.0625 - 0.5  # the middle of the first cell, in sides from the photo's middle
    assert gaussian[0, 0].item() == pytest.approx(np.exp(-(x * x + y * y) / (2 * 0.25**2)), rel=1e-5)
    assert gaussian.argmax().item() in (2 * 8 + 3, 2 * 8 + 4)
