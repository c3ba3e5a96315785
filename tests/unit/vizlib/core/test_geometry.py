"""`Geometry`, measured with the real preprocessing: photo to model input, and heat map to photo."""

from __future__ import annotations

import inspect
import io
import math
import random
from typing import Any

import numpy as np
import pytest
import torch
from cell_boxes import compute_cell_box
from PIL import Image
from timm.data.transforms_factory import create_transform

from vizlib.core.geometry import Geometry
from vizlib.core.images import open_image
from vizlib.models.preprocessing import TimmPreprocessing

PHOTOS = {
    "portrait": (500, 375),
    "landscape": (333, 500),
    "16:9": (360, 640),
    "panorama": (120, 900),
    "tiny": (12, 20),
    "tiniest": (8, 8),
    "odd": (31, 17),
}
INPUTS = [(224, 224), (160, 160), (192, 256), (257, 131)]
SETTINGS = [((224, 224), 0.875), ((224, 224), 1.0), ((160, 160), 0.9), ((192, 256), 0.9), ((257, 131), 1.0)]
MODES = ["center", "squash", "border"]

# EXIF orientation -> the stored pixels of an upright image, with NumPy alone.
STORED = {
    1: lambda upright: upright,
    2: np.fliplr,
    3: lambda upright: np.rot90(upright, 2),
    4: np.flipud,
    5: lambda upright: upright.swapaxes(0, 1),
    6: lambda upright: np.rot90(upright, 1),
    7: lambda upright: np.rot90(upright, 2).swapaxes(0, 1),
    8: lambda upright: np.rot90(upright, -1),
}


def preprocessing(input_size, crop_mode="center", crop_pct=0.875, interpolation="bilinear"):
    return TimmPreprocessing.from_config(
        {"input_size": input_size, "crop_mode": crop_mode, "crop_pct": crop_pct, "interpolation": interpolation}
    )


def photo_with_dot(size, pixel, reach):
    """Return a grey photo with a brighter square around one pixel; resampling overshoot of grey is not clipped."""
    photo = np.full((*size, 3), 90, dtype=np.uint8)
    y, x = pixel
    photo[y - reach : y + reach + 1, x - reach : x + reach + 1] = 200
    return photo


def dot_for(geometry, at):
    """Return a photo pixel at a relative position in the visible box, and the reach of a dot of a few input pixels."""
    y0, x0, y1, x1 = geometry.visible_box
    pixel = int(y0 + at[0] * (y1 - y0)), int(x0 + at[1] * (x1 - x0))
    reach = math.ceil(1.5 / min(geometry.scale)) if min(geometry.scale) < 1 else 0
    return pixel, reach


def reaches_the_edge(geometry, pixel):
    """Return whether a dot is cut by the crop: bicubic enlargement spreads a pixel by two and a half to every side."""
    reach = [max(2.5 * scale, 4) for scale in geometry.scale]
    y, x = geometry.to_input(pixel[0] + 0.5, pixel[1] + 0.5)
    height, width = geometry.input_size
    return not (reach[0] <= y <= height - reach[0] and reach[1] <= x <= width - reach[1])


def compute_dot_response(transform, photo, blank):
    """Return the change of each input pixel due to the dot: (h, w), signed."""
    return (transform.tensor(photo) - transform.tensor(blank))[0].mean(dim=0)


def centroid(heat):
    rows = torch.arange(heat.shape[0]) + 0.5
    cols = torch.arange(heat.shape[1]) + 0.5
    return float((heat.sum(1) * rows).sum() / heat.sum()), float((heat.sum(0) * cols).sum() / heat.sum())


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("crop_mode", MODES)
@pytest.mark.parametrize("name", PHOTOS)
def test_to_input_matches_the_position_of_a_dot_in_the_tensor(name, crop_mode, interpolation):
    for input_size, crop_pct in SETTINGS:
        transform = preprocessing(input_size, crop_mode, crop_pct, interpolation)
        blank = open_image(photo_with_dot(PHOTOS[name], (0, 0), -1))
        geometry = transform.geometry(blank)
        for at in [(0.4, 0.6), (0.62, 0.45)]:
            pixel, reach = dot_for(geometry, at)
            if reaches_the_edge(geometry, pixel):
                continue  # the crop cuts the blurred dot, so its centroid is shifted
            photo = open_image(photo_with_dot(PHOTOS[name], pixel, reach))
            centre = centroid(compute_dot_response(transform, photo, blank))
            expected = geometry.to_input(pixel[0] + 0.5, pixel[1] + 0.5)
            assert centre == pytest.approx(expected, abs=0.1), (input_size, crop_pct, pixel)


