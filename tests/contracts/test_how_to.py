"""The code blocks of the how-to guides are executed, those of one page one after another."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

GUIDES = sorted((Path(__file__).resolve().parents[2] / "docs" / "how-to").glob("*.md"))


@pytest.mark.slow
@pytest.mark.parametrize("path", GUIDES, ids=lambda path: path.stem)
def test_code_of_a_guide_runs(path, tmp_path, monkeypatch, tower):
    monkeypatch.chdir(tmp_path)
    tower.save("photo.jpg")
    blocks = re.findall(r"```python\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL)
    assert blocks
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, path.name, "exec"), names)
