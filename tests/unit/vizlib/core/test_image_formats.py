"""Photos that Pillow reads wrongly, or not at all: the values of the file, or one sentence about what it is."""

from __future__ import annotations

import base64
import gzip
import io
import re
import struct
import sys
import zlib
from pathlib import Path

import imagecodecs
import numpy as np
import pillow_heif
import pytest
import tifffile
from image_files import make_chunk, make_png, make_tiff
from PIL import Image

from vizlib.core.decoding import deep_files, tiff_files
from vizlib.core.errors import ImageError
from vizlib.core.images import open_image

COLORS = np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype(np.uint8)
COLORS[0, 0], COLORS[0, 1] = 0, 255  # both ends occur, so that a scaling by the range gives the same 8 bits again
GREY = COLORS[..., :1]
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB = 0, 1, 2
UNSPECIFIED, PREMULTIPLIED, UNASSOCIATED = 0, 1, 2
GUESSED = "shown as red, green and blue; the file states no colours"


def pixels(source) -> np.ndarray:
    return np.asarray(open_image(source))


def notes(source) -> str:
    return " ".join(open_image(source).info["notes"])


def refusal(source) -> str:
    with pytest.raises(ImageError) as error:
        open_image(source)
    message = str(error.value)
    assert "\n" not in message
    assert "/" not in message
    return message


def rescale(values, low: float, high: float) -> np.ndarray:
    """Return values scaled one by one from `low` (0) to `high` (255), grey ones as three equal colours."""
    height, width, count = values.shape
    result = np.zeros((height, width, 3), np.uint8)
    for y in range(height):
        for x in range(width):
            for band in range(3):
                value = float(values[y, x, band if count == 3 else 0])
                result[y, x, band] = round(min(max((value - low) / (high - low), 0.0), 1.0) * 255)
    return result


def write(values, **options) -> bytes:
    """Return a TIFF written by tifffile, for its compressions and its tiles."""
    file = io.BytesIO()
    tifffile.imwrite(file, values, **options)
    return file.getvalue()


# ---------------------------------------------------------------------------------------------- deep colours

TWELVE = COLORS.astype(np.uint16) * 16  # 0 to 4080: a camera's 12 bits in 16
TWELVE_BIT_FILES = {
    "PNG": make_png(TWELVE),
    "interlaced PNG": make_png(TWELVE, interlaced=True),
    "opaque RGBA PNG": make_png(np.dstack([TWELVE, np.full((20, 30), 65535, np.uint16)])),
    "TIFF": make_tiff(TWELVE, RGB),
    "big-endian TIFF": make_tiff(TWELVE, RGB, order=">"),
    "deflated TIFF": make_tiff(TWELVE, RGB, deflated=True),
    "planar TIFF": make_tiff(TWELVE, RGB, planar=True),
    "planar deflated TIFF": make_tiff(TWELVE, RGB, planar=True, deflated=True, order=">"),
    "LZW TIFF with predictor": write(TWELVE, photometric="rgb", compression="lzw", predictor=True),
    "planar LZW TIFF": write(TWELVE.transpose(2, 0, 1), photometric="rgb", planarconfig="separate", compression="lzw"),
    "tiled Zstandard TIFF": write(TWELVE, photometric="rgb", tile=(16, 16), compression="zstd"),
    "BigTIFF": write(TWELVE, photometric="rgb", bigtiff=True),
    "TIFF with opaque alpha": make_tiff(
        np.dstack([TWELVE, np.full((20, 30), 65535, np.uint16)]), RGB, extra=[UNASSOCIATED]
    ),
    "PPM": b"P6 30 20 65535\n" + TWELVE.astype(">u2").tobytes(),
    "plain PPM": b"P3 # a comment\n30 20\n65535\n" + " ".join(map(str, TWELVE.ravel())).encode() + b" # the end\n",
    "32-bit TIFF": make_tiff(TWELVE.astype(np.uint32) << 16, RGB, deflated=True),
}


