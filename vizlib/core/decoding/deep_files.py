"""Read all bits of the PNG, TIFF, PPM and JPEG 2000 colours of which Pillow keeps the highest eight."""

from __future__ import annotations

import struct
import sys
from typing import Any, NamedTuple, cast

import numpy as np
from PIL import Image, ImageFile

from vizlib.core.decoding.optional_codecs import has_codecs, missing_codec_error

WHITE_OF_16_BITS = 65535
BITS_PER_SAMPLE = 258  # tag of TIFF
HEADER_BYTES = 1 << 16  # of a JPEG 2000 file, in which its bit depth is looked for
YCC_COLORS = b"colr\1\0\0\0\0\0\x12"  # box of a JPEG 2000 file


class DeepValues(NamedTuple):
    """The pixel values of a file with more than 8 bits.

    Attributes:
        colors: Of shape (H, W) or (H, W, 3).
        alpha: Of shape (H, W), in the range of `colors`; `None` for an opaque photo.
        white: The largest number of the format.
    """

    colors: np.ndarray
    alpha: np.ndarray | None
    white: int


def read_deep_values(image: ImageFile.ImageFile, file: Any, name: str) -> DeepValues | None:
    """Return the pixel values of a photo of which Pillow would keep the highest eight bits.

    Args:
        image: The image that Pillow opened from the file, not decoded yet.
        file: The file; it is read from its start.
        name: What error messages call it.

    Returns:
        The values; `None` for a photo that Pillow reads as it is.

    Raises:
        ImageError: For a codec that is not installed.
        Exception: Any, for a damaged file.
    """
    if image.format == "JPEG2000":
        return _read_jpeg_2000(image, file, name)
    codec, offset, args = "", 0, cast(Any, ())
    if image.tile:
        codec, offset, args = image.tile[0].codec_name, image.tile[0].offset, cast(Any, image.tile[0].args)
    if codec in ("ppm", "ppm_plain") and args[1] > 255:
        return _read_ppm(image, file, offset, args[1], plain=codec == "ppm_plain")
    raw_mode = _raw_mode(args)
    kind = raw_mode.partition(";16")[0]
    if image.format == "PNG" and raw_mode == "I;16B" and "transparency" in image.info:
        values = np.array(image).astype(np.uint16)
        return DeepValues(values, _opaque_where(values != image.info["transparency"]), WHITE_OF_16_BITS)
    if image.format not in ("PNG", "TIFF") or ";16" not in raw_mode or kind not in ("LA", "RGB", "RGBA", "RGBX"):
        return None
    if kind == "LA":  # two numbers of two bytes a pixel are decoded as four bytes
        pairs = _decode_as(file, image, "RGBA").astype(np.uint16)
        return DeepValues(pairs[..., 0] << 8 | pairs[..., 1], pairs[..., 2] << 8 | pairs[..., 3], WHITE_OF_16_BITS)
    values = np.asarray(image).astype(np.uint16) << 8 | _decode_as(file, image, _swap_bytes(raw_mode))
    alpha = values[..., 3] if kind == "RGBA" else None
    if image.format == "PNG" and "transparency" in image.info:
        alpha = _opaque_where((values[..., :3] != image.info["transparency"]).any(-1))
    return DeepValues(values[..., :3], alpha, WHITE_OF_16_BITS)


def find_lost_bits(image: Image.Image) -> int | None:
    """Return the bits per value of a decoded photo of which Pillow has kept the highest eight, where they are known."""
    bits = max(getattr(image, "tag_v2", {}).get(BITS_PER_SAMPLE) or (0,))
    is_reduced = image.mode not in ("I", "F") and not image.mode.startswith("I;16")
    return bits if bits > 8 and is_reduced else None


def _read_jpeg_2000(image: Image.Image, file: Any, name: str) -> DeepValues | None:
    """Return the values of a deep JPEG 2000 photo in colours, which Pillow rounds so that white becomes black."""
    file.seek(0)
    data = file.read()
    start = data.find(b"\xff\x4f\xff\x51", 0, HEADER_BYTES)  # the codestream begins with its size segment
    bits = (data[start + 42] & 0x7F) + 1 if start >= 0 else 8
    if bits <= 8 or image.mode not in ("LA", "RGB", "RGBA"):
        return None
    if not has_codecs():
        raise missing_codec_error(name, bits, "JPEG 2000")
    import imagecodecs

    right, bottom, left, top = struct.unpack_from(">4I", data, start + 8)
    if (right - left, bottom - top) != image.size or data.find(YCC_COLORS, 0, start) >= 0:
        raise ValueError("another size than its header states, or YCC colours")
    values = imagecodecs.jpeg2k_decode(data[start:])  # only what was checked: another codestream may have any size
    if values.shape != (image.height, image.width, len(image.getbands())):
        raise ValueError("its components have different sizes")
    count = values.shape[2] - (image.mode != "RGB")
    colors = values[..., 0] if count == 1 else values[..., :3]
    return DeepValues(colors, None if image.mode == "RGB" else values[..., count], (1 << bits) - 1)


def _read_ppm(image: Image.Image, file: Any, offset: int, white: int, *, plain: bool) -> DeepValues:
    """Return the values of a deep PPM or PGM photo, as large as its header says."""
    bands = 1 if image.mode == "I" else 3
    count = image.width * image.height * bands
    file.seek(offset)
    if plain:
        text = b"\n".join(line.partition(b"#")[0] for line in file.read().splitlines())
        values = np.fromstring(text, dtype=np.int64, count=count, sep=" ")
    else:
        values = np.frombuffer(file.read(2 * count), dtype=">u2").astype(np.int64)
    if len(values) < count or values.min() < 0 or values.max() > white:
        raise ValueError("values are missing or out of range")
    shape = (image.height, image.width) if bands == 1 else (image.height, image.width, 3)
    return DeepValues(values.astype(np.uint16).reshape(shape), None, white)


def _decode_as(file: Any, image: ImageFile.ImageFile, raw_mode: str) -> np.ndarray:
    """Decode a PNG or TIFF photo again, with its bytes assigned to the bands by another raw mode of Pillow."""
    file.seek(0)
    again = Image.open(file, formats=[image.format or ""])
    again.tile = [tile._replace(args=_with_raw_mode(tile.args, raw_mode)) for tile in again.tile]
    return np.asarray(again)


def _raw_mode(args: Any) -> str:
    """Return how the bytes of a PNG or TIFF photo are assigned to its bands."""
    first = args if isinstance(args, str) else args[0] if args else ""
    return first if isinstance(first, str) else ""


def _with_raw_mode(args: Any, raw_mode: str) -> Any:
    """Return the arguments of the decoder of a PNG or TIFF photo with another raw mode."""
    return raw_mode if isinstance(args, str) else (raw_mode, *args[1:])


def _swap_bytes(raw_mode: str) -> str:
    """Return the raw mode in which Pillow keeps the other byte of each 16-bit number of a photo."""
    kind, _, order = raw_mode.partition(";16")
    is_little_endian = order == "L" or (order == "N" and sys.byteorder == "little")
    return f"{kind};16{'B' if is_little_endian else 'L'}"


def _opaque_where(mask: np.ndarray) -> np.ndarray:
    """Return the alpha of a 16-bit photo that is opaque where a mask is true and transparent elsewhere."""
    return mask.astype(np.uint16) * WHITE_OF_16_BITS
