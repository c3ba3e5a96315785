"""HTML as a browser would take it apart, for every test that reads what the library wrote."""

from __future__ import annotations

import base64
import io
from html.parser import HTMLParser

import numpy as np
from PIL import Image

EMPTY = ("meta", "img", "br", "link", "input", "hr")


class Page(HTMLParser):
    """A page as a browser would take it apart; it insists that what is opened is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.found: list[tuple[str, dict]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def every(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.found if name == tag]

    def addresses(self) -> list[str]:
        """Whatever a browser would fetch or follow."""
        return [
            attributes[key] for _, attributes in self.found for key in ("src", "href", "srcset") if key in attributes
        ]

    def maps(self) -> list[dict]:
        texts = [one.partition("base64,")[2] for one in self.addresses() if one.startswith("data:application/x-npz")]
        return [dict(np.load(io.BytesIO(base64.b64decode(one)))) for one in texts]


def picture(address: str) -> np.ndarray:
    assert address.startswith("data:image/")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(address.partition("base64,")[2]))))
