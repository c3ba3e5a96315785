"""Read the TIFF photos that Pillow reads wrongly or not at all: several bands, planes, deep and float colours."""

from __future__ import annotations

import contextlib
import zlib
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from vizlib.core.decoding.limits import FORMAT_NAMES, MAX_DECODED_MB, check_size
from vizlib.core.decoding.optional_codecs import has_codecs, missing_codec_error
from vizlib.core.decoding.tiff_colors import (
    BLACK_IS_ZERO,
    NO_DATA_TAG,
    PREMULTIPLIED,
    RGB,
    UNSIGNED,
    assign_bands,
    draw_bands,
)
from vizlib.core.errors import ImageError
from vizlib.core.text import Note, make_note

TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
SIGNED, FLOAT = 2, 3  # of the tag SampleFormat; UNSIGNED is 1
# One grey band of these kinds is read by Pillow as it is.
PILLOW_GREY_KINDS = ((16, UNSIGNED), (16, SIGNED), (32, SIGNED), (32, FLOAT))
ORIENTATION, SUB_IFDS, DNG_VERSION = 274, 330, 50706  # numbers of tags
RAW_PHOTOMETRICS = (32803, 34892)  # values of a camera's sensor (DNG 1.7)
REDUCED, MASK = 1, 4  # bits of the tag NewSubfileType
UNCOMPRESSED, DEFLATE = 1, (8, 32946)
# LZW, PackBits, LZMA and Zstandard too: codecs that write no more than a strip or tile holds. The data of others, such
# as JPEG 2000, have a size of their own, so that a small file could take any memory.
BOUNDED_CODECS = (UNCOMPRESSED, *DEFLATE, 5, 32773, 34925, 50000)
MAX_SEGMENTS = 100_000  # strips or tiles; more take minutes
MAX_CHECKED_PAGES = 8
INFLATED_BLOCK_BYTES = 1 << 20


class TiffReading(NamedTuple):
    """What was read of a TIFF photo.

    Attributes:
        image: The photo, not upright yet; `None` where Pillow reads it as it is.
        notes: What holds of the photo if Pillow reads it.
    """

    image: Image.Image | None
    notes: tuple[Note, ...] = ()


def read_tiff(file: Any, name: str, *, always: bool = False) -> TiffReading:
    """Return the photo on the first page of a TIFF file, unless Pillow reads it as it is.

    Args:
        file: The file.
        name: What error messages call it.
        always: Read it even if it is of a kind that Pillow reads.

    Raises:
        ImageError: For a size out of bounds, values that have no colours, a missing codec, or a damaged file.
    """
    import tifffile  # takes a third of a second

    with contextlib.ExitStack() as stack:
        file.seek(0)  # from where offsets are counted
        try:
            tiff = stack.enter_context(tifffile.TiffFile(file))
            page: Any = tiff.pages.first
            is_raw, several = _is_raw(page), _has_further_pages(tiff) or page.imagedepth > 1
            bands, is_plain = assign_bands(page), _pillow_is_faithful(page)
        except Exception:  # the reader raises any exception on a damaged file, about which Pillow has the last word
            return TiffReading(None)
        if is_raw:
            raise ImageError(make_note("image.raw", file=name, format="TIFF", formats=FORMAT_NAMES))
        notes = (make_note("image.pages", frame=1),) if several else ()
        if is_plain and not always:
            return TiffReading(None, notes + bands.notes)
        values = _read_values(page, file, name)
        image = draw_bands(page, values, bands, _list_bits(page)[0], name)
        image.info["notes"] = notes + image.info["notes"]
        if (orientation := page.tags.valueof(ORIENTATION)) is not None:
            image.getexif()[ORIENTATION] = orientation
        return TiffReading(image)


def _list_bits(page: Any) -> tuple[int, ...]:
    """Return the bits of each band of a TIFF photo, or of all."""
    bits = page.bitspersample
    return tuple(bits) if isinstance(bits, tuple) else (int(bits),)


def _has_further_pages(tiff: Any) -> bool:
    """Return whether a TIFF file has pages that are neither smaller copies nor masks of its first photo."""
    for index in range(1, MAX_CHECKED_PAGES):
        try:
            page = tiff.pages[index]
        except Exception:  # there is no such page, or it is damaged
            return False
        if not page.subfiletype & (REDUCED | MASK):
            return True
    return False


