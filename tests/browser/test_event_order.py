"""In whatever order a person clicks, and however late the answers come, the page ends on what was chosen last."""

from __future__ import annotations

import time
from urllib.parse import parse_qs, urlsplit

import pytest

import vizlib
from dashboard.tabs import inspect as inside
from dashboard.tabs import learn, why

pytestmark = pytest.mark.slow
RESNET, VIT = "resnet18-imagenette", "vit_tiny-imagenette"
SLOW = 1.5  # seconds that an answer is late
DELAYS = (
    pytest.param((SLOW, 0), id="the first is late"),
    pytest.param((0, SLOW), id="the second is late"),
)


@pytest.fixture(params=[why])
def late(monkeypatch, request):
    """Holds back what a tab draws: the next one by the first of so many seconds, and so on."""
    delays: list[float] = []
    real = request.param.draw

    def held_back(*args, **kwargs):
        answer = real(*args, **kwargs)
        time.sleep(delays.pop(0) if delays else 0)
        return answer

    monkeypatch.setattr(request.param, "draw", held_back)
    return delays


def bar(place: int) -> str:
    """A click on one of the likeliest classes, counted from 0."""
    return f"document.querySelectorAll('#bars .viz-class')[{place}].click()"


def method(name: str) -> str:
    return f"document.querySelector('#why-methods [data-key={name}]').click()"


def rival(place: int) -> str:
    """A click on the "vs" beside a class, counted from 0 among those that have one."""
    return f"document.querySelectorAll('#bars input')[{place}].click()"


def knob(place: int) -> str:
    """The choice of this place in the menu of the first knob."""
    menu = "document.querySelector('#why-parameters select')"
    return f"{menu}.value = {place}; {menu}.dispatchEvent(new Event('change'))"


def answered(session) -> None:
    """Wait until no choice waits for its answer any more, on any desk."""
    session.wait_until("() => !document.querySelector('.viz-event_queue[data-busy]')")
    session.settle()


def ends(session, model: str, name: str, target: int, against: int | None = None) -> None:
    """Wait for the last answer, then see that the heat, the words, the strip, the bars and the address are of it."""
    network = vizlib.load(model)
    labels = network.labels
    versus = f"_vs_{against}" if against is not None else ""
    answered(session)
    drawn = session.page.locator("#why-heatmap canvas").get_attribute("data-drawn")
    keys = {key: values[0] for key, values in parse_qs(urlsplit(session.page.url).query).items()}
    heading = f"Why {labels[target]}" + (f" and not {labels[against]}?" if against is not None else "?")
    assert {
        "drawn": drawn.removesuffix(versus + ".png"),
        "words": session.get_text("#why-caption h2"),
        "strip": session.page.locator("#why-methods [aria-pressed=true]").get_attribute("data-key"),
        "bars": session.get_target(),
        "menu": session.page.locator("#model input").input_value().split(" ")[0],
        "address": (keys["m"], keys["w"], keys["c"], keys.get("vs")),
    } == {
        "drawn": f"{model}_{name}_{target}",
        "words": heading,
        "strip": name,
        "bars": target,
        "menu": model,
        "address": (model, name, labels[target], None if against is None else labels[against]),
    }


@pytest.mark.parametrize("delays", DELAYS)
@pytest.mark.parametrize(
    ("clicks", "name", "place", "versus"),
    [
        ((bar(1), method("saliency")), "saliency", 1, None),
        ((method("saliency"), bar(1)), "saliency", 1, None),
        ((bar(1), bar(2)), "grad-cam", 2, None),
        ((method("saliency"), method("hires-cam")), "hires-cam", 0, None),
        ((bar(1), method("saliency"), bar(2)), "saliency", 2, None),
        ((rival(1), method("saliency")), "saliency", 0, 2),
    ],
    ids=["class, method", "method, class", "two classes", "two methods", "class, method, class", "rival, method"],
)
def test_two_clicks_at_once_end_on_both(open_checked_session, late, tower, clicks, name, place, versus, delays):
    session = open_checked_session("?img=ex:tower")
    best = [one.index for one in vizlib.load(RESNET).predict(tower, top=5)]
    late.extend(delays)
    session.page.evaluate("; ".join(clicks))
    ends(session, RESNET, name, best[place], None if versus is None else best[versus])


@pytest.mark.parametrize("delays", DELAYS)
def test_a_class_and_a_method_chosen_while_a_model_opens_are_of_that_model(open_checked_session, late, tower, delays):
    session = open_checked_session("?img=ex:tower")
    best = [one.index for one in vizlib.load(RESNET).predict(tower, top=5)]
    late.extend(delays)
    session.choose_option("#model", VIT)
    session.page.evaluate(bar(2))
    session.page.evaluate(method("saliency"))
    ends(session, VIT, "saliency", best[2])


def test_two_knobs_turned_at_once_are_both_turned(open_checked_session, late):
    session = open_checked_session("?img=ex:tower")
    late.extend((SLOW, 0))
    session.page.evaluate(knob(1))
    session.page.evaluate(knob(2))
    answered(session)
    chosen = session.page.locator("#why-parameters select").first
    name = chosen.locator("option").nth(2).inner_text()
    assert chosen.evaluate("menu => menu.selectedIndex") == 2
    assert parse_qs(urlsplit(session.page.url).query)["k"] == [f"layer:{name}"]


@pytest.mark.parametrize("late", [learn], indirect=True)
def test_two_steps_of_a_lesson_chosen_at_once_end_on_the_second(open_checked_session, late):
    session = open_checked_session("?img=ex:tower&v=learn")
    session.wait_until("() => document.querySelectorAll('#learn .viz-dot').length === 8")
    late.extend((SLOW, 0))
    for step in (2, 4):
        session.page.evaluate(f"document.querySelectorAll('#learn .viz-dot')[{step}].click()")
    session.wait_until("() => document.querySelector('#learn .viz-lesson').dataset.step === '4'")


@pytest.mark.parametrize("late", [inside], indirect=True)
@pytest.mark.parametrize("last", ["unit", "layer"])
def test_a_class_a_layer_and_a_unit_chosen_at_once_are_all_seen_inside(open_checked_session, late, tower, last):
    session = open_checked_session("?img=ex:tower&v=inside")
    best = vizlib.load(RESNET).predict(tower, top=2)
    unit = session.page.locator("#inside-channels .viz-tile").nth(3).get_attribute("data-key")
    clicks = {
        "layer": "document.querySelector('#inside-tree [data-layer=layer3]').click()",
        "unit": f"document.querySelector('#inside-channels [data-key=\"{unit}\"]').click()",
    }
    late.extend((SLOW, 0))
    for what in sorted(clicks, key=lambda what: what == last):
        session.page.evaluate(clicks[what])
    session.page.evaluate(bar(1))
    answered(session)
    layer = {"unit": "layer4", "layer": "layer3"}[last]  # the sheet that was clicked on was layer4's
    assert session.get_text("#inside-channels h2") == f"Channels of {layer}, by contribution to {best[1].label}"
    words = session.get_text("#inside-caption h2")
    assert words.endswith(f" of {layer}")
    assert (words == f"Channel {unit} of layer4") == (last == "unit")
