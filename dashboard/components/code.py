"""Blocks of code, each with a button that copies it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple


class Block(NamedTuple):
    """Some lines in one language, and a sentence on them."""

    name: str
    hint: str
    text: str


def code(blocks: Sequence[Block], *, here: str = "") -> dict[str, Any]:
    """The blocks; where a text says `here`, the browser puts the page's own address, which it alone knows."""
    return {"blocks": [block._asdict() for block in blocks], "here": here}
