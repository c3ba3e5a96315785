"""Labels, names of models and files, and error messages never become HTML."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import gradio.media
import pytest
import timm
import torch
from http_timeouts import TIMEOUT_SECONDS

import vizlib
from dashboard.app import build_app
from dashboard.server.server import launch
from dashboard.services.model_catalog import ModelCatalog

ATTACK = "<img src=x onerror=window.hit=1>"


@pytest.fixture(scope="module")
def hostile() -> Iterator[str]:
    """Serve a dashboard whose only model has HTML in its name and labels."""
    torch.manual_seed(0)
    labels = [f"{ATTACK} {i}" for i in range(5)] + [f"</script><script>window.hit=1</script>{i}" for i in range(5)]

    def load() -> vizlib.Model:
        return vizlib.wrap(timm.create_model("test_vit", num_classes=10).eval(), labels=labels, name=ATTACK)

    page = build_app(ModelCatalog([], extra={ATTACK: load}))
    _, local, _ = launch(page, port=None, prevent_thread_lock=True, quiet=True)
    yield local
    page.close(verbose=False)


def test_hostile_names_and_labels_are_shown_as_text(hostile, chromium, tmp_path):
    page = chromium.new_page()
    try:
        page.set_default_timeout(1000 * TIMEOUT_SECONDS)
        page.goto(f"{hostile}?{urlencode({'c': ATTACK, 'v': ATTACK, 'l': ATTACK, 'm': ATTACK + '!'})}")
        page.locator("#bars button").first.wait_for()
        assert ATTACK[:4] in page.locator("#bars").inner_text()
        assert ATTACK[:4] in page.locator("#header").inner_text()  # the invalid values of the address
        for tab in page.get_by_role("tab").all():
            tab.click()
            page.wait_for_timeout(1_500)
        photo = tmp_path / f"{ATTACK.replace('/', '')}.jpg"
        photo.write_bytes(Path(gradio.media.get_image("tower.jpg")).read_bytes())
        page.locator("#photo input[type=file]").first.set_input_files(photo)
        page.wait_for_timeout(3_000)
        bad = tmp_path / f"{ATTACK.replace('/', '')}.png"
        bad.write_bytes(b"<svg onload=window.hit=1></svg>")
        if page.locator("#photo input[type=file]").count():
            page.locator("#photo input[type=file]").first.set_input_files(bad)
            page.wait_for_timeout(3_000)
        assert page.evaluate("window.hit") is None
        assert page.locator("img[src=x]").count() == 0
    finally:
        page.close()
