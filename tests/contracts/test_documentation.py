"""The documentation: its code is executed, it names every method and tab, and question marks lead to its sections."""

from __future__ import annotations

import inspect
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import gradio.media
import pytest
import safetensors.torch
import timm
import torch
from generated_pages import write_methods_page
from latex2mathml.converter import convert
from PIL import Image
from typer.testing import CliRunner

import vizlib
from dashboard.app import TABS
from vizlib.attribution.methods.registry import METHODS
from vizlib.cli import app
from vizlib.core.documentation import METHODS_PAGE, USER_INTERFACE_PAGE, make_anchor

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
README = ROOT / "README.md"
PAGES = [README, *sorted(DOCS.rglob("*.md"))]
BLOCK = re.compile(r"^```(python|bash)\n(.*?)^```", re.DOTALL | re.MULTILINE)
SIDECAR = '{"architecture": "resnet18", "labels": ["cat", "dog", "neither"]}'


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder of the examples, with the files that they name: photos, a checkpoint and its sidecar."""
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    for place, name in enumerate(("cheetah.jpg", "lion.jpg", "tower.jpg")):
        photo = Image.open(gradio.media.get_image(name)).convert("RGB")
        photo.save(f"photos/{place + 1}.jpg")
        if not place:
            photo.save("photo.jpg")
    torch.manual_seed(0)
    safetensors.torch.save_file(timm.create_model("resnet18", num_classes=3).state_dict(), "my.safetensors")
    Path("my.json").write_text(SIDECAR)
    return tmp_path


def run_page(text: str, name: str, languages: str = "python bash") -> int:
    """Run the blocks of a page in their order, those of Python with common names, and return their number."""
    names: dict[str, Any] = {}
    blocks = [(language, block) for language, block in BLOCK.findall(text) if language in languages.split()]
    for language, block in blocks:
        if language == "python":
            exec(compile(block, name, "exec"), names)
        else:
            for line in block.replace("\\\n", " ").splitlines():
                run_line(line)
    return len(blocks)


def run_line(line: str) -> None:
    """Run a line of a shell block that calls vizlib or a module of the project; others are about the machine."""
    words = shlex.split(line.replace("*.jpg", "photo.jpg"), comments=True)
    if words[:1] == ["vizlib"]:
        result = CliRunner().invoke(app, words[1:])
        assert result.exit_code == 0, (line, result.output)
    elif words[:2] == ["python", "-m"]:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        subprocess.run([sys.executable, *words[1:]], check=True, env=environment, timeout=300)


@pytest.mark.slow
def test_python_code_of_the_readme_runs(folder):
    assert run_page(README.read_text(encoding="utf-8"), README.name, "python") >= 4


@pytest.mark.slow
@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_code_of_a_page_runs(path, folder):
    languages = "bash" if path == README else "python bash"  # its Python is run by the default tests
    run_page(path.read_text(encoding="utf-8"), path.name, languages)


@pytest.mark.slow
def test_examples_of_the_methods_run(folder):
    page = write_methods_page()
    assert run_page(page, "methods.md") == len(METHODS)
    assert all((folder / f"{make_anchor(name)}.png").is_file() for name in METHODS)
    assert all(f"{{#{make_anchor(name)}}}" in page for name in METHODS)


def test_a_block_that_fails_is_noticed(folder):
    with pytest.raises(ZeroDivisionError):
        run_page("```python\nx = 1\n```\n\n```python\nx / 0\n```\n", "page.md")
    with pytest.raises(AssertionError, match="no method"):
        run_page("```bash\nvizlib explain photo.jpg --method none\n```\n", "page.md")


@pytest.mark.parametrize("method", METHODS.values(), ids=lambda method: method.name)
def test_equation_and_paper_of_a_method_can_be_shown(method):
    assert method.paper_url.startswith("https://")
    drawn = convert(method.equation)
    assert "\\" not in drawn  # every command was understood
    assert method.equation.count("{") == method.equation.count("}")


def test_every_help_link_of_the_page_has_its_section():
    page = (DOCS / USER_INTERFACE_PAGE.replace(".html", ".md")).read_text(encoding="utf-8")
    sections = set(re.findall(r"\{#([\w-]+)\}", page))
    tabs = {make_anchor(tab.TITLE) for tab in TABS}
    code = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "dashboard").rglob("*.py"))
    assert tabs | set(re.findall(r'build_page_help\("([\w-]+)"', code)) <= sections
    assert f'"{METHODS_PAGE.replace(".html", ".md")}"' in (DOCS / "build_hooks.py").read_text(encoding="utf-8")


def test_anchors_of_methods_differ():
    assert len({make_anchor(name) for name in METHODS}) == len(METHODS)


def list_public_functions() -> dict[str, Any]:
    """Return all functions that users call by their names: those of the package, its metrics and its classes."""
    owners = {"vizlib": vizlib, "vizlib.metrics": vizlib.metrics}
    owners |= {name: getattr(vizlib, name) for name in vizlib.__all__ if isinstance(getattr(vizlib, name), type)}
    members = {
        f"{owner}.{name}": getattr(member, "__func__", member)
        for owner, holder in owners.items()
        for name, member in vars(holder).items()
        if not name.startswith("_")
    }
    return {name: member for name, member in members.items() if inspect.isfunction(member)}


@pytest.mark.parametrize(("name", "function"), list_public_functions().items(), ids=list(list_public_functions()))
def test_public_functions_document_arguments_and_results(name, function):
    text, signature = inspect.getdoc(function) or "", inspect.signature(function)
    if set(signature.parameters) - {"self", "cls"}:
        assert "\nArgs:\n" in text
    if signature.return_annotation not in ("None", "Iterator[None]"):
        first_line = text.partition("\n")[0]
        assert first_line.startswith(("Return ", "Yield ")) or re.search(r"^(Returns|Yields):$", text, re.MULTILINE)


def test_every_public_name_is_in_the_reference():
    page = (DOCS / "reference" / "api.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^::: vizlib\.([\w.]+)$", page, re.MULTILINE))
    assert set(vizlib.__all__) <= listed
