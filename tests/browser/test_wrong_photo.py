"""An invalid photo is reported once, however many events are pending while it is in the upload box."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

SENTENCE = "The picture is text, not an image, expected a photo as JPEG, PNG, WebP, GIF, BMP or TIFF."
GONE = "The photo did not arrive whole; please choose it again."
RECORD_CHOICES = """() => {
  window.choices = [];
  const queue = document.querySelector("#event-queue .viz-event_queue");
  queue.addEventListener("viz-choose", (event) => window.choices.push(event.detail));
}"""


@pytest.mark.parametrize("example", [False, True])
def test_invalid_photo_is_reported_once_and_the_previous_one_stays(open_session, tmp_path, example):
    session = open_session()
    if example:
        session.wait_for_change("#why-heatmap", lambda: session.page.locator("#examples button").nth(2).click())
    path = tmp_path / "notes.jpg"
    path.write_text("this is text")
    before = [read_photo(session), session.get_text("#why-caption"), session.page.url]
    session.upload(path)  # gradio fires two events
    check_reported_once(session)
    assert [read_photo(session), session.get_text("#why-caption"), session.page.url] == before
    session.wait_for_change("#why-heatmap", lambda: session.page.locator("#bars button[data-index]").nth(1).click())
    session.page.close()


def test_invalid_photo_during_a_removal_is_reported_once(open_session, tmp_path):
    session = open_session("?img=ex:tower")
    path = tmp_path / "notes.jpg"
    path.write_text("this is text")
    routes = []
    session.page.route("**/queue/join*", lambda route: routes.append(route) if not routes else route.fallback())
    session.page.locator("#photo button[aria-label='Remove Image']").click()
    session.wait_on_server(lambda: len(routes) == 1)  # the photo is removed, but the server has no event yet
    session.page.evaluate(RECORD_CHOICES)
    session.upload(path)
    session.wait_until("() => window.choices.some((choice) => choice.photo && choice.file)")  # it waits in the queue
    routes[0].continue_()
    check_reported_once(session)
    assert session.page.locator("#photo img").count() == 0  # it was removed before
    session.page.close()


def test_photo_with_a_deleted_file_is_reported_once_and_not_restored(open_session, photo, tmp_path):
    session = open_session()
    session.wait_for_change("#why-heatmap", lambda: session.upload(photo))
    for file in Path(os.environ["GRADIO_TEMP_DIR"]).rglob(photo.name):
        file.unlink()
    session.page.locator("#bars button[data-index]").nth(1).click()
    check_reported_once(session, GONE)
    session.page.get_by_text(GONE).wait_for(state="hidden")  # gradio hides it after a while
    path = tmp_path / "notes.jpg"
    path.write_text("this is text")
    session.upload(path)  # is replaced by the same photo, which is then reported
    session.page.get_by_text(SENTENCE).first.wait_for()
    check_reported_once(session, GONE)
    session.page.close()


def check_reported_once(session, sentence: str = SENTENCE) -> None:
    session.page.get_by_text(sentence).first.wait_for()
    session.settle()
    assert session.page.get_by_text(sentence).count() == 1


def read_photo(session) -> str | None:
    return session.page.locator("#photo img").get_attribute("src")
