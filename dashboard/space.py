"""Stage the dashboard as a Hugging Face Space: `python -m dashboard.space DIR`, then push the folder.

A Space installs its requirements before the sources are copied, so the packages are run from the folder, not installed.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, distribution, requires, version
from pathlib import Path
from typing import Any

import timm
from packaging.requirements import Requirement

from vizlib import VizlibError
from vizlib.models.loading import checkpoint_files
from vizlib.models.loading.model_index import CURATED_MODELS_MB

ROOT = Path(__file__).resolve().parent.parent
PYTHON = "3.12"
PRELOADED = (  # downloaded while the Space is built
    "resnet18.a1_in1k",
    "resnet50.a1_in1k",
    "deit_tiny_patch16_224.fb_in1k",
    "vit_small_patch16_224.augreg_in21k_ft_in1k",
)
TAGS = ["explainability", "interpretability", "grad-cam", "saliency", "vision-transformer", "attention"]
NOT_STAGED = ("*.pyc", "*.pyi", "__pycache__", "runs")  # `runs` holds the output of training

APP = """\
# Staged by `python -m dashboard.space`, which replaces what it staged before.
from dashboard.app import run_app
from dashboard.server.options import ServerOptions

run_app(ServerOptions(host=None, port=None))  # from GRADIO_SERVER_NAME and GRADIO_SERVER_PORT
"""

DOCKERFILE = """\
FROM python:{python}-slim
RUN useradd --create-home --uid 1000 user
WORKDIR /home/user/app
COPY requirements.txt .
RUN pip install --no-cache-dir --extra-index-url https://download.pytorch.org/whl/cpu -r requirements.txt
COPY . .
USER user
ENV GRADIO_SERVER_NAME=0.0.0.0 GRADIO_SERVER_PORT=7860
EXPOSE 7860
CMD ["python", "app.py"]
"""

README = """\
# {title}

Upload a photo and click a class, a method, a patch or a channel to see what the decision of a vision model depends on.
Three small trained networks are included; larger ones are downloaded when they are first selected.

**Your own copy**: *Duplicate this Space* in the menu above.

**On your machine**: `pip install -r requirements.txt && python app.py`, then open <http://127.0.0.1:7860>.

**With Docker**: `docker build -t vizlib . && docker run --rm -p 7860:7860 vizlib`

**From a program**: every result is also an endpoint; *Use via API* at the bottom of the page lists them.
"""


def main() -> None:
    """Read the command line of `python -m dashboard.space` and stage the Space."""
    parser = argparse.ArgumentParser(prog="python -m dashboard.space", description=__doc__)
    parser.add_argument("folder", type=Path, metavar="DIR", help="target folder; created if it does not exist")
    arguments = parser.parse_args()
    try:
        folder = stage_space(arguments.folder)
    except VizlibError as error:  # one sentence, no traceback
        parser.exit(2, f"{parser.prog}: {error}\n")
    print(f"{folder} is ready: hf upload YOUR_NAME/vizlib {folder} . --type space")


def stage_space(folder: Path) -> Path:
    """Write all files of a Space to a folder; what was staged there before is replaced.

    Raises:
        VizlibError: For a folder that holds other files, or that cannot be written.
    """
    try:
        if folder.exists():
            _delete_staged(folder)
        for name, text in _make_files().items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        for package in ("vizlib", "dashboard"):
            ignore = shutil.ignore_patterns(*NOT_STAGED, "_checkpoints")
            shutil.copytree(ROOT / package, folder / package, ignore=ignore)
        shutil.copytree(
            checkpoint_files.BUNDLED_FOLDER, folder / "checkpoints", ignore=shutil.ignore_patterns(*NOT_STAGED, "*.py")
        )
    except OSError as error:
        raise VizlibError(f"{folder} cannot be written: {error.strerror or 'no access'}") from error
    return folder


def list_requirements() -> dict[str, str]:
    """Return each requirement of a Space with the version that is installed here, which is the tested one.

    Raises:
        VizlibError: If an installed version is outside the range that the project requires.
    """
    pinned = {}
    for requirement in _read_requirements():
        installed = version(requirement.name).partition("+")[0]  # without a build label such as +cpu
        if not requirement.specifier.contains(installed):
            raise VizlibError(f"{requirement.name} {installed} is installed, but {requirement} is required")
        pinned[requirement.name] = installed
    with suppress(PackageNotFoundError):  # of the extra `clip`: with it the Space offers the model that reads prompts
        pinned["open_clip_torch"] = version("open_clip_torch").partition("+")[0]
    return pinned


def make_front_matter() -> dict[str, Any]:
    """Return the metadata that the hub reads from the top of a Space's README."""
    repositories = [_find_repository(name) for name in PRELOADED]
    return {
        "title": "Why did it see that?",
        "emoji": "🔍",
        "colorFrom": "yellow",
        "colorTo": "red",
        "sdk": "gradio",
        "sdk_version": list_requirements()["gradio"],
        "python_version": PYTHON,
        "app_file": "app.py",
        "short_description": "Drop a photo, see why a vision model decided as it did",
        "models": repositories,
        "preload_from_hub": [f"{repository} model.safetensors" for repository in repositories],
        "tags": TAGS,
        "license": "apache-2.0",
    }


