"""The Why tab as a person uses it: its numbers are the library's, what needs no model asks no server, Stop stops."""

from __future__ import annotations

import time

import numpy as np
import pytest
from cell_boxes import compute_cell_box

import vizlib
from vizlib.metrics.faithfulness import keep_top_fraction
from vizlib.render.color_scale import compute_limits

RESNET, VIT = "resnet18-imagenette", "vit_tiny-imagenette"
HEAT, BAR = "#why-heatmap", "#why-heatmap .viz-numbers"


def shown(number: float) -> str:
    """As the page writes it: three digits that count, a typographic minus."""
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


def ends(answer: vizlib.Attribution) -> list[str]:
    low, high = compute_limits(answer.project_to_photo(), signed=answer.signed)
    return [shown(low), shown(high)]


@pytest.mark.slow
@pytest.mark.parametrize("name", [RESNET, VIT])
def test_class_rival_and_method_show_the_librarys_numbers(open_checked_session, photo, name):
    session = open_checked_session(f"?m={name}&img=ex:cheetah")
    upload(session, photo)
    model, image = vizlib.load(name), vizlib.open_image(photo)
    best = [one.index for one in model.predict(image, top=5)]

    def agrees(method: str, target: int, against: int | None) -> None:
        answer = vizlib.explain(model, image, method, target, against)
        session.wait_until(f"() => document.querySelector('{BAR}')?.textContent.includes('{ends(answer)[1]}')")
        assert ends(answer)[0] in session.get_text(BAR)
        before, after = keep_top_fraction(model, answer)
        session.wait_until("() => document.querySelector('#why-metric strong')")
        assert f"{before:.2f} → {after:.2f}" in session.get_text("#why-metric")
        rival = "" if against is None else f" and not {model.labels[against]}"
        assert session.get_text("#why-caption h2") == f"Why {model.labels[target]}{rival}?"
        difference = np.asarray(session.read_canvas(), float) - np.asarray(answer.overlay(), float)
        assert np.abs(difference).mean() < 2.5  # of 255: the page draws on a JPEG of the photo

    agrees("grad-cam", best[0], None)
    session.wait_for_change(HEAT, lambda: session.page.locator("#bars button").nth(1).click())
    agrees("grad-cam", best[1], None)
    session.wait_for_change(HEAT, lambda: session.page.locator("#bars input").first.check(force=True))
    agrees("grad-cam", best[1], best[0])
    session.wait_for_change(HEAT, lambda: session.page.locator("#why-methods [data-key=input-x-gradient]").click())
    agrees("input-x-gradient", best[1], best[0])
    session.wait_for_change(HEAT, lambda: session.page.locator("#bars input:checked").uncheck(force=True))
    agrees("input-x-gradient", best[1], None)


@pytest.mark.slow
def test_opacity_threshold_colours_and_hover_ask_nothing_of_the_server(open_checked_session, photo):
    session = open_checked_session()
    upload(session, photo)
    image = vizlib.open_image(photo)
    answer = vizlib.explain(vizlib.load(RESNET), image)
    opacity, strongest = (session.page.locator(f"{HEAT} input[type=range]").nth(i) for i in (0, 1))
    asked = list(session.requests)

    session.wait_for_change(HEAT, lambda: opacity.fill("40"))
    theirs = answer.overlay(opacity=0.4)
    assert np.abs(np.asarray(session.read_canvas(), float) - np.asarray(theirs, float)).mean() < 2.5

    session.wait_for_change(HEAT, lambda: session.page.locator(f"{HEAT} select").select_option("viridis"))
    theirs = answer.overlay(opacity=0.4, colormap="viridis")
    assert np.abs(np.asarray(session.read_canvas(), float) - np.asarray(theirs, float)).mean() < 2.5
    assert "rgb(68, 1, 84)" in session.page.locator(f"{HEAT} .viz-bar").get_attribute("style")  # viridis begins so

    everything = np.asarray(session.read_canvas(), int)
    session.wait_for_change(HEAT, lambda: strongest.fill("20"))
    least = np.sort(answer.heat.numpy().ravel())[round(0.8 * answer.heat.numel())]
    hidden = np.nan_to_num(answer.project_to_photo(), nan=np.inf) < least
    some = np.asarray(session.read_canvas(), int)
    session.wait_for_change(HEAT, lambda: opacity.fill("0"))
    bare = np.asarray(session.read_canvas(), int)
    assert (some == bare)[hidden].mean() > 0.995  # but for rounding at the edge
    assert (some == everything)[~hidden].mean() > 0.995
    assert (
        0.1
        < (~hidden & np.isfinite(answer.project_to_photo())).sum() / np.isfinite(answer.project_to_photo()).sum()
        < 0.3
    )

    canvas = session.page.locator(f"{HEAT} canvas")
    box = canvas.bounding_box()
    top, left, bottom, right = compute_cell_box(answer.geometry, 3, 1, tuple(answer.heat.shape))
    share = box["width"] / image.width
    canvas.hover(position={"x": (left + right) / 2 * share, "y": (top + bottom) / 2 * share})
    assert session.get_text(f"{HEAT} output") == f"here {shown(answer.heat[3, 1].item())}"
    canvas.hover(position={"x": box["width"] / 2, "y": 3})
    assert session.get_text(f"{HEAT} output") == "outside the model input"
    session.settle()
    assert session.requests == asked


@pytest.fixture
def steps(monkeypatch):
    """Counts the batches of every stream on the server, and those that have ended."""
    counts = {"steps": 0, "ended": 0}
    real = vizlib.explain_stream

    def counting(*how, **knobs):
        try:
            for step in real(*how, **knobs):
                counts["steps"] += 1
                yield step
                time.sleep(0.3)  # so that a stop comes in the middle on any machine
        finally:
            counts["ended"] += 1

    monkeypatch.setattr(vizlib, "explain_stream", counting)
    return counts


