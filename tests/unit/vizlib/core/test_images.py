"""`open_image`: every accepted source becomes upright RGB, every other is refused with one sentence."""

from __future__ import annotations

import contextlib
import io
import struct
import tracemalloc
import zlib
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile
from timm.data.transforms_factory import create_transform

from vizlib.core.errors import ImageError, ModelError
from vizlib.core.images import MAX_PIXELS, open_image
from vizlib.models.preprocessing import TimmPreprocessing

RAMP = np.arange(20 * 30 * 3, dtype=np.uint32).reshape(20, 30, 3).astype(np.uint8)  # adjacent pixels differ
SMOOTH = np.stack(np.broadcast_arrays(*np.ogrid[0:200:20j, 50:250:30j], 120), axis=-1).astype(np.uint8)


def encoded(picture, kind, **options):
    file = io.BytesIO()
    (picture if isinstance(picture, Image.Image) else Image.fromarray(picture)).save(file, kind, **options)
    return file.getvalue()


def pixels(source):
    photo = open_image(source)
    assert photo.mode == "RGB"
    assert type(photo) is Image.Image
    return np.asarray(photo)


def notes(source):
    return open_image(source).info["notes"]


def refusal(source):
    """Return the message of the error: one sentence, without a folder."""
    with pytest.raises(ImageError) as error:
        open_image(source)
    message = str(error.value)
    assert "\n" not in message
    assert "/" not in message
    return message


def png_chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, bits, colour, rows):
    """Return a PNG of a kind that Pillow does not write."""
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", data) + png_chunk(b"IEND", b"")


# ------------------------------------------------------------------------------------------ sources


def test_open_image_accepts_every_source(tmp_path):
    path = tmp_path / "photo.png"
    data = encoded(RAMP, "PNG")
    path.write_bytes(data)
    sources = [path, str(path), data, bytearray(data), memoryview(data), io.BytesIO(data)]
    sources += [RAMP, torch.tensor(RAMP), torch.tensor(RAMP).permute(2, 0, 1), Image.fromarray(RAMP), Image.open(path)]
    with path.open("rb") as file:
        for source in [*sources, file]:
            np.testing.assert_array_equal(pixels(source), RAMP)
            assert notes(source if not hasattr(source, "seek") else data) == ()


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM", "WEBP", "JPEG2000"])
def test_lossless_formats_keep_every_pixel(kind):
    options = {"lossless": True} if kind == "WEBP" else {}
    np.testing.assert_array_equal(pixels(encoded(RAMP, kind, **options)), RAMP)


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "GIF", "MPO"])
def test_lossy_formats_stay_close_to_the_original(kind):
    options = {} if kind == "GIF" else {"quality": 95}
    difference = np.abs(pixels(encoded(SMOOTH, kind, **options)).astype(int) - SMOOTH)
    assert difference.mean() < 4


def test_open_image_leaves_the_given_image_unchanged():
    image = Image.fromarray(RAMP).convert("RGBA")
    image.info["comment"] = "mine"
    photo = open_image(image)
    photo.paste("red", (0, 0, 30, 20))
    assert (image.mode, image.info) == ("RGBA", {"comment": "mine"})
    np.testing.assert_array_equal(np.asarray(image)[..., :3], RAMP)
    plain = Image.fromarray(RAMP)
    open_image(plain).paste("red", (0, 0, 30, 20))
    np.testing.assert_array_equal(np.asarray(plain), RAMP)


