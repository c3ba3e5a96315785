"""The Compare tab: computed only when it is opened, with the library's numbers."""

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


def hover_pixel(session, y: int, x: int) -> list[float]:
    """Hover over a pixel of the photo on the first map and return the values that all eight maps show."""
    canvas = session.page.locator(f"{MAPS} canvas").first
    share = canvas.bounding_box()["width"] / tower().width
    canvas.hover(position={"x": (x + 0.5) * share, "y": (y + 0.5) * share})
    texts = session.page.locator(f"{MAPS} .viz-linked-value").all_inner_texts()
    return [float(text.replace("−", "-")) for text in texts]


def tower():
    return vizlib.open_image(gradio.media.get_image("tower.jpg"))


@cache
def classes() -> tuple[str, str]:
    """Return the top prediction of each model, which the page compares."""
    first, second = (vizlib.load(name).predict(tower())[0].label for name in (RESNET, VIT))
    assert first != second
    return first, second


def format_signed(number: float) -> str:
    """Return a number as the page formats it."""
    return f"{number:.2f}".replace("-", "−")


def explain_all_pairs(method: str) -> list[list[vizlib.Attribution]]:
    return [
        [vizlib.explain(vizlib.load(name), tower(), method, target=target) for target in classes()]
        for name in (RESNET, VIT)
    ]


def expected_values(maps: list[list[vizlib.Attribution]], y: int, x: int, factors=(1.0, 1.0)) -> list[float]:
    """Return the eight maps' values at a pixel: of two classes and their difference, by model and between models."""
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


# The tests below share one session and run in this order.


def test_second_model_is_computed_only_when_the_tab_is_opened(session):
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


def test_hovering_shows_all_eight_values_without_a_request(session):
    num_requests = len(session.requests)
    maps = explain_all_pairs("grad-cam")
    shares = tuple(1 / max(answer.heat.abs().max().item() for answer in row) for row in maps)
    places = [(tower().height // 2, tower().width // 2), (int(tower().height * 0.6), int(tower().width * 0.3))]
    for place in places:
        assert hover_pixel(session, *place) == pytest.approx(
            expected_values(maps, *place, shares), abs=0.03
        )  # the difference between neighbouring pixels
    assert session.page.locator(f"{MAPS} .viz-pointer-mark:visible").count() == 8
    session.page.get_by_role("button", name="raw values").click()
    for place in places:
        tolerance = 0.03 * max(abs(value) for value in expected_values(maps, *place))
        assert hover_pixel(session, *place) == pytest.approx(expected_values(maps, *place), abs=tolerance)
    top = session.page.locator(f"{MAPS} .viz-linked-scale").first.locator(".viz-numbers span").last.inner_text()
    values = np.concatenate([answer.heat.numpy().ravel() for row in maps for answer in row])
    assert float(top) == pytest.approx(compute_limits(values, signed=False)[1], rel=0.01)
    assert len(session.requests) == num_requests


def test_arrow_keys_move_the_point_and_announce_the_values(session):
    num_requests = len(session.requests)
    grid = session.page.locator(f"{MAPS} .viz-linked-grid")
    session.page.mouse.move(0, 0)
    grid.press("ArrowRight")  # starts in the middle
    middle = session.page.locator(f"{MAPS} .viz-linked-value").all_inner_texts()
    announced = session.page.locator(f"{MAPS} output").text_content()
    first, second = classes()
    assert announced.startswith(f"{RESNET}, {first}: {middle[0]}; {RESNET}, {second}: {middle[1]}")
    grid.press("ArrowDown")
    assert session.page.locator(f"{MAPS} .viz-linked-value").all_inner_texts() != middle
    grid.press("Escape")
    assert session.page.locator(f"{MAPS} .viz-pointer-mark:visible").count() == 0
    assert len(session.requests) == num_requests


def test_shown_agreement_is_that_of_the_library(session):
    (first, _), (second, _) = explain_all_pairs("grad-cam")
    agreement = vizlib.agreement(first, second)
    words = session.page.locator("#compare-caption").inner_text()
    assert f"rank correlation {format_signed(agreement.correlation)}." in words
    assert f"overlap by {agreement.overlap * 100:.0f} %" in words
    assert (
        f"rank correlation {format_signed(agreement.correlation)} · "
        in session.page.locator(f"{MAPS} figure").nth(6).inner_text()
    )


def test_another_method_and_class_are_compared(session):
    session.wait_for_change(MAPS, lambda: session.choose_option("#compare-method", "layer-cam"))
    (first, _), (second, _) = explain_all_pairs("layer-cam")
    assert f"rank correlation {format_signed(vizlib.agreement(first, second).correlation)}." in (
        session.page.locator("#compare-caption").inner_text()
    )
    session.choose_option("#compare-class", "golf ball")
    session.page.locator(f"{MAPS} figure strong", has_text="golf ball").first.wait_for()
    session.settle()
    alt_text = session.page.locator(f"{MAPS} canvas").nth(1).get_attribute("aria-label")
    assert alt_text.startswith(f"{RESNET}: layer-cam for golf ball on the photo")


def test_comparison_follows_the_target_class(session):
    session.page.locator("#bars button").nth(2).click()
    label = session.page.locator("#bars button").nth(2).locator(".viz-name").inner_text()
    session.page.locator("#compare-caption p", has_text=f"For {label} ").wait_for()
    session.settle()
    assert session.page.locator(f"{MAPS} figure strong").first.inner_text() == label


def test_training_curves_are_shown_and_session_had_no_errors(session):
    chart = session.page.locator("#compare-training svg")
    last = vizlib.training_history("resnet18-from-scratch")["val_top1"][-1]
    assert f"to {last:.1f}" in chart.get_attribute("aria-label")
    assert session.errors == []