def begin(session) -> None:
    """Choose RISE and wait until its first map is there."""
    session.page.locator("#why-methods [data-key=rise]").click()
    session.wait_until("() => document.querySelector('#why-progress .viz-primary-button')?.checkVisibility()")
    if session.page.locator("#why-progress .viz-primary-button").inner_text() == "Start":
        assert "about" in session.get_text("#why-progress p")
        assert session.page.locator(f"{HEAT} canvas").get_attribute("data-drawn") == "photo"
        session.page.locator("#why-progress .viz-primary-button").click()
    session.wait_until("() => document.querySelector('#why-progress [data-state=running]')")


@pytest.mark.slow
def test_a_stop_ends_the_work_within_a_batch_and_keeps_the_partial_map(open_checked_session, steps):
    session = open_checked_session("?img=ex:grace_hopper")
    begin(session)
    session.wait_until("() => document.querySelector('#why-progress progress').value > 0")
    assert session.page.locator("#why-progress progress").evaluate("bar => bar.value") < 1
    before = steps["steps"]
    session.page.locator("#why-progress .viz-primary-button").click()
    said = session.get_text("#why-progress p")
    done = int(said.split()[2].replace(",", ""))
    assert said == f"Stopped after {done} of 1,000 passes; the map shows the result so far."
    session.wait_on_server(lambda: steps["ended"] == 1)
    assert steps["steps"] <= before + 2  # the batch it was in, and one more that was under way
    session.page.wait_for_timeout(1500)
    assert steps["steps"] <= before + 2
    assert session.page.locator(f"{HEAT} canvas").get_attribute("data-drawn").startswith(f"{RESNET}_rise")
    assert session.page.locator("#why-progress .viz-primary-button").inner_text() == "Start again"


@pytest.mark.slow
def test_a_step_that_was_on_its_way_does_not_undo_a_stop(open_checked_session, steps):
    session = open_checked_session("?img=ex:grace_hopper")
    begin(session)
    held = []
    session.page.route("**/cancel*", lambda route: held.append(route))
    session.page.locator("#why-progress .viz-primary-button").click()
    before = steps["steps"]
    session.wait_on_server(lambda: steps["steps"] >= before + 2)
    session.wait_on_server(lambda: held)
    session.page.wait_for_timeout(500)  # for what the last step would draw
    assert session.get_text("#why-progress p").startswith("Stopped after ")
    assert session.page.locator("#why-progress .viz-primary-button").inner_text() == "Start again"
    held[0].continue_()
    session.settle()


@pytest.mark.slow
@pytest.mark.parametrize("late", [False, True])
def test_another_choice_ends_the_work_and_shows_its_own_answer(open_checked_session, steps, late):
    session = open_checked_session("?img=ex:grace_hopper")
    begin(session)
    if late:  # gradio's own word to the server that the work is to end comes too late, or never
        session.page.route("**/cancel*", lambda route: None)
    before = steps["steps"]
    session.page.locator("#why-methods [data-key=saliency]").click()
    session.wait_on_server(lambda: steps["ended"] == 1)
    assert steps["steps"] <= before + 2  # of 28
    session.settle()
    assert session.page.locator(f"{HEAT} canvas").get_attribute("data-drawn").startswith(f"{RESNET}_saliency")
    assert not session.page.locator("#why-progress p").is_visible()


@pytest.mark.slow
def test_what_runs_to_its_end_is_the_librarys_and_is_there_at_once_the_second_time(open_checked_session, tower):
    session = open_checked_session("?img=ex:tower")
    session.page.locator("#why-methods [data-key=occlusion]").click()
    session.wait_until("() => document.querySelector('#why-progress .viz-primary-button')?.checkVisibility()")
    if session.page.locator("#why-progress .viz-primary-button").inner_text() == "Start":
        session.page.locator("#why-progress .viz-primary-button").click()
    session.wait_until("() => document.querySelector('#why-progress .viz-progress').hidden", seconds=120)
    session.settle()
    answer = vizlib.explain(vizlib.load(RESNET), tower, "occlusion")
    assert [part in session.get_text(BAR) for part in ends(answer)] == [True, True]
    session.page.locator("#why-methods [data-key=grad-cam]").click()
    session.settle()
    session.page.locator("#why-methods [data-key=occlusion]").click()
    session.settle()
    assert not session.page.locator("#why-progress p").is_visible()
    assert [part in session.get_text(BAR) for part in ends(answer)] == [True, True]


def test_one_event_brings_the_first_view_and_one_a_click(open_checked_session, photo):
    session = open_checked_session()
    session.page.locator("#photo button[aria-label='Remove Image']").click()
    session.settle()
    held = []

    def first_only(route) -> None:
        held.append(route)
        if len(held) == 1:
            route.continue_()

    def changes_by_one_event(act) -> None:
        held.clear()
        session.wait_for_redraw(HEAT, act)

    session.page.route("**/queue/join*", first_only)
    changes_by_one_event(lambda: session.upload(photo))
    session.wait_until("() => document.querySelectorAll('#bars button').length === 5")
    session.wait_until("() => document.querySelectorAll('#why-methods canvas').length >= 10")
    first, second = vizlib.load(RESNET).predict(photo)[:2]
    session.wait_for_text("#why-caption h2", f"Why {first.label}?")
    changes_by_one_event(lambda: session.page.locator("#bars button").nth(1).click())
    session.wait_for_text("#why-caption h2", f"Why {second.label}?")


@pytest.mark.slow
def test_what_is_chosen_far_below_comes_into_sight_on_a_phone(open_checked_session, monkeypatch):
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
