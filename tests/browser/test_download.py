"""A model that is downloaded first: the progress on the page, and a failed download."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import vizlib
from dashboard.app import build_app
from dashboard.server.server import launch
from dashboard.services.model_catalog import ModelCatalog
from vizlib.models.loading.model_index import ModelEntry

pytestmark = pytest.mark.slow
RESNET, SMALL = "resnet18-imagenette", "test_resnet.r160_in1k"
HALF = "/Downloading the model - 50/.test(document.querySelector('#bars').innerText.replaceAll('\\n', ' '))"


@pytest.fixture
def served(hub) -> Iterator[str]:
    """Serve a dashboard with one local model and one on the hub, and yield its address."""
    bundled = next(entry for entry in vizlib.list_models() if entry.name == RESNET)
    page = build_app(ModelCatalog([bundled, ModelEntry(SMALL, "download", 1.9)]), auto_trust=False)
    _, local, _ = launch(page, port=None, prevent_thread_lock=True, quiet=True)
    yield local
    page.close(verbose=False)


@pytest.fixture
def typed(hub) -> Iterator[str]:
    """Serve a dashboard with one local model whose menu accepts typed names, and yield its address."""
    page = build_app(
        ModelCatalog([entry for entry in vizlib.list_models() if entry.name == RESNET], any_timm=True), auto_trust=False
    )
    _, local, _ = launch(page, port=None, prevent_thread_lock=True, quiet=True)
    yield local
    page.close(verbose=False)


def predicted_by(name: str) -> str:
    return f"document.querySelector('#why-caption')?.innerText.includes('{name} predicts it')"


def test_download_shows_progress_while_another_session_is_served(open_session_at, served, hub):
    session, other = open_session_at(served), open_session_at(served)
    hub.resume.clear()
    session.choose_option("#model", SMALL)
    session.wait_until(HALF)
    other.page.locator("#bars .viz-class").nth(1).click()
    other.wait_until("document.querySelector('#bars .viz-row:nth-child(2) [aria-pressed=true]')")
    session.wait_until(HALF)
    hub.resume.set()
    session.wait_until(predicted_by(SMALL))


def test_interrupted_download_is_one_sentence_and_leaves_the_page_unchanged(open_session_at, served, hub, monkeypatch):
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)
    session = open_session_at(served)
    hub.interrupt.set()
    session.choose_option("#model", SMALL)
    session.wait_until("document.querySelector('.toast-body')")
    message = session.get_text(".toast-body")
    assert f"{SMALL} could not be downloaded: " in message
    assert "/" not in message.partition("downloaded: ")[2]
    session.wait_until(f"document.querySelector('#model input').value.startsWith('{RESNET}')")
    assert session.page.evaluate(predicted_by(RESNET))
    hub.interrupt.clear()
    session.choose_option("#model", SMALL)
    session.wait_until(predicted_by(SMALL))


def test_typed_model_name_is_loaded_and_a_misspelt_one_gets_a_suggestion(open_session_at, typed):
    session = open_session_at(typed)
    menu = session.page.locator("#model input")
    menu.fill("test_resnet")
    menu.press("Enter")
    session.wait_until(predicted_by("test_resnet"))
    menu.fill("test_resnett")
    menu.press("Enter")
    session.wait_until("document.querySelector('.toast-body')")
    assert "did you mean test_resnet" in session.get_text(".toast-body")
    session.wait_until("document.querySelector('#model input').value === 'test_resnet'")
