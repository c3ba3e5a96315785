"""The page ends on the last selection, in whatever order the clicks are made and however late the responses arrive."""

from __future__ import annotations

import threading
import time
from urllib.parse import parse_qs, urlsplit

import pytest
from http_timeouts import TIMEOUT_SECONDS

import vizlib
from dashboard.services.model_catalog import ModelCatalog
from dashboard.tabs import inspect, learn, why

pytestmark = pytest.mark.slow
RESNET, VIT = "resnet18-imagenette", "vit_tiny-imagenette"
DELAY_SECONDS = 1.5  # of a late response
DELAYS = (
    pytest.param((DELAY_SECONDS, 0), id="the first is late"),
    pytest.param((0, DELAY_SECONDS), id="the second is late"),
)


@pytest.fixture(params=[why])
def late(monkeypatch, request):
    """Return a list of seconds by which the next calls of a tab's `compute_content` are delayed."""
    delays: list[float] = []
    original = request.param.compute_content

    def delayed(*args, **kwargs):
        result = original(*args, **kwargs)
        time.sleep(delays.pop(0) if delays else 0)
        return result

    monkeypatch.setattr(request.param, "compute_content", delayed)
    return delays


def click_bar(place: int) -> str:
    """Return a script that clicks the bar of a class, counted from 0."""
    return f"document.querySelectorAll('#bars .viz-class')[{place}].click()"


def click_method(name: str) -> str:
    return f"document.querySelector('#why-methods [data-key={name}]').click()"


def click_contrast(place: int) -> str:
    """Return a script that clicks a "vs" box, counted from 0."""
    return f"document.querySelectorAll('#bars input')[{place}].click()"


def select_layer(place: int) -> str:
    """Return a script that selects an option in the menu of the first parameter."""
    menu = "document.querySelector('#why-parameters select')"
    return f"{menu}.value = {place}; {menu}.dispatchEvent(new Event('change'))"


def wait_until_idle(session) -> None:
    """Wait until no event queue has a pending choice."""
    session.wait_until("() => !document.querySelector('.viz-event_queue[data-busy]')")
    session.settle()


def check_selection(session, model: str, name: str, target: int, against: int | None = None) -> None:
    """Wait until idle, then check that map, caption, thumbnails, bars, menu and address show the selection."""
    network = vizlib.load(model)
    labels = network.labels
    versus = f"_vs_{against}" if against is not None else ""
    wait_until_idle(session)
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
        ((click_bar(1), click_method("saliency")), "saliency", 1, None),
        ((click_method("saliency"), click_bar(1)), "saliency", 1, None),
        ((click_bar(1), click_bar(2)), "grad-cam", 2, None),
        ((click_method("saliency"), click_method("hires-cam")), "hires-cam", 0, None),
        ((click_bar(1), click_method("saliency"), click_bar(2)), "saliency", 2, None),
        ((click_contrast(1), click_method("saliency")), "saliency", 0, 2),
    ],
    ids=["class, method", "method, class", "two classes", "two methods", "class, method, class", "contrast, method"],
)
def test_two_clicks_in_a_row_both_take_effect(open_checked_session, late, tower, clicks, name, place, versus, delays):
    session = open_checked_session("?img=ex:tower")
    best = [row.index for row in vizlib.load(RESNET).predict(tower, top=5)]
    late.extend(delays)
    session.page.evaluate("; ".join(clicks))
    check_selection(session, RESNET, name, best[place], None if versus is None else best[versus])


@pytest.fixture
def held_loading(monkeypatch):
    """Return an event without which no other model of the page finishes loading."""
    may_finish = threading.Event()
    original = ModelCatalog.load_with_progress

    def load(catalog, name):
        assert may_finish.wait(timeout=TIMEOUT_SECONDS)
        yield from original(catalog, name)

    monkeypatch.setattr(ModelCatalog, "load_with_progress", load)
    yield may_finish
    may_finish.set()


@pytest.mark.parametrize("delays", DELAYS)
def test_class_and_method_selected_while_a_model_loads_apply_to_it(
    open_checked_session, late, held_loading, tower, delays
):
    session = open_checked_session("?img=ex:tower")
    best = [row.index for row in vizlib.load(RESNET).predict(tower, top=5)]
    late.extend(delays)
    session.choose_option("#model", VIT)
    session.page.evaluate("; ".join((click_bar(2), click_method("saliency"))))
    held_loading.set()
    check_selection(session, VIT, "saliency", best[2])


def test_two_parameter_changes_in_a_row_both_take_effect(open_checked_session, late):
    session = open_checked_session("?img=ex:tower")
    late.extend((DELAY_SECONDS, 0))
    session.page.evaluate(select_layer(1))
    session.page.evaluate(select_layer(2))
    wait_until_idle(session)
    chosen = session.page.locator("#why-parameters select").first
    name = chosen.locator("option").nth(2).inner_text()
    assert chosen.evaluate("menu => menu.selectedIndex") == 2
    assert parse_qs(urlsplit(session.page.url).query)["k"] == [f"layer:{name}"]


@pytest.mark.parametrize("late", [learn], indirect=True)
def test_two_lesson_steps_in_a_row_end_on_the_second(open_checked_session, late):
    session = open_checked_session("?img=ex:tower&v=learn")
    session.wait_until("() => document.querySelectorAll('#learn .viz-dot').length > 4")
    late.extend((DELAY_SECONDS, 0))
    for step in (2, 4):
        session.page.evaluate(f"document.querySelectorAll('#learn .viz-dot')[{step}].click()")
    session.wait_until("() => document.querySelector('#learn .viz-lesson').dataset.step === '4'")


@pytest.mark.parametrize("late", [inspect], indirect=True)
@pytest.mark.parametrize("last", ["unit", "layer"])
def test_class_layer_and_unit_selected_in_a_row_all_take_effect_inside(open_checked_session, late, tower, last):
    session = open_checked_session("?img=ex:tower&v=inside")
    best = vizlib.load(RESNET).predict(tower, top=2)
    unit = session.page.locator("#inside-channels .viz-tile").nth(3).get_attribute("data-key")
    clicks = {
        "layer": "document.querySelector('#inside-tree [data-layer=layer3]').click()",
        "unit": f"document.querySelector('#inside-channels [data-key=\"{unit}\"]').click()",
    }
    late.extend((DELAY_SECONDS, 0))
    for what in sorted(clicks, key=lambda what: what == last):
        session.page.evaluate(clicks[what])
    session.page.evaluate(click_bar(1))
    wait_until_idle(session)
    layer = {"unit": "layer4", "layer": "layer3"}[last]  # the clicked channel was of layer4
    assert session.get_text("#inside-channels h2") == f"Channels of {layer}, by contribution to {best[1].label}"
    heading = session.get_text("#inside-caption h2")
    assert heading.endswith(f" of {layer}")
    assert (heading == f"Channel {unit} of layer4") == (last == "unit")
