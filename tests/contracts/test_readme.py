"""The code blocks of the README are executed, and its table of methods is compared with the registry."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

import vizlib
from vizlib.attribution.methods.registry import METHODS
from vizlib.cli import app

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


@pytest.fixture
def folder(tmp_path, monkeypatch, tower):
    """A folder with the files that the examples name: photos and a checkpoint."""
    import torch

    monkeypatch.chdir(tmp_path)
    tower.save("photo.jpg")
    Path("photos").mkdir()
    tower.save("photos/1.jpg")
    torch.manual_seed(0)
    import safetensors.torch
    import timm

    safetensors.torch.save_file(timm.create_model("resnet18", num_classes=3).state_dict(), "my.safetensors")
    return tmp_path


@pytest.mark.parametrize("code", [block for block in blocks("python") if "Client(" not in block])
def test_python_example_runs(code, folder):
    exec(compile(code, "README.md", "exec"), {})


@pytest.mark.slow
@pytest.mark.parametrize("line", [line for block in blocks("bash")[2:] for line in block.strip().splitlines()])
def test_shell_example_runs(line, folder):
    words = shlex.split(line.replace("*.jpg", "photo.jpg"))
    assert words[0] == "vizlib"
    result = CliRunner().invoke(app, words[1:])
    assert result.exit_code == 0, result.output


def test_method_table_matches_the_registry():
    rows = re.findall(r"^\| `([^`]+)` \| (.*?) \| (.*?) \| (.*?) \|$", README, re.MULTILINE)
    assert rows == [(row.name, row.shows, row.does_not_show, row.paper) for row in METHODS.values()]


def test_version_is_the_same_everywhere():
    assert f'version = "{vizlib.__version__}"' in (ROOT / "pyproject.toml").read_text()
    assert f"  version = {{{vizlib.__version__}}}," in blocks("bibtex")[0]


def test_setup_commands_match_ci():
    assert "pip install . && vizlib serve" in README
    assert 'pip install -e ".[test]" && pytest' in (ROOT / ".ci" / "run").read_text().replace("\\", "")
    assert 'pip install -e ".[test]" && pytest' in README
