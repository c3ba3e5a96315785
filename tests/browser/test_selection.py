"""The page's address is what it shows: opened elsewhere it shows the same, and a forged one shows the first view."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import pytest

import vizlib

pytestmark = pytest.mark.slow
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


def test_a_tab_that_opens_before_the_link_was_read_does_not_change_it(chromium, address):
    page, held = chromium.new_page(), []
    page.set_default_timeout(60_000)
    page.route("**/queue/join*", lambda route: held.append(route))
    page.goto(f"{address}?m={VIT}&img=ex:tower&v=model")
    page.get_by_role("tab", name="Attention").click()  # gradio tells of the first tab likewise, now and then
    page.wait_for_timeout(500)
    assert "v=model" in page.url
    for route in held:
        route.continue_()
    page.unroute("**/queue/join*")
    page.wait_for_selector("#desk .viz-event_queue[data-opened]", state="attached")
    page.wait_for_selector("[role=tab][aria-selected=true] >> text=Model")
    assert "v=model" in page.url
    page.get_by_role("tab", name="Attention").click()
    page.wait_for_function("() => location.search.includes('v=attention')")
    page.close()


INSIDE = """() => ({
    layer: document.querySelector('#inside-tree [aria-current]').dataset.layer,
    words: document.querySelector('#inside-words h2').textContent,
    picture: document.querySelector('#inside-heat canvas').toDataURL(),
    off: [...document.querySelectorAll('#inside-silence li')].map((one) => one.textContent),
    sheet: [...document.querySelectorAll('#inside-channels button')].map((one) => [one.textContent, one.ariaPressed]),
})"""


@pytest.mark.parametrize(("model", "layer"), [(RESNET, "layer3.1.conv2"), (VIT, "blocks.5.attn")])
def test_a_link_leads_to_a_channel_or_head_and_to_what_was_switched_off(fresh, model, layer):
    first = fresh(f"?m={model}&img=ex:cheetah&v=inside")
    assert not {"u", "o"} & keys(first).keys()
    tree = first.page.locator("#inside-tree")
    tree.locator(f"[data-layer='{layer}']").evaluate("""node => {
        for (let up = node.parentElement; up; up = up.parentElement) if (up.tagName === 'DETAILS') up.open = true;
        node.click();
    }""")
    first.settle()
    assert keys(first)["u"] == layer
    first.page.locator("#inside-channels button").nth(1).click()
    first.settle()
    number = first.page.locator("#inside-channels [aria-pressed=true]").get_attribute("data-key")
    first.page.locator("#inside-silence .viz-press").click()
    first.settle()
    assert (keys(first)["u"], keys(first)["o"]) == (f"{layer}:{number}",) * 2
    second = fresh("?" + urlsplit(first.page.url).query)
    there, here = (visit.page.evaluate(INSIDE) for visit in (second, first))
    assert there.pop("picture") == here.pop("picture"), "another picture"  # too long to be shown letter by letter
    assert there == here
    assert keys(second) == keys(first)
    assert second.said("#header .viz-said") == ""
    second.changes("#why-heat", lambda: second.choose("#model", VIT if model == RESNET else RESNET))
    assert not {"u", "o"} & keys(second).keys()  # another model has other units


def test_a_link_leads_to_a_step_of_the_lessons(fresh):
    first = fresh("?img=ex:cheetah&v=learn&s=4")
    first.until("() => document.querySelector('#learn .viz-lesson')?.dataset.step === '3'")
    first.page.locator("#learn .viz-begin").click()
    first.until("() => document.querySelector('#learn .viz-lesson')?.dataset.step === '4'")
    assert keys(first)["s"] == "5"
    first.page.locator("#learn .viz-dot").first.click()
    first.until("() => document.querySelector('#learn .viz-lesson')?.dataset.step === '0'")
    assert "s" not in keys(first)


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ("?img=ex:tower&m=resnet1001", "This link asks for what is not known here: model “resnet1001”."),
        (
            "?img=ex:tower&c=<img src=x onerror=alert(1)>&v=x&l=99",
            "This link asks for what is not known here: tab “x”, class “<img src=x onerror=alert(1)>”, layer “99”.",
        ),
        (f"?img=ex:tower&w={'x' * 3000}", f"This link asks for what is not known here: method “{'x' * 40}…”."),
        (
            "?img=ex:tower&u=layer4:512&o=layer9:1&s=9",
            "This link asks for what is not known here: "
            "step “9”, channel or head “layer4:512”, channel or head “layer9:1”.",
        ),
        ("?c={first}", "The photo of this link was not sent with it, so here is an example."),
    ],
)
def test_a_forged_link_shows_the_first_view_and_one_sentence(fresh, tower, query, sentence):
    first = vizlib.load(RESNET).predict(tower)[0].label
    visit, plain = fresh(query.replace("{first}", first)), fresh()
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
