"""Pieces of HTML: pictures inlined, rows of facts, code; all they are given is escaped."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from html import escape

from PIL import Image

from vizlib.core.text import format_percent

MAX_LOSSLESS_PIXELS = 1_500_000  # pixels: a larger photo is kept as JPEG, or the page would be too heavy to send


def inline_image(picture: Image.Image, alt: str, *, lossless: bool | None = None) -> str:
    """A picture that needs no file beside the page; without loss where it is small, or as told."""
    lossless = picture.width * picture.height <= MAX_LOSSLESS_PIXELS if lossless is None else lossless
    file = io.BytesIO()
    if lossless:
        picture.save(file, "PNG", compress_level=9)
    else:
        picture.save(file, "JPEG", quality=92, subsampling=0)
    data = base64.b64encode(file.getvalue()).decode()
    size = f'width="{picture.width}" height="{picture.height}"'
    return f'<img src="data:image/{"png" if lossless else "jpeg"};base64,{data}" alt="{escape(alt)}" {size}>'


def rows(facts: Mapping[str, str]) -> str:
    """What is known, by name; what is empty has no row."""
    lines = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(said)}</dd></div>" for name, said in facts.items() if said
    )
    return f"<dl>{lines}</dl>"


def code(text: str) -> str:
    """Lines to copy."""
    return f"<pre><code>{escape(text.rstrip())}</code></pre>"


def share(probability: float) -> str:
    """A share of which no line begins with its %."""
    return format_percent(probability).replace(" ", "\u00a0")
