"""A wrong photo is told of once, however many events are under way while it lies in the box."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

SENTENCE = "The picture is text, not an image, expected a photo as JPEG, PNG, WebP, GIF, BMP or TIFF."
GONE = "The photo did not arrive whole; please choose it again."


@pytest.mark.parametrize("chosen", [False, True])
def test_a_wrong_photo_in_place_of_another_is_told_of_once_and_the_other_stays(visiting, tmp_path, chosen):
    visit = visiting()
    if chosen:
        visit.changes("#why-heat", lambda: visit.page.locator("#examples button").nth(2).click())
    path = tmp_path / "notes.jpg"
    path.write_text("this is text")
    before = [photo_of(visit), visit.said("#why-words"), visit.page.url]
    visit.upload(path)  # gradio tells of it twice
    told_of_once(visit)
    assert [photo_of(visit), visit.said("#why-words"), visit.page.url] == before
    visit.changes("#why-heat", lambda: visit.page.locator("#bars button[data-index]").nth(1).click())
    visit.page.close()


def test_a_wrong_photo_that_comes_while_the_last_one_is_taken_away_is_told_of_once(visiting, tmp_path):
    visit = visiting("?img=ex:tower")
    path = tmp_path / "notes.jpg"
    path.write_text("this is text")
    held = []
    visit.page.route("**/queue/join*", lambda route: held.append(route) if not held else route.fallback())
    visit.page.locator("#photo button[aria-label='Remove Image']").click()
    visit.goes_on(lambda: len(held) == 1)  # the photo is taken away, and the server has yet to hear of it
    visit.upload(path)
    visit.page.wait_for_timeout(1500)
    held[0].continue_()
    told_of_once(visit)
    assert visit.page.locator("#photo img").count() == 0  # it was taken away before
    visit.page.close()


def test_a_photo_whose_file_is_gone_from_the_server_is_told_of_once_and_put_back_never(visiting, photo, tmp_path):
    visit = visiting()
    visit.changes("#why-heat", lambda: visit.upload(photo))
    for file in Path(os.environ["GRADIO_TEMP_DIR"]).rglob(photo.name):
        file.unlink()
    visit.page.locator("#bars button[data-index]").nth(1).click()
    told_of_once(visit, GONE)
    visit.page.get_by_text(GONE).wait_for(state="hidden")  # gradio takes it away after a while
    path = tmp_path / "notes.jpg"
    path.write_text("this is text")
    visit.upload(path)  # gives way to the same photo, which then is told of
    visit.page.get_by_text(SENTENCE).first.wait_for()
    told_of_once(visit, GONE)
    visit.page.close()


def told_of_once(visit, sentence: str = SENTENCE) -> None:
    visit.page.get_by_text(sentence).first.wait_for()
    visit.settle()
    visit.page.wait_for_timeout(2000)
    assert visit.page.get_by_text(sentence).count() == 1


def photo_of(visit) -> str | None:
    return visit.page.locator("#photo img").get_attribute("src")
