"""The examples in docstrings are executed: of every module of vizlib, dashboard and the training scripts."""

from __future__ import annotations

import doctest
from importlib import import_module
from pathlib import Path

import pytest

import vizlib

ROOT = Path(__file__).resolve().parents[2]
# Importing these starts a program or needs an environment variable of a Space.
PROGRAMS = {"dashboard.__main__"}


def module_names() -> list[str]:
    names = []
    for package in ("vizlib", "dashboard", "checkpoints/training"):
        for path in sorted((ROOT / package).rglob("*.py")):
            dotted = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            names.append(dotted.removesuffix(".__init__"))
    return [name for name in names if name not in PROGRAMS]


MODULES = [
    name for name in module_names() if ">>>" in Path(str(import_module(name).__file__)).read_text(encoding="utf-8")
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_of_a_module_run(name, tmp_path, monkeypatch, tower):
    """Examples run in an empty folder that holds one photo, `church.jpg`."""
    monkeypatch.chdir(tmp_path)
    tower.save("church.jpg")
    result = doctest.testmod(import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result.attempted
    assert not result.failed


@pytest.mark.parametrize("name", [name for name in vizlib.__all__ if not isinstance(getattr(vizlib, name), type)])
def test_public_functions_have_an_example(name):
    assert ">>>" in getattr(vizlib, name).__doc__
