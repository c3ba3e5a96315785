"""Agreement against the definitions of Spearman's correlation and overlap, pixel by pixel, with ties and crops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import Image

import vizlib
from vizlib import Agreement, Attribution, VizlibError, agreement
from vizlib.core.geometry import Geometry
from vizlib.metrics.similarity import MAX_SIDE_PIXELS, lift_to_common_region


def make_attribution(heat, photo: Image.Image, crop: float = 1.0, mode: str = "center", *, patches: bool = False):
    geometry = Geometry.from_timm_transform((photo.height, photo.width), (32, 32), crop_pct=crop, crop_mode=mode)
    heat = torch.as_tensor(heat, dtype=torch.float32)
    return Attribution(heat, 0, "thing", "saliency", {}, False, geometry, photo, "model", 1.0, patch_values=patches)


@pytest.fixture
def photo() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 36, 3), np.uint8))


def compute_agreement_slowly(a: Attribution, b: Attribution, fraction: float) -> Agreement:
    """Return the agreement computed pixel by pixel: ranks by counting, the highest values taken one by one."""
    values = [attribution.project_to_photo() for attribution in (a, b)]
    pairs = [
        (float(values[0][y, x]), float(values[1][y, x]))
        for y in range(a.photo.height)
        for x in range(a.photo.width)
        if not math.isnan(values[0][y, x]) and not math.isnan(values[1][y, x])
    ]
    columns = [[pair[side] for pair in pairs] for side in (0, 1)]
    # Values that differ by rounding only are ties.
    columns = [[round(v / (max(map(abs, c)) or 1), 6) for v in c] for c in columns]
    ranks = [[sum(w < v for w in c) + (sum(w == v for w in c) + 1) / 2 for v in c] for c in columns]
    means = [sum(r) / len(r) for r in ranks]
    top = sum((p - means[0]) * (q - means[1]) for p, q in zip(*ranks, strict=True))
    bottom = math.sqrt(math.prod(sum((p - m) ** 2 for p in r) for r, m in zip(ranks, means, strict=True)))
    chosen = []
    for column in columns:
        remaining, weight = fraction * len(column), {}
        for value in sorted(set(column), reverse=True):
            count = column.count(value)
            weight[value] = min(max(remaining / count, 0), 1)
            remaining -= count
        chosen.append([weight[value] for value in column])
    shared = sum(min(p, q) for p, q in zip(*chosen, strict=True)) / (fraction * len(pairs))
    return Agreement(top / bottom if bottom else math.nan, shared)


@pytest.mark.parametrize("fraction", [0.2, 0.05, 1.0])
def test_agreement_equals_its_definition_pixel_by_pixel(photo, fraction):
    rng = np.random.default_rng(1)
    smooth = make_attribution(rng.normal(size=(7, 7)), photo)
    cropped = make_attribution(rng.normal(size=(9, 5)), photo, 0.75)
    patches = make_attribution(rng.integers(0, 4, (6, 6)), photo, 1.0, "squash", patches=True)  # only ties
    for a, b in ((smooth, cropped), (cropped, patches), (patches, smooth), (patches, patches)):
        result, expected = agreement(a, b, fraction), compute_agreement_slowly(a, b, fraction)
        assert result.correlation == pytest.approx(expected.correlation, abs=1e-6)
        assert result.overlap == pytest.approx(expected.overlap, abs=1e-6)


def test_agreement_is_1_for_the_same_order_and_minus_1_for_the_negative_map(photo):
    heat = torch.rand(7, 7, generator=torch.Generator().manual_seed(0))
    original = make_attribution(heat, photo, patches=True)
    result = agreement(original, make_attribution(heat.exp() * 1000, photo, patches=True))
    assert (result.correlation, result.overlap) == (pytest.approx(1), pytest.approx(1))
    assert agreement(original, make_attribution(-heat, photo, patches=True)).correlation == pytest.approx(-1)
    assert agreement(original, make_attribution(-heat, photo, patches=True)).overlap == 0


@pytest.mark.parametrize("value", [0.0, 0.3, -1e-7])
def test_constant_map_has_no_correlation_and_the_overlap_of_chance(photo, value):
    varying = make_attribution(torch.arange(64.0).view(8, 8), photo)
    result = agreement(varying, make_attribution(torch.full((7, 7), value), photo))
    assert math.isnan(result.correlation)
    assert result.overlap == pytest.approx(0.2, abs=0.005)


def test_lift_to_common_region_returns_the_pixels_inside_both_inputs(photo):
    wide, narrow = (
        make_attribution(torch.rand(8, 8), photo, mode="squash"),
        make_attribution(torch.rand(8, 8), photo, 0.8),
    )
    left, right, (y0, x0, y1, x1) = lift_to_common_region(wide, narrow)
    whole = [attribution.project_to_photo() for attribution in (wide, narrow)]
    rows, columns = slice(round(y0 * 24), round(y1 * 24)), slice(round(x0 * 36), round(x1 * 36))
    assert np.array_equal(left, whole[0][rows, columns])
    assert np.array_equal(right, whole[1][rows, columns])
    assert np.isfinite(whole[1]).sum() == right.size < whole[0].size


def test_large_photos_are_compared_at_a_reduced_size_with_similar_results():
    photo = Image.new("RGB", (3 * MAX_SIDE_PIXELS, 2 * MAX_SIDE_PIXELS))
    generator = torch.Generator().manual_seed(0)
    a, b = (make_attribution(torch.rand(7, 7, generator=generator), photo, crop) for crop in (1.0, 0.9))
    assert lift_to_common_region(a, b)[0].size < MAX_SIDE_PIXELS * MAX_SIDE_PIXELS
    small = photo.resize((MAX_SIDE_PIXELS, MAX_SIDE_PIXELS * 2 // 3))
    reduced = agreement(make_attribution(a.heat, small, 1.0), make_attribution(b.heat, small, 0.9))
    assert agreement(a, b).correlation == pytest.approx(reduced.correlation, abs=0.01)
    assert agreement(a, b).overlap == pytest.approx(reduced.overlap, abs=0.02)


def test_agreement_of_different_photos_or_an_invalid_fraction_raises_an_error(photo):
    result = make_attribution(torch.rand(7, 7), photo)
    with pytest.raises(VizlibError, match="of different photos"):
        agreement(result, make_attribution(torch.rand(7, 7), photo.rotate(180)))
    for fraction in (0.0, 1.5):
        with pytest.raises(VizlibError, match="at most 1"):
            agreement(result, result, fraction)


@pytest.mark.slow
def test_agreement_of_the_bundled_models_equals_its_definition(cheetah):
    names = [entry.name for entry in vizlib.list_models() if entry.bundled]
    if len(names) < 2:
        pytest.skip("the bundled checkpoints are not in checkpoints/")
    small = cheetah.resize((60, 42))
    a, b = (vizlib.explain(vizlib.load(name), small, "saliency", target=3) for name in names[:2])
    result, expected = agreement(a, b), compute_agreement_slowly(a, b, 0.2)
    assert (result.correlation, result.overlap) == pytest.approx((expected.correlation, expected.overlap), abs=1e-6)
