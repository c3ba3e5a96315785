"""Photos made at random: `open_image` returns their values, or raises an `ImageError` of one sentence."""

from __future__ import annotations

import io
import os
import warnings

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from image_files import make_chunk, make_png, make_tiff
from PIL import Image

from vizlib.core.errors import ImageError
from vizlib.core.images import open_image

EXAMPLES = int(os.environ.get("VIZLIB_EXAMPLES", "40"))  # of each property
COMMON = settings(
    max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
sides = st.integers(1, 40)
seeds = st.integers(0, 2**32 - 1)
orientations = st.integers(1, 8)
# By the EXIF standard: what NumPy does to the stored rows and columns.
UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a.swapaxes(0, 1)[:, ::-1],
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: a.swapaxes(0, 1)[::-1],
}


def open_or_refuse(source) -> np.ndarray | None:
    """Return the pixels, or `None` for an `ImageError` of one sentence; any other exception fails the test."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of damaged EXIF
        try:
            photo = open_image(source)
        except ImageError as error:
            refusal = str(error)
        else:
            refusal = None
    if refusal is not None:
        assert refusal.strip()
        assert "\n" not in refusal
        return None
    assert photo.mode == "RGB"
    assert all(isinstance(note, str) for note in photo.info["notes"])
    return np.asarray(photo)


def expected_colors(values: np.ndarray, white: int) -> np.ndarray:
    """Return what the docstring of `open_image` promises for unsigned values (H, W, 1 or 3) of a file."""
    low, high = int(values.min()), int(values.max())
    if values.shape[2] == 3 and high > white // 2:
        low, high = 0, white
    if values.dtype.itemsize > 2 and high <= 255:
        low, high = 0, 255
    if white == 255:
        low, high = 0, 255
    scaled = (values.astype(np.float64) - low) * (255 / (high - low) if high > low else 0)
    return np.repeat(np.rint(scaled), 3 // values.shape[2], axis=2)


@COMMON
@given(sides, sides, st.sampled_from([1, 3]), st.integers(1, 16), orientations, seeds, st.booleans())
def test_deep_png_is_right_or_refused(height, width, count, used, orientation, seed, interlaced):
    values = np.random.default_rng(seed).integers(0, 1 << used, (height, width, count)).astype(np.uint16)
    exif = Image.Exif()
    exif[0x0112] = orientation
    chunk = make_chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0"))
    shown = open_or_refuse(make_png(values, chunks=chunk, interlaced=interlaced))
    assert (shown is None) == (min(height, width) < 8)
    if shown is not None:
        np.testing.assert_array_equal(shown, UPRIGHT[orientation](expected_colors(values, 65535)))


@COMMON
@given(
    st.integers(8, 40),
    st.integers(8, 40),
    st.integers(1, 6),
    st.sampled_from([8, 10, 12, 16, 32]),
    st.integers(1, 32),
    orientations,
    seeds,
    st.booleans(),
    st.sampled_from("<>"),
    st.booleans(),
)
def test_tiff_of_any_depth_is_right(height, width, count, bits, used, orientation, seed, planar, order, is_color):
    dtype = np.uint8 if bits == 8 else np.uint32 if bits == 32 else np.uint16
    values = np.random.default_rng(seed).integers(0, 1 << min(used, bits), (height, width, count)).astype(dtype)
    is_color = is_color and count >= 3
    extra = [0] * (count - (3 if is_color else 1))
    options = {"bits": bits, "extra": extra, "planar": planar, "order": order}
    data = make_tiff(values, 2 if is_color else 1, tags={0x0112: ("H", [orientation])}, **options)
    shown = open_or_refuse(data)
    assert shown is not None
    expected = expected_colors(values[..., : 3 if count >= 3 else 1], (1 << bits) - 1)
    np.testing.assert_allclose(shown.astype(int), UPRIGHT[orientation](expected), atol=1)


@COMMON
@given(
    st.sampled_from(["1", "L", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV", "I", "F", "LA", "PA", "La", "RGBa"]),
    st.integers(8, 40),
    st.integers(8, 40),
    orientations,
    seeds,
)
def test_every_mode_of_pillow_gives_an_upright_photo(mode, height, width, orientation, seed):
    source = Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 4)).astype(np.uint8), "RGBA")
    steps = {"PA": ["P", "PA"], "La": ["LA", "La"], "LAB": [], "HSV": ["RGB", "HSV"], "YCbCr": ["RGB", "YCbCr"]}
    image = Image.new("LAB", source.size, (100, 120, 140)) if mode == "LAB" else source
    for step in steps.get(mode, ["L", mode] if mode in ("I", "F", "LA") else [mode]):
        image = image.convert(step)
    exif = image.getexif()
    exif[0x0112] = orientation
    image.info["exif"] = exif.tobytes()
    before = image.tobytes()
    shown = open_or_refuse(image)
    assert shown is not None
    assert shown.shape == ((height, width, 3) if orientation < 5 else (width, height, 3))
    assert image.tobytes() == before
    assert image.mode == mode


@COMMON
@given(
    st.sampled_from(["PNG", "TIFF", "JPEG", "WEBP", "GIF", "BMP", "PPM", "deep PNG", "deep TIFF", "AVIF"]),
    seeds,
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=12),
    st.floats(0, 1),
)
def test_damaged_file_is_opened_or_refused(kind, seed, changes, kept):
    values = np.random.default_rng(seed).integers(0, 256, (16, 24, 3)).astype(np.uint8)
    file = io.BytesIO()
    if kind == "deep PNG":
        file.write(make_png(values.astype(np.uint16) * 16))
    elif kind == "deep TIFF":
        file.write(make_tiff(values.astype(np.uint16) * 16, 2, planar=True, deflated=seed % 2 == 0))
    else:
        Image.fromarray(values).save(file, kind)
    data = bytearray(file.getvalue())
    for place, value in changes:
        data[min(int(place * len(data)), len(data) - 1)] = value
    open_or_refuse(bytes(data[: int(len(data) * kept)] if seed % 3 == 0 else data))


@COMMON
@given(
    st.binary(max_size=700), st.sampled_from([b"", b"II*\0", b"MM\0*", b"\x89PNG\r\n\x1a\n", b"P6 ", b"\xff\xd8\xff"])
)
def test_bytes_at_random_are_refused(tail, head):
    assert open_or_refuse(head + tail) is None


@COMMON
@given(
    st.sampled_from(["bool", "uint8", "int8", "uint16", "int32", "uint32", "int64", "float16", "float32", "float64"]),
    st.lists(st.integers(0, 20), min_size=0, max_size=4),
    seeds,
)
def test_arrays_of_any_type_and_shape_are_opened_or_refused(dtype, shape, seed):
    values = (np.random.default_rng(seed).normal(size=shape) * 1000).astype(dtype)
    shown = open_or_refuse(values)
    if shown is not None:
        assert sorted(shown.shape[:2])[0] >= 8
