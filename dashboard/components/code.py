"""Blocks of code with a button that copies each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple


class CodeBlock(NamedTuple):
    """Lines of code, with a name and a hint about them."""

    name: str
    hint: str
    text: str


def build_code_blocks(blocks: Sequence[CodeBlock], *, address_placeholder: str = "") -> dict[str, Any]:
    """Return the value of the blocks of code; the browser replaces the placeholder in them by the page's address."""
    return {"blocks": [block._asdict() for block in blocks], "here": address_placeholder}
