"""A parser of the HTML that the library writes, for its tests."""

from __future__ import annotations

import base64
import io
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
from PIL import Image

VOID_ELEMENTS = ("meta", "img", "br", "link", "input", "hr")


class Page(HTMLParser):
    """A parsed page; raises `AssertionError` if an element is not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict]] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID_ELEMENTS:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.texts.append(data)

    def text(self) -> str:
        """Return the text of the page, its whitespace collapsed."""
        return " ".join(" ".join(self.texts).split())

    def find_all(self, tag: str) -> list[dict]:
        """Return the attributes of all elements with a tag."""
        return [attributes for name, attributes in self.tags if name == tag]

    def urls(self) -> list[str]:
        """Return all URLs that a browser would load or link to."""
        return [
            attributes[key] for _, attributes in self.tags for key in ("src", "href", "srcset") if key in attributes
        ]

    def load_maps(self) -> list[dict]:
        """Return the arrays of all embedded npz files."""
        texts = [url.partition("base64,")[2] for url in self.urls() if url.startswith("data:application/x-npz")]
        return [dict(np.load(io.BytesIO(base64.b64decode(text)))) for text in texts]


def read_page(path: Path) -> Page:
    """Return the parsed page of a file."""
    return Page(path.read_text(encoding="utf-8"))


def decode_image(url: str) -> np.ndarray:
    """Return the pixels of an image in a data URL."""
    assert url.startswith("data:image/")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.partition("base64,")[2]))))