def _is_raw(page: Any) -> bool:
    """Return whether a TIFF file is a camera's raw file, whose first page is a small preview of the photo."""
    is_preview = bool(page.subfiletype & REDUCED) and SUB_IFDS in page.tags
    return is_preview or DNG_VERSION in page.tags or page.photometric in RAW_PHOTOMETRICS


def _pillow_is_faithful(page: Any) -> bool:
    """Return whether Pillow reads a TIFF photo as it is, colours of 16 bits by `deep_files`, or refuses it."""
    bits, *others = _list_bits(page)
    if page.imagedepth > 1 or page.samplesperpixel > 4 or any(other != bits for other in others):
        return False
    if bits <= 8:
        return page.sampleformat == UNSIGNED
    if page.planarconfig != 1 or NO_DATA_TAG in page.tags:
        return False
    if page.samplesperpixel == 1:
        return page.photometric == BLACK_IS_ZERO and (bits, page.sampleformat) in PILLOW_GREY_KINDS
    is_rgb = page.photometric == RGB and PREMULTIPLIED not in page.extrasamples
    return is_rgb and (bits, page.sampleformat) == (16, UNSIGNED)


def _read_values(page: Any, file: Any, name: str) -> np.ndarray:
    """Return the values (H, W, bands) of a page of a TIFF photo, after checking that they fit into memory."""
    check_size(page.imagewidth, page.imagelength, name)
    bits, *others = _list_bits(page)
    bands = assign_bands(page)
    if page.dtype is None or page.dtype.kind not in "buif" or any(other != bits for other in others) or not bands.shown:
        raise ImageError(_explain_unsupported(page, name))
    if page.compression not in BOUNDED_CODECS:
        raise ImageError(_explain_unsupported(page, name))
    value_bytes = bands.count * page.dtype.itemsize
    page_bytes = page.imagewidth * page.imagelength * page.imagedepth * value_bytes
    segment_bytes = page.tilewidth * page.tilelength * page.tiledepth * value_bytes if page.is_tiled else page_bytes
    if max(page_bytes, segment_bytes) > MAX_DECODED_MB * 1e6:
        facts = {"bands": bands.count, "bits": bits, "megabytes": f"{max(page_bytes, segment_bytes) / 1e6:,.0f}"}
        raise ImageError(make_note("image.too-deep", file=name, limit=MAX_DECODED_MB, **facts))
    if not has_codecs() and not (page.compression in (UNCOMPRESSED, *DEFLATE) and bits in (1, 8, 16, 32, 64)):
        raise missing_codec_error(name, bits, page.compression.name)
    try:
        if not 0 < len(page.dataoffsets) == len(page.databytecounts) <= MAX_SEGMENTS:
            raise ValueError("the table of strips or tiles is damaged")
        if not has_codecs() and page.compression in DEFLATE:
            _check_inflated_bytes(page, file, segment_bytes)
        values = page.asarray(maxworkers=1)
        if page.planarconfig == 2 and bands.count > 1:
            values = np.moveaxis(values, 0, -1)
        return values.reshape(-1, page.imagelength, page.imagewidth, bands.count)[0]  # of a volume the first slice
    except Exception:  # a damaged file makes its reader raise any exception
        raise ImageError(make_note("image.incomplete", file=name, started="starts as TIFF but ")) from None


def _check_inflated_bytes(page: Any, file: Any, limit: int) -> None:
    """Raise a `ValueError` if a strip of a TIFF photo holds more than it may, as Python's own codec has no limit."""
    for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
        file.seek(offset)
        inflater, left, data = zlib.decompressobj(), limit, file.read(count)
        while data and not inflater.eof:
            left -= len(inflater.decompress(data, INFLATED_BLOCK_BYTES))
            if left < 0:
                raise ValueError("more data than pixels")
            data = inflater.unconsumed_tail


def _explain_unsupported(page: Any, name: str) -> Note:
    """Return the error message for a TIFF photo of values that are no colours, or of a compression that is not read."""
    bits = ", ".join(map(str, _list_bits(page)))
    numbers = "complex numbers" if page.dtype is not None and page.dtype.kind == "c" else "numbers"
    facts = {"bands": page.samplesperpixel, "numbers": f"{bits}-bit {numbers}"}
    for fact in ("photometric", "compression"):
        value = getattr(page, fact)
        facts[fact] = getattr(value, "name", str(value))
    return make_note("image.unsupported-tiff", file=name, **facts)
