"""The comparison of two networks' maps, against plain loops."""

from __future__ import annotations

import numpy as np
import pytest
import timm
import torch

import vizlib
from checkpoints.training.evaluate_maps import compare_maps, compute_correlation, compute_energy_in_boxes


def wrap(seed: int) -> vizlib.Model:
    torch.manual_seed(seed)
    return vizlib.wrap(timm.create_model("test_vit", num_classes=5).eval(), name=f"network {seed}")


def test_energy_is_the_share_of_positive_heat_in_any_box():
    photo = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    attribution = vizlib.explain(wrap(0), photo, "saliency")
    heat, boxes = attribution.project_to_photo(), [[20.0, 5.0, 50.0, 30.0], [40.0, 20.0, 70.0, 45.0]]
    inside = total = 0.0
    for y in range(60):
        for x in range(90):
            value = float(heat[y, x])
            if value > 0:  # nan where the model does not see the photo
                total += value
                inside += value * any(x0 <= x <= x1 and y0 <= y <= y1 for x0, y0, x1, y1 in boxes)
    assert 0.05 < inside / total < 0.95
    assert compute_energy_in_boxes(attribution, boxes) == pytest.approx(inside / total, rel=1e-5)
    assert compute_energy_in_boxes(attribution, [[0, 0, 90, 60]]) == pytest.approx(1)


def test_maps_of_equal_networks_are_equal_and_of_others_are_not():
    rng = np.random.default_rng(1)
    photos = [
        (vizlib.open_image(rng.integers(0, 256, (60, 60, 3), dtype=np.uint8)), target, [[5, 5, 30, 40]])
        for target in (1, 3)
    ]
    same = compare_maps(wrap(0), wrap(0), photos)
    for method in ("grad-cam", "attention-relevance"):
        for measure in ("energy", "deletion"):
            assert same[method][measure]["student"] == same[method][measure]["teacher"]
    assert same["attention"]["correlation"] == [1.0] * 6
    other = compare_maps(wrap(0), wrap(1), photos)
    assert other["attention-relevance"]["energy"]["student"] != other["attention-relevance"]["energy"]["teacher"]
    assert max(other["attention"]["correlation"]) < 0.9
    assert compute_correlation(torch.tensor([1.0, 2, 3]), torch.tensor([3.0, 2, 1])) == pytest.approx(-1)
