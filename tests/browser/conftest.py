"""The dashboard as it is served, and a Chromium to visit it with; neither needs a network."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import gradio.media
import pytest
from PIL import Image

import vizlib
from dashboard.app import build_app, launch
from dashboard.catalog import Catalog

RESNET, VIT = "resnet18-imagenette", "vit_tiny-imagenette"
QUIET = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)


@pytest.fixture(scope="session")
def address() -> Iterator[str]:
    """The address of a running dashboard with the bundled models."""
    have = {entry.name for entry in vizlib.models() if entry.bundled}
    if not {RESNET, VIT} <= have:
        pytest.skip(f"the bundled checkpoints {RESNET} and {VIT} are not in checkpoints/")
    page = build_app(Catalog())
    _, local, _ = launch(page, port=None, prevent_thread_lock=True, quiet=True)
    yield local
    page.close(verbose=False)


@pytest.fixture(scope="session")
def chromium():
    """A headless Chromium: the machine's own where it has one, else playwright's."""
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        try:
            browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=QUIET.split())
        except playwright.Error as error:
            pytest.skip(f"there is no Chromium here: {str(error).splitlines()[0]}")
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def photo(tmp_path_factory) -> Path:
    """A real photo as a person uploads it, of the size the page draws on: the Eiffel tower."""
    path = tmp_path_factory.mktemp("uploads") / "my tower.png"
    image = Image.open(gradio.media.get_image("tower.jpg")).convert("RGB")
    image.thumbnail((840, 840))
    image.resize((round(image.width * 840 / image.height), 840)).save(path)
    return path
