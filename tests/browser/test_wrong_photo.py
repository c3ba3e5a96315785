"""A wrong photo is told of once, however many events are under way while it lies in the box."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

SENTENCE = "The picture is text, not an image, expected a photo as JPEG, PNG, WebP, GIF, BMP or TIFF."
GONE = "The photo did not arrive whole; please choose it again."


@pytest.mark.parametrize("chosen", [False, True])
def test_a_wrong_photo_in_place_of_another_is_told_of_once_and_the_other_stays(open_session, tmp_path, chosen):
    session = open_session()
    if chosen:
        session.wait_for_change("#why-heatmap", lambda: session.page.locator("#examples button").nth(2).click())
    path = tmp_path / "notes.jpg"
    path.write_text("this is text")
    before = [photo_of(session), session.get_text("#why-caption"), session.page.url]
    session.upload(path)  # gradio tells of it twice
    told_of_once(session)
    assert [photo_of(session), session.get_text("#why-caption"), session.page.url] == before
    session.wait_for_change("#why-heatmap", lambda: session.page.locator("#bars button[data-index]").nth(1).click())
    session.page.close()


def test_a_wrong_photo_that_comes_while_the_last_one_is_taken_away_is_told_of_once(open_session, tmp_path):
    session = open_session("?img=ex:tower")
    path = tmp_path / "notes.jpg"
    path.write_text("this is text")
    held = []
    session.page.route("**/queue/join*", lambda route: held.append(route) if not held else route.fallback())
    session.page.locator("#photo button[aria-label='Remove Image']").click()
    session.wait_on_server(lambda: len(held) == 1)  # the photo is taken away, and the server has yet to hear of it
    session.upload(path)
    session.page.wait_for_timeout(1500)
    held[0].continue_()
    told_of_once(session)
    assert session.page.locator("#photo img").count() == 0  # it was taken away before
    session.page.close()


def test_a_photo_whose_file_is_gone_from_the_server_is_told_of_once_and_put_back_never(open_session, photo, tmp_path):
    session = open_session()
    session.wait_for_change("#why-heatmap", lambda: session.upload(photo))
    for file in Path(os.environ["GRADIO_TEMP_DIR"]).rglob(photo.name):
        file.unlink()
    session.page.locator("#bars button[data-index]").nth(1).click()
    told_of_once(session, GONE)
    session.page.get_by_text(GONE).wait_for(state="hidden")  # gradio takes it away after a while
    path = tmp_path / "notes.jpg"
    path.write_text("this is text")
    session.upload(path)  # gives way to the same photo, which then is told of
    session.page.get_by_text(SENTENCE).first.wait_for()
    told_of_once(session, GONE)
    session.page.close()


def told_of_once(session, sentence: str = SENTENCE) -> None:
    session.page.get_by_text(sentence).first.wait_for()
    session.settle()
    session.page.wait_for_timeout(2000)
    assert session.page.get_by_text(sentence).count() == 1


def photo_of(session) -> str | None:
    return session.page.locator("#photo img").get_attribute("src")
