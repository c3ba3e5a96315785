"""The page's own scripts: nothing that they are sent becomes HTML or is run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import dashboard
from dashboard.components.base import custom_component

FOLDER = Path(dashboard.__file__).parent
SCRIPTS = sorted(FOLDER.rglob("*.js"))
WRITES_HTML = re.compile(r"\b(innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|srcdoc|eval|Function)\b")


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_no_script_writes_html_or_runs_text(path):
    assert not WRITES_HTML.findall(path.read_text(encoding="utf-8"))


def test_the_value_of_a_part_is_data_and_stands_nowhere_in_its_html():
    assert len(SCRIPTS) > 20
    for path in FOLDER.glob("components/*.css"):
        assert "${" not in custom_component(path.stem).html_template
