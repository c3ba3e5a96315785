"""What every test shares: one thread, no network, and the folder of real data where there is one."""

from __future__ import annotations

import os
from pathlib import Path

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # before gradio is imported anywhere
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a test never waits for a hub

import pytest
import torch
from jaxtyping import install_import_hook

install_import_hook(["vizlib"], "beartype.beartype")  # the shapes in the signatures are checked while tests run

torch.set_num_threads(1)  # tiny networks on two busy cores take 15 times longer with two threads


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real weights and photos; a test that needs it is skipped, saying so, where it is not set."""
    folder = os.environ.get("VIZLIB_DATA")
    if not folder:
        pytest.skip("VIZLIB_DATA is not set, so there are no real weights and photos to test on")
    return Path(folder)


@pytest.fixture(scope="session")
def real_network(data):
    """Opens a network with real ImageNet weights by name, with the preprocessing those very weights were trained on."""
    import vizlib

    def opened(name: str, crop_pct: float = 0.875):
        module = vizlib.load(data / "weights" / f"{name}.in1k.safetensors", architecture=name).module
        shown = {
            "input_size": (3, 224, 224),
            "crop_pct": crop_pct,
            "crop_mode": "center",
            "interpolation": "bicubic" if "deit" in name else "bilinear",
            "mean": (0.485, 0.456, 0.406),
            "std": (0.229, 0.224, 0.225),
        }
        return vizlib.wrap(module, preprocessing=shown, name=name)

    return opened


@pytest.fixture(scope="session")
def few_passes():
    """Knobs by which the methods of many passes make only a few: for tests of what all methods have in common."""
    few = {
        "occlusion": {"window": 64, "stride": 64},
        "rise": {"masks": 16},
        "smoothgrad": {"samples": 2},
        "integrated-gradients": {"steps": 2},
    }
    return lambda method: few.get(method, {})


@pytest.fixture(scope="session")
def cheetah():
    """A real photo that comes with gradio: a cheetah, 1.4 : 1."""
    import gradio.media

    import vizlib

    return vizlib.open_image(gradio.media.get_image("cheetah.jpg"))


@pytest.fixture(scope="session")
def tower():
    """A real photo that comes with gradio: the Eiffel tower."""
    import gradio.media

    import vizlib

    return vizlib.open_image(gradio.media.get_image("tower.jpg"))