@pytest.mark.parametrize("crop_mode", MODES)
@pytest.mark.parametrize("name", PHOTOS)
def test_project_to_photo_returns_a_point_to_its_pixel(name, crop_mode):
    for input_size, crop_pct in SETTINGS:
        geometry = Geometry.from_timm_transform(PHOTOS[name], input_size, crop_pct=crop_pct, crop_mode=crop_mode)
        for at in [(0.02, 0.03), (0.5, 0.5), (0.31, 0.77), (0.97, 0.98)]:
            pixel, _ = dot_for(geometry, at)
            place = geometry.to_input(pixel[0] + 0.5, pixel[1] + 0.5)
            if not (0 <= place[0] < input_size[0] and 0 <= place[1] < input_size[1]):
                continue  # a pixel cut by the crop, with its centre outside
            heat = torch.zeros(input_size)
            heat[int(place[0]), int(place[1])] = 1
            assert_brightest_at(geometry, geometry.project_to_photo(heat), pixel)


@pytest.mark.parametrize("name", PHOTOS)
def test_project_to_photo_is_within_one_input_pixel_on_tiny_photos(name):
    rng = random.Random(0)
    geometry = Geometry.from_timm_transform(PHOTOS[name], (224, 224), crop_pct=0.9, crop_mode="center")
    for _ in range(20):
        row, col = rng.randrange(2, 222), rng.randrange(2, 222)
        heat = np.zeros((224, 224), dtype=np.float32)
        heat[row, col] = 1
        y, x = np.unravel_index(np.nanargmax(geometry.project_to_photo(heat)), geometry.photo_size)
        result = geometry.to_input(y + 0.5, x + 0.5)
        # within one input pixel, or within the photo pixel that covers this input pixel if photo pixels are larger
        assert abs(result[0] - row - 0.5) <= max(1, geometry.scale[0])
        assert abs(result[1] - col - 0.5) <= max(1, geometry.scale[1])


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("size", [(500, 375), (90, 160), (20, 12)], ids=["portrait", "16:9", "tiny"])
def test_geometry_holds_for_exif_rotated_photos(size, orientation):
    for input_size, crop_mode in [((224, 224), "center"), ((192, 256), "border")]:
        transform = preprocessing(input_size, crop_mode)
        geometry = Geometry.from_timm_transform(size, input_size, crop_pct=0.875, crop_mode=crop_mode)
        pixel, reach = dot_for(geometry, (0.3, 0.65))

        def stored(pixels):
            exif = Image.Exif()
            exif[0x0112] = orientation
            file = io.BytesIO()
            Image.fromarray(np.ascontiguousarray(STORED[orientation](pixels))).save(file, "PNG", exif=exif)
            return open_image(file.getvalue())

        blank, photo = stored(photo_with_dot(size, (0, 0), -1)), stored(photo_with_dot(size, pixel, reach))
        assert transform.geometry(photo) == geometry
        lit = compute_dot_response(transform, photo, blank)
        assert centroid(lit) == pytest.approx(geometry.to_input(pixel[0] + 0.5, pixel[1] + 0.5), abs=0.1)
        # The dot has a flat top a few pixels wide, so its middle is compared.
        heat = torch.zeros(input_size)
        row, col = centroid(lit)
        heat[int(row), int(col)] = 1
        assert_brightest_at(geometry, geometry.project_to_photo(heat), pixel)


def assert_brightest_at(geometry, lifted, pixel):
    """The brightest pixel of a lifted map is this photo pixel, to one input pixel."""
    assert lifted.shape == geometry.photo_size
    y, x = np.unravel_index(np.nanargmax(lifted), lifted.shape)
    assert abs(y - pixel[0]) * geometry.scale[0] <= 1
    assert abs(x - pixel[1]) * geometry.scale[1] <= 1