def test_open_image_is_idempotent_and_keeps_notes():
    exif = Image.Exif()
    exif[0x0112] = 6
    faint = Image.fromarray(RAMP).convert("LA").point([value // 2 for value in range(256)] * 2)
    for image, noted in ((Image.fromarray(RAMP), 0), (faint, 1)):
        once = open_image(encoded(image, "PNG", exif=exif))
        twice = open_image(once)
        np.testing.assert_array_equal(np.asarray(twice), np.asarray(once))
        assert twice.info["notes"] == once.info["notes"]
        assert len(once.info["notes"]) == noted


def test_text_chunk_called_notes_is_ignored():
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text("notes", "<script>")
    assert notes(encoded(RAMP, "PNG", pnginfo=info)) == ()


# ------------------------------------------------------------------------------------------ orientation


# By the EXIF standard: the side of the scene at the stored row 0 and column 0.
SIDES = {
    1: ("top", "left"),
    2: ("top", "right"),
    3: ("bottom", "right"),
    4: ("bottom", "left"),
    5: ("left", "top"),
    6: ("right", "top"),
    7: ("right", "bottom"),
    8: ("left", "bottom"),
}


def as_stored(upright, orientation):
    """Return the stored pixels of an upright image, pixel by pixel by the definition of the standard."""
    height, width = upright.shape[:2]
    row_side, column_side = SIDES[orientation]
    stored = np.zeros((width, height, 3) if orientation >= 5 else upright.shape, dtype=np.uint8)
    from_side = {"top": lambda k: k, "bottom": lambda k: height - 1 - k}
    from_side |= {"left": lambda k: k, "right": lambda k: width - 1 - k}
    for row in range(stored.shape[0]):
        for column in range(stored.shape[1]):
            a, b = from_side[row_side](row), from_side[column_side](column)
            stored[row, column] = upright[(a, b) if orientation < 5 else (b, a)]
    return stored


@pytest.mark.parametrize("orientation", SIDES)
def test_exif_orientation_is_applied(orientation):
    stored = as_stored(RAMP, orientation)
    exif = Image.Exif()
    exif[0x0112] = orientation
    for kind in ("PNG", "TIFF"):  # Pillow applies the orientation of a TIFF itself, which must not be repeated
        np.testing.assert_array_equal(pixels(encoded(stored, kind, exif=exif)), RAMP)
    stored = as_stored(SMOOTH, orientation)
    difference = np.abs(pixels(encoded(stored, "JPEG", exif=exif, quality=95)).astype(int) - SMOOTH)
    assert difference.mean() < 4
    image = Image.open(io.BytesIO(encoded(stored, "PNG", exif=exif)))
    np.testing.assert_array_equal(pixels(image), SMOOTH)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_broken_exif_is_ignored():
    for exif in (b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0nonsense", b"Exif\0\0"):
        for kind in ("JPEG", "PNG", "WEBP"):
            assert pixels(encoded(RAMP, kind, exif=exif)).shape == RAMP.shape


# ------------------------------------------------------------------------------------------ colours


def test_transparency_is_composited_on_white_with_a_note():
    rgba = np.dstack([RAMP, np.full((20, 30), 255, np.uint8)])
    assert notes(encoded(rgba, "PNG")) == ()
    rgba[:10, :, 3] = 0
    rgba[10:15, :, 3] = 102
    expected = np.where(rgba[..., 3:] == 0, 255, RAMP).astype(float)
    expected[10:15] = RAMP[10:15] * 0.4 + 255 * 0.6
    for source in (encoded(rgba, "PNG"), rgba, torch.tensor(rgba)):
        np.testing.assert_allclose(pixels(source), expected, atol=1)
        assert notes(source) == ("Its transparent parts were composited on white.",)


def test_grey_alpha_and_transparent_palette_colours_are_composited_on_white():
    grey = Image.merge("LA", [Image.new("L", (30, 20), 80), Image.new("L", (30, 20), 0)])
    assert (pixels(encoded(grey, "PNG")) == 255).all()
    for kind in ("PNG", "GIF"):
        palette = Image.new("P", (30, 20), 1)
        palette.putpalette([10, 20, 30, 200, 100, 50])
        palette.paste(0, (0, 0, 15, 20))
        result = pixels(encoded(palette, kind, transparency=0))
        assert (result[:, :15] == 255).all()
        assert (result[:, 15:] == (200, 100, 50)).all()
    keyed = Image.new("RGB", (30, 20), (1, 2, 3))
    assert (pixels(encoded(keyed, "PNG", transparency=(1, 2, 3))) == 255).all()


def test_palette_grey_and_one_bit_images_become_rgb():
    palette = Image.fromarray(RAMP).quantize(16)
    expected = np.asarray(palette.convert("RGB"))
    for kind in ("PNG", "GIF", "BMP"):
        np.testing.assert_array_equal(pixels(encoded(palette, kind)), expected)
    grey = RAMP[..., 0]
    for source in (encoded(grey, "PNG"), grey, grey[..., None], torch.tensor(grey)[None]):
        np.testing.assert_array_equal(pixels(source), np.dstack([grey] * 3))
    mask = grey > 128
    for source in (encoded(Image.fromarray(mask), "PNG"), mask, torch.tensor(mask)):
        np.testing.assert_array_equal(pixels(source)[..., 1], mask * 255)


@pytest.mark.parametrize("kind", ["TIFF", "JPEG"])
def test_cmyk_becomes_rgb_with_a_note(kind):
    inks = np.zeros((24, 32, 4), dtype=np.uint8)
    inks[:, :16] = (255, 0, 0, 0)
    inks[:, 16:] = (0, 100, 200, 50)
    result = pixels(encoded(Image.fromarray(inks, "CMYK"), kind))
    ink = inks.astype(float) / 255
    expected = 255 * (1 - ink[..., :3]) * (1 - ink[..., 3:])
    assert np.abs(result - expected).mean() < 3
    assert "CMYK" in notes(encoded(Image.fromarray(inks, "CMYK"), kind))[0]


def test_ycbcr_hsv_and_lab_become_rgb():
    grey = Image.new("L", (30, 20), 100).convert("RGB")
    for mode in ("YCbCr", "HSV", "LAB"):
        image = Image.new("LAB", (30, 20), (108, 128, 128)) if mode == "LAB" else grey.convert(mode)
        np.testing.assert_allclose(pixels(encoded(image, "TIFF") if mode == "LAB" else image), 100, atol=3)


@pytest.mark.parametrize("top", [65535, 4095])
def test_sixteen_bit_grey_is_scaled_by_its_range_with_a_note(top):
    values = np.linspace(0, top, 600).round().astype(np.uint16).reshape(20, 30)
    expected = np.rint(values.astype(float) / top * 255)
    sources = [encoded(values, "PNG"), encoded(values, "TIFF"), values, torch.tensor(values), Image.fromarray(values)]
    sources.append(encoded(Image.fromarray(values.astype(np.int32)), "TIFF"))  # mode I
    sources.append(png(30, 20, 16, 0, [row.astype(">u2").tobytes() for row in values]))
    for source in sources:
        np.testing.assert_array_equal(pixels(source)[..., 0], expected)
        (note,) = notes(source)
        assert f"from 0 (now black) to {top:g} (now white)" in note


def test_sixteen_bit_colours_keep_their_high_byte():
    values = np.random.default_rng(0).integers(0, 65536, (20, 30, 3)).astype(">u2")
    result = pixels(png(30, 20, 16, 2, [row.tobytes() for row in values]))
    np.testing.assert_allclose(result, values // 256, atol=1)


def test_sixteen_bit_colour_arrays_share_one_range_and_alpha_keeps_its_own():
    values = np.zeros((20, 30, 4), dtype=np.uint16)
    values[..., 0], values[..., 1], values[..., 2], values[..., 3] = 1000, 2000, 3000, 65535
    np.testing.assert_array_equal(pixels(values)[0, 0], [0, 128, 255])
    values[..., 3] = 65535 // 2
    np.testing.assert_allclose(pixels(values)[0, 0], [127.5, 191.5, 255], atol=1)


def test_floats_from_0_to_1_keep_their_range_and_others_are_scaled():
    unit = np.linspace(0.25, 0.75, 600, dtype=np.float32).reshape(20, 30)
    for source in (unit, torch.tensor(unit), unit.astype(np.float64), encoded(unit, "TIFF"), Image.fromarray(unit)):
        np.testing.assert_array_equal(pixels(source)[..., 2], np.rint(unit * 255))
        assert notes(source) == ("Its float values were taken as 0 (black) to 1 (white).",)
    wide = (unit - 0.5) * 40
    for source in (wide, torch.tensor(wide), encoded(wide, "TIFF")):
        np.testing.assert_allclose(pixels(source)[..., 0], (wide + 10) / 20 * 255, atol=0.51)
        assert "from -10 (now black) to 10 (now white)" in notes(source)[0]
    assert pixels(torch.rand(3, 20, 30, dtype=torch.bfloat16, requires_grad=True)).shape == (20, 30, 3)
    assert (pixels(np.full((20, 30), 7.0)) == 0).all()


def test_eight_bit_values_in_a_wider_integer_array_are_unchanged():
    np.testing.assert_array_equal(pixels(RAMP.astype(np.int64)), RAMP)
    assert notes(torch.tensor(RAMP).long()) == ()


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_animation_gives_its_first_frame_with_a_note(kind):
    frames = [Image.new("RGB", (30, 20), colour) for colour in ("#ff0000", "#00ff00", "#0000ff")]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert (pixels(data) == (255, 0, 0)).all()
    assert notes(encoded(frames[0], kind, **options)) == ()
    assert notes(data) == (
        "Only image 1 of the several in its file is used."
        if kind == "TIFF"
        else "Only frame 1 of this animation is used.",
    )


def test_mpo_with_preview_is_not_an_animation():
    data = encoded(Image.fromarray(SMOOTH), "MPO", save_all=True, append_images=[Image.fromarray(SMOOTH[::2, ::2])])
    assert pixels(data).shape == SMOOTH.shape
    assert notes(data) == ()


# ------------------------------------------------------------------------------------------ refused


TEXTS = {
    "notes.txt": (b"hello, I am a text\n", "is text, not an image"),
    "umlaut.txt": ("größer ".encode() * 90, "is text, not an image"),
    "drawing.svg": (b"<?xml version='1.0'?><svg xmlns='http://www.w3.org/2000/svg'/>", "is an SVG drawing"),
    "page.html": (b"<!DOCTYPE html><html></html>", "is a web page"),
    "part.htm": (b"<html><body>hello</body></html>", "is a web page"),
    "paper.pdf": (b"%PDF-1.7\n", "is a PDF"),
    "IMG_1.heic": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "is damaged or incomplete"),
    "clip.mp4": (b"\0\0\0\x18ftypisom\0\0\0\0isommp42", "is a video"),
    "noise.jpg": (bytes(range(256)) * 4, "is not an image"),
    "figure.eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n", "in PostScript format"),
    "header.jpg": (encoded(SMOOTH, "JPEG")[:30], "is damaged or incomplete"),
    "empty.png": (b"", "is empty"),
}


@pytest.mark.parametrize("name", TEXTS)
def test_other_files_are_refused_with_their_kind(name, tmp_path):
    data, what = TEXTS[name]
    path = tmp_path / name
    path.write_bytes(data)
    assert refusal(path).startswith(f"'{name}' ")
    assert what in refusal(path)
    assert "expected a photo as JPEG, PNG" in refusal(path) or "damaged" in what
    assert what in refusal(data)
    assert what in refusal(io.BytesIO(data))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "TIFF", "BMP", "WEBP", "PPM"])
