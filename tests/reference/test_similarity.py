"""Agreement against Spearman's and the overlap's definitions written out pixel by pixel, ties and crops included."""

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


def attribution(heat, photo: Image.Image, crop: float = 1.0, mode: str = "center", *, patches: bool = False):
    geometry = Geometry.from_timm_transform((photo.height, photo.width), (32, 32), crop_pct=crop, crop_mode=mode)
    heat = torch.as_tensor(heat, dtype=torch.float32)
    return Attribution(heat, 0, "thing", "saliency", {}, False, geometry, photo, "model", 1.0, patch_values=patches)


@pytest.fixture
def photo() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 36, 3), np.uint8))


def slow(a: Attribution, b: Attribution, share: float) -> Agreement:
    """Every pixel of the whole photo, one by one: its rank by counting, and the strongest taken value by value."""
    values = [one.project_to_photo() for one in (a, b)]
    pairs = [
        (float(values[0][y, x]), float(values[1][y, x]))
        for y in range(a.photo.height)
        for x in range(a.photo.width)
        if not math.isnan(values[0][y, x]) and not math.isnan(values[1][y, x])
    ]
    columns = [[pair[side] for pair in pairs] for side in (0, 1)]
    columns = [
        [round(v / (max(map(abs, c)) or 1), 6) for v in c] for c in columns
    ]  # what rounding tells apart is a tie
    ranks = [[sum(w < v for w in c) + (sum(w == v for w in c) + 1) / 2 for v in c] for c in columns]
    means = [sum(r) / len(r) for r in ranks]
    top = sum((p - means[0]) * (q - means[1]) for p, q in zip(*ranks, strict=True))
    bottom = math.sqrt(math.prod(sum((p - m) ** 2 for p in r) for r, m in zip(ranks, means, strict=True)))
    chosen = []
    for column in columns:
        room, weight = share * len(column), {}
        for value in sorted(set(column), reverse=True):
            count = column.count(value)
            weight[value] = min(max(room / count, 0), 1)
            room -= count
        chosen.append([weight[value] for value in column])
    shared = sum(min(p, q) for p, q in zip(*chosen, strict=True)) / (share * len(pairs))
    return Agreement(top / bottom if bottom else math.nan, shared)


@pytest.mark.parametrize("share", [0.2, 0.05, 1.0])
def test_agreement_is_its_definition_pixel_by_pixel(photo, share):
    chance = np.random.default_rng(1)
    smooth = attribution(chance.normal(size=(7, 7)), photo)
    cropped = attribution(chance.normal(size=(9, 5)), photo, 0.75)
    patches = attribution(chance.integers(0, 4, (6, 6)), photo, 1.0, "squash", patches=True)  # nothing but ties
    for a, b in ((smooth, cropped), (cropped, patches), (patches, smooth), (patches, patches)):
        found, expected = agreement(a, b, share), slow(a, b, share)
        assert found.correlation == pytest.approx(expected.correlation, abs=1e-6)
        assert found.overlap == pytest.approx(expected.overlap, abs=1e-6)


def test_a_map_agrees_with_itself_in_any_unit_and_is_opposed_to_its_negative(photo):
    heat = torch.rand(7, 7, generator=torch.Generator().manual_seed(0))
    one = attribution(heat, photo, patches=True)
    same = agreement(one, attribution(heat.exp() * 1000, photo, patches=True))
    assert (same.correlation, same.overlap) == (pytest.approx(1), pytest.approx(1))
    assert agreement(one, attribution(-heat, photo, patches=True)).correlation == pytest.approx(-1)
    assert agreement(one, attribution(-heat, photo, patches=True)).overlap == 0


@pytest.mark.parametrize("value", [0.0, 0.3, -1e-7])
def test_a_flat_map_has_no_order_and_shares_what_chance_gives(photo, value):
    other = attribution(torch.arange(64.0).view(8, 8), photo)
    found = agreement(other, attribution(torch.full((7, 7), value), photo))
    assert math.isnan(found.correlation)
    assert found.overlap == pytest.approx(0.2, abs=0.005)


def test_only_what_both_models_saw_counts_and_lies_where_both_looked(photo):
    wide, narrow = attribution(torch.rand(8, 8), photo, mode="squash"), attribution(torch.rand(8, 8), photo, 0.8)
    left, right, (top, first, below, beyond) = lift_to_common_region(wide, narrow)
    whole = [one.project_to_photo() for one in (wide, narrow)]
    rows, columns = slice(round(top * 24), round(below * 24)), slice(round(first * 36), round(beyond * 36))
    assert np.array_equal(left, whole[0][rows, columns])
    assert np.array_equal(right, whole[1][rows, columns])
    assert np.isfinite(whole[1]).sum() == right.size < whole[0].size


def test_a_large_photo_is_compared_at_a_smaller_size_with_about_the_same_answer():
    photo = Image.new("RGB", (3 * MAX_SIDE_PIXELS, 2 * MAX_SIDE_PIXELS))
    chance = torch.Generator().manual_seed(0)
    a, b = (attribution(torch.rand(7, 7, generator=chance), photo, crop) for crop in (1.0, 0.9))
    assert lift_to_common_region(a, b)[0].size < MAX_SIDE_PIXELS * MAX_SIDE_PIXELS
    small = photo.resize((MAX_SIDE_PIXELS, MAX_SIDE_PIXELS * 2 // 3))
    again = [attribution(one.heat, small, crop) for one, crop in ((a, 1.0), (b, 0.9))]
    assert agreement(a, b).correlation == pytest.approx(agreement(*again).correlation, abs=0.01)
    assert agreement(a, b).overlap == pytest.approx(agreement(*again).overlap, abs=0.02)


def test_maps_of_different_photos_and_a_share_of_nothing_are_refused(photo):
    one = attribution(torch.rand(7, 7), photo)
    with pytest.raises(VizlibError, match="of different photos"):
        agreement(one, attribution(torch.rand(7, 7), photo.rotate(180)))
    for share in (0.0, 1.5):
        with pytest.raises(VizlibError, match="at most 1"):
            agreement(one, one, share)


def test_it_can_be_asked_of_real_models(cheetah):
    names = [entry.name for entry in vizlib.list_models() if entry.bundled]
    if len(names) < 2:
        pytest.skip("the bundled checkpoints are not in checkpoints/")
    small = cheetah.resize((60, 42))
    a, b = (vizlib.explain(vizlib.load(name), small, "saliency", target=3) for name in names[:2])
    found, expected = agreement(a, b), slow(a, b, 0.2)
    assert (found.correlation, found.overlap) == pytest.approx((expected.correlation, expected.overlap), abs=1e-6)
