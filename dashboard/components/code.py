"""Blocks of code, each with a button that copies it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple


class CodeBlock(NamedTuple):
    """Some lines in one language, and a sentence on them."""

    name: str
    hint: str
    text: str


def build_code_blocks(blocks: Sequence[CodeBlock], *, address_placeholder: str = "") -> dict[str, Any]:
    """The blocks; where a text says `here`, the browser puts the page's own address, which it alone knows."""
    return {"blocks": [block._asdict() for block in blocks], "here": address_placeholder}