@pytest.mark.parametrize("kind", TWELVE_BIT_FILES)
def test_colours_that_use_a_part_of_their_bits_are_scaled_with_a_note(kind):
    data = TWELVE_BIT_FILES[kind]
    np.testing.assert_array_equal(pixels(data), COLORS)
    bits, high = (32, "2.67387e+08") if kind == "32-bit TIFF" else (16, "4080")
    assert notes(data) == f"Its {bits}-bit values from 0 (now black) to {high} (now white) were scaled to 8 bits."


def test_colours_that_use_all_bits_keep_their_range():
    values = np.random.default_rng(1).integers(9_000, 40_000, (20, 30, 3)).astype(np.uint16)
    sources = [make_png(values), make_tiff(values, RGB), make_tiff(values, RGB, planar=True), values]
    sources += [b"P6\n30 20\n65535\n" + values.astype(">u2").tobytes()]
    for source in sources:
        np.testing.assert_array_equal(pixels(source), rescale(values, 0, 65535))
        assert "from 0 (now black) to 65535 (now white)" in notes(source)
    darker = b"P6\n30 20\n50000\n" + values.astype(">u2").tobytes()  # white is the number that the file declares
    np.testing.assert_array_equal(pixels(darker), rescale(values, 0, 50_000))


@pytest.mark.parametrize("bits", [9, 10, 12, 14])
@pytest.mark.parametrize("count", [1, 3])
def test_packed_bits_of_a_tiff_are_read(bits, count):
    values = np.random.default_rng(bits).integers(0, 1 << bits, (20, 30, count)).astype(np.uint16)
    values[0, 0], values[0, 1] = 0, (1 << bits) - 1
    photometric = RGB if count == 3 else BLACK_IS_ZERO
    for order in "<>":
        data = make_tiff(values, photometric, bits=bits, order=order)
        np.testing.assert_array_equal(pixels(data), rescale(values, 0, (1 << bits) - 1))
        assert f"to {(1 << bits) - 1} (now white)" in notes(data)


def test_deep_grey_with_alpha_and_with_a_transparent_number():
    grey = np.full((20, 30, 1), 900, np.uint16)
    grey[:10] = 100
    alpha = np.full((20, 30, 1), 65535, np.uint16)
    alpha[:, :5] = 0
    expected = np.zeros((20, 30, 3), np.uint8)
    expected[10:] = 255
    hidden = expected.copy()
    hidden[:, :5] = 255
    for data in (make_png(np.dstack([grey, alpha])), make_tiff(np.dstack([grey, alpha]), 1, extra=[UNASSOCIATED])):
        np.testing.assert_array_equal(pixels(data), hidden)
        assert "transparent" in notes(data)
    keyed = make_png(grey, chunks=make_chunk(b"tRNS", struct.pack(">H", 100)))
    assert (pixels(keyed) == 255).all()
    colors = np.dstack([grey, grey + 50, grey])
    keyed = make_png(colors, chunks=make_chunk(b"tRNS", struct.pack(">HHH", 100, 150, 100)))
    assert (pixels(keyed)[:10] == 255).all()
    np.testing.assert_array_equal(pixels(keyed)[10:], rescale(colors, 100, 950)[10:])


