"""Photos in formats that Pillow does not write, byte by byte from their specifications."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

# PNG, section 8.2: first row, first column, row step and column step of the seven passes of an interlaced image.
ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))


def make_png(values: np.ndarray, *, chunks: bytes = b"", interlaced: bool = False) -> bytes:
    """Return a PNG of 16 bits from values (H, W, 1 to 4)."""
    height, width, count = values.shape
    passes = ADAM7 if interlaced else ((0, 0, 1, 1),)
    rows = [row for y, x, dy, dx in passes for row in values[y::dy, x::dx] if len(row)]
    data = zlib.compress(b"".join(b"\0" + row.astype(">u2").tobytes() for row in rows))
    header = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[count], 0, 0, interlaced)
    signature = b"\x89PNG\r\n\x1a\n"
    return signature + make_chunk(b"IHDR", header) + chunks + make_chunk(b"IDAT", data) + make_chunk(b"IEND", b"")


def make_chunk(kind: bytes, data: bytes) -> bytes:
    """Return a chunk of a PNG file."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def make_tiff(
    values: np.ndarray,
    photometric: int,
    *,
    bits: int | None = None,
    extra: Sequence[int] = (),
    planar: bool = False,
    order: str = "<",
    deflated: bool = False,
    tags: Mapping[int, tuple[str, Any]] | None = None,
) -> bytes:
    """Return a TIFF of one strip, or of one per band, from values (H, W, bands).

    Args:
        values: Unsigned, signed, float or complex numbers.
        photometric: Number of the photometric interpretation.
        bits: Bits of each unsigned value; by default those of the array.
        extra: Meanings of the bands after the colours.
        planar: Write one band after another.
        order: `"<"` or `">"`.
        deflated: Compress with zlib.
        tags: Further tags: number -> letter of `struct` and values.
    """
    height, width, count = values.shape
    bits = 8 * values.dtype.itemsize if bits is None else bits
    planes = [values[..., i : i + 1] for i in range(count)] if planar else [values]
    strips = [_pack(plane, bits, order) for plane in planes]
    strips = [zlib.compress(strip) for strip in strips] if deflated else strips
    kind = {"u": 1, "i": 2, "f": 3, "c": 6}[values.dtype.kind]
    entries: dict[int, tuple[str, Sequence[Any]]] = {
        256: ("I", [width]),
        257: ("I", [height]),
        258: ("H", [bits] * count),
        259: ("H", [8 if deflated else 1]),
        262: ("H", [photometric]),
        273: ("I", [8 + sum(map(len, strips[:i])) for i in range(len(strips))]),
        277: ("H", [count]),
        278: ("I", [height]),
        279: ("I", [len(strip) for strip in strips]),
        284: ("H", [2 if planar else 1]),
        339: ("H", [kind] * count),
        **({338: ("H", list(extra))} if extra else {}),
        **(tags or {}),
    }
    body = b"".join(strips)
    body += b"\0" * (len(body) % 2)
    start = 8 + len(body)
    beside_at = start + 2 + 12 * len(entries) + 4
    directory, beside = struct.pack(f"{order}H", len(entries)), b""
    for number, (letter, items) in sorted(entries.items()):
        if letter == "s":
            raw, length = bytes(items) + b"\0", len(items) + 1
        else:
            raw, length = struct.pack(f"{order}{len(items)}{letter}", *items), len(items)
        kind_number = {"s": 2, "B": 1, "H": 3, "I": 4}[letter]
        directory += struct.pack(f"{order}HHI", number, kind_number, length)
        if len(raw) > 4:
            directory += struct.pack(f"{order}I", beside_at + len(beside))
            beside += raw + b"\0" * (len(raw) % 2)
        else:
            directory += raw.ljust(4, b"\0")
    head = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(f"{order}I", start)
    return head + body + directory + b"\0" * 4 + beside


def _pack(plane: np.ndarray, bits: int, order: str) -> bytes:
    """Return the bytes of a strip; numbers that are no whole bytes follow each other bit by bit, each row padded."""
    if bits == 8 * plane.dtype.itemsize:
        return plane.astype(plane.dtype.newbyteorder("<" if order == "<" else ">")).tobytes()
    rows = []
    for row in plane.reshape(len(plane), -1):
        text = "".join(f"{int(value):0{bits}b}" for value in row)
        text += "0" * (-len(text) % 8)
        rows.append(bytes(int(text[i : i + 8], 2) for i in range(0, len(text), 8)))
    return b"".join(rows)