def test_truncated_file_is_refused_as_damaged(kind):
    noise = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    data = encoded(noise, kind)
    for part in (0.9, 0.5, 0.2):
        assert "damaged or incomplete" in refusal(data[: int(len(data) * part)])


def test_missing_files_folders_devices_and_invalid_names_are_refused_without_their_folder(tmp_path):
    assert "there is no file 'cat.jpg'" in refusal(tmp_path / "cat.jpg")
    assert f"'{tmp_path.name}' is a folder" in refusal(tmp_path)
    assert "not a regular file" in refusal("/dev/zero")
    assert "cannot be read" in refusal(tmp_path / ("x" * 300 + ".jpg"))
    assert "'a\\x00b.jpg'" in refusal("a\0b.jpg")
    for given in (tmp_path / "cat.jpg", tmp_path / ("x" * 300 + ".jpg")):
        assert str(tmp_path) not in refusal(given)


def test_unreadable_streams_are_refused(tmp_path):
    path = tmp_path / "photo.png"
    path.write_bytes(encoded(RAMP, "PNG"))
    with path.open(encoding="latin-1") as text:
        assert refusal(text) == "'photo.png' gives a str, expected bytes: open it in binary mode"
    with path.open("rb") as file:
        pass
    assert "cannot be read" in refusal(file)
    closed = Image.open(path)
    closed.close()
    assert "damaged" in refusal(closed)


