"""The README agrees with the package and with `.ci/run`. Its code is executed by `test_documentation.py`."""

from __future__ import annotations

import re
from pathlib import Path

import vizlib

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
MAX_LINES = 200  # more belongs into the documentation


def test_version_is_the_same_everywhere():
    assert f'version = "{vizlib.__version__}"' in (ROOT / "pyproject.toml").read_text()
    assert f"  version = {{{vizlib.__version__}}}," in README
    cited = re.search(r"^version: [\"']?([\d.]+)", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    assert cited
    assert cited[1] == vizlib.__version__


def test_setup_commands_match_ci():
    assert "pip install . && vizlib serve" in README
    assert 'pip install -e ".[test]" && pytest' in (ROOT / ".ci" / "run").read_text().replace("\\", "")
    assert 'pip install -e ".[test]" && pytest' in README


def test_readme_is_short_and_its_files_exist():
    assert len(README.splitlines()) < MAX_LINES
    links = [link for link in re.findall(r"\]\(([^)#]+)", README) if "://" not in link]
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
