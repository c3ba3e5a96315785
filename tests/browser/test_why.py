"""The Why tab shows the library's numbers, sends no request for display controls, and stops long methods."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from cell_boxes import compute_cell_box

import vizlib
from dashboard.state.generation_counter import GenerationCounter
from vizlib.metrics import keep_top_fraction
from vizlib.render.color_scale import compute_limits

RESNET, VIT = "resnet18-imagenette", "vit_tiny-imagenette"
HEAT, BAR = "#why-heatmap", "#why-heatmap .viz-numbers"
TIMEOUT_SECONDS = 60  # of a stream that nothing continues


def format_number(number: float) -> str:
    """Return a number as the page formats it: three significant digits and a typographic minus."""
    size = abs(number)
    if number == 0:
        return "0"
    text = f"{number:.1e}" if size >= 1e4 or size < 1e-3 else f"{number:#.3g}"
    mantissa, e, exponent = text.partition("e")
    text = f"{mantissa}e{int(exponent):+d}" if e else mantissa.rstrip(".")
    return text.replace("-", "−")


def upload(session, photo) -> None:
    session.page.locator("#photo button[aria-label='Remove Image']").click()
    session.settle()
    session.upload(photo)
    session.wait_until("() => document.querySelectorAll('#bars button').length >= 5")
    session.settle()


def format_limits(attribution: vizlib.Attribution) -> list[str]:
    low, high = compute_limits(attribution.project_to_photo(), signed=attribution.signed)
    return [format_number(low), format_number(high)]


@pytest.mark.slow
@pytest.mark.parametrize("name", [RESNET, VIT])
def test_class_contrast_and_method_show_the_librarys_numbers(open_checked_session, photo, name):
    session = open_checked_session(f"?m={name}&img=ex:cheetah")
    upload(session, photo)
    model, image = vizlib.load(name), vizlib.open_image(photo)
    best = [row.index for row in model.predict(image, top=5)]

    def check_tab(method: str, target: int, against: int | None) -> None:
        answer = vizlib.explain(model, image, method, target, against)
        session.wait_until(f"() => document.querySelector('{BAR}')?.textContent.includes('{format_limits(answer)[1]}')")
        assert format_limits(answer)[0] in session.get_text(BAR)
        before, after = keep_top_fraction(model, answer)
        session.wait_until("() => document.querySelector('#why-metric strong')")
        assert f"{before:.2f} → {after:.2f}" in session.get_text("#why-metric")
        contrast = "" if against is None else f" and not {model.labels[against]}"
        assert session.get_text("#why-caption h2") == f"Why {model.labels[target]}{contrast}?"
        difference = np.asarray(session.read_canvas(), float) - np.asarray(answer.overlay(), float)
        assert np.abs(difference).mean() < 2.5  # of 255: the page draws on a JPEG of the photo

    check_tab("grad-cam", best[0], None)
    session.wait_for_change(HEAT, lambda: session.page.locator("#bars button").nth(1).click())
    check_tab("grad-cam", best[1], None)
    session.wait_for_change(HEAT, lambda: session.page.locator("#bars input").first.check(force=True))
    check_tab("grad-cam", best[1], best[0])
    session.wait_for_change(HEAT, lambda: session.page.locator("#why-methods [data-key=input-x-gradient]").click())
    check_tab("input-x-gradient", best[1], best[0])
    session.wait_for_change(HEAT, lambda: session.page.locator("#bars input:checked").uncheck(force=True))
    check_tab("input-x-gradient", best[1], None)


@pytest.mark.slow
def test_opacity_threshold_colours_and_hover_send_no_request(open_checked_session, photo):
    session = open_checked_session()
    upload(session, photo)
    image = vizlib.open_image(photo)
    answer = vizlib.explain(vizlib.load(RESNET), image)
    opacity, strongest = (session.page.locator(f"{HEAT} input[type=range]").nth(i) for i in (0, 1))
    requests = list(session.requests)

    session.wait_for_change(HEAT, lambda: opacity.fill("40"))
    expected = answer.overlay(opacity=0.4)
    assert np.abs(np.asarray(session.read_canvas(), float) - np.asarray(expected, float)).mean() < 2.5

    session.wait_for_change(HEAT, lambda: session.page.locator(f"{HEAT} select").select_option("viridis"))
    expected = answer.overlay(opacity=0.4, colormap="viridis")
    assert np.abs(np.asarray(session.read_canvas(), float) - np.asarray(expected, float)).mean() < 2.5
    assert "rgb(68, 1, 84)" in session.page.locator(f"{HEAT} .viz-bar").get_attribute(
        "style"
    )  # the first colour of viridis

    unfiltered = np.asarray(session.read_canvas(), int)
    session.wait_for_change(HEAT, lambda: strongest.fill("20"))
    threshold = np.sort(answer.heat.numpy().ravel())[round(0.8 * answer.heat.numel())]
    hidden = np.nan_to_num(answer.project_to_photo(), nan=np.inf) < threshold
    filtered = np.asarray(session.read_canvas(), int)
    session.wait_for_change(HEAT, lambda: opacity.fill("0"))
    photo_only = np.asarray(session.read_canvas(), int)
    assert (filtered == photo_only)[hidden].mean() > 0.995  # except for rounding at edges
    assert (filtered == unfiltered)[~hidden].mean() > 0.995
    assert (
        0.1
        < (~hidden & np.isfinite(answer.project_to_photo())).sum() / np.isfinite(answer.project_to_photo()).sum()
        < 0.3
    )

    canvas = session.page.locator(f"{HEAT} canvas")
    box = canvas.bounding_box()
    rows, columns = answer.heat.shape
    top, left, bottom, right = compute_cell_box(answer.geometry, 3, 1, (rows, columns))
    share = box["width"] / image.width
    canvas.hover(position={"x": (left + right) / 2 * share, "y": (top + bottom) / 2 * share})
    assert session.get_text(f"{HEAT} output") == f"here {format_number(answer.heat[3, 1].item())}"
    canvas.hover(position={"x": box["width"] / 2, "y": 3})
    assert session.get_text(f"{HEAT} output") == "outside the model input"
    session.settle()
    assert session.requests == requests


class HeldStreams:
    """Streams on the server that wait after their second batch until they may continue.

    Attributes:
        steps: Number of batches of all streams so far.
        ended: Number of streams that have ended.
        may_continue: Set when no stream waits any more.
    """

    def __init__(self) -> None:
        self.steps = self.ended = 0
        self.may_continue = threading.Event()
        self._original = vizlib.explain_stream

    def __call__(self, *args, **kwargs):
        """Yield the steps of a stream."""
        try:
            for step in self._original(*args, **kwargs):
                self.steps += 1
                yield step
                if self.steps >= 2:
                    assert self.may_continue.wait(TIMEOUT_SECONDS)
        finally:
            self.ended += 1


@pytest.fixture
def streams(monkeypatch):
    """Hold the streams on the server."""
    held = HeldStreams()
    monkeypatch.setattr(vizlib, "explain_stream", held)
    yield held
    held.may_continue.set()


def start_rise(session) -> None:
    """Select RISE and wait until it runs."""
    session.page.locator("#why-methods [data-key=rise]").click()
    session.wait_until("() => document.querySelector('#why-progress .viz-primary-button')?.checkVisibility()")
    if session.page.locator("#why-progress .viz-primary-button").inner_text() == "Start":
        assert "about" in session.get_text("#why-progress p")
        assert session.page.locator(f"{HEAT} canvas").get_attribute("data-drawn") == "photo"
        session.page.locator("#why-progress .viz-primary-button").click()
    session.wait_until("() => document.querySelector('#why-progress [data-state=running]')")


@pytest.mark.slow
def test_stop_ends_the_work_within_a_batch_and_keeps_the_partial_map(open_checked_session, streams):
    session = open_checked_session("?img=ex:grace_hopper")
    start_rise(session)
    session.wait_until("() => document.querySelector('#why-progress progress').value > 0")
    assert session.page.locator("#why-progress progress").evaluate("bar => bar.value") < 1
    with session.page.expect_response("**/cancel*"):
        session.page.locator("#why-progress .viz-primary-button").click()
    text = session.get_text("#why-progress p")
    done = int(text.split()[2].replace(",", ""))
    assert text == f"Stopped after {done} of 1,000 passes; the map shows the result so far."
    before = streams.steps
    streams.may_continue.set()
    session.wait_on_server(lambda: streams.ended == 1)
    assert streams.steps <= before + 1  # of 28; the batch that was in flight
    session.settle()
    assert streams.steps <= before + 1
    assert session.page.locator(f"{HEAT} canvas").get_attribute("data-drawn").startswith(f"{RESNET}_rise")
    assert session.page.locator("#why-progress .viz-primary-button").inner_text() == "Start again"


@pytest.mark.slow
def test_step_that_arrives_after_stop_is_ignored(open_checked_session, streams):
    session = open_checked_session("?img=ex:grace_hopper")
    start_rise(session)
    routes = []
    session.page.route("**/cancel*", lambda route: routes.append(route))
    session.page.locator("#why-progress .viz-primary-button").click()
    session.wait_on_server(lambda: routes)
    before = session.page.evaluate("numReceivedSteps()")
    streams.may_continue.set()
    session.wait_until(f"() => numReceivedSteps() >= {before + 2}")
    session.page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    assert session.get_text("#why-progress p").startswith("Stopped after ")
    assert session.page.locator("#why-progress .viz-primary-button").inner_text() == "Start again"
    routes[0].continue_()
    session.settle()


@pytest.mark.slow
@pytest.mark.parametrize("late", [False, True])
def test_another_choice_ends_the_work_and_shows_its_own_map(open_checked_session, streams, monkeypatch, late):
    advance = GenerationCounter.advance

    def advance_and_continue(*args):
        advance(*args)
        streams.may_continue.set()

    session = open_checked_session("?img=ex:grace_hopper")
    start_rise(session)
    if late:  # gradio's own cancel request comes too late, or never
        session.page.route("**/cancel*", lambda route: None)
    session.wait_on_server(lambda: streams.steps == 2)
    monkeypatch.setattr(GenerationCounter, "advance", advance_and_continue)
    session.page.locator("#why-methods [data-key=saliency]").click()
    session.wait_on_server(lambda: streams.ended == 1)
    assert streams.steps <= 3  # of 28
    session.settle()
    assert session.page.locator(f"{HEAT} canvas").get_attribute("data-drawn").startswith(f"{RESNET}_saliency")
    assert not session.page.locator("#why-progress p").is_visible()


@pytest.mark.slow
def test_completed_method_equals_the_library_and_is_cached(open_checked_session, tower):
    session = open_checked_session("?img=ex:tower")
    session.page.locator("#why-methods [data-key=occlusion]").click()
    session.wait_until("() => document.querySelector('#why-progress .viz-primary-button')?.checkVisibility()")
    if session.page.locator("#why-progress .viz-primary-button").inner_text() == "Start":
        session.page.locator("#why-progress .viz-primary-button").click()
    session.wait_until("() => document.querySelector('#why-progress .viz-progress').hidden", seconds=120)
    session.settle()
    answer = vizlib.explain(vizlib.load(RESNET), tower, "occlusion")
    assert [limit in session.get_text(BAR) for limit in format_limits(answer)] == [True, True]
    session.page.locator("#why-methods [data-key=grad-cam]").click()
    session.settle()
    session.page.locator("#why-methods [data-key=occlusion]").click()
    session.settle()
    assert not session.page.locator("#why-progress p").is_visible()
    assert [limit in session.get_text(BAR) for limit in format_limits(answer)] == [True, True]


def test_upload_and_click_each_need_one_event(open_checked_session, photo):
    session = open_checked_session()
    session.page.locator("#photo button[aria-label='Remove Image']").click()
    session.settle()
    routes = []

    def continue_first(route) -> None:
        routes.append(route)
        if len(routes) == 1:
            route.continue_()

    def check_one_event(act) -> None:
        routes.clear()
        session.wait_for_redraw(HEAT, act)

    session.page.route("**/queue/join*", continue_first)
    check_one_event(lambda: session.upload(photo))
    session.wait_until("() => document.querySelectorAll('#bars button').length === 5")
    session.wait_until("() => document.querySelectorAll('#why-methods canvas').length >= 10")
    first, second = vizlib.load(RESNET).predict(photo)[:2]
    session.wait_for_text("#why-caption h2", f"Why {first.label}?")
    check_one_event(lambda: session.page.locator("#bars button").nth(1).click())
    session.wait_for_text("#why-caption h2", f"Why {second.label}?")


@pytest.mark.slow
def test_phone_scrolls_to_the_map_selected_below(open_checked_session, monkeypatch):
    monkeypatch.setattr(vizlib, "estimate", lambda *_, **__: 40.0)
    session = open_checked_session(f"?m={VIT}&img=ex:cheetah", width=390, height=844)
    session.page.locator("#why-methods [data-key=ablation-cam]").click()
    session.wait_until("() => document.querySelector('#why-progress .viz-primary-button')?.checkVisibility()")
    session.settle()
    assert session.get_text("#why-progress p") == (
        "ablation-cam needs many forward passes: about 40 seconds on this machine."
    )
    assert 0 < session.page.locator("#why-progress .viz-primary-button").bounding_box()["y"] < 800
    session.page.locator("#why-methods [data-key=saliency]").scroll_into_view_if_needed()
    session.wait_for_change(HEAT, lambda: session.page.locator("#why-methods [data-key=saliency]").click())
    box = session.page.locator(f"{HEAT} canvas").bounding_box()
    assert box["y"] + box["height"] > 100
