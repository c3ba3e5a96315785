"""The page's address restores its selection; an invalid address shows the default view."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import pytest

import vizlib

pytestmark = pytest.mark.slow
RESNET, VIT = "resnet18-imagenette", "vit_tiny-imagenette"
STATE = """() => ({
    bars: [...document.querySelectorAll('#bars button')].map((e) => [e.textContent, e.ariaPressed]),
    against: document.querySelector('#bars input:checked')?.dataset.against,
    words: document.querySelector('#why-caption .viz-caption').textContent,
    picture: document.querySelector('#why-heatmap canvas').toDataURL(),
    method: document.querySelector('#why-methods [aria-pressed=true]').dataset.key,
    parameters: [...document.querySelectorAll('#why-parameters select')].map((menu) => menu.selectedIndex),
    model: document.querySelector('#model input').value,
    tab: document.querySelector('[role=tab][aria-selected=true]').textContent,
})"""

COUNT_QUERIES = """
window.numQueries = 0; // whether the page is ready, as the handler of a tab asks
const querySelector = Document.prototype.querySelector;
Document.prototype.querySelector = function (selector) {
  if (selector.includes("[data-ready]")) window.numQueries++;
  return querySelector.call(this, selector);
};"""


def keys(session) -> dict[str, str]:
    return {key: values[0] for key, values in parse_qs(urlsplit(session.page.url).query).items()}


def test_link_restores_the_whole_selection(open_checked_session, cheetah):
    first = open_checked_session()
    first.wait_for_change("#why-heatmap", lambda: first.choose_option("#model", VIT))
    first.wait_for_change("#why-heatmap", lambda: first.page.locator("#examples button").nth(1).click())
    first.wait_for_change("#why-heatmap", lambda: first.page.locator("#bars button").nth(1).click())
    first.wait_for_change("#why-heatmap", lambda: first.page.locator("#bars input").nth(1).check(force=True))
    first.wait_for_change("#why-heatmap", lambda: first.page.locator("#why-methods [data-key=saliency]").click())
    first.wait_for_change("#why-heatmap", lambda: first.page.locator("#why-methods [data-key=grad-cam]").click())
    first.wait_for_change(
        "#why-heatmap", lambda: first.page.locator("#why-parameters select").first.select_option(label="blocks.3")
    )
    first.open_tab("Model")
    best = [row.label for row in vizlib.load(VIT).predict(cheetah, top=3)]
    assert keys(first) == {
        "m": VIT,
        "img": "ex:cheetah",
        "c": best[1],
        "vs": best[2],
        "v": "model",
        "w": "grad-cam",
        "k": "layer:blocks.3",
    }
    second = open_checked_session("?" + urlsplit(first.page.url).query)
    assert second.page.evaluate(STATE) == first.page.evaluate(STATE)
    assert keys(second) == keys(first)
    assert second.page.locator("#header .viz-link-note").inner_text() == ""
    assert second.page.locator("#photo img").first.evaluate("image => image.naturalWidth") == cheetah.width


def test_tab_event_before_the_page_load_does_not_change_the_url(chromium, address):
    page, held = chromium.new_page(), []
    page.add_init_script(COUNT_QUERIES)
    page.set_default_timeout(60_000)
    page.route("**/queue/join*", lambda route: held.append(route))
    page.goto(f"{address}?m={VIT}&img=ex:tower&v=model")
    page.get_by_role("tab", name="Attention").wait_for()
    before = page.evaluate("numQueries")
    page.get_by_role("tab", name="Attention").click()  # gradio sometimes fires the event of the first tab too
    page.wait_for_function(f"() => numQueries > {before}")  # the handler of the tab has run
    assert "v=model" in page.url
    for route in held:
        route.continue_()
    page.unroute("**/queue/join*")
    page.wait_for_selector("#event-queue .viz-event_queue[data-ready]", state="attached")
    page.wait_for_selector("[role=tab][aria-selected=true] >> text=Model")
    assert "v=model" in page.url
    page.get_by_role("tab", name="Attention").click()
    page.wait_for_function("() => location.search.includes('v=attention')")
    page.close()


INSIDE = """() => ({
    layer: document.querySelector('#inside-tree [aria-current]').dataset.layer,
    words: document.querySelector('#inside-caption h2').textContent,
    picture: document.querySelector('#inside-heatmap canvas').toDataURL(),
    off: [...document.querySelectorAll('#inside-ablation li')].map((node) => node.textContent),
    units: [...document.querySelectorAll('#inside-channels button')].map((e) => [e.textContent, e.ariaPressed]),
})"""


@pytest.mark.parametrize(("model", "layer"), [(VIT, "blocks.5.attn")])
def test_link_restores_the_unit_and_the_ablated_units(open_checked_session, model, layer):
    first = open_checked_session(f"?m={model}&img=ex:cheetah&v=inside")
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
    first.page.locator("#inside-ablation .viz-ablation-toggle").click()
    first.settle()
    assert (keys(first)["u"], keys(first)["o"]) == (f"{layer}:{number}",) * 2
    second = open_checked_session("?" + urlsplit(first.page.url).query)
    restored, original = (session.page.evaluate(INSIDE) for session in (second, first))
    assert restored.pop("picture") == original.pop("picture"), "another picture"  # too long for an assertion message
    assert restored == original
    assert keys(second) == keys(first)
    assert second.get_text("#header .viz-link-note") == ""
    second.wait_for_change("#why-heatmap", lambda: second.choose_option("#model", VIT if model == RESNET else RESNET))
    assert not {"u", "o"} & keys(second).keys()  # another model has other units


def test_link_restores_the_lesson_step(open_checked_session):
    first = open_checked_session("?img=ex:cheetah&v=learn&s=4")
    first.wait_until("() => document.querySelector('#learn .viz-lesson')?.dataset.step === '3'")
    first.page.locator("#learn .viz-primary-button").click()
    first.wait_until("() => document.querySelector('#learn .viz-lesson')?.dataset.step === '4'")
    assert keys(first)["s"] == "5"
    first.page.locator("#learn .viz-dot").first.click()
    first.wait_until("() => document.querySelector('#learn .viz-lesson')?.dataset.step === '0'")
    assert "s" not in keys(first)


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ("?img=ex:tower&m=resnet1001", "This link contains values that are not available here: model “resnet1001”."),
        (
            "?img=ex:tower&c=<img src=x onerror=alert(1)>&v=x&l=99",
            "This link contains values that are not available here: "
            "tab “x”, class “<img src=x onerror=alert(1)>”, layer “99”.",
        ),
        (
            f"?img=ex:tower&w={'x' * 3000}",
            f"This link contains values that are not available here: method “{'x' * 40}…”.",
        ),
        (
            "?img=ex:tower&u=layer4:512&o=layer9:1&s=12",
            "This link contains values that are not available here: "
            "step “12”, channel or head “layer4:512”, channel or head “layer9:1”.",
        ),
        ("?c={first}", "This link does not contain its photo, so an example is shown."),
    ],
)
def test_invalid_link_shows_the_default_view_and_one_sentence(open_checked_session, tower, query, sentence):
    first = vizlib.load(RESNET).predict(tower)[0].label
    session, default = open_checked_session(query.replace("{first}", first)), open_checked_session()
    assert session.get_text("#header .viz-link-note") == sentence
    box = session.page.locator("#header .viz-link-note").bounding_box()
    assert box["width"] > 300  # visible, not only announced
    assert box["height"] > 20
    assert default.get_text("#header .viz-link-note") == ""
    assert session.page.evaluate(STATE) == default.page.evaluate(STATE)
    assert keys(session) == keys(default)
    session.wait_for_change("#why-heatmap", lambda: session.page.locator("#bars button").nth(1).click())
    assert session.get_text("#header .viz-link-note") == ""


def test_digit_keys_select_target_and_contrast_except_while_typing(open_checked_session, tower):
    session = open_checked_session()
    names = [row.label for row in vizlib.load(RESNET).predict(tower, top=5)]
    session.wait_for_change("#why-heatmap", lambda: session.page.keyboard.press("2"))
    assert keys(session)["c"] == names[1]
    session.wait_for_change("#why-heatmap", lambda: session.page.keyboard.press("Shift+Digit3"))
    assert (keys(session)["c"], keys(session)["vs"]) == (names[1], names[2])
    session.wait_for_change("#why-heatmap", lambda: session.page.keyboard.press("Shift+Digit3"))
    assert "vs" not in keys(session)
    before = list(session.calls)
    session.page.locator("#classes input").click()
    session.page.keyboard.press("1")
    session.page.keyboard.press("Escape")
    session.settle()
    assert keys(session)["c"] == names[1]
    assert session.calls == before


def test_shift_click_toggles_the_contrast_like_its_checkbox(open_checked_session):
    session = open_checked_session()
    bar, box = session.page.locator("#bars button").nth(2), session.page.locator("#bars input").nth(1)
    session.wait_for_change("#why-heatmap", lambda: bar.click(modifiers=["Shift"]))
    assert box.is_checked()
    contrast_map = session.read_canvas().tobytes()
    box.focus()
    session.wait_for_change("#why-heatmap", lambda: session.page.keyboard.press("Space"))
    assert not box.is_checked()
    assert session.page.evaluate("document.activeElement.dataset.against") is not None  # the focus stays where it was
    session.wait_for_change("#why-heatmap", lambda: session.page.keyboard.press("Space"))
    assert session.read_canvas().tobytes() == contrast_map


def test_copy_link_states_when_the_photo_is_not_included(open_checked_session, photo):
    session = open_checked_session("?__theme=light")
    session.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    button = session.page.get_by_role("button", name="Copy link")
    button.click()
    session.wait_until("() => document.querySelector('.viz-copy-status').textContent === 'Copied'")
    copied = session.page.evaluate("navigator.clipboard.readText()")
    assert copied.startswith(urlsplit(session.page.url)._replace(query="").geturl() + "?")
    assert {key: values[0] for key, values in parse_qs(urlsplit(copied).query).items()} == {
        key: value for key, value in keys(session).items() if key != "__theme"
    }
    session.page.locator("#photo button[aria-label='Remove Image']").click()
    session.settle()
    session.upload(photo)
    session.wait_until("() => document.querySelectorAll('#bars button').length >= 5")
    session.settle()
    assert "img" not in keys(session)
    assert "does not contain your own photo" in button.get_attribute("title")
    button.click()
    session.wait_until("() => document.querySelector('.viz-copy-status').textContent.includes('without your photo')")
