"""Settings and fixtures of all tests: one thread, no network, and the folder of real data if there is one."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # before gradio is imported anywhere
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test requests a model of the real hub
# A server deletes its uploads when it stops, so concurrent test runs have separate folders.
os.environ["GRADIO_TEMP_DIR"] = tempfile.mkdtemp(prefix="vizlib-tests-")
# Gradio takes the first free port from this one on: each test process searches a range of its own.
os.environ["GRADIO_SERVER_PORT"] = str(10_000 + os.getpid() % 200 * 100)

# Of programs that tests start too; with more, the threads of tests that run at once wait for each other, spinning.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from jaxtyping import install_import_hook
from xdist.scheduler import LoadFileScheduling

PACKAGE = Path(__file__).resolve().parent.parent / "vizlib"


def find_modules_with_shapes() -> list[str]:
    """Return the names of vizlib's modules whose signatures have shapes; checking all takes a third longer."""
    paths = [path for path in PACKAGE.rglob("*.py") if "from jaxtyping import" in path.read_text("utf-8")]
    return [".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts) for path in paths]


install_import_hook(find_modules_with_shapes(), "beartype.beartype")  # the shapes are checked while tests run

torch.set_num_threads(1)  # tiny networks on two busy cores take 15 times longer with two threads


def pytest_xdist_auto_num_workers() -> int:
    """Return one process more than there are cores, up to 4: tests with a browser or a server mostly wait."""
    return min(4, len(os.sched_getaffinity(0)) + 1 if hasattr(os, "sched_getaffinity") else 3)


class FileScheduling(LoadFileScheduling):
    """Runs the tests of a file in one process, and all of `security/`, as each process would start a server."""

    def _split_scope(self, nodeid: str) -> str:
        return "tests/security" if nodeid.startswith("tests/security/") else super()._split_scope(nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> FileScheduling | None:
    return FileScheduling(config, log) if config.getvalue("dist") == "loadfile" else None


@pytest.hookimpl(tryfirst=True)  # before -m selects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests that need the folder of real data as slow: the default run passes and skips the same everywhere."""
    for item in items:
        if "data" in getattr(item, "fixturenames", ()):
            item.add_marker("slow")


def pytest_unconfigure() -> None:
    shutil.rmtree(os.environ["GRADIO_TEMP_DIR"], ignore_errors=True)


@pytest.fixture(scope="session")
def data() -> Path:
    """Return the folder of real weights and photos; skip the test if it is not set."""
    folder = os.environ.get("VIZLIB_DATA")
    if not folder:
        pytest.skip("VIZLIB_DATA is not set, so there are no real weights and photos to test on")
    return Path(folder)


@pytest.fixture(scope="session")
def real_network(data):
    """Return a function that loads a network with real ImageNet weights by name, with their preprocessing."""
    import vizlib

    def load(name: str, crop_pct: float = 0.875):
        module = vizlib.load(data / "weights" / f"{name}.in1k.safetensors", architecture=name).module
        preprocessing = {
            "input_size": (3, 224, 224),
            "crop_pct": crop_pct,
            "crop_mode": "center",
            "interpolation": "bicubic" if "deit" in name else "bilinear",
            "mean": (0.485, 0.456, 0.406),
            "std": (0.229, 0.224, 0.225),
        }
        return vizlib.wrap(module, preprocessing=preprocessing, name=name)

    return load


@pytest.fixture(scope="session")
def boxed_photos(data):
    """Return (photo, class, boxes as x0 y0 x1 y1) of 260 ImageNet validation photos, resized to 227 × 227."""
    folder = data / "imagenet_val_boxes"
    rows = json.loads((folder / "boxes.json").read_text())
    return [(folder / "images" / row["file"], row["label"], row["boxes"]) for row in rows]


@pytest.fixture(scope="session")
def few_passes():
    """Return a function that gives parameters of a method for few passes, for tests that run all methods."""
    parameters = {
        "occlusion": {"window": 64, "stride": 64},
        "rise": {"masks": 16},
        "smoothgrad": {"samples": 2},
        "integrated-gradients": {"steps": 2},
    }
    return lambda method: parameters.get(method, {})


@pytest.fixture(scope="session")
def cheetah():
    """Return a real photo from gradio: a cheetah, 1.4 : 1."""
    import gradio.media

    import vizlib

    return vizlib.open_image(gradio.media.get_image("cheetah.jpg"))


@pytest.fixture(scope="session")
def tower():
    """Return a real photo from gradio: the Eiffel tower."""
    import gradio.media

    import vizlib

    return vizlib.open_image(gradio.media.get_image("tower.jpg"))


@pytest.fixture(scope="session")
def run_coroutine():
    """Return a function that runs a coroutine in its own thread, as the browser tests run an event loop in this one."""

    def run(coroutine):
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(asyncio.run, coroutine).result()

    return run


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Iterator[Any]:
    """Yield a local hub, used instead of the real one, with the smallest ResNet of timm; see `load/hub.py`."""
    import torch.hub
    from huggingface_hub import constants

    script = Path(__file__).parent / "load" / "hub.py"
    spec = importlib.util.spec_from_file_location("load_hub", script)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with module.serve_model_hub(tmp_path, "test_resnet.r160_in1k", 1_200_000) as model_hub:
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", model_hub.address)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", model_hub.address + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1 << 18)
        monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "torch"))
        yield model_hub
