"""A disk that is full or closed: one sentence for whoever meets it, and every other error as it was."""

from __future__ import annotations

import errno
import json

import gradio as gr
import pytest

from dashboard.app import Page
from dashboard.server.server import DISK_FULL_MESSAGE, UNWRITABLE_ERRNOS, BodyLimitMiddleware
from dashboard.services.metrics import RunMetrics

FULL = [OSError(number, "no", "/secret/folder/photo.png") for number in UNWRITABLE_ERRNOS]
UPLOAD = {"type": "http", "method": "POST", "path": "/gradio_api/upload", "headers": []}


def through_the_door(finished, fails, *, begun: bool = False) -> tuple[list[dict], RunMetrics]:
    """What is sent where the application behind the door fails, perhaps in the middle of its answer."""
    sent, meter = [], RunMetrics()

    async def application(scope, receive, send):
        if begun:
            await send({"type": "http.response.start", "status": 200, "headers": []})
        raise fails

    async def receive():
        return {"type": "http.request", "body": b""}

    async def send(message):
        sent.append(message)

    finished(BodyLimitMiddleware(application, meter)(dict(UPLOAD), receive, send))
    return sent, meter


@pytest.mark.parametrize("error", FULL, ids=lambda error: errno.errorcode[error.errno])
def test_an_upload_that_cannot_be_written_is_answered_in_one_sentence(finished, error):
    sent, meter = through_the_door(finished, error)
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    assert sent[0]["status"] == 507
    assert json.loads(sent[1]["body"]) == {"detail": DISK_FULL_MESSAGE}
    assert meter.requests == {("other", "507"): 1}


@pytest.mark.parametrize("error", [OSError(errno.ECONNRESET, "gone"), ValueError("another"), OSError("no number")])
def test_another_error_of_a_request_goes_on_its_way(finished, error):
    with pytest.raises(type(error)) as raised:
        through_the_door(finished, error)
    assert raised.value is error


def test_an_answer_that_has_begun_is_not_begun_again(finished):
    with pytest.raises(OSError, match="no") as raised:
        through_the_door(finished, FULL[0], begun=True)
    assert raised.value is FULL[0]


def event(finished, monkeypatch, error: Exception) -> Exception:
    """What an event of the page ends with where gradio's own work on it ends with an error."""

    async def fails(*_, **__):
        raise error

    monkeypatch.setattr(gr.Blocks, "process_api", fails)
    with pytest.raises(type(error) if not isinstance(error, OSError) else Exception) as raised:
        finished(Page().process_api(block_fn=0, inputs=[]))
    return raised.value


def within(cause: Exception) -> Exception:
    """As gradio wraps what goes wrong with a component."""
    error = gr.Error("Could not postprocess output component at index 0 with value /secret/folder/photo.png")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize("error", [*FULL, *map(within, FULL)], ids=lambda error: type(error).__name__)
def test_a_picture_that_cannot_be_written_is_one_sentence(finished, monkeypatch, error):
    told = event(finished, monkeypatch, error)
    assert isinstance(told, gr.Error)
    assert told.message == DISK_FULL_MESSAGE
    assert (told.__cause__, told.__suppress_context__) == (None, True)  # which holds a path
    assert not told.print_exception


@pytest.mark.parametrize(
    "error", [gr.Error("mine"), within(ValueError("x")), within(OSError(errno.ENOENT, "gone")), OSError("no number")]
)
def test_another_error_of_an_event_goes_on_its_way(finished, monkeypatch, error):
    assert event(finished, monkeypatch, error) is error
