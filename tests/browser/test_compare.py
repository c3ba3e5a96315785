"""Two models beside each other on the page: nothing is asked before it is looked at; its numbers are the library's."""

from __future__ import annotations

from functools import cache

import gradio.media
import numpy as np
import pytest

import vizlib
from vizlib.render import overlay as render

pytestmark = pytest.mark.slow

RESNET, VIT, MAPS = "resnet18-imagenette", "vit_tiny-imagenette", "#compare-maps"
DRAWN = f"() => document.querySelectorAll('{MAPS} canvas').length === 8"


def point(visit, y: int, x: int) -> list[float]:
    """Point at a pixel of the photo on the first picture; what all eight say of it."""
    canvas = visit.page.locator(f"{MAPS} canvas").first
    share = canvas.bounding_box()["width"] / tower().width
    canvas.hover(position={"x": (x + 0.5) * share, "y": (y + 0.5) * share})
    said = visit.page.locator(f"{MAPS} .viz-here").all_inner_texts()
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
        [answer.on_photo()[y, x].item() * factor for answer in row] for row, factor in zip(maps, factors, strict=True)
    )
    return [a, b, a - b, c, d, c - d, a - c, b - d]


@pytest.fixture(scope="module")
def visit(visiting):
    visit = visiting("?__theme=light")
    yield visit
    visit.page.close()


# The tests below are one visit, in this order; each leaves the page in a state the next may start from.


def test_the_other_model_is_asked_only_when_the_tab_is_opened(visit):
    assert visit.page.locator(f"{MAPS} canvas").count() == 0
    visit.page.locator("#bars button").nth(1).click()
    visit.settle()
    visit.page.locator("#bars button").nth(0).click()
    visit.settle()
    assert visit.page.locator(f"{MAPS} canvas").count() == 0
    visit.page.get_by_role("tab", name="Compare").click()
    visit.until(DRAWN)
    visit.settle()
    assert visit.page.locator(f"{MAPS} h3").all_inner_texts()[:2] == [RESNET, VIT]


def test_pointing_at_a_place_tells_all_eight_values_there_and_asks_nothing(visit):
    asked = len(visit.requests)
    maps = answers("grad-cam")
    shares = tuple(1 / max(answer.heat.abs().max().item() for answer in row) for row in maps)
    places = [(tower().height // 2, tower().width // 2), (int(tower().height * 0.6), int(tower().width * 0.3))]
    for place in places:
        assert point(visit, *place) == pytest.approx(told(maps, *place, shares), abs=0.03)  # as far apart as two pixels
    assert visit.page.locator(f"{MAPS} .viz-ring:visible").count() == 8
    visit.page.get_by_role("button", name="raw values").click()
    for place in places:
        near = 0.03 * max(abs(value) for value in told(maps, *place))
        assert point(visit, *place) == pytest.approx(told(maps, *place), abs=near)
    top = visit.page.locator(f"{MAPS} .viz-linked-scale").first.locator(".viz-numbers span").last.inner_text()
    every = np.concatenate([answer.heat.numpy().ravel() for row in maps for answer in row])
    assert float(top) == pytest.approx(render.limits_of(every, signed=False)[1], rel=0.01)
    assert len(visit.requests) == asked


def test_the_arrow_keys_move_the_place_and_say_the_values(visit):
    asked = len(visit.requests)
    grid = visit.page.locator(f"{MAPS} .viz-linked-grid")
    visit.page.mouse.move(0, 0)
    grid.press("ArrowRight")  # starts in the middle
    middle = visit.page.locator(f"{MAPS} .viz-here").all_inner_texts()
    spoken = visit.page.locator(f"{MAPS} output").text_content()
    first, second = classes()
    assert spoken.startswith(f"{RESNET}, {first}: {middle[0]}; {RESNET}, {second}: {middle[1]}")
    grid.press("ArrowDown")
    assert visit.page.locator(f"{MAPS} .viz-here").all_inner_texts() != middle
    grid.press("Escape")
    assert visit.page.locator(f"{MAPS} .viz-ring:visible").count() == 0
    assert len(visit.requests) == asked


def test_the_agreement_on_screen_is_the_librarys(visit):
    (first, _), (second, _) = answers("grad-cam")
    found = vizlib.agreement(first, second)
    words = visit.page.locator("#compare-words").inner_text()
    assert f"rank correlation {signed(found.correlation)}." in words
    assert f"{found.overlap * 100:.0f} % is the same" in words
    assert (
        f"rank correlation {signed(found.correlation)} · " in visit.page.locator(f"{MAPS} figure").nth(6).inner_text()
    )


def test_another_method_and_another_class_are_compared_at_once(visit):
    visit.changes(MAPS, lambda: visit.choose("#compare-method", "layer-cam"))
    (first, _), (second, _) = answers("layer-cam")
    assert f"rank correlation {signed(vizlib.agreement(first, second).correlation)}." in (
        visit.page.locator("#compare-words").inner_text()
    )
    visit.choose("#compare-class", "golf ball")
    visit.page.locator(f"{MAPS} figure strong", has_text="golf ball").first.wait_for()
    visit.settle()
    alternative = visit.page.locator(f"{MAPS} canvas").nth(1).get_attribute("aria-label")
    assert alternative.startswith(f"{RESNET}: layer-cam for golf ball on the photo")


def test_another_class_on_the_left_is_followed(visit):
    visit.page.locator("#bars button").nth(2).click()
    label = visit.page.locator("#bars button").nth(2).locator(".viz-name").inner_text()
    visit.page.locator("#compare-words p", has_text=f"For {label} ").wait_for()
    visit.settle()
    assert visit.page.locator(f"{MAPS} figure strong").first.inner_text() == label


def test_the_curves_of_the_three_starts_stand_below_and_nothing_complained(visit):
    chart = visit.page.locator("#compare-starts svg")
    last = vizlib.training_history("resnet18-from-scratch")["val_top1"][-1]
    assert f"to {last:.1f}" in chart.get_attribute("aria-label")
    assert visit.complaints == []
