"""Labels, names of models and files, and error messages never become HTML."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import gradio.media
import pytest
import timm
import torch

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

    page = build_app(ModelCatalog([], extra={ATTACK: load}), auto_trust=False)
    _, local, _ = launch(page, port=None, prevent_thread_lock=True, quiet=True)
    yield local
    page.close(verbose=False)


@pytest.mark.slow
def test_hostile_names_and_labels_are_shown_as_text(hostile, open_session_at, tmp_path):
    session = open_session_at(f"{hostile}?{urlencode({'c': ATTACK, 'v': ATTACK, 'l': ATTACK, 'm': ATTACK + '!'})}")
    page = session.page
    assert ATTACK[:4] in session.get_text("#bars")
    assert ATTACK[:4] in session.get_text("#header")  # the invalid values of the address
    for tab in page.get_by_role("tab").all():
        tab.click()
        session.settle()
    photo = tmp_path / f"{ATTACK.replace('/', '')}.jpg"
    photo.write_bytes(Path(gradio.media.get_image("cheetah.jpg")).read_bytes())
    session.wait_for_change("#why-heatmap", lambda: session.upload(photo))
    bad = tmp_path / f"{ATTACK.replace('/', '')}.png"
    bad.write_bytes(b"<svg onload=window.hit=1></svg>")
    session.upload(bad)
    page.get_by_text("The picture is").first.wait_for()
    session.settle()
    assert page.evaluate("window.hit") is None
    assert page.locator("img[src=x]").count() == 0
