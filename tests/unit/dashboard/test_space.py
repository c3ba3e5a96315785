"""The staged Space: its metadata and files, and that it runs where vizlib is not installed."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from importlib.metadata import distribution, version
from pathlib import Path

import gradio.media
import http_timeouts
import httpx
import numpy as np
import pytest
import yaml
from gradio_client import Client, handle_file
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import vizlib
from dashboard import space

MODEL = "resnet18-imagenette"
START_TIMEOUT_SECONDS = 240  # for a server on a busy machine


@pytest.fixture(scope="module")
def staged(tmp_path_factory) -> Path:
    return space.stage_space(tmp_path_factory.mktemp("space") / "pushed")


def make_environment(staged: Path, **more: str) -> dict[str, str]:
    """Return environment variables without this checkout: packages come only from the interpreter's folder."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "GRADIO", "VIZLIB"))}
    inherited["PYTHONDONTWRITEBYTECODE"] = "1"
    return inherited | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(staged.parent), "OMP_NUM_THREADS": "1", **more}


def check_staged_app(python: list[str], staged: Path, **environment: str) -> None:
    """Assert that `/explain` of the staged app returns the library's numbers, and that it imports the staged vizlib."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = make_environment(staged, GRADIO_SERVER_PORT=str(port), **environment)
    command = [*python, "-c", "import sys; sys.path.insert(0, ''); import vizlib; print(vizlib.__file__)"]
    module_path = subprocess.run(
        command, cwd=staged, env=environment, capture_output=True, text=True, check=True
    ).stdout
    assert Path(module_path.strip()).is_relative_to(staged)
    log = (staged.parent / "log").open("w+")
    server = subprocess.Popen([*python, "app.py"], cwd=staged, env=environment, stdout=log, stderr=log)
    try:
        address = f"http://127.0.0.1:{port}"
        until = time.monotonic() + START_TIMEOUT_SECONDS
        while True:
            try:
                httpx.get(address, timeout=30)
                break
            except httpx.HTTPError:
                if server.poll() is not None or time.monotonic() > until:
                    log.seek(0)
                    pytest.fail(log.read())
                time.sleep(0.5)
        client = Client(
            address, verbose=False, analytics_enabled=False, httpx_kwargs={"timeout": http_timeouts.TIMEOUT_SECONDS}
        )
        photo = gradio.media.get_image("tower.jpg")
        values, _ = client.predict(handle_file(photo), MODEL, "grad-cam", "church", {}, api_name="/explain")
        theirs = vizlib.explain(vizlib.load(MODEL), photo, method="grad-cam", target="church")
        assert np.allclose(values["values"], theirs.heat.numpy(), rtol=1e-4, atol=1e-6)
    finally:
        server.terminate()
        server.wait(30)
        log.close()


def link_requirements(requirements: Path, folder: Path) -> None:
    """Link what `pip install -r` would install, each package with all that it requires, from this environment."""
    pending = [Requirement(line) for line in requirements.read_text().splitlines() if line and line[0] not in "#-"]
    linked: set[tuple[str, str]] = set()
    while pending:
        requirement = pending.pop()
        for extra in ("", *requirement.extras):
            if (canonicalize_name(requirement.name), extra) in linked:
                continue
            linked.add((canonicalize_name(requirement.name), extra))
            package = distribution(requirement.name)
            assert requirement.specifier.contains(package.version, prereleases=True), requirement
            for name in {file.parts[0] for file in package.files or ()} - {"..", "__pycache__"}:
                if not (folder / name).exists():
                    (folder / name).symlink_to(str(package.locate_file(name)))
            required = map(Requirement, package.requires or ())
            pending += [need for need in required if need.marker is None or need.marker.evaluate({"extra": extra})]


@pytest.mark.slow
def test_staged_space_runs_with_only_its_requirements(staged, tmp_path):
    """Neither vizlib nor anything else of this environment can be imported, without downloading packages again."""
    link_requirements(staged / "requirements.txt", tmp_path)
    # -S ignores the folder of installed packages and what an editable install adds to the path
    check_staged_app([sys.executable, "-S"], staged, PYTHONPATH=str(tmp_path))


def test_front_matter_has_the_fields_of_the_hub(staged):
    text = (staged / "README.md").read_text(encoding="utf-8")
    metadata = yaml.safe_load(text.split("---\n")[1])
    assert metadata["sdk"] == "gradio"
    assert metadata["sdk_version"] == version("gradio")
    assert (staged / metadata["app_file"]).read_text().count("\n") <= 5
    assert re.fullmatch(r"3\.1[0-2]", metadata["python_version"])
    assert 0 < len(metadata["short_description"]) <= 60
    assert metadata["license"] == "apache-2.0"
    assert {"title", "emoji", "tags", "colorFrom", "colorTo"} <= metadata.keys()
    assert all(re.fullmatch(r"timm/[\w.]+", name) for name in metadata["models"])
    assert [line.split()[0] for line in metadata["preload_from_hub"]] == metadata["models"]


def test_requirements_are_the_projects_at_installed_versions(staged):
    table = (space.ROOT / "pyproject.toml").read_text(encoding="utf-8")
    lines = (staged / "requirements.txt").read_text().splitlines()
    names = [line.partition("==")[0] for line in lines]
    required = re.findall(r'^    "([\w-]+)', table.split("dependencies = [")[1].split("]")[0], re.MULTILINE)
    assert names == [*required, "open_clip_torch"]
    assert lines == [f"{name}=={version(name).partition('+')[0]}" for name in names]
    assert not any(re.search(r"[/@]|^-|vizlib", line) for line in lines)  # the sources are not there yet


def test_version_outside_the_range_is_refused(monkeypatch):
    monkeypatch.setattr(space, "version", lambda name: "0.1")
    with pytest.raises(vizlib.VizlibError, match=r"torch 0.1 is installed, but torch>=2.8 is required"):
        space.list_requirements()


def test_staged_space_holds_sources_checkpoints_and_licence_only(tmp_path):
    staged = space.stage_space(tmp_path / "pushed")
    files = {path.relative_to(staged).as_posix() for path in staged.rglob("*") if path.is_file()}
    assert {
        "LICENSE",
        "Dockerfile",
        ".dockerignore",
        "dashboard/components/theme.css",
        "dashboard/components/scripts/canvas.js",
    } <= files
    for name in ("resnet18-imagenette", "vit_tiny-imagenette"):
        assert {f"checkpoints/{name}.safetensors", f"checkpoints/{name}.json"} <= files
    assert not [name for name in files if name.endswith((".pyc", ".pyi")) or name.startswith("checkpoints/train")]
    assert "Apache License" in (staged / "LICENSE").read_text()


def test_staging_again_replaces_staged_files_and_keeps_others(tmp_path):
    (tmp_path / "pushed").mkdir()
    folder = space.stage_space(tmp_path / "pushed")
    (folder / "vizlib" / "stale.py").touch()
    (folder / "mine.txt").touch()
    space.stage_space(folder)
    assert not (folder / "vizlib" / "stale.py").exists()
    assert (folder / "mine.txt").exists()


def test_folder_that_was_not_staged_is_refused(tmp_path, monkeypatch, capsys):
    (tmp_path / "app.py").write_text("print('mine')")
    monkeypatch.setattr(sys, "argv", ["space", str(tmp_path)])
    with pytest.raises(SystemExit) as exit_info:
        space.main()
    assert exit_info.value.code == 2
    assert "is not empty and was not staged by this command" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["app.py"]


def test_file_in_place_of_the_folder_is_one_sentence(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(vizlib.VizlibError, match="is a file; give a folder"):
        space.stage_space(tmp_path / "file")
