"""The Why tab as a person uses it: its numbers are the library's, what needs no model asks no server, Stop stops."""

from __future__ import annotations

import time

import numpy as np
import pytest

import vizlib
from vizlib.metrics.faithfulness import kept
from vizlib.render import overlay as render

RESNET, VIT = "resnet18-imagenette", "vit_tiny-imagenette"
HEAT, BAR = "#why-heat", "#why-heat .viz-numbers"


def shown(number: float) -> str:
    """As the page writes it: three digits that count, a typographic minus."""
    size = abs(number)
    if number == 0:
        return "0"
    text = f"{number:.1e}" if size >= 1e4 or size < 1e-3 else f"{number:#.3g}"
    mantissa, e, exponent = text.partition("e")
    text = f"{mantissa}e{int(exponent):+d}" if e else mantissa.rstrip(".")
    return text.replace("-", "−")


def upload(visit, photo) -> None:
    visit.page.locator("#photo button[aria-label='Remove Image']").click()
    visit.settle()
    visit.upload(photo)
    visit.until("() => document.querySelectorAll('#bars button').length >= 5")
    visit.settle()


def ends(answer: vizlib.Attribution) -> list[str]:
    low, high = render.limits_of(answer.on_photo(), signed=answer.signed)
    return [shown(low), shown(high)]


@pytest.mark.slow
@pytest.mark.parametrize("name", [RESNET, VIT])
def test_class_rival_and_method_show_the_librarys_numbers(fresh, photo, name):
    visit = fresh(f"?m={name}&img=ex:cheetah")
    upload(visit, photo)
    model, image = vizlib.load(name), vizlib.open_image(photo)
    best = [one.index for one in model.predict(image, top=5)]

    def agrees(method: str, target: int, against: int | None) -> None:
        answer = vizlib.explain(model, image, method, target, against)
        visit.until(f"() => document.querySelector('{BAR}')?.textContent.includes('{ends(answer)[1]}')")
        assert ends(answer)[0] in visit.said(BAR)
        before, after = kept(model, answer)
        visit.until("() => document.querySelector('#why-kept strong')")
        assert f"{before:.2f} → {after:.2f}" in visit.said("#why-kept")
        rival = "" if against is None else f" and not {model.labels[against]}"
        assert visit.said("#why-words h2") == f"Why {model.labels[target]}{rival}?"
        difference = np.asarray(visit.picture(), float) - np.asarray(answer.overlay(), float)
        assert np.abs(difference).mean() < 2.5  # of 255: the page draws on a JPEG of the photo

    agrees("grad-cam", best[0], None)
    visit.changes(HEAT, lambda: visit.page.locator("#bars button").nth(1).click())
    agrees("grad-cam", best[1], None)
    visit.changes(HEAT, lambda: visit.page.locator("#bars input").first.check(force=True))
    agrees("grad-cam", best[1], best[0])
    visit.changes(HEAT, lambda: visit.page.locator("#why-methods [data-key=input-x-gradient]").click())
    agrees("input-x-gradient", best[1], best[0])
    visit.changes(HEAT, lambda: visit.page.locator("#bars input:checked").uncheck(force=True))
    agrees("input-x-gradient", best[1], None)


