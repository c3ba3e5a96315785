"""A button that copies the page's address, whose query string this component updates with the selection.

A second button leads to the export of files; a click on it fires `select`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from dashboard.i18n.translate import translate

SPACES_URL = "https://huggingface.co/spaces/"  # where a Space is shown in a frame, whose own address is not visible


def build_copy_link(keys: Mapping[str, str | None], note: str = "") -> dict[str, Any]:
    """Return the value of the button that copies the page's link.

    Args:
        keys: Values to set in the query string; None removes a key, and other keys are not changed.
        note: A sentence about an invalid value in the address that was opened.
    """
    return {
        "keys": dict(keys),
        "base": SPACES_URL + get_space_id() if get_space_id() else "",
        "hint": translate("address.hint" if keys.get("img") else "address.own"),
        "note": note,
    }


def get_space_id() -> str:
    """Return the Space whose address a copied link has, as owner/name; an empty string outside a Space."""
    return os.environ.get("SPACE_ID", "")
