"""The page's scripts never turn the data they receive into HTML or code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import dashboard
from dashboard.components.custom_component import custom_component

DASHBOARD_DIR = Path(dashboard.__file__).parent
SCRIPTS = sorted(DASHBOARD_DIR.rglob("*.js"))
WRITES_HTML = re.compile(r"\b(innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|srcdoc|eval|Function)\b")


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_script_neither_writes_html_nor_evaluates_text(path):
    assert not WRITES_HTML.findall(path.read_text(encoding="utf-8"))


def test_component_template_contains_no_value():
    scripts = list(DASHBOARD_DIR.glob("components/*.js"))
    assert len(scripts) > 15
    for path in scripts:
        assert "${" not in custom_component(path.stem).html_template
