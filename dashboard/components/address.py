"""The button that copies the address of the page as it stands, which this part keeps in step with the selection.

Beside it is one that leads to the files to take away; `select` tells of a click on it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from dashboard.i18n.translate import translate

SPACES_URL = "https://huggingface.co/spaces/"  # a Space is a frame there, whose address nobody sees


def build_address(keys: Mapping[str, str | None], note: str = "") -> dict[str, Any]:
    """The keys of the address to write, those that are `None` taken out, and a sentence on the address that came.

    Keys that are not named stay as they are.
    """
    return {
        "keys": dict(keys),
        "base": SPACES_URL + get_space_id() if get_space_id() else "",
        "hint": translate("address.hint" if keys.get("img") else "address.own"),
        "said": note,
    }


def get_space_id() -> str:
    """The Space that this page is served by, as owner/name; nothing elsewhere."""
    return os.environ.get("SPACE_ID", "")
