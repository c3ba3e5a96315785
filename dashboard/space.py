"""Stage the dashboard as a Hugging Face Space: `python -m dashboard.space DIR`, then push the folder as it is.

A Space installs its requirements before the sources are there, so these travel beside them and are never installed.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
from collections.abc import Mapping
from importlib.metadata import distribution, requires, version
from pathlib import Path
from typing import Any

import timm
from packaging.requirements import Requirement

from vizlib import VizlibError
from vizlib.models.loading import checkpoint_files
from vizlib.models.loading.model_index import CURATED_MODELS_MB

ROOT = Path(__file__).resolve().parent.parent
PYTHON = "3.12"
PRELOADED = (  # small enough to be fetched while the Space is built
    "resnet18.a1_in1k",
    "resnet50.a1_in1k",
    "deit_tiny_patch16_224.fb_in1k",
    "vit_small_patch16_224.augreg_in21k_ft_in1k",
)
TAGS = ["explainability", "interpretability", "grad-cam", "saliency", "vision-transformer", "attention"]
NOT_STAGED = ("*.pyc", "*.pyi", "__pycache__", "runs")  # `runs` is what training left beside the checkpoints

APP = """\
# Staged by `python -m dashboard.space`, which replaces what it staged before.
from dashboard.app import serve
from dashboard.server.options import ServerOptions

serve(ServerOptions(host=None, port=None))  # from GRADIO_SERVER_NAME and GRADIO_SERVER_PORT
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

Drop a photo, click a class, a method, a patch or a channel, and the pictures answer. Two small trained networks come
with it; larger ones are fetched when they are first chosen.

**Your own copy**: *Duplicate this Space* in the menu above.

**On your machine**: `pip install -r requirements.txt && python app.py`, then open <http://127.0.0.1:7860>.

**With Docker**: `docker build -t vizlib . && docker run --rm -p 7860:7860 vizlib`

**From a program**: every picture is also an endpoint; *Use via API* at the foot of the page lists them.
"""


def main() -> None:
    """Read the command line and stage."""
    parser = argparse.ArgumentParser(prog="python -m dashboard.space", description=__doc__)
    parser.add_argument("folder", type=Path, metavar="DIR", help="where to; made if it is not there")
    chosen = parser.parse_args()
    try:
        folder = stage_space(chosen.folder)
    except VizlibError as error:  # a person's mistake: one sentence, no traceback
        parser.exit(2, f"{parser.prog}: {error}\n")
    print(f"{folder} is ready: hf upload YOUR_NAME/vizlib {folder} . --type space")


def stage_space(folder: Path) -> Path:
    """Fill a folder with all that a Space is; what was staged there before is replaced.

    Raises: VizlibError for a folder that holds something else, or that cannot be written.
    """
    try:
        if folder.exists():
            _clear(folder)
        for name, text in _written().items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        for package in ("vizlib", "dashboard"):
            skipped = shutil.ignore_patterns(*NOT_STAGED, "_checkpoints")
            shutil.copytree(ROOT / package, folder / package, ignore=skipped)
        shutil.copytree(
            checkpoint_files.BUNDLED_FOLDER, folder / "checkpoints", ignore=shutil.ignore_patterns(*NOT_STAGED, "*.py")
        )
    except OSError as error:
        raise VizlibError(f"{folder} cannot be written: {error.strerror or 'no access'}") from error
    return folder


def requirements() -> dict[str, str]:
    """Each third-party package the project asks for, at the version it was tested with: the one installed here.

    Raises: VizlibError where the version here is outside the project's own range.
    """
    pinned = {}
    for asked in _asked():
        here = version(asked.name).partition("+")[0]  # without a build's own mark, such as +cpu
        if not asked.specifier.contains(here):
            raise VizlibError(f"{asked.name} {here} is installed here, but {asked} is what works; install that first")
        pinned[asked.name] = here
    return pinned


def front_matter() -> dict[str, Any]:
    """What the hub reads from the top of a Space's README."""
    repositories = [_repository(name) for name in PRELOADED]
    return {
        "title": "Why did it see that?",
        "emoji": "🔍",
        "colorFrom": "yellow",
        "colorTo": "red",
        "sdk": "gradio",
        "sdk_version": requirements()["gradio"],
        "python_version": PYTHON,
        "app_file": "app.py",
        "short_description": "Drop a photo, see why a vision model decided as it did",
        "models": repositories,
        "preload_from_hub": [f"{repository} model.safetensors" for repository in repositories],
        "tags": TAGS,
        "license": "apache-2.0",
    }


def _written() -> dict[str, str]:
    """The files that are written for a Space alone, by name."""
    about = front_matter()
    return {
        "app.py": APP,
        "README.md": _yaml(about) + "\n" + README.format(title=about["title"]),
        "requirements.txt": "".join(f"{name}=={tested}\n" for name, tested in requirements().items()),
        "Dockerfile": DOCKERFILE.format(python=PYTHON),
        ".dockerignore": "".join(f"{name}\n" for name in (".git", "Dockerfile", ".dockerignore", "**/__pycache__")),
        ".gitattributes": "*.safetensors filter=lfs diff=lfs merge=lfs -text\n",
        "LICENSE": _license(),
    }


def _asked() -> list[Requirement]:
    """What the project needs, from its own table if this is a checkout, else from what pip noted."""
    table = ROOT / "pyproject.toml"
    if not table.is_file():
        return [one for one in map(Requirement, requires("vizlib") or ()) if one.marker is None]  # a marker: an extra
    listed = re.search(r"^dependencies = \[\n(.*?)^\]", table.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert listed is not None
    return [Requirement(line) for line in re.findall(r'^ *"(.+?)"', listed[1], re.MULTILINE)]


def _clear(folder: Path) -> None:
    """Take out what an earlier staging left; a `.git` and files of one's own stay. Raises: VizlibError elsewhere."""
    if not folder.is_dir():
        raise VizlibError(f"{folder} is a file; give a folder")
    app = folder / "app.py"
    opening = APP.splitlines()[0]
    ours = app.is_file() and app.read_text(encoding="utf-8", errors="replace").startswith(opening)
    if not ours and any(folder.iterdir()):
        raise VizlibError(f"{folder} is not empty and was not staged by this command; give another folder")
    for name in ("vizlib", "dashboard", "checkpoints"):
        shutil.rmtree(folder / name, ignore_errors=True)


def _yaml(about: Mapping[str, Any]) -> str:
    """A mapping between the lines that mark front matter; JSON's text and lists are YAML's too."""
    lines = [f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in about.items()]
    return "\n".join(["---", *lines, "---", ""])


def _repository(name: str) -> str:
    """Where on the hub the weights of a curated model lie."""
    assert name in CURATED_MODELS_MB, name
    config = timm.get_pretrained_cfg(name)
    assert config is not None
    return str(config.hf_hub_id)


def _license() -> str:
    path = ROOT / "LICENSE"
    if path.is_file():
        return path.read_text(encoding="utf-8")
    return distribution("vizlib").read_text("licenses/LICENSE") or ""  # an installed package has it there


if __name__ == "__main__":
    main()
