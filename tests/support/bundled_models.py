"""The bundled models, each loaded once per process, for the results that a test expects."""

from __future__ import annotations

from functools import cache

import pytest

import vizlib

RESNET, VIT = "resnet18-imagenette", "vit_tiny-imagenette"
# For tests of something that does not depend on the architecture, in which the dashboard's fixture `name` is used.
resnet_by_default = pytest.mark.parametrize("name", [RESNET, pytest.param(VIT, marks=pytest.mark.slow)], indirect=True)


@cache
def load_bundled(name: str) -> vizlib.Model:
    """Return a bundled model; tests share it and must not change it."""
    return vizlib.load(name)