def test_rounding_equals_timms_transform():
    rng = random.Random(1)
    for _ in range(400):
        photo_size = rng.randint(8, 400), rng.randint(8, 400)
        side = rng.randint(20, 260)
        input_size = (side, side) if rng.random() < 0.5 else (side, rng.randint(20, 260))
        crop_pct, crop_mode = rng.choice([0.8, 0.875, 0.9, 0.95, 0.965, 1.0, 1.1]), rng.choice(MODES)
        geometry = Geometry.from_timm_transform(photo_size, input_size, crop_pct=crop_pct, crop_mode=crop_mode)
        transform: Any = create_transform(input_size=(3, *input_size), crop_pct=crop_pct, crop_mode=crop_mode)
        resize, crop = transform.transforms[:2]

        resized = resize(Image.new("L", (photo_size[1], photo_size[0]))).size[::-1]
        output = geometry.scale[0] * photo_size[0], geometry.scale[1] * photo_size[1]
        assert output == pytest.approx(resized, abs=1e-9)

        for axis in (0, 1):  # a picture whose colours count its rows or columns shows where the crop put them
            counted = np.broadcast_to(np.expand_dims(np.arange(resized[axis]), 1 - axis), resized)
            coded = np.stack([counted % 256, counted // 256, np.full(resized, 255)], axis=-1).astype(np.uint8)
            pixel = np.asarray(crop(Image.fromarray(coded)), dtype=int)[input_size[0] // 2, input_size[1] // 2]
            assert pixel[2] == 255, "the middle of the input is never padding"
            assert geometry.offset[axis] == input_size[axis] // 2 - (pixel[0] + 256 * pixel[1])


def test_to_photo_is_the_inverse_of_to_input_for_numbers_and_arrays():
    geometry = Geometry.from_timm_transform((333, 500), (192, 256), crop_pct=0.9, crop_mode="center")
    y, x = np.linspace(-5, 340, 50), np.linspace(-5, 505, 50)
    back = geometry.to_photo(*geometry.to_input(y, x))
    np.testing.assert_allclose(back, (y, x), atol=1e-9)
    assert geometry.to_input(*geometry.to_photo(3, 7)) == pytest.approx((3, 7))


def slow_lift(geometry, heat, size, smooth):
    """The formula, pixel by pixel."""
    heat = np.asarray(heat, dtype=np.float64)
    lifted = np.full(size, np.nan)
    for i in range(size[0]):
        for j in range(size[1]):
            y = (i + 0.5) * geometry.photo_size[0] / size[0] * geometry.scale[0] + geometry.offset[0]
            x = (j + 0.5) * geometry.photo_size[1] / size[1] * geometry.scale[1] + geometry.offset[1]
            if not (0 <= y < geometry.input_size[0] and 0 <= x < geometry.input_size[1]):
                continue
            row, col = y * heat.shape[0] / geometry.input_size[0], x * heat.shape[1] / geometry.input_size[1]
            if not smooth:
                lifted[i, j] = heat[int(row), int(col)]
                continue
            r, c = min(max(row - 0.5, 0), heat.shape[0] - 1), min(max(col - 0.5, 0), heat.shape[1] - 1)
            top, left = int(r), int(c)
            bottom, right = min(top + 1, heat.shape[0] - 1), min(left + 1, heat.shape[1] - 1)
            lifted[i, j] = (
                heat[top, left] * (1 - (r - top)) * (1 - (c - left))
                + heat[bottom, left] * (r - top) * (1 - (c - left))
                + heat[top, right] * (1 - (r - top)) * (c - left)
                + heat[bottom, right] * (r - top) * (c - left)
            )
    return lifted


@pytest.mark.parametrize("smooth", [True, False], ids=["smooth", "nearest"])
@pytest.mark.parametrize("crop_mode", MODES)
def test_project_to_photo_equals_bilinear_sampling(crop_mode, smooth):
    rng = np.random.default_rng(0)
    for photo_size, input_size, grid, size in [
        ((60, 81), (32, 32), (7, 7), None),
        ((81, 60), (32, 48), (1, 3), None),
        ((50, 97), (48, 32), (14, 9), (25, 48)),
        ((64, 64), (64, 64), (56, 48), None),
    ]:
        heat = rng.normal(size=grid)
        geometry = Geometry.from_timm_transform(photo_size, input_size, crop_pct=0.875, crop_mode=crop_mode)
        expected = slow_lift(geometry, heat, size or photo_size, smooth)
        lifted = geometry.project_to_photo(heat, size, smooth=smooth)
        assert lifted.dtype == np.float32
        np.testing.assert_allclose(lifted, expected, atol=2e-6)
        np.testing.assert_array_equal(geometry.project_to_photo(torch.tensor(heat), size, smooth=smooth), lifted)


def test_project_to_photo_averages_over_covered_cells():
    geometry = Geometry.from_timm_transform((224, 224), (224, 224), crop_pct=1.0, crop_mode="center")
    heat = np.random.default_rng(0).normal(size=(224, 224))
    # Pillow's own resize of float images with BILINEAR is the same tent, made independently.
    expected = np.asarray(Image.fromarray(heat.astype(np.float32)).resize((30, 50), Image.Resampling.BILINEAR))
    np.testing.assert_allclose(geometry.project_to_photo(heat, (50, 30)), expected, atol=1e-5)


@pytest.mark.parametrize("crop_mode", MODES)
def test_nan_marks_exactly_the_pixels_outside_the_model_input(crop_mode):
    for photo_size in PHOTOS.values():
        for input_size in INPUTS:
            geometry = Geometry.from_timm_transform(photo_size, input_size, crop_pct=0.875, crop_mode=crop_mode)
            y0, x0, y1, x1 = geometry.visible_box
            ys, xs = np.arange(photo_size[0]) + 0.5, np.arange(photo_size[1]) + 0.5
            inside = ((ys >= y0) & (ys < y1))[:, None] & ((xs >= x0) & (xs < x1))
            for smooth in (True, False):
                lifted = geometry.project_to_photo(np.ones((7, 7)), smooth=smooth)
                np.testing.assert_array_equal(np.isfinite(lifted), inside)
                np.testing.assert_allclose(lifted[inside], 1, rtol=1e-6)


def test_visible_box_and_fraction_of_known_crops():
    center = Geometry.from_timm_transform((256, 512), (224, 224), crop_pct=0.875, crop_mode="center")
    assert center.visible_box == (16, 144, 240, 368)
    assert center.visible_fraction == pytest.approx(224 * 224 / (256 * 512))
    squash = Geometry.from_timm_transform((512, 256), (224, 224), crop_pct=1.0, crop_mode="squash")
    assert squash.visible_box == pytest.approx((0, 0, 512, 256))
    border = Geometry.from_timm_transform((448, 112), (224, 224), crop_pct=1.0, crop_mode="border")
    assert border.visible_box == pytest.approx((0, 0, 448, 112))
    assert (border.visible_fraction, border.offset) == (pytest.approx(1), (0, 84))


def test_find_cell_matches_project_to_photo():
    grid = (5, 7)
    numbered = np.arange(35).reshape(grid)
    for crop_mode in MODES:
        geometry = Geometry.from_timm_transform((40, 61), (32, 48), crop_pct=0.9, crop_mode=crop_mode)
        lifted = geometry.project_to_photo(numbered, smooth=False)
        for y in range(40):
            for x in range(61):
                cell = geometry.find_cell(y, x, grid)
                assert cell == geometry.find_cell(y + 0.9, x + 0.1, grid)
                assert np.isnan(lifted[y, x]) if cell is None else numbered[cell] == lifted[y, x]


@pytest.mark.parametrize("place", [(-1, 5), (5, -0.5), (40, 5), (5, 61)])
def test_find_cell_is_none_outside_the_photo(place: tuple[float, float]):
    geometry = Geometry.from_timm_transform((40, 61), (64, 64), crop_pct=1.0, crop_mode="border")
    assert geometry.find_cell(*place, (4, 4)) is None


def test_centre_of_a_cell_box_is_in_that_cell():
    grid = (14, 14)
    for crop_mode in MODES:
        geometry = Geometry.from_timm_transform((300, 400), (224, 224), crop_pct=0.875, crop_mode=crop_mode)
        for row in range(3, 11):
            for col in range(14):
                y0, x0, y1, x1 = compute_cell_box(geometry, row, col, grid)
                assert geometry.find_cell((y0 + y1) / 2, (x0 + x1) / 2, grid) == (row, col)


def test_unknown_crop_mode_and_vanishing_photo_are_refused():
    with pytest.raises(ValueError, match="no crop mode 'centre'; there are center, squash, border"):
        Geometry.from_timm_transform((300, 400), (224, 224), crop_pct=0.875, crop_mode="centre")
    with pytest.raises(ValueError, match="shrinks"):
        Geometry.from_timm_transform((8, 4000), (16, 16), crop_pct=1.0, crop_mode="border")


def test_heat_map_of_wrong_shape_is_refused():
    geometry = Geometry.from_timm_transform((8, 8), (16, 16), crop_pct=1.0, crop_mode="border")
    unchecked = inspect.unwrap(Geometry.project_to_photo)  # without the shape checks that tests switch on
    with pytest.raises(ValueError, match=r"a heat map is \(height, width\), not \(3, 4, 4\)"):
        unchecked(geometry, np.zeros((3, 4, 4)))
