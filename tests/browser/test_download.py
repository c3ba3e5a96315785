"""A model that must be downloaded first: what a visitor sees on the way, and when the line is cut."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import vizlib
from dashboard.app import build_app, launch
from dashboard.services.model_catalog import ModelCatalog
from vizlib.models.loading.model_index import ModelEntry

pytestmark = pytest.mark.slow
RESNET, SMALL = "resnet18-imagenette", "test_resnet.r160_in1k"
HALF = "/Downloading the model - 50/.test(document.querySelector('#bars').innerText.replaceAll('\\n', ' '))"


@pytest.fixture
def served(hub) -> Iterator[str]:
    """A dashboard of its own, with one model on this machine and one on the hub."""
    bundled = next(entry for entry in vizlib.list_models() if entry.name == RESNET)
    page = build_app(ModelCatalog([bundled, ModelEntry(SMALL, "download", 1.9)]))
    _, local, _ = launch(page, port=None, prevent_thread_lock=True, quiet=True)
    yield local
    page.close(verbose=False)


@pytest.fixture
def typed(hub) -> Iterator[str]:
    """One with a model on this machine, and a menu in which names may be typed."""
    page = build_app(ModelCatalog([entry for entry in vizlib.list_models() if entry.name == RESNET], any_timm=True))
    _, local, _ = launch(page, port=None, prevent_thread_lock=True, quiet=True)
    yield local
    page.close(verbose=False)


def gives(name: str) -> str:
    return f"document.querySelector('#why-caption')?.innerText.includes('{name} predicts it')"


def test_a_visitor_sees_how_much_has_come_while_another_is_answered(open_session_at, served, hub):
    session, other = open_session_at(served), open_session_at(served)
    hub.go_on.clear()
    session.choose_option("#model", SMALL)
    session.wait_until(HALF)
    other.page.locator("#bars .viz-class").nth(1).click()
    other.wait_until("document.querySelector('#bars .viz-row:nth-child(2) [aria-pressed=true]')")
    session.wait_until(HALF)
    hub.go_on.set()
    session.wait_until(gives(SMALL))


def test_a_download_that_is_cut_is_one_sentence_and_the_page_is_as_before(open_session_at, served, hub, monkeypatch):
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)
    session = open_session_at(served)
    hub.cut.set()
    session.choose_option("#model", SMALL)
    session.wait_until("document.querySelector('.toast-body')")
    said = session.get_text(".toast-body")
    assert f"{SMALL} could not be downloaded: " in said
    assert "/" not in said.partition("downloaded: ")[2]
    session.wait_until(f"document.querySelector('#model input').value.startsWith('{RESNET}')")
    assert session.page.evaluate(gives(RESNET))
    hub.cut.clear()
    session.choose_option("#model", SMALL)
    session.wait_until(gives(SMALL))


def test_a_name_may_be_typed_and_a_wrong_one_is_told_what_was_meant(open_session_at, typed):
    session = open_session_at(typed)
    menu = session.page.locator("#model input")
    menu.fill("test_resnet")
    menu.press("Enter")
    session.wait_until(gives("test_resnet"))
    menu.fill("test_resnett")
    menu.press("Enter")
    session.wait_until("document.querySelector('.toast-body')")
    assert "did you mean test_resnet" in session.get_text(".toast-body")
    session.wait_until("document.querySelector('#model input').value === 'test_resnet'")
