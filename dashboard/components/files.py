"""Buttons that each make a file to download; `select` has the key of the clicked button as its `index`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def build_file_buttons(
    downloads: Mapping[str, tuple[str, str]], status: str = "", generation: str = ""
) -> dict[str, Any]:
    """Return the value of the buttons that each make a file to download.

    Args:
        downloads: By key, the file's name and what it contains.
        status: A description of the file that was made last.
        generation: A text that differs each time, so that the browser gets an update for two equal files.
    """
    rows = [{"key": key, "name": name, "hint": hint} for key, (name, hint) in downloads.items()]
    return {"files": rows, "status": status, "generation": generation}


def describe_file(name: str, size: int) -> str:
    """Return the name and size of a file to download.

    >>> describe_file("why.html", 880_625), describe_file("why.npz", 713)
    ('why.html, 0.9 MB', 'why.npz, 1 kB')
    """
    return f"{name}, {size / 1e6:.1f} MB" if size >= 100_000 else f"{name}, {max(round(size / 1000), 1)} kB"
