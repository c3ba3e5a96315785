"""The page's address is what it shows: opened elsewhere it shows the same, and a forged one shows the first view."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import pytest

import vizlib

RESNET, VIT = "resnet18-imagenette", "vit_tiny-imagenette"
STATE = """() => ({
    bars: [...document.querySelectorAll('#bars button')].map((one) => [one.textContent, one.ariaPressed]),
    rival: document.querySelector('#bars input:checked')?.dataset.rival,
    words: document.querySelector('#why-words .viz-caption').textContent,
    picture: document.querySelector('#why-heat canvas').toDataURL(),
    method: document.querySelector('#why-methods [aria-pressed=true]').dataset.key,
    knobs: [...document.querySelectorAll('#why-knobs select')].map((one) => one.selectedIndex),
    model: document.querySelector('#model input').value,
    tab: document.querySelector('[role=tab][aria-selected=true]').textContent,
})"""


def keys(visit) -> dict[str, str]:
    return {key: values[0] for key, values in parse_qs(urlsplit(visit.page.url).query).items()}


def test_a_link_opened_in_a_fresh_browser_shows_the_same(fresh, cheetah):
    first = fresh()
    first.changes("#why-heat", lambda: first.choose("#model", VIT))
    first.changes("#why-heat", lambda: first.page.locator("#examples button").nth(1).click())
    first.changes("#why-heat", lambda: first.page.locator("#bars button").nth(1).click())
    first.changes("#why-heat", lambda: first.page.locator("#bars input").nth(1).check(force=True))
    first.changes("#why-heat", lambda: first.page.locator("#why-methods [data-key=saliency]").click())
    first.changes("#why-heat", lambda: first.page.locator("#why-methods [data-key=grad-cam]").click())
    first.changes("#why-heat", lambda: first.page.locator("#why-knobs select").first.select_option(label="blocks.3"))
    first.tab("Model")
    best = [one.label for one in vizlib.load(VIT).predict(cheetah, top=3)]
    assert keys(first) == {
        "m": VIT,
        "img": "ex:cheetah",
        "c": best[1],
        "vs": best[2],
        "v": "model",
        "w": "grad-cam",
        "k": "layer:blocks.3",
    }
    second = fresh("?" + urlsplit(first.page.url).query)
    assert second.page.evaluate(STATE) == first.page.evaluate(STATE)
    assert keys(second) == keys(first)
    assert second.page.locator("#header .viz-said").inner_text() == ""
    assert second.page.locator("#photo img").first.evaluate("image => image.naturalWidth") == cheetah.width


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ("?img=ex:tower&m=resnet1001", "This link asks for what is not known here: model “resnet1001”."),
        (
            "?img=ex:tower&c=<img src=x onerror=alert(1)>&v=x&l=99",
            "This link asks for what is not known here: tab “x”, class “<img src=x onerror=alert(1)>”, layer “99”.",
        ),
        (f"?img=ex:tower&w={'x' * 3000}", f"This link asks for what is not known here: method “{'x' * 40}…”."),
        ("?c=church", "The photo of this link was not sent with it, so here is an example."),
    ],
)
def test_a_forged_link_shows_the_first_view_and_one_sentence(fresh, query, sentence):
    visit, plain = fresh(query), fresh()
    assert visit.said("#header .viz-said") == sentence
    box = visit.page.locator("#header .viz-said").bounding_box()
    assert box["width"] > 300  # for those who can see, too
    assert box["height"] > 20
    assert plain.said("#header .viz-said") == ""
    assert visit.page.evaluate(STATE) == plain.page.evaluate(STATE)
    assert keys(visit) == keys(plain)
    visit.changes("#why-heat", lambda: visit.page.locator("#bars button").nth(1).click())
    assert visit.said("#header .viz-said") == ""


def test_digits_choose_a_class_and_with_shift_its_rival_unless_something_is_typed(fresh, tower):
    visit = fresh()
    names = [one.label for one in vizlib.load(RESNET).predict(tower, top=5)]
    visit.changes("#why-heat", lambda: visit.page.keyboard.press("2"))
    assert keys(visit)["c"] == names[1]
    visit.changes("#why-heat", lambda: visit.page.keyboard.press("Shift+Digit3"))
    assert (keys(visit)["c"], keys(visit)["vs"]) == (names[1], names[2])
    visit.changes("#why-heat", lambda: visit.page.keyboard.press("Shift+Digit3"))
    assert "vs" not in keys(visit)
    before = list(visit.asked)
    visit.page.locator("#classes input").click()
    visit.page.keyboard.press("1")
    visit.page.keyboard.press("Escape")
    visit.settle()
    assert keys(visit)["c"] == names[1]
    assert visit.asked == before


def test_a_shift_click_is_the_vs_beside_the_bar_and_both_take_it_away_again(fresh):
    visit = fresh()
    bar, box = visit.page.locator("#bars button").nth(2), visit.page.locator("#bars input").nth(1)
    visit.changes("#why-heat", lambda: bar.click(modifiers=["Shift"]))
    assert box.is_checked()
    one = visit.picture().tobytes()
    box.focus()
    visit.changes("#why-heat", lambda: visit.page.keyboard.press("Space"))
    assert not box.is_checked()
    assert visit.page.evaluate("document.activeElement.dataset.rival") is not None  # the focus stays where it was
    visit.changes("#why-heat", lambda: visit.page.keyboard.press("Space"))
    assert visit.picture().tobytes() == one


def test_the_link_is_copied_and_says_when_the_photo_is_not_in_it(fresh, photo):
    visit = fresh("?__theme=light")
    visit.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    button = visit.page.get_by_role("button", name="Copy link")
    button.click()
    visit.until("() => document.querySelector('.viz-copied').textContent === 'Copied'")
    copied = visit.page.evaluate("navigator.clipboard.readText()")
    assert copied.startswith(urlsplit(visit.page.url)._replace(query="").geturl() + "?")
    assert {key: one[0] for key, one in parse_qs(urlsplit(copied).query).items()} == {
        key: one for key, one in keys(visit).items() if key != "__theme"
    }
    visit.page.locator("#photo button[aria-label='Remove Image']").click()
    visit.settle()
    visit.upload(photo)
    visit.until("() => document.querySelectorAll('#bars button').length >= 5")
    visit.settle()
    assert "img" not in keys(visit)
    assert "has no address" in button.get_attribute("title")
    button.click()
    visit.until("() => document.querySelector('.viz-copied').textContent.includes('without your photo')")
