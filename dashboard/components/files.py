"""Files to download, each a button; `select` tells the key of the one that was clicked as its `index`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def build_files(downloads: Mapping[str, tuple[str, str]], status: str = "", generation: str = "") -> dict[str, Any]:
    """The buttons: by key what each is called and what is in it; and a few words on the last one that was made.

    `turn` is another one each time, so that the browser hears of two that are alike.
    """
    rows = [{"key": key, "name": name, "hint": hint} for key, (name, hint) in downloads.items()]
    return {"files": rows, "said": status, "turn": generation}


def describe_file(name: str, size: int) -> str:
    """What is said of a file that was made.

    >>> made("why.html", 880_625), made("why.npz", 713)
    ('why.html, 0.9 MB', 'why.npz, 1 kB')
    """
    return f"{name}, {size / 1e6:.1f} MB" if size >= 100_000 else f"{name}, {max(round(size / 1000), 1)} kB"
