"""A full or read-only disk gives one sentence; other errors propagate."""

from __future__ import annotations

import errno
import json

import gradio as gr
import pytest

from dashboard.app import Page
from dashboard.components.error_messages import DISK_FULL_MESSAGE, UNWRITABLE_ERRNOS
from dashboard.server.body_limit import BodyLimitMiddleware
from dashboard.services.metrics import RunMetrics

FULL = [OSError(number, "no", "/secret/folder/photo.png") for number in UNWRITABLE_ERRNOS]
UPLOAD = {"type": "http", "method": "POST", "path": "/gradio_api/upload", "headers": []}


def send_request(run_coroutine, error, *, started: bool = False) -> tuple[list[dict], RunMetrics]:
    """Return what is sent and counted where the application raises an error, perhaps after it started its response."""
    sent, metrics = [], RunMetrics()

    async def application(scope, receive, send):
        if started:
            await send({"type": "http.response.start", "status": 200, "headers": []})
        raise error

    async def receive():
        return {"type": "http.request", "body": b""}

    async def send(message):
        sent.append(message)

    run_coroutine(BodyLimitMiddleware(application, metrics)(dict(UPLOAD), receive, send))
    return sent, metrics


@pytest.mark.parametrize("error", FULL, ids=lambda error: errno.errorcode[error.errno])
def test_upload_that_cannot_be_written_gets_one_sentence(run_coroutine, error):
    sent, metrics = send_request(run_coroutine, error)
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    assert sent[0]["status"] == 507
    assert json.loads(sent[1]["body"]) == {"detail": DISK_FULL_MESSAGE}
    assert metrics.requests == {("other", "507"): 1}


@pytest.mark.parametrize("error", [OSError(errno.ECONNRESET, "gone"), ValueError("another"), OSError("no number")])
def test_other_request_errors_propagate(run_coroutine, error):
    with pytest.raises(type(error)) as raised:
        send_request(run_coroutine, error)
    assert raised.value is error


def test_started_response_is_not_started_again(run_coroutine):
    with pytest.raises(OSError, match="no") as raised:
        send_request(run_coroutine, FULL[0], started=True)
    assert raised.value is FULL[0]


def run_event(run_coroutine, monkeypatch, error: Exception) -> Exception:
    """Return the error of an event of the page where gradio raises an error."""

    async def fails(*_, **__):
        raise error

    monkeypatch.setattr(gr.Blocks, "process_api", fails)
    with pytest.raises(type(error) if not isinstance(error, OSError) else Exception) as raised:
        run_coroutine(Page().process_api(block_fn=0, inputs=[]))
    return raised.value


def wrap(cause: Exception) -> Exception:
    """Return an error of a component as gradio wraps it."""
    error = gr.Error("Could not postprocess output component at index 0 with value /secret/folder/photo.png")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize("error", [*FULL, *map(wrap, FULL)], ids=lambda error: type(error).__name__)
def test_picture_that_cannot_be_written_gets_one_sentence(run_coroutine, monkeypatch, error):
    page_error = run_event(run_coroutine, monkeypatch, error)
    assert isinstance(page_error, gr.Error)
    assert page_error.message == DISK_FULL_MESSAGE
    assert (page_error.__cause__, page_error.__suppress_context__) == (None, True)  # which holds a path
    assert not page_error.print_exception


@pytest.mark.parametrize(
    "error", [gr.Error("mine"), wrap(ValueError("x")), wrap(OSError(errno.ENOENT, "gone")), OSError("no number")]
)
def test_other_event_errors_propagate(run_coroutine, monkeypatch, error):
    assert run_event(run_coroutine, monkeypatch, error) is error
