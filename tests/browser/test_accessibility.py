"""Accessibility of the page: axe, text alternatives, headings and the keyboard."""

from __future__ import annotations

from itertools import pairwise

import pytest
from accessibility import find_violations

pytest.importorskip("axe_playwright_python.sync_playwright")

pytestmark = pytest.mark.slow
RESNET, VIT = "resnet18-imagenette", "vit_tiny-imagenette"
TABS = ("Why", "Attention", "Inside", "Compare", "Learn", "Model", "Use in code")
GRADIO_VIOLATIONS: dict[tuple[str, str], str] = {}  # (rule, part of a selector) in gradio's own markup: reason
WITHOUT_TEXT = """() => [...document.querySelectorAll("main img, main canvas, main [class^=viz-] svg")]
    .filter((node) => node.checkVisibility() && !node.closest("[aria-hidden=true], button"))
    .filter((node) => !(node.matches("img") ? node.alt : node.getAttribute("aria-label"))?.trim())
    .map((node) => node.outerHTML.slice(0, 120))"""
HEADINGS = """() => [...document.querySelectorAll("h1, h2, h3, h4, h5, h6")]
    .filter((node) => node.checkVisibility()).map((node) => Number(node.tagName[1]))"""
FOCUSED = """() => [document.activeElement, document.activeElement.nextElementSibling].filter(Boolean)
    .map((node) => getComputedStyle(node))
    .some((style) => style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 0)"""


def is_known(rule: str, selector: str) -> bool:
    return any(rule == known and part in selector for known, part in GRADIO_VIOLATIONS)


@pytest.mark.parametrize(("model", "theme", "width"), [(RESNET, "dark", 390), (VIT, "light", 1440)])
def test_page_has_no_serious_axe_violation_and_every_picture_has_a_text_alternative(
    open_checked_session, model, theme, width
):
    session = open_checked_session(f"?__theme={theme}&m={model}&img=ex:tower&vs=parachute", width=width, height=844)
    problems = {}
    for tab in TABS:
        session.open_tab(tab)
        if tab == "Compare":
            session.wait_until("() => document.querySelectorAll('#compare-maps canvas').length === 8")
        problems[tab] = find_violations(session.page, is_known), session.page.evaluate(WITHOUT_TEXT)
    assert problems == dict.fromkeys(TABS, ([], []))


@pytest.mark.parametrize("model", [RESNET, VIT])
def test_headings_start_with_one_h1_and_skip_no_level(open_checked_session, model):
    session = open_checked_session(f"?m={model}&img=ex:tower")
    for tab in TABS:
        session.open_tab(tab)
        levels = session.page.evaluate(HEADINGS)
        assert (levels[0], levels.count(1)) == (1, 1)
        assert all(after <= before + 1 for before, after in pairwise(levels)), (tab, levels)


def press_tab_until(session, selector: str, limit: int = 60) -> None:
    """Press Tab until an element has the focus, and check that the focus is visible."""
    for _ in range(limit):
        session.page.keyboard.press("Tab")
        if session.page.evaluate("selector => document.activeElement.matches(selector)", selector):
            assert session.page.evaluate(FOCUSED), f"{selector} has the focus, but no visible outline"
            return
    raise AssertionError(f"{limit} presses of Tab did not reach {selector}")


def test_keyboard_alone_selects_class_contrast_method_layer_patch_and_units(open_checked_session):
    session = open_checked_session(f"?m={VIT}&img=ex:tower")
    press = session.page.keyboard.press
    session.page.locator("#model input").focus()  # the keyboard alone from here on
    press_tab_until(session, "#bars .viz-class[aria-pressed=false]")
    session.wait_for_change("#why-heatmap", lambda: press("Enter"))
    assert session.page.locator("#bars [aria-pressed=true]").evaluate("node => node === document.activeElement")
    press_tab_until(session, "#bars [data-against]")
    session.wait_for_change("#why-heatmap", lambda: press("Space"))
    assert " and not " in session.get_text("#why-caption h2")
    press_tab_until(session, "[role=tab]")
    press_tab_until(session, "#why-methods [data-key=saliency]")
    session.wait_for_change("#why-heatmap", lambda: press("Enter"))
    assert session.page.locator("#why-methods [data-key=saliency]").get_attribute("aria-pressed") == "true"

    def open_tab(number: int) -> None:
        session.page.locator("#classes input").focus()
        press_tab_until(session, f"[role=tab]:nth-of-type({number})")
        press("Enter")
        session.settle()

    open_tab(2)
    press_tab_until(session, "#attention-patches .viz-grid")
    session.wait_for_change("#attention-patches", lambda: press("ArrowRight"))
    press("Enter")
    session.wait_until(
        "() => document.querySelector('#attention-patches .viz-chip[data-token]:last-child').textContent.endsWith('×')"
    )
    open_tab(3)
    press_tab_until(session, "#inside-tree summary")
    assert session.page.evaluate("() => document.activeElement.parentElement.open") in (True, False)
    before = session.page.evaluate("() => document.activeElement.parentElement.open")
    press("Enter")
    session.settle()
    assert session.page.evaluate("() => document.activeElement.parentElement.open") != before
    open_tab(4)
    session.wait_until("() => document.querySelectorAll('#compare-maps canvas').length === 8")
    press_tab_until(session, "#compare-maps .viz-linked-grid")
    press("ArrowRight")
    assert session.page.locator("#compare-maps .viz-pointer-mark:visible").count() == 8
    press_tab_until(session, "#compare-maps .viz-units button:nth-child(2)")
    press("Enter")
    assert session.page.locator("#compare-maps .viz-units button").nth(1).get_attribute("aria-pressed") == "true"
