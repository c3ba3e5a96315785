"""Photos that are too large, of an odd kind, or no photos at all: answered as in Python, or refused in one sentence."""

from __future__ import annotations

import base64
import io
import struct
import zlib

import numpy as np
import pytest
from http_timeouts import get, post
from PIL import Image

import vizlib

RESNET = "resnet18-imagenette"
MEGABYTE = 1_000_000


def encoded(image: Image.Image, kind: str, **more) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **more)
    return file.getvalue()


def bomb(side: int) -> bytes:
    """A black RGB picture of side × side pixels in a small PNG, made row by row."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    packer, row = zlib.compressobj(9), bytes(1 + 3 * side)
    packed = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def is_plain(sentence: object) -> bool:
    """Whether an error is fit for a visitor: one sentence, without a path or a traceback."""
    text = str(sentence)
    return (
        bool(text)
        and text.endswith(".")
        and not any(bad in text for bad in ("\n", "/tmp", "/root", "Traceback", "File "))
    )


@pytest.mark.parametrize("side", [8_000, 13_000])  # 64 and 169 megapixels: 192 and 507 MB once decoded
def test_a_bomb_is_refused_before_it_takes_memory(server, side):
    data = bomb(side)
    assert len(data) < MEGABYTE
    event, _ = server.call("predict", server.upload(encoded(Image.new("RGB", (640, 480)), "PNG")), RESNET, 1)
    assert event == "complete"  # the model is loaded, so that only the bomb is measured
    idle = server.memory()[0]
    for given in (server.upload(data), server.photo(url="data:image/png;base64," + base64.b64encode(data).decode())):
        event, said = server.call("predict", given, RESNET, 1)
        assert event == "error"
        assert "40 megapixels" in said
        assert is_plain(said)
    assert server.memory()[1] - idle < 300 * MEGABYTE


@pytest.mark.parametrize("megabytes", [21, 40])
def test_a_photo_as_text_may_be_no_larger_than_one_that_is_uploaded(server, megabytes):
    large = encoded(Image.new("RGB", (64, 64)), "BMP") + bytes(megabytes * MEGABYTE)
    event, said = server.call(
        "predict", server.photo(url="data:image/bmp;base64," + base64.b64encode(large).decode()), RESNET, 1
    )
    assert (event, "at most 20 MB" in said) in {("error", True), ("413", True)}


def test_an_upload_over_the_limit_is_refused(server):
    sent = {"files": ("photo.png", bytes(21 * MEGABYTE))}
    assert post(f"{server.address}/gradio_api/upload", files=sent).status_code == 413


TOWER = Image.effect_noise((96, 64), 80).convert("RGB")
ALPHA = TOWER.copy()
ALPHA.putalpha(Image.linear_gradient("L").resize(TOWER.size))
TURNED = Image.Exif()
TURNED[0x0112] = 6
ODD = {
    "gif": encoded(TOWER, "GIF"),
    "16-bit": encoded(Image.fromarray(np.linspace(0, 65535, 96 * 64).reshape(64, 96).astype(np.uint16)), "PNG"),
    "float TIFF": encoded(Image.fromarray(np.linspace(0, 1, 96 * 64, dtype=np.float32).reshape(64, 96)), "TIFF"),
    "CMYK": encoded(TOWER.convert("CMYK"), "JPEG"),
    "alpha": encoded(ALPHA, "PNG"),
    "EXIF": encoded(TOWER, "JPEG", exif=TURNED),
}


@pytest.mark.parametrize("kind", ODD)
def test_an_odd_photo_is_answered_as_in_python(server, kind):
    event, (answers,) = server.call("predict", server.upload(ODD[kind], "photo"), RESNET, 10)
    assert event == "complete"
    expected = vizlib.load(RESNET).predict(ODD[kind], top=10)
    assert [one["label"] for one in answers] == [one.label for one in expected]
    assert [one["logit"] for one in answers] == pytest.approx([one.logit for one in expected], abs=1e-3)


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>", "SVG"),
        (b"<!doctype html><script>alert(1)</script>", "web page"),
        (ODD["alpha"][:300], "damaged"),
        (b"", "empty"),
        (b"%PDF-1.7", "PDF"),
        (encoded(Image.new("RGB", (2, 3000)), "PNG"), "at least 8"),
    ],
)
def test_what_is_no_photo_is_refused_in_one_sentence(server, data, word):
    event, said = server.call("predict", server.upload(data, "photo.png"), RESNET, 1)
    assert event == "error"
    assert word in said
    assert is_plain(said)


def test_what_was_uploaded_as_a_web_page_is_never_shown_as_one(server):
    for name in ("page.html", "drawing.svg", "page.xhtml"):
        path = server.upload(b"<script>alert(1)</script>", name)["path"]
        answer = get(f"{server.address}/gradio_api/file={path}")
        assert answer.headers["content-disposition"].startswith("attachment")
        assert answer.headers["content-type"] == "application/octet-stream"
