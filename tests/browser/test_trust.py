"""The bars below a map that say how far it can be trusted: they fill, stop, and hold the library's numbers."""

from __future__ import annotations

import threading

import gradio.media
import pytest
from http_timeouts import TIMEOUT_SECONDS

import vizlib
from dashboard.app import build_app
from dashboard.server.server import launch
from dashboard.services import executor_tasks
from dashboard.services.model_catalog import ModelCatalog
from vizlib.core.text import format_number
from vizlib.metrics import trust_all_stream

pytestmark = pytest.mark.slow
RESNET = "resnet18-imagenette"
DONE = "() => document.querySelector('#why-trust .viz-trust').dataset.state === 'done'"


@pytest.fixture
def limited(monkeypatch):
    """Let the measurement go on one step for each release of a semaphore."""
    semaphore = threading.Semaphore(0)
    original = executor_tasks.STREAMS["trust"]

    def wait(*args):
        for step in original(*args):
            assert semaphore.acquire(timeout=TIMEOUT_SECONDS)
            yield step

    monkeypatch.setitem(executor_tasks.STREAMS, "trust", wait)
    return semaphore


def read_bars(session) -> list[tuple[str, str]]:
    """Return name and number of each bar."""
    return [
        (row.locator(".viz-trust-name").inner_text(), row.locator(".viz-trust-number").inner_text())
        for row in session.page.locator("#why-trust li:has(meter)").all()
    ]


def measure():
    model = vizlib.load(RESNET)
    photo = vizlib.open_image(gradio.media.get_image("tower.jpg"))
    return vizlib.trust(model, vizlib.explain(model, photo, "grad-cam"))


def test_bars_fill_part_by_part_to_the_librarys_numbers(open_checked_session, limited):
    session = open_checked_session(f"?m={RESNET}&img=ex:tower")
    assert read_bars(session) == [("Faithful", "–"), ("Depends on the model", "–"), ("Stable", "–")]
    session.page.locator("#why-trust button").click()
    limited.release()
    session.page.locator("#why-trust li:nth-child(3) .viz-trust-number", has_text="%").wait_for()
    assert [number for _, number in read_bars(session)][:2] == ["–", "–"]
    limited.release(10_000)
    session.wait_until(DONE)
    expected = measure()
    numbers = [f"{100 * part.share:.0f} %" for part in expected.parts.values()]
    assert [number for _, number in read_bars(session)] == numbers
    assert session.page.locator("#why-trust .viz-trust-sentence").all_inner_texts() == list(expected.sentences)
    curves = {one.metric: one.curve for one in expected.parts["faithfulness"].measurements}
    slider = session.page.locator("#why-curves input")
    for step in (0, 7):
        slider.fill(str(step))
        shown = session.page.locator("#why-curves figcaption").all_inner_texts()
        scores = [format_number(curves[name][step][1]) for name in ("deletion", "insertion")]
        assert shown == [f"{10 * step} % removed: {scores[0]}", f"{10 * step} % shown: {scores[1]}"]
        session.wait_until(f"() => document.querySelector('#why-curves canvas').dataset.step === '{step}'")
    box = session.page.locator("#why-curves svg").bounding_box()
    session.page.mouse.move(box["x"] + box["width"] - 10, box["y"] + 20)  # the pointer chooses the last step
    assert session.page.locator("#why-curves output").inner_text() == "100 %"
    session.page.locator("#why-trust summary").click()
    assert session.page.locator("#why-trust .viz-doubts li").count() == 5
    session.emit_choice("event-queue", target=0, of=RESNET)  # another class has bars of its own
    session.wait_until("() => document.querySelector('#why-trust .viz-trust').dataset.state === 'waiting'")
    assert not session.page.locator("#why-curves svg").is_visible()


