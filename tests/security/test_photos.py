"""Photos that are too large, of unusual formats or invalid: handled as in Python, or refused in one sentence."""

from __future__ import annotations

import base64
import io
import struct
import zlib

import numpy as np
import pytest
from http_timeouts import get, post
from image_files import make_png, make_tiff
from PIL import Image

import vizlib

RESNET = "resnet18-imagenette"
MEGABYTE = 1_000_000


def encode(image: Image.Image, kind: str, **more) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **more)
    return file.getvalue()


def make_bomb(side: int) -> bytes:
    """Return a small PNG of a black RGB picture of side × side pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    compressor, row = zlib.compressobj(9), bytes(1 + 3 * side)
    data = b"".join(compressor.compress(row) for _ in range(side)) + compressor.flush()
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def is_plain(sentence: object) -> bool:
    """Return whether an error is one sentence without a path or a traceback."""
    text = str(sentence)
    return (
        bool(text)
        and text.endswith(".")
        and not any(bad in text for bad in ("\n", "/tmp", "/root", "Traceback", "File "))
    )


@pytest.mark.parametrize("side", [8_000, 13_000])  # 64 and 169 megapixels: 192 and 507 MB once decoded
def test_decompression_bomb_is_refused_before_it_takes_memory(server, side):
    data = make_bomb(side)
    assert len(data) < MEGABYTE
    event, _ = server.call("predict", server.upload(encode(Image.new("RGB", (640, 480)), "PNG")), RESNET, 1)
    assert event == "complete"  # loads the model, so that only the photo is measured
    idle = server.memory()[0]
    for photo in (server.upload(data), server.photo(url="data:image/png;base64," + base64.b64encode(data).decode())):
        event, message = server.call("predict", photo, RESNET, 1)
        assert event == "error"
        assert "40 megapixels" in message
        assert is_plain(message)
    assert server.memory()[1] - idle < 300 * MEGABYTE


@pytest.mark.parametrize("megabytes", [21, 40])
def test_data_url_over_the_upload_limit_is_refused(server, megabytes):
    large = encode(Image.new("RGB", (64, 64)), "BMP") + bytes(megabytes * MEGABYTE)
    event, message = server.call(
        "predict", server.photo(url="data:image/bmp;base64," + base64.b64encode(large).decode()), RESNET, 1
    )
    assert (event, "at most 20 MB" in message) in {("error", True), ("413", True)}


def test_upload_over_the_limit_is_refused(server):
    files = {"files": ("photo.png", bytes(21 * MEGABYTE))}
    assert post(f"{server.address}/gradio_api/upload", files=files).status_code == 413


TOWER = Image.effect_noise((96, 64), 80).convert("RGB")
ALPHA = TOWER.copy()
ALPHA.putalpha(Image.linear_gradient("L").resize(TOWER.size))
ROTATED = Image.Exif()
ROTATED[0x0112] = 6
BANDS = np.dstack([np.asarray(TOWER), np.asarray(TOWER)[..., :2]])
UNUSUAL = {
    "gif": encode(TOWER, "GIF"),
    "16-bit": encode(Image.fromarray(np.linspace(0, 65535, 96 * 64).reshape(64, 96).astype(np.uint16)), "PNG"),
    "float TIFF": encode(Image.fromarray(np.linspace(0, 1, 96 * 64, dtype=np.float32).reshape(64, 96)), "TIFF"),
    "CMYK": encode(TOWER.convert("CMYK"), "JPEG"),
    "alpha": encode(ALPHA, "PNG"),
    "EXIF": encode(TOWER, "JPEG", exif=ROTATED),
    "12-bit colours": make_png(np.asarray(TOWER).astype(np.uint16) * 16),
    "TIFF of five bands": make_tiff(BANDS, 1, extra=[0] * 4),
}


@pytest.mark.parametrize("kind", UNUSUAL)
def test_unusual_image_formats_give_the_result_of_python(server, kind):
    event, (rows,) = server.call("predict", server.upload(UNUSUAL[kind], "photo"), RESNET, 10)
    assert event == "complete"
    expected = vizlib.load(RESNET).predict(UNUSUAL[kind], top=10)
    assert [row["label"] for row in rows] == [row.label for row in expected]
    assert [row["logit"] for row in rows] == pytest.approx([row.logit for row in expected], abs=1e-3)


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "damaged"),
        (bytes(128) + b"DICM" + bytes(400), "DICOM"),
        (make_tiff(BANDS.astype(np.complex64), 1), "complex numbers"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>", "SVG"),
        (b"<!doctype html><script>alert(1)</script>", "web page"),
        (UNUSUAL["alpha"][:300], "damaged"),
        (b"", "empty"),
        (b"%PDF-1.7", "PDF"),
        (encode(Image.new("RGB", (2, 3000)), "PNG"), "at least 8"),
    ],
)
def test_invalid_photo_is_refused_in_one_sentence(server, data, word):
    event, message = server.call("predict", server.upload(data, "photo.png"), RESNET, 1)
    assert event == "error"
    assert word in message
    assert is_plain(message)


def test_uploaded_web_page_is_served_as_a_download(server):
    for name in ("page.html", "drawing.svg", "page.xhtml"):
        path = server.upload(b"<script>alert(1)</script>", name)["path"]
        response = get(f"{server.address}/gradio_api/file={path}")
        assert response.headers["content-disposition"].startswith("attachment")
        assert response.headers["content-type"] == "application/octet-stream"
