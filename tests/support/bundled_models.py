"""The bundled models, each loaded once per process, for the results that a test expects."""

from __future__ import annotations

from functools import cache

import vizlib


@cache
def load_bundled(name: str) -> vizlib.Model:
    """Return a bundled model; tests share it and must not change it."""
    return vizlib.load(name)