def test_methods_are_put_in_order_by_what_is_measured(open_checked_session, monkeypatch):
    """Another method may be chosen meanwhile; another class ends the measurement."""
    semaphore, ended = threading.Semaphore(0), threading.Event()

    def measure_stability(model, maps):
        try:
            for step in trust_all_stream(model, maps, parts=["stability"]):
                assert semaphore.acquire(timeout=TIMEOUT_SECONDS)
                yield step
        finally:
            ended.set()

    monkeypatch.setitem(executor_tasks.STREAMS, "trust_all", measure_stability)
    session = open_checked_session(f"?m={RESNET}&img=ex:tower")
    toolbar, tiles = session.page.locator("#why-methods .viz-ranking"), session.page.locator("#why-methods .viz-tile")
    listed = [tile.get_attribute("data-key") for tile in tiles.all()]
    toolbar.locator("button").click()
    semaphore.release()
    session.page.locator("#why-methods [data-key=saliency]").click()
    session.wait_until("() => document.querySelector('#why-methods [data-key=saliency]').ariaPressed === 'true'")
    assert toolbar.get_attribute("data-state") == "running"
    semaphore.release(10_000)
    session.wait_until("() => document.querySelector('#why-methods .viz-ranking').dataset.state === 'done'")
    toolbar.locator("select").select_option("stability")
    model, photo = vizlib.load(RESNET), vizlib.open_image(gradio.media.get_image("tower.jpg"))
    expected = vizlib.metrics.trust_all(model, vizlib.explain_all(model, photo), parts=["stability"])
    shares = sorted((part.parts["stability"].share for part in expected.values()), reverse=True)
    notes = [tile.locator(".viz-note").inner_text() for tile in tiles.all()]
    assert notes == [f"{100 * share:.0f} %" for share in shares] + ["–"] * (len(listed) - len(shares))
    toolbar.locator("select").select_option("")
    assert [tile.get_attribute("data-key") for tile in tiles.all()] == listed
    ended.clear()
    semaphore = threading.Semaphore(0)
    session.page.locator("#bars .viz-class").nth(1).click()
    session.wait_until("() => document.querySelector('#why-methods .viz-ranking').dataset.state === 'waiting'")
    toolbar.locator("button").click()
    semaphore.release()
    session.page.locator("#bars .viz-class").nth(2).click()
    session.wait_until("() => document.querySelector('#why-methods .viz-ranking').dataset.state === 'waiting'")
    semaphore.release(10_000)
    session.wait_on_server(ended.is_set)
    session.settle()
    assert toolbar.get_attribute("data-state") == "waiting"


def test_stop_and_another_choice_end_the_measurement(open_checked_session, limited, monkeypatch):
    ended = threading.Event()
    original = executor_tasks.STREAMS["trust"]

    def record_end(*args):
        try:
            yield from original(*args)
        finally:
            ended.set()

    monkeypatch.setitem(executor_tasks.STREAMS, "trust", record_end)
    session = open_checked_session(f"?m={RESNET}&img=ex:cheetah")
    button = session.page.locator("#why-trust .viz-trust-button")
    for stop in (button.click, session.page.locator("#bars .viz-class").nth(1).click):
        ended.clear()
        button.click()
        limited.release(2)
        session.page.locator("#why-trust li:nth-child(3) .viz-trust-number", has_text="%").wait_for()
        assert button.inner_text() == "Stop"
        stop()
        while not ended.wait(0.2):
            limited.release()  # step by step: a measurement that nothing stops would end as done
        session.settle()
        assert session.page.locator("#why-trust .viz-trust").get_attribute("data-state") != "done"
    assert session.page.locator("#why-trust .viz-trust").get_attribute("data-state") == "waiting"


def test_another_choice_before_the_first_step_shows_bars_of_its_own(open_checked_session, limited):
    session = open_checked_session(f"?m={RESNET}&img=ex:lion")
    bars = session.page.locator("#why-trust .viz-trust")
    session.page.locator("#why-trust button").click()
    session.page.locator("#bars .viz-class").nth(1).click()
    session.wait_until("() => document.querySelector('#why-trust .viz-trust').dataset.state === 'waiting'")
    limited.release(10_000)  # the first measurement ends without being shown
    session.settle()
    assert bars.get_attribute("data-state") == "waiting"
    session.page.locator("#why-trust button").click()
    session.wait_until(DONE)


@pytest.fixture
def automatic():
    """Serve a page that measures at once, and yield its address."""
    page = build_app(ModelCatalog(only=(RESNET,)))
    _, address, _ = launch(page, port=None, prevent_thread_lock=True, quiet=True)
    yield address
    page.close(verbose=False)


def test_four_visitors_at_once_see_the_bars_fill_without_a_click(automatic, chromium):
    pages = [chromium.new_page(viewport={"width": 390, "height": 844}) for _ in range(4)]
    for page, photo in zip(pages, ("tower", "cheetah", "tower", "lion"), strict=True):
        page.goto(f"{automatic}?img=ex:{photo}")
    expected = [f"{100 * part.share:.0f} %" for part in measure().parts.values()]
    for page, photo in zip(pages, ("tower", "cheetah", "tower", "lion"), strict=True):
        page.bring_to_front()
        page.wait_for_function(DONE, timeout=1000 * TIMEOUT_SECONDS)
        if photo == "tower":
            assert page.locator("#why-trust .viz-trust-number").all_inner_texts() == expected
        link = page.locator("#why-trust .viz-help")
        assert link.is_visible() == bool(link.get_attribute("href"))  # only where the documentation was built
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width <= 390
        page.close()