@pytest.mark.parametrize("size", [(7, 100), (100, 7), (1, 1)])
def test_image_under_8_pixels_a_side_is_refused(size):
    height, width = size
    tiny = np.zeros((*size, 3), dtype=np.uint8)
    for source in (tiny, torch.tensor(tiny), encoded(tiny, "PNG"), Image.fromarray(tiny)):
        assert f"is {width} × {height} pixels, expected at least 8 on each side" in refusal(source)
    assert pixels(np.zeros((8, 8, 3), dtype=np.uint8)).shape == (8, 8, 3)


def test_long_strip_is_refused():
    assert "50 times as long" in refusal(np.zeros((10, 501), dtype=np.uint8))
    assert pixels(np.zeros((10, 500), dtype=np.uint8)).shape == (10, 500, 3)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")  # of the image that the test itself opens
@pytest.mark.parametrize("side", [6400, 13_000, 20_000])
def test_decompression_bomb_is_refused_from_its_header(side, tmp_path, monkeypatch):
    decoded = []
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda image: decoded.append(image.size))
    bomb = png(side, side, 1, 0, [bytes((side + 7) // 8)] * side)
    assert len(bomb) < 100_000
    path = tmp_path / "bomb.png"
    path.write_bytes(bomb)
    sources = [bomb, path, io.BytesIO(bomb)]
    sources += [Image.open(io.BytesIO(bomb))] if side == 6400 else []  # Pillow warns of the others
    for source in sources:
        assert "megapixels" in refusal(source)
    assert not decoded
    with contextlib.suppress(Exception):  # the patch above records decoding: that of a small photo
        open_image(encoded(RAMP, "PNG"))
    assert set(decoded) == {(30, 20)}


def test_array_over_40_megapixels_is_refused_before_it_is_copied():
    huge = np.broadcast_to(np.uint8(5), (7000, 7000))  # takes one byte
    tracemalloc.start()
    try:
        assert "is 7000 × 7000 pixels, 49 megapixels, expected at most 40 megapixels" in refusal(huge)
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()
    assert "megapixels" in refusal(torch.zeros(1, dtype=torch.uint8).expand(7000, 7000))
    assert MAX_PIXELS == 40_000_000


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_refused(bad):
    for shape in [(20, 30), (20, 30, 3), (20, 30, 4)]:
        values = np.zeros(shape, dtype=np.float32)
        values.flat[-1] = bad
        assert "the array holds NaN or infinite values" in refusal(values)
        assert "the tensor holds NaN or infinite values" in refusal(torch.tensor(values))
    values = np.zeros((20, 30), dtype=np.float32)
    values[3, 4] = bad
    assert "NaN or infinite" in refusal(encoded(values, "TIFF"))


@pytest.mark.parametrize("shape", [(20,), (20, 30, 2), (20, 30, 5), (1, 3, 20, 30), (2, 20, 30), (0, 30), ()])
def test_arrays_of_wrong_shape_are_refused(shape):
    for source in (np.zeros(shape), torch.zeros(shape)):
        assert f"has shape {shape}, expected (height, width)" in refusal(source)


def test_sources_of_wrong_type_are_refused():
    assert "not nothing (None)" in refusal(None)
    assert "not a list" in refusal([[1, 2], [3, 4]])
    assert "complex128" in refusal(np.zeros((20, 30), dtype=complex))
    assert "expected uint8" in refusal(np.full((20, 30), "a"))


# ------------------------------------------------------------------------------------------ preprocessing


CONFIG = {
    "input_size": [3, 32, 48],
    "interpolation": "bicubic",
    "crop_pct": 0.9,
    "crop_mode": "border",
    "mean": [0.5, 0.4, 0.3],
    "std": [0.2, 0.25, 0.3],
}


@pytest.mark.parametrize("crop_mode", ["center", "squash", "border"])
def test_tensor_equals_timms_evaluation_transform_bit_for_bit(crop_mode):
    config = {**CONFIG, "crop_mode": crop_mode}
    photo = open_image(np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8))
    transform: Any = create_transform(**{**config, "input_size": (3, 32, 48)})
    expected = transform(photo)
    tensor = TimmPreprocessing.from_config(config).tensor(photo)
    assert tensor.shape == (1, 3, 32, 48)
    assert torch.equal(tensor[0], expected)


def test_config_survives_a_round_trip():
    way = TimmPreprocessing.from_config(CONFIG)
    assert way.to_config() == CONFIG
    assert TimmPreprocessing.from_config(way.to_config()) == way
    assert hash(way) == hash(TimmPreprocessing.from_config({**CONFIG, "input_size": (32, 48)}))


def test_missing_config_keys_get_timms_defaults():
    assert TimmPreprocessing.from_config({}).to_config() == {
        "input_size": [3, 224, 224],
        "interpolation": "bicubic",
        "crop_pct": 0.875,
        "crop_mode": "center",
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
    }
    assert TimmPreprocessing.from_config({"crop_pct": None, "mean": [0.5], "std": (0.5,)}).mean == (0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"input_size": [1, 28, 28]}, "input_size"),
        ({"input_size": 224}, "cannot be read"),
        ({"input_size": [3, 0, 28]}, "positive"),
        ({"crop_mode": "centre"}, "crop_mode is 'centre', expected one of center, squash, border"),
        ({"interpolation": "cubic"}, "expected one of nearest"),
        ({"crop_pct": "most"}, "cannot be read"),
        ({"crop_pct": -1}, "positive"),
        ({"mean": [0.5, 0.5]}, "three numbers"),
        ({"std": [0.5, 0.5, 0]}, "std above 0"),
    ],
)
def test_invalid_config_is_refused(change, message):
    with pytest.raises(ModelError, match=message):
        TimmPreprocessing.from_config({**CONFIG, **change})


def test_denormalise_inverts_normalisation():
    way = TimmPreprocessing.from_config({**CONFIG, "input_size": [3, 20, 30], "crop_pct": 1.0})
    photo = open_image(RAMP)
    tensor = way.tensor(photo)
    np.testing.assert_array_equal(np.asarray(way.denormalise(tensor)), RAMP)
    np.testing.assert_array_equal(np.asarray(way.denormalise(tensor[0].requires_grad_())), RAMP)


def test_too_thin_photo_and_unopened_image_are_refused():
    way = TimmPreprocessing.from_config({**CONFIG, "input_size": [3, 16, 16], "crop_pct": 1.0})
    with pytest.raises(ImageError, match="too long and thin"):
        way.tensor(open_image(np.zeros((10, 500), dtype=np.uint8)))
    with pytest.raises(ImageError, match="mode L"):
        way.tensor(Image.new("L", (20, 20)))


def test_transform_is_built_once():
    way = TimmPreprocessing.from_config(CONFIG)
    photo = open_image(RAMP)
    way.tensor(photo)
    built = way._transform
    way.tensor(photo)
    assert way._transform is built
