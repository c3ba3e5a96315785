"""Two models beside each other on the page: nothing is asked before it is looked at; its numbers are the library's."""

from __future__ import annotations

from functools import cache

import gradio.media
import numpy as np
import pytest

import vizlib
from vizlib.render.color_scale import compute_limits

pytestmark = pytest.mark.slow

RESNET, VIT, MAPS = "resnet18-imagenette", "vit_tiny-imagenette", "#compare-maps"
DRAWN = f"() => document.querySelectorAll('{MAPS} canvas').length === 8"


def point(session, y: int, x: int) -> list[float]:
    """Point at a pixel of the photo on the first picture; what all eight say of it."""
    canvas = session.page.locator(f"{MAPS} canvas").first
    share = canvas.bounding_box()["width"] / tower().width
    canvas.hover(position={"x": (x + 0.5) * share, "y": (y + 0.5) * share})
    said = session.page.locator(f"{MAPS} .viz-linked-value").all_inner_texts()
    return [float(text.replace("−", "-")) for text in said]


def tower():
    return vizlib.open_image(gradio.media.get_image("tower.jpg"))


@cache
def classes() -> tuple[str, str]:
    """What each of the two takes the tower for; the page sets these two beside each other."""
    first, second = (vizlib.load(name).predict(tower())[0].label for name in (RESNET, VIT))
    assert first != second
    return first, second


def signed(number: float) -> str:
    """As the page writes it."""
    return f"{number:.2f}".replace("-", "−")


def answers(method: str) -> list[list[vizlib.Attribution]]:
    return [
        [vizlib.explain(vizlib.load(name), tower(), method, target=target) for target in classes()]
        for name in (RESNET, VIT)
    ]


def told(maps: list[list[vizlib.Attribution]], y: int, x: int, factors=(1.0, 1.0)) -> list[float]:
    """What the eight pictures show at a pixel: each model's two maps and their difference, then the models'."""
    (a, b), (c, d) = (
        [answer.project_to_photo()[y, x].item() * factor for answer in row]
        for row, factor in zip(maps, factors, strict=True)
    )
    return [a, b, a - b, c, d, c - d, a - c, b - d]


@pytest.fixture(scope="module")
def session(open_session):
    session = open_session("?__theme=light")
    yield session
    session.page.close()


# The tests below are one visit, in this order; each leaves the page in a state the next may start from.


def test_the_other_model_is_asked_only_when_the_tab_is_opened(session):
    assert session.page.locator(f"{MAPS} canvas").count() == 0
    session.page.locator("#bars button").nth(1).click()
    session.settle()
    session.page.locator("#bars button").nth(0).click()
    session.settle()
    assert session.page.locator(f"{MAPS} canvas").count() == 0
    session.page.get_by_role("tab", name="Compare").click()
    session.wait_until(DRAWN)
    session.settle()
    assert session.page.locator(f"{MAPS} h3").all_inner_texts()[:2] == [RESNET, VIT]


def test_pointing_at_a_place_tells_all_eight_values_there_and_asks_nothing(session):
    asked = len(session.requests)
    maps = answers("grad-cam")
    shares = tuple(1 / max(answer.heat.abs().max().item() for answer in row) for row in maps)
    places = [(tower().height // 2, tower().width // 2), (int(tower().height * 0.6), int(tower().width * 0.3))]
    for place in places:
        assert point(session, *place) == pytest.approx(
            told(maps, *place, shares), abs=0.03
        )  # as far apart as two pixels
    assert session.page.locator(f"{MAPS} .viz-pointer-mark:visible").count() == 8
    session.page.get_by_role("button", name="raw values").click()
    for place in places:
        near = 0.03 * max(abs(value) for value in told(maps, *place))
        assert point(session, *place) == pytest.approx(told(maps, *place), abs=near)
    top = session.page.locator(f"{MAPS} .viz-linked-scale").first.locator(".viz-numbers span").last.inner_text()
    every = np.concatenate([answer.heat.numpy().ravel() for row in maps for answer in row])
    assert float(top) == pytest.approx(compute_limits(every, signed=False)[1], rel=0.01)
    assert len(session.requests) == asked


def test_the_arrow_keys_move_the_place_and_say_the_values(session):
    asked = len(session.requests)
    grid = session.page.locator(f"{MAPS} .viz-linked-grid")
    session.page.mouse.move(0, 0)
    grid.press("ArrowRight")  # starts in the middle
    middle = session.page.locator(f"{MAPS} .viz-linked-value").all_inner_texts()
    spoken = session.page.locator(f"{MAPS} output").text_content()
    first, second = classes()
    assert spoken.startswith(f"{RESNET}, {first}: {middle[0]}; {RESNET}, {second}: {middle[1]}")
    grid.press("ArrowDown")
    assert session.page.locator(f"{MAPS} .viz-linked-value").all_inner_texts() != middle
    grid.press("Escape")
    assert session.page.locator(f"{MAPS} .viz-pointer-mark:visible").count() == 0
    assert len(session.requests) == asked


def test_the_agreement_on_screen_is_the_librarys(session):
    (first, _), (second, _) = answers("grad-cam")
    found = vizlib.agreement(first, second)
    words = session.page.locator("#compare-caption").inner_text()
    assert f"rank correlation {signed(found.correlation)}." in words
    assert f"{found.overlap * 100:.0f} % is the same" in words
    assert (
        f"rank correlation {signed(found.correlation)} · " in session.page.locator(f"{MAPS} figure").nth(6).inner_text()
    )


def test_another_method_and_another_class_are_compared_at_once(session):
    session.wait_for_change(MAPS, lambda: session.choose_option("#compare-method", "layer-cam"))
    (first, _), (second, _) = answers("layer-cam")
    assert f"rank correlation {signed(vizlib.agreement(first, second).correlation)}." in (
        session.page.locator("#compare-caption").inner_text()
    )
    session.choose_option("#compare-class", "golf ball")
    session.page.locator(f"{MAPS} figure strong", has_text="golf ball").first.wait_for()
    session.settle()
    alternative = session.page.locator(f"{MAPS} canvas").nth(1).get_attribute("aria-label")
    assert alternative.startswith(f"{RESNET}: layer-cam for golf ball on the photo")


def test_another_class_on_the_left_is_followed(session):
    session.page.locator("#bars button").nth(2).click()
    label = session.page.locator("#bars button").nth(2).locator(".viz-name").inner_text()
    session.page.locator("#compare-caption p", has_text=f"For {label} ").wait_for()
    session.settle()
    assert session.page.locator(f"{MAPS} figure strong").first.inner_text() == label


def test_the_curves_of_the_three_starts_stand_below_and_nothing_complained(session):
    chart = session.page.locator("#compare-training svg")
    last = vizlib.training_history("resnet18-from-scratch")["val_top1"][-1]
    assert f"to {last:.1f}" in chart.get_attribute("aria-label")
    assert session.errors == []
