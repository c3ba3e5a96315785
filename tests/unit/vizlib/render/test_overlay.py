"""Colour scales, overlays, boxes and image grids, against their formulas."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib import colormaps
from PIL import Image

from vizlib import VizlibError
from vizlib.render.color_scale import apply_colormap, compute_limits, draw_color_bar, load_colormap, normalize_values
from vizlib.render.image_grid import draw_image_grid, draw_kernel_grid, draw_map_grid
from vizlib.render.overlay import OUTSIDE_BRIGHTNESS, draw_box, overlay_heat

GREY = (128, 128, 128)


@pytest.fixture(scope="module")
def photo():
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 256, (20, 30, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def heat():
    """Values of both signs, with a strip outside the model input."""
    values = np.random.default_rng(1).normal(size=(20, 30)).astype(np.float32)
    values[:, :4] = np.nan
    return values


def slow_overlay(photo, heat, low, high, *, signed, opacity, colormap):
    """Return the overlay by the formula in the docstring, pixel by pixel."""
    pixels, attribution = np.asarray(photo).astype(float), np.zeros((*heat.shape, 3))
    for y in range(heat.shape[0]):
        for x in range(heat.shape[1]):
            if np.isnan(heat[y, x]):
                attribution[y, x] = 0.35 * sum(pixels[y, x]) / 3
                continue
            share = min(max((float(heat[y, x]) - low) / (high - low), 0), 1)
            strength = abs(2 * share - 1) if signed else share
            cover = opacity * strength**0.6
            colour = np.array(colormaps[colormap](round(share * 255))[:3]) * 255
            attribution[y, x] = (1 - cover) * pixels[y, x] + cover * colour
    return attribution


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize(("opacity", "colormap"), [(0.75, None), (1.0, "viridis"), (0.2, "PiYG")])
def test_overlay_equals_its_formula_at_every_pixel(photo, heat, signed, opacity, colormap):
    low, high = (-2.0, 2.0) if signed else (-1.0, 2.5)
    image = overlay_heat(photo, heat, signed=signed, opacity=opacity, colormap=colormap, limits=(low, high))
    used = colormap or ("RdBu_r" if signed else "inferno")
    expected = slow_overlay(photo, heat, low, high, signed=signed, opacity=opacity, colormap=used)
    assert image.size == photo.size
    assert np.abs(np.asarray(image) - expected).max() <= 1.01  # two roundings


def test_overlay_leaves_the_photo_unchanged_at_the_lowest_values(photo):
    heat = np.zeros((20, 30), np.float32)
    heat[5:9, 6:12] = 1
    image, pixels = np.asarray(overlay_heat(photo, heat)), np.asarray(photo)
    assert np.array_equal(image[heat == 0], pixels[heat == 0])
    assert not np.array_equal(image[heat == 1], pixels[heat == 1])
    assert np.array_equal(np.asarray(overlay_heat(photo, heat, opacity=0.0)), pixels)


def test_signed_overlay_leaves_the_photo_unchanged_at_zero(photo):
    heat = np.zeros((20, 30), np.float32)
    heat[0, 0], heat[19, 29] = 1, -1
    image, pixels = np.asarray(overlay_heat(photo, heat, signed=True)), np.asarray(photo)
    assert np.array_equal(image[heat == 0], pixels[heat == 0])


def test_pixels_outside_the_model_input_are_dimmed_and_grey(photo, heat):
    image, pixels = np.asarray(overlay_heat(photo, heat)), np.asarray(photo).astype(float)
    unseen = np.isnan(heat)
    assert unseen.any()
    assert (np.ptp(image[unseen].astype(int), axis=-1) == 0).all()
    assert np.allclose(image[unseen][:, 0], pixels[unseen].mean(-1) * OUTSIDE_BRIGHTNESS, atol=0.51)


def test_map_of_nan_is_all_dimmed(photo):
    image = np.asarray(overlay_heat(photo, np.full((20, 30), np.nan, np.float32)))
    assert (np.ptp(image.astype(int), axis=-1) == 0).all()


def test_signed_limits_are_symmetric_about_zero():
    rng = np.random.default_rng(2)
    for values in (rng.normal(size=99), rng.normal(size=99) - 5, np.array([-3.0, 0.1]), np.array([0.0])):
        low, high = compute_limits(values, signed=True)
        assert low == -high < 0


def test_opposite_values_have_mirrored_colors():
    table = load_colormap("RdBu_r").astype(int)
    values = np.linspace(0.01, 1, 40)[None]
    against = apply_colormap(-values, signed=True, limits=(-1.0, 1.0))[0]
    places = [int(np.flatnonzero((table == colour).all(1))[0]) for colour in against]
    mirrored = table[255 - np.array(places)]
    assert np.array_equal(apply_colormap(values, signed=True, limits=(-1.0, 1.0))[0], mirrored)


def test_limits_use_the_995th_permille_and_ignore_nan():
    values = np.arange(1001.0)
    assert compute_limits(values, signed=False) == (0, 995)
    assert compute_limits(np.append(values, [np.nan, np.inf, -np.inf]), signed=False) == (0, 995)
    assert compute_limits(values - 1000, signed=True) == (-995, 995)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("value", [0.0, 1.0, -3.0, 1e-30, 1e20, -1e20])
def test_constant_map_has_limits_and_one_color(photo, value, signed):
    values = np.full((20, 30), value, np.float32)
    low, high = compute_limits(values, signed=signed)
    assert low < high
    with np.errstate(all="raise"):
        colours = apply_colormap(values, signed=signed)
        overlay_heat(photo, values, signed=signed)
    assert len(np.unique(colours.reshape(-1, 3), axis=0)) == 1


@pytest.mark.parametrize("signed", [False, True])
def test_single_nonzero_pixel_is_visible(photo, signed):
    heat = np.zeros((20, 30), np.float32)
    heat[7, 8] = 1e-6
    colours = apply_colormap(heat, signed=signed)
    assert np.array_equal(colours[7, 8], load_colormap("RdBu_r" if signed else "inferno")[255])
    changed = (np.asarray(overlay_heat(photo, heat, signed=signed)) != np.asarray(photo)).any(-1)
    assert changed.sum() == 1
    assert changed[7, 8]


def test_single_extreme_value_does_not_darken_others():
    values = np.random.default_rng(3).random((50, 50)).astype(np.float32)
    before = normalize_values(values, compute_limits(values, signed=False))
    values[3, 3] = 1e6
    after = normalize_values(values, compute_limits(values, signed=False))
    others = np.arange(2500).reshape(50, 50) != 3 * 50 + 3
    assert np.abs(before - after)[others].max() < 0.02


def test_nan_is_grey_and_infinity_has_the_end_colors():
    values = np.array([[np.nan, np.inf, -np.inf, 0.0]], np.float32)
    colours = apply_colormap(values, signed=False, limits=(0.0, 1.0))[0]
    table = load_colormap("inferno")
    assert [tuple(colour) for colour in colours] == [GREY, tuple(table[255]), tuple(table[0]), tuple(table[0])]
    assert (apply_colormap(np.full((2, 2), np.nan), signed=True) == 128).all()


def test_same_limits_give_same_colors():
    first, second = np.array([[0.0, 1.0, 2.0]]), np.array([[2.0, 5.0, 1.0]])
    row, two = (apply_colormap(values, signed=False, limits=(0.0, 5.0))[0] for values in (first, second))
    assert np.array_equal(row[2], two[0])
    assert np.array_equal(row[1], two[2])
    alone = [apply_colormap(values, signed=False)[0] for values in (first, second)]
    assert not np.array_equal(alone[0][2], alone[1][0]), "without limits each has its own scale"


@pytest.mark.parametrize("limits", [(1.0, 1.0), (2.0, 1.0), (float("nan"), 1.0)])
def test_invalid_limits_are_refused(limits):
    with pytest.raises(VizlibError, match="must be a low and a higher value"):
        apply_colormap(np.zeros((2, 2)), signed=False, limits=limits)


@pytest.mark.parametrize("opacity", [-0.1, 1.1, 2, float("nan")])
def test_opacity_out_of_range_is_refused(photo, heat, opacity):
    with pytest.raises(VizlibError, match="expected 0"):
        overlay_heat(photo, heat, opacity=float(opacity))


def test_unknown_colormap_suggests_similar_names():
    with pytest.raises(VizlibError, match="did you mean inferno"):
        load_colormap("infernal")


def test_load_colormap_equals_matplotlib_and_is_read_only():
    table = load_colormap("inferno")
    for i in (0, 1, 128, 254, 255):
        assert tuple(table[i]) == tuple(round(255 * part) for part in colormaps["inferno"](i)[:3])
    with pytest.raises(ValueError, match="read-only"):
        table[0] = 0
    assert tuple(load_colormap("tab10")[0]) != tuple(load_colormap("tab10")[255])


@pytest.mark.parametrize(("count", "columns"), [(1, None), (5, None), (9, None), (7, 3), (4, 1), (3, 99)])
@pytest.mark.parametrize(("size", "cell"), [((4, 4), 12), ((3, 5), 16), ((20, 10), 8)])
def test_image_grid_places_and_enlarges_images_without_smoothing(count, columns, size, cell):
    rng = np.random.default_rng(count)
    pictures = [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for _ in range(count)]
    grid = np.asarray(draw_image_grid(pictures, cell, columns))
    factor = max(1, round(cell / max(size)))
    across = min(columns or int(np.ceil(np.sqrt(count))), count)
    image = np.zeros(grid.shape[:2], bool)
    for i, picture in enumerate(pictures):
        top, left = i // across * (size[0] * factor + 2), i % across * (size[1] * factor + 2)
        for y in range(size[0] * factor):
            for x in range(size[1] * factor):
                assert tuple(grid[top + y, left + x]) == (*picture[y // factor, x // factor], 255)
                image[top + y, left + x] = True
    assert (grid[~image] == 0).all(), "between the pictures the board is clear"
    assert image[:, -1].any()
    assert image[-1].any()


def test_empty_grid_is_refused():
    with pytest.raises(VizlibError, match="nothing to draw"):
        draw_map_grid(np.zeros((0, 3, 3)))


def test_map_grid_shares_one_scale_or_uses_one_per_map():
    maps = np.stack([np.array([[0.0, 1.0]]), np.array([[0.0, 4.0]])])
    shared = np.asarray(draw_map_grid(maps, cell=2, columns=1))
    loss = np.asarray(draw_map_grid(maps, cell=2, columns=1, shared=False))
    assert not np.array_equal(shared[0], shared[3])
    assert np.array_equal(loss[0], loss[3])
    top = compute_limits(maps, signed=False)[1]
    expected = apply_colormap(maps[0], signed=False, limits=(0.0, top))
    assert np.array_equal(shared[0, :, :3], expected[0])


def test_kernel_grid_draws_zero_as_grey_on_a_shared_scale():
    kernels = np.zeros((3, 3, 2, 2), np.float32)
    kernels[1], kernels[2, 0] = 0.5, -1  # all channels alike; the strongest of all, in red
    grid = np.asarray(draw_kernel_grid(kernels, cell=2, columns=3))[..., :3]
    assert (grid[:, :2] == GREY).all()
    assert (grid[:, 4:6] == round(0.75 * 255)).all()
    assert (grid[:, 8:10] == (0, 128, 128)).all()
    with np.errstate(all="raise"):
        assert (np.asarray(draw_kernel_grid(kernels * 0))[0, 0, :3] == GREY).all()


def test_kernel_grid_draws_the_mean_over_other_channel_counts():
    kernels = np.random.default_rng(5).normal(size=(4, 7, 3, 3)).astype(np.float32)
    grid = draw_kernel_grid(kernels, cell=9)
    assert np.array_equal(np.asarray(grid), np.asarray(draw_map_grid(kernels.mean(1), signed=True, cell=9)))


@pytest.mark.parametrize(
    "box", [(2, 3, 9, 12), (0, 0, 20, 30), (4.2, 4.2, 4.6, 4.5), (19.5, 29.5, 20, 30), (7, 7, 7, 7)]
)
def test_draw_box_marks_boxes_of_any_size_on_a_copy(photo, box):
    before = photo.tobytes()
    top, left, bottom, right = map(float, box)
    outlined = draw_box(photo, (top, left, bottom, right))
    assert photo.tobytes() == before
    assert outlined.size == photo.size
    assert outlined.getpixel((int(box[1]), int(box[0]))) == (255, 255, 255)


def test_draw_box_covers_only_the_edge(photo):
    pixels, framed = np.asarray(photo), np.asarray(draw_box(photo, (5.0, 6.0, 12.0, 18.0)))
    assert (framed[5, 6:18] == 255).all()
    assert (framed[11, 6:18] == 255).all()
    assert (framed[5:12, 6] == 255).all()
    assert (framed[5:12, 17] == 255).all()
    assert (framed[4, 5:19] == 0).all()
    assert (framed[12, 5:19] == 0).all()
    assert np.array_equal(framed[6:11, 7:17], pixels[6:11, 7:17])
    assert np.array_equal(framed[:4], pixels[:4])


def test_color_bar_runs_from_low_to_high():
    bar = np.asarray(draw_color_bar(width=256, height=3))
    assert bar.shape == (3, 256, 3)
    assert np.array_equal(bar[1], load_colormap("inferno"))
    assert np.array_equal(np.asarray(draw_color_bar(signed=True))[0], load_colormap("RdBu_r"))