def test_premultiplied_alpha_of_a_tiff_is_undone():
    colors = np.random.default_rng(2).integers(0, 60_001, (20, 30, 3)).astype(np.float64)
    colors[0, 0] = 60_000
    alpha = np.random.default_rng(3).integers(0, 65_536, (20, 30, 1)).astype(np.float64)
    alpha[0, 0], alpha[0, 1] = 65_535, 0
    values = np.dstack([np.rint(colors * alpha / 65_535), alpha]).astype(np.uint16)
    share = alpha / 65_535
    expected = colors / 65_535 * 255 * share + 255 * (1 - share)
    np.testing.assert_allclose(pixels(make_tiff(values, RGB, extra=[PREMULTIPLIED])), expected, atol=2)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_of_deep_photos_is_applied(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    Image.fromarray(COLORS).save(file, "PNG", exif=exif)
    expected = pixels(file.getvalue())
    chunk = make_chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0"))
    np.testing.assert_array_equal(pixels(make_png(TWELVE, chunks=chunk)), expected)
    tags = {0x0112: ("H", [orientation])}
    for planar in (False, True):  # the one read by Pillow, which turns it itself, the other by tifffile
        np.testing.assert_array_equal(pixels(make_tiff(TWELVE, RGB, planar=planar, tags=tags)), expected)


def test_images_opened_but_not_decoded_by_pillow_are_read_from_their_file(tmp_path):
    for kind in ("PNG", "TIFF", "planar TIFF", "PPM"):
        path = tmp_path / "photo"
        path.write_bytes(TWELVE_BIT_FILES[kind])
        if kind != "planar TIFF":  # which Pillow cannot open
            with Image.open(path) as image:
                np.testing.assert_array_equal(pixels(image), COLORS)
                image.load()  # as if nobody had read its file meanwhile
        np.testing.assert_array_equal(pixels(path), COLORS)


def test_lost_bits_are_noted_where_they_can_be_known():
    with Image.open(io.BytesIO(TWELVE_BIT_FILES["TIFF"])) as image:
        image.load()
        assert notes(image) == "Only the highest 8 of the 16 bits of each of its values could be read."


@pytest.mark.parametrize("bits", [10, 12, 16])
def test_deep_colours_of_jpeg_2000_are_read(bits, monkeypatch):
    white = (1 << bits) - 1
    values = np.random.default_rng(bits).integers(0, white + 1, (20, 30, 4)).astype(np.uint16)
    values[0, 0] = white  # which Pillow rounds up to 256, and so to black
    alpha = values[..., 3:] / white
    options = {"reversible": True, "level": 0, "bitspersample": bits}
    for codec in ("jp2", "j2k"):
        data = imagecodecs.jpeg2k_encode(values[..., :3].copy(), codecformat=codec, **options)
        np.testing.assert_array_equal(pixels(data), rescale(values[..., :3], 0, white))
        assert f"{bits}-bit values from 0 (now black) to {white} (now white)" in notes(data)
        grey = imagecodecs.jpeg2k_encode(values[..., 0].copy(), codecformat=codec, **options)
        np.testing.assert_allclose(pixels(grey).astype(int), rescale(values[..., :1], 0, white), atol=1)
    for bands in ((0, 1, 2, 3), (0, 3)):
        with_alpha = imagecodecs.jpeg2k_encode(values[..., bands].copy(), codecformat="jp2", **options)
        expected = rescale(values[..., bands[:-1]], 0, white) * alpha + 255 * (1 - alpha)
        np.testing.assert_allclose(pixels(with_alpha), expected, atol=2)
    monkeypatch.setattr(deep_files, "has_codecs", lambda: False)
    assert f"{bits}-bit numbers with compression JPEG 2000, which are read only where imagecodecs" in refusal(data)
    assert notes(imagecodecs.jpeg2k_encode(COLORS, reversible=True, level=0, codecformat="jp2")) == ""


# ---------------------------------------------------------------------------------------------- kinds of TIFF


@pytest.mark.parametrize("dtype", ["u1", "u2", "u4", "f4", "f8", "i2"])
def test_white_is_zero_is_inverted(dtype):
    inverted = (255 - GREY.astype(np.int64)).astype(dtype)
    data = make_tiff(inverted / 255 if dtype[0] == "f" else inverted, WHITE_IS_ZERO)
    if dtype == "u2":  # 65,535 minus 0 to 255
        assert "from 65280 (now black) to 65535 (now white)" in notes(data)
    np.testing.assert_array_equal(pixels(data)[..., :1], GREY)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_few_bits_of_grey_are_spread_over_eight(bits):
    values = np.random.default_rng(bits).integers(0, 1 << bits, (20, 30, 1)).astype(np.uint8)
    for photometric in (WHITE_IS_ZERO, BLACK_IS_ZERO):
        shown = values if photometric == BLACK_IS_ZERO else (1 << bits) - 1 - values
        for order in "<>":
            data = make_tiff(values, photometric, bits=bits, order=order)
            np.testing.assert_array_equal(pixels(data), rescale(shown, 0, (1 << bits) - 1))


@pytest.mark.parametrize(
    "values",
    [
        GREY.astype(np.uint32) * 16_843_009,  # up to 2 ** 32 - 1: Pillow's numbers are signed
        GREY.astype(np.int8),
        GREY.astype(np.uint64) << 40,
        GREY.astype(np.int64) - (1 << 40),
        (GREY / 255).astype(np.float16),
        GREY / 255.0,
        GREY * 3.0 - 50,
        (COLORS / 255).astype(np.float32),
        COLORS * 40.0 - 3000,
        COLORS.astype(np.int16) - 300,
    ],
    ids=lambda values: f"{values.dtype}-{values.shape[2]}-{values.max():g}",
)
@pytest.mark.parametrize("deflated", [False, True])
def test_numbers_of_every_type_are_read(values, deflated):
    unit = values.dtype.kind == "f" and values.min() == 0 and values.max() == 1
    low, high = (0, 1) if unit else (float(values.min()), float(values.max()))
    for order in "<>":
        data = make_tiff(values, RGB if values.shape[2] == 3 else BLACK_IS_ZERO, order=order, deflated=deflated)
        np.testing.assert_allclose(pixels(data).astype(int), rescale(values, low, high), atol=0 if unit else 1)
        assert ("taken as 0 (black)" if unit else "were scaled to 8 bits") in notes(data)


@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("count", [3, 4, 5, 13])
def test_bands_without_colours_are_shown_as_colours_with_a_note(count, planar):
    bands = np.random.default_rng(count).integers(0, 256, (20, 30, count)).astype(np.uint8)
    data = make_tiff(bands, BLACK_IS_ZERO, extra=[UNSPECIFIED] * (count - 1), planar=planar)
    np.testing.assert_array_equal(pixels(data), bands[..., :3])
    assert notes(data) == f"Bands 1, 2 and 3 of its {count} are {GUESSED}."


def test_bands_that_are_left_out_are_noted():
    bands = np.random.default_rng(5).integers(0, 256, (20, 30, 5)).astype(np.uint8)
    for count in (4, 5):
        data = make_tiff(bands[..., :count], RGB, extra=[UNSPECIFIED] * (count - 3))
        np.testing.assert_array_equal(pixels(data), bands[..., :3])
        assert notes(data) == f"Of its {count} bands the last {count - 3} are not shown."
    data = make_tiff(bands[..., :2], BLACK_IS_ZERO, extra=[UNSPECIFIED])
    np.testing.assert_array_equal(pixels(data), np.dstack([bands[..., 0]] * 3))
    assert notes(data) == "Of its 2 bands the last 1 are not shown."


def test_pixels_without_data_are_white_and_set_no_range():
    values = np.full((20, 30, 1), 5.0, np.float32)
    values[10:] = 7
    values[:, :6] = -9999
    values[:, 6:9] = np.nan
    tags = {42113: ("s", b"-9999")}
    shown = pixels(make_tiff(values, BLACK_IS_ZERO, tags=tags))
    assert (shown[:, :9] == 255).all()
    assert (shown[:10, 9:] == 0).all()
    assert (shown[10:, 9:] == 255).all()
    assert "no data (30 % of its pixels) it is shown white" in notes(make_tiff(values, BLACK_IS_ZERO, tags=tags))
    assert "NaN" in refusal(make_tiff(values, BLACK_IS_ZERO))


def test_further_pages_are_noted_but_not_smaller_copies():
    stack = np.stack([TWELVE[..., i % 3] + i for i in range(5)])
    several = "Only image 1 of the several in its file is used."
    expected = pixels(write(stack[0]))
    for data in (write(stack, photometric="minisblack"), write(stack, imagej=True)):
        np.testing.assert_array_equal(pixels(data), expected)
        assert notes(data).startswith(several)
    volume = write(np.stack([GREY[..., 0]] * 5), photometric="minisblack", volumetric=True, tile=(16, 16, 16))
    np.testing.assert_array_equal(pixels(volume)[..., :1], GREY)
    assert notes(volume).startswith(several)
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        writer.write(TWELVE, photometric="rgb")
        writer.write(TWELVE[::2, ::2], photometric="rgb", subfiletype=1)
    assert several not in notes(file.getvalue())


def test_deep_printing_colours_are_converted_with_a_note():
    inks = np.zeros((20, 30, 4), np.uint16)
    inks[..., 1] = 65535
    for planar in (False, True):
        data = make_tiff(inks, 5, planar=planar)
        assert (pixels(data) == (255, 0, 255)).all()
        assert "CMYK" in notes(data)


UNREADABLE_TIFFS = {
    "complex": (make_tiff(GREY.astype(np.complex64), BLACK_IS_ZERO), "1 bands of 64-bit complex numbers"),
    "CIELAB": (make_tiff(TWELVE, 8), r"16-bit numbers \(CIELAB"),
    "sensor": (make_tiff(TWELVE[..., :1], 32803), "raw file of a camera"),
    "JPEG 2000": (write(TWELVE, photometric="rgb", compression="jpeg2000"), "compression JPEG2000"),
    "preview": (make_tiff(COLORS, RGB, tags={254: ("I", [1]), 330: ("I", [8])}), "raw file of a camera"),
    "DNG": (make_tiff(COLORS, RGB, tags={50706: ("B", [1, 4, 0, 0])}), "raw file of a camera"),
    "5-6-5": (make_tiff(COLORS, RGB, tags={258: ("H", [5, 6, 5])}), "5, 6, 5-bit numbers"),
    "cut": (make_tiff(TWELVE, RGB, planar=True)[:-900], "damaged"),
}


@pytest.mark.parametrize("kind", UNREADABLE_TIFFS)
def test_tiffs_that_are_not_read_say_what_they_hold(kind):
    data, what = UNREADABLE_TIFFS[kind]
    assert re.search(what, refusal(data))


@pytest.mark.parametrize("part", [0.05, 0.5, 0.9, 0.99])
def test_truncated_deep_files_are_refused_as_damaged(part):
    noise = np.random.default_rng(0).integers(0, 65536, (40, 60, 3)).astype(np.uint16)
    for data in (
        make_png(noise),
        b"P6 60 40 65535\n" + noise.astype(">u2").tobytes(),
        write(noise, photometric="rgb", metadata=None, rowsperstrip=8),
        write(noise.transpose(2, 0, 1), photometric="rgb", metadata=None, planarconfig="separate"),
        write(noise.astype(np.float64), photometric="rgb", metadata=None, compression="deflate", rowsperstrip=8),
    ):
        assert "damaged or incomplete" in refusal(data[: int(len(data) * part)])


def test_tiff_that_takes_too_much_memory_is_refused_from_its_header():
    tags = {256: ("I", [6000]), 257: ("I", [6000])}
    data = make_tiff(np.zeros((8, 8, 40), np.uint16), BLACK_IS_ZERO, extra=[UNSPECIFIED] * 39, tags=tags)
    assert "40 bands of 16-bit numbers, 2,880 MB once decoded, expected at most 480 MB" in refusal(data)
    tile = {322: ("I", [1 << 15]), 323: ("I", [1 << 15]), 324: ("I", [8]), 325: ("I", [100])}
    assert "MB once decoded" in refusal(make_tiff(TWELVE, BLACK_IS_ZERO, extra=[0, 0], tags=tile))


def test_jpeg_2000_of_another_size_than_its_header_is_not_decoded(monkeypatch):
    data = imagecodecs.jpeg2k_encode(TWELVE.repeat(2, axis=0), codecformat="jp2", reversible=True, level=0)
    start = data.index(b"ihdr") + 4
    data = data[:start] + struct.pack(">II", 20, 30) + data[start + 8 :]
    monkeypatch.setattr(imagecodecs, "jpeg2k_decode", lambda *_: pytest.fail("more than the header states is decoded"))
    assert "damaged" in refusal(data)


def test_codecs_that_are_not_installed_are_named_and_python_decodes_within_bounds(monkeypatch):
    monkeypatch.setattr(tiff_files, "has_codecs", lambda: False)
    for data, what in (
        (TWELVE_BIT_FILES["planar LZW TIFF"], "16-bit numbers with compression LZW"),
        (make_tiff(TWELVE, RGB, bits=14), "14-bit numbers with compression NONE"),
    ):
        assert what in refusal(data)
        assert "pip install 'vizlib[images]'" in refusal(data)
    np.testing.assert_array_equal(pixels(TWELVE_BIT_FILES["planar deflated TIFF"]), COLORS)
    monkeypatch.setattr(tifffile.TiffPage, "asarray", lambda *_, **__: pytest.fail("more than the photo was inflated"))
    bomb = zlib.compress(bytes(5_000_000), 9)
    data = make_tiff(np.frombuffer(bomb, np.uint8).reshape(1, -1, 1), BLACK_IS_ZERO)  # its one strip is the bomb
    tags = {256: 30, 257: 20, 278: 20, 258: 64, 259: 8}
    assert "damaged" in refusal(_with_tags(data, tags))


def _with_tags(data: bytes, values: dict[int, int]) -> bytes:
    """Return a little-endian TIFF with other values of some tags."""
    changed = bytearray(data)
    start = struct.unpack_from("<I", data, 4)[0]
    for i in range(struct.unpack_from("<H", data, start)[0]):
        at = start + 2 + 12 * i
        number, kind = struct.unpack_from("<HH", data, at)
        if number in values:
            struct.pack_into("<I" if kind == 4 else "<H", changed, at + 8, values[number])
    return bytes(changed)


# ---------------------------------------------------------------------------------------------- told by name


def start_of(offset: int, text: bytes, filler: bytes = b"\0") -> bytes:
    return (filler * offset + text).ljust(600, b"\0")


def as_twelve_bit_jpeg() -> bytes:
    file = io.BytesIO()
    Image.fromarray(COLORS).save(file, "JPEG", exif=b"Exif\0\0" + bytes(20_000))
    data = file.getvalue()
    at = data.index(b"\xff\xc0") + 4
    return data[:at] + b"\x0c" + data[at + 1 :]


NAMED = {
    "DICOM": (start_of(128, b"DICM"), "DICOM format", "pydicom"),
    "FITS": (b"SIMPLE  =                    T / FITS".ljust(80) + b"BITPIX".ljust(500), "FITS format", "astropy"),
    "NIfTI": (start_of(344, b"n+1\0"), "NIfTI format", "nibabel"),
    "NIfTI in gzip": (gzip.compress(start_of(344, b"n+1\0")), "NIfTI format", "nibabel"),
    "HDF5": (start_of(0, b"\x89HDF\r\n\x1a\n"), "HDF5 format", "h5py"),
    "NumPy": (start_of(0, b"\x93NUMPY\x01\0"), "NumPy format", "numpy"),
    "Canon CR2": (b"II*\0\x10\0\0\0CR\x02\0" + bytes(600), "raw file of a camera", "Canon CR2"),
    "Canon CR3": (b"\0\0\0\x18ftypcrx " + bytes(600), "raw file of a camera", "Canon CR3"),
    "Fujifilm RAF": (start_of(0, b"FUJIFILMCCD-RAW 0201"), "raw file of a camera", "Fujifilm RAF"),
    "Photoshop": (start_of(0, b"8BPS\0\x01"), "Photoshop PSD format", "expected a photo"),
    "JPEG XL": (start_of(0, b"\0\0\0\x0cJXL \r\n"), "JPEG XL format", "expected a photo"),
    "OpenEXR": (start_of(0, b"\x76\x2f\x31\x01\x02"), "OpenEXR format", "expected a photo"),
    "Radiance": (b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 20 +X 30\n", "Radiance HDR format", "expected"),
    "Matroska": (start_of(0, b"\x1a\x45\xdf\xa3"), "video", "expected a photo"),
    "AVI": (b"RIFF\0\0\0\0AVI LIST" + bytes(600), "video", "expected a photo"),
    "ZIP": (start_of(0, b"PK\x03\x04"), "ZIP archive", "extract it first"),
    "gzip": (gzip.compress(b"text " * 200), "gzip archive", "extract it first"),
    "12-bit JPEG": (as_twelve_bit_jpeg(), "12-bit JPEG format", "expected a photo"),
}


@pytest.mark.parametrize("kind", NAMED)
def test_other_formats_are_told_by_their_name(kind):
    data, what, advice = NAMED[kind]
    assert what in refusal(data)
    assert advice in refusal(data)


def test_heic_photos_are_read_upright_and_named_where_the_reader_is_missing(monkeypatch, tmp_path):
    smooth = np.stack(np.broadcast_arrays(*np.ogrid[0:200:64j, 50:250:96j], 120), axis=-1).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "IMG_1.heic"
    pillow_heif.from_pillow(Image.fromarray(smooth)).save(path, quality=95, exif=exif.tobytes())
    difference = np.abs(pixels(path).astype(int) - np.rot90(smooth, -1))
    assert difference.mean() < 4
    assert "damaged" in refusal(path.read_bytes()[:200])
    file = pillow_heif.from_pillow(Image.fromarray(smooth))
    file.add_from_pillow(Image.fromarray(smooth))
    file.save(path, quality=95)
    assert notes(path) == "Only image 1 of the several in its file is used."
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    monkeypatch.delitem(Image.OPEN, "HEIF")
    assert refusal(path).startswith("'IMG_1.heic' is a HEIC photo, which is read only where pillow-heif is installed")
    assert "pip install 'vizlib[images]'" in refusal(path)


def test_avif_is_named_where_pillow_does_not_read_it(monkeypatch):
    file = io.BytesIO()
    Image.fromarray(COLORS).save(file, "AVIF")
    assert pixels(file.getvalue()).shape == (20, 30, 3)
    monkeypatch.delitem(Image.OPEN, "AVIF")
    assert "is an AVIF photo, which this Pillow does not read" in refusal(file.getvalue())


def test_addresses_are_told_as_addresses_and_the_home_folder_is_found(tmp_path, monkeypatch):
    for address in ("https://example.org/cats/1.jpg", Path("https://example.org/cats/1.jpg"), "s3://bucket/1.jpg"):
        assert re.search(r"^'1.jpg' is an address \((https|s3)\), expected a photo", refusal(address))
    data = "data:image/png;base64," + base64.b64encode(make_png(TWELVE)).decode()
    assert refusal(data).startswith("the text is a data URL, expected a photo")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    (tmp_path / "photo.png").write_bytes(make_png(TWELVE))
    np.testing.assert_array_equal(pixels("~/photo.png"), COLORS)
    assert "there is no file 'other.png'" in refusal("~/other.png")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "~").mkdir()
    (tmp_path / "~" / "photo.png").write_bytes(make_png(TWELVE[::-1].copy()))
    np.testing.assert_array_equal(pixels("~/photo.png"), COLORS[::-1])  # a folder of that name comes first


def test_premultiplied_modes_of_pillow_are_converted():
    grey = Image.fromarray(GREY[..., 0])
    faint = Image.merge("LA", [grey, Image.new("L", grey.size, 0)])
    opaque = Image.merge("LA", [grey, Image.new("L", grey.size, 255)])
    assert (pixels(faint.convert("La")) == 255).all()
    np.testing.assert_array_equal(pixels(opaque.convert("La")), np.dstack([GREY] * 3))
    color = Image.fromarray(COLORS).convert("RGBA").convert("RGBa")
    np.testing.assert_array_equal(pixels(color), COLORS)


def test_readers_print_nothing(capfd):
    bands = np.zeros((20, 30, 8), np.uint8)
    open_image(make_tiff(bands, BLACK_IS_ZERO, extra=[UNSPECIFIED] * 7))
    for data in (make_tiff(bands, 8), make_tiff(bands, RGB, extra=[0] * 5)[:-300], make_tiff(TWELVE, RGB)[:-40]):
        refusal(data)
    assert capfd.readouterr() == ("", "")