def _make_files() -> dict[str, str]:
    """Return the files that only a Space has, by name."""
    metadata = make_front_matter()
    return {
        "app.py": APP,
        "README.md": _format_yaml(metadata) + "\n" + README.format(title=metadata["title"]),
        "requirements.txt": "".join(f"{name}=={pin}\n" for name, pin in list_requirements().items()),
        "Dockerfile": DOCKERFILE.format(python=PYTHON),
        ".dockerignore": "".join(f"{name}\n" for name in (".git", "Dockerfile", ".dockerignore", "**/__pycache__")),
        ".gitattributes": "*.safetensors filter=lfs diff=lfs merge=lfs -text\n",
        "LICENSE": _read_license(),
    }


def _read_requirements() -> list[Requirement]:
    """Return the requirements of a Space: from pyproject.toml in a checkout, else from the package metadata."""
    table = ROOT / "pyproject.toml"
    if not table.is_file():
        return [
            requirement
            for requirement in map(Requirement, requires("vizlib") or ())
            if requirement.marker is None  # those with a marker belong to an extra
        ]
    match = re.search(r"^dependencies = \[\n(.*?)^\]", table.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert match is not None
    return [Requirement(line) for line in re.findall(r'^ *"(.+?)"', match[1], re.MULTILINE)]


def _delete_staged(folder: Path) -> None:
    """Delete what was staged in a Space's folder earlier; `.git` and other files stay.

    Raises:
        VizlibError: For a file, or a folder that was not staged.
    """
    if not folder.is_dir():
        raise VizlibError(f"{folder} is a file; give a folder")
    app = folder / "app.py"
    marker = APP.splitlines()[0]
    staged = app.is_file() and app.read_text(encoding="utf-8", errors="replace").startswith(marker)
    if not staged and any(folder.iterdir()):
        raise VizlibError(f"{folder} is not empty and was not staged by this command; give another folder")
    for name in ("vizlib", "dashboard", "checkpoints"):
        shutil.rmtree(folder / name, ignore_errors=True)


def _format_yaml(metadata: Mapping[str, Any]) -> str:
    """Return a Space's metadata as YAML front matter; strings and lists in JSON are valid YAML."""
    lines = [f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in metadata.items()]
    return "\n".join(["---", *lines, "---", ""])


def _find_repository(name: str) -> str:
    """Return the hub repository of a curated model that a Space preloads."""
    assert name in CURATED_MODELS_MB, name
    config = timm.get_pretrained_cfg(name)
    assert config is not None
    return str(config.hf_hub_id)


def _read_license() -> str:
    """Return the text of the license that is staged with a Space."""
    path = ROOT / "LICENSE"
    if path.is_file():
        return path.read_text(encoding="utf-8")
    return distribution("vizlib").read_text("licenses/LICENSE") or ""  # where an installed package has it


if __name__ == "__main__":
    main()