@pytest.mark.slow
def test_opacity_threshold_colours_and_hover_ask_nothing_of_the_server(fresh, photo):
    visit = fresh()
    upload(visit, photo)
    image = vizlib.open_image(photo)
    answer = vizlib.explain(vizlib.load(RESNET), image)
    opacity, strongest = (visit.page.locator(f"{HEAT} input[type=range]").nth(i) for i in (0, 1))
    asked = list(visit.requests)

    visit.changes(HEAT, lambda: opacity.fill("40"))
    theirs = answer.overlay(opacity=0.4)
    assert np.abs(np.asarray(visit.picture(), float) - np.asarray(theirs, float)).mean() < 2.5

    visit.changes(HEAT, lambda: visit.page.locator(f"{HEAT} select").select_option("viridis"))
    theirs = answer.overlay(opacity=0.4, colormap="viridis")
    assert np.abs(np.asarray(visit.picture(), float) - np.asarray(theirs, float)).mean() < 2.5
    assert "rgb(68, 1, 84)" in visit.page.locator(f"{HEAT} .viz-bar").get_attribute("style")  # viridis begins so

    everything = np.asarray(visit.picture(), int)
    visit.changes(HEAT, lambda: strongest.fill("20"))
    least = np.sort(answer.heat.numpy().ravel())[round(0.8 * answer.heat.numel())]
    hidden = np.nan_to_num(answer.on_photo(), nan=np.inf) < least
    some = np.asarray(visit.picture(), int)
    visit.changes(HEAT, lambda: opacity.fill("0"))
    bare = np.asarray(visit.picture(), int)
    assert (some == bare)[hidden].mean() > 0.995  # but for rounding at the edge
    assert (some == everything)[~hidden].mean() > 0.995
    assert 0.1 < (~hidden & np.isfinite(answer.on_photo())).sum() / np.isfinite(answer.on_photo()).sum() < 0.3

    canvas = visit.page.locator(f"{HEAT} canvas")
    box = canvas.bounding_box()
    top, left, bottom, right = answer.geometry.cell_box(3, 1, tuple(answer.heat.shape))
    share = box["width"] / image.width
    canvas.hover(position={"x": (left + right) / 2 * share, "y": (top + bottom) / 2 * share})
    assert visit.said(f"{HEAT} output") == f"here {shown(answer.heat[3, 1].item())}"
    canvas.hover(position={"x": box["width"] / 2, "y": 3})
    assert visit.said(f"{HEAT} output") == "not seen by the model"
    visit.settle()
    assert visit.requests == asked


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


def begin(visit) -> None:
    """Choose RISE and wait until its first map is there."""
    visit.page.locator("#why-methods [data-key=rise]").click()
    visit.until("() => document.querySelector('#why-progress .viz-begin')?.checkVisibility()")
    if visit.page.locator("#why-progress .viz-begin").inner_text() == "Start":
        assert "about" in visit.said("#why-progress p")
        assert visit.page.locator(f"{HEAT} canvas").get_attribute("data-drawn") == "photo"
        visit.page.locator("#why-progress .viz-begin").click()
    visit.until("() => document.querySelector('#why-progress [data-state=running]')")


@pytest.mark.slow
def test_a_stop_ends_the_work_within_a_batch_and_keeps_the_partial_map(fresh, steps):
    visit = fresh("?img=ex:grace_hopper")
    begin(visit)
    visit.until("() => document.querySelector('#why-progress progress').value > 0")
    assert visit.page.locator("#why-progress progress").evaluate("bar => bar.value") < 1
    before = steps["steps"]
    visit.page.locator("#why-progress .viz-begin").click()
    said = visit.said("#why-progress p")
    done = int(said.split()[2].replace(",", ""))
    assert said == f"Stopped after {done} of 1,000 passes; the map is what they gave."
    visit.goes_on(lambda: steps["ended"] == 1)
    assert steps["steps"] <= before + 2  # the batch it was in, and one more that was under way
    visit.page.wait_for_timeout(1500)
    assert steps["steps"] <= before + 2
    assert visit.page.locator(f"{HEAT} canvas").get_attribute("data-drawn").startswith(f"{RESNET}_rise")
    assert visit.page.locator("#why-progress .viz-begin").inner_text() == "Start again"


@pytest.mark.slow
def test_a_step_that_was_on_its_way_does_not_undo_a_stop(fresh, steps):
    visit = fresh("?img=ex:grace_hopper")
    begin(visit)
    held = []
    visit.page.route("**/cancel*", lambda route: held.append(route))
    visit.page.locator("#why-progress .viz-begin").click()
    before = steps["steps"]
    visit.goes_on(lambda: steps["steps"] >= before + 2)
    visit.goes_on(lambda: held)
    visit.page.wait_for_timeout(500)  # for what the last step would draw
    assert visit.said("#why-progress p").startswith("Stopped after ")
    assert visit.page.locator("#why-progress .viz-begin").inner_text() == "Start again"
    held[0].continue_()
    visit.settle()


@pytest.mark.slow
@pytest.mark.parametrize("late", [False, True])
def test_another_choice_ends_the_work_and_shows_its_own_answer(fresh, steps, late):
    visit = fresh("?img=ex:grace_hopper")
    begin(visit)
    if late:  # gradio's own word to the server that the work is to end comes too late, or never
        visit.page.route("**/cancel*", lambda route: None)
    before = steps["steps"]
    visit.page.locator("#why-methods [data-key=saliency]").click()
    visit.goes_on(lambda: steps["ended"] == 1)
    assert steps["steps"] <= before + 2  # of 28
    visit.settle()
    assert visit.page.locator(f"{HEAT} canvas").get_attribute("data-drawn").startswith(f"{RESNET}_saliency")
    assert not visit.page.locator("#why-progress p").is_visible()


@pytest.mark.slow
def test_what_runs_to_its_end_is_the_librarys_and_is_there_at_once_the_second_time(fresh, tower):
    visit = fresh("?img=ex:tower")
    visit.page.locator("#why-methods [data-key=occlusion]").click()
    visit.until("() => document.querySelector('#why-progress .viz-begin')?.checkVisibility()")
    if visit.page.locator("#why-progress .viz-begin").inner_text() == "Start":
        visit.page.locator("#why-progress .viz-begin").click()
    visit.until("() => document.querySelector('#why-progress .viz-progress').hidden", seconds=120)
    visit.settle()
    answer = vizlib.explain(vizlib.load(RESNET), tower, "occlusion")
    assert [part in visit.said(BAR) for part in ends(answer)] == [True, True]
    visit.page.locator("#why-methods [data-key=grad-cam]").click()
    visit.settle()
    visit.page.locator("#why-methods [data-key=occlusion]").click()
    visit.settle()
    assert not visit.page.locator("#why-progress p").is_visible()
    assert [part in visit.said(BAR) for part in ends(answer)] == [True, True]


def test_one_event_brings_the_first_view_and_one_a_click(fresh, photo):
    visit = fresh()
    visit.page.locator("#photo button[aria-label='Remove Image']").click()
    visit.settle()
    held = []

    def first_only(route) -> None:
        held.append(route)
        if len(held) == 1:
            route.continue_()

    def changes_by_one_event(act) -> None:
        held.clear()
        visit.redraws(HEAT, act)

    visit.page.route("**/queue/join*", first_only)
    changes_by_one_event(lambda: visit.upload(photo))
    visit.until("() => document.querySelectorAll('#bars button').length === 5")
    visit.until("() => document.querySelectorAll('#why-methods canvas').length >= 10")
    first, second = vizlib.load(RESNET).predict(photo)[:2]
    visit.reads("#why-words h2", f"Why {first.label}?")
    changes_by_one_event(lambda: visit.page.locator("#bars button").nth(1).click())
    visit.reads("#why-words h2", f"Why {second.label}?")


@pytest.mark.slow
def test_what_is_chosen_far_below_comes_into_sight_on_a_phone(fresh, monkeypatch):
    monkeypatch.setattr(vizlib, "estimate", lambda *_, **__: 40.0)
    visit = fresh(f"?m={VIT}&img=ex:cheetah", width=390, height=844)
    visit.page.locator("#why-methods [data-key=ablation-cam]").click()
    visit.until("() => document.querySelector('#why-progress .viz-begin')?.checkVisibility()")
    visit.settle()
    assert visit.said("#why-progress p") == (
        "ablation-cam asks the network again and again: about 40 seconds on this machine."
    )
    assert 0 < visit.page.locator("#why-progress .viz-begin").bounding_box()["y"] < 800
    visit.page.locator("#why-methods [data-key=saliency]").scroll_into_view_if_needed()
    visit.changes(HEAT, lambda: visit.page.locator("#why-methods [data-key=saliency]").click())
    box = visit.page.locator(f"{HEAT} canvas").bounding_box()
    assert box["y"] + box["height"] > 100
