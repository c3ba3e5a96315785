"""The box of prompts of a model that reads text: typed prompts, words as buttons, links, and hostile texts."""

from __future__ import annotations

from urllib.parse import parse_qs, quote, urlsplit

import pytest

import vizlib
from dashboard.services.example_photos import open_example_photos

pytestmark = pytest.mark.slow
CLIP = "clip-digits"
BOX, ASK, WORDS = "#prompts textarea", "#prompts .viz-prompts-apply", "#prompts .viz-word"
HOSTILE = (
    "<img src=x onerror=alert(1)>",
    "\u202egnp.exe",
    "🐶",
    "שלום",
    "a\0seven",
    "x" * 10_000,
    "a seven\n" * 10_000,
)


def list_bars(session) -> list[str]:
    return [line.inner_text() for line in session.page.locator("#bars .viz-class .viz-name").all()]


def read_query(session) -> dict[str, list[str]]:
    return parse_qs(urlsplit(session.page.url).query)


@pytest.fixture(scope="module")
def digits():
    return open_example_photos()["ex:digits"]


def test_typed_prompts_are_the_classes_of_every_view(open_checked_session, digits):
    session = open_checked_session(f"?m={CLIP}")
    assert session.page.locator("#classes").is_visible() is False
    assert session.page.locator("#why-methods [data-key='attention-relevance']").get_attribute("aria-pressed") == "true"
    assert list_bars(session)[0] == vizlib.load(CLIP).predict(digits)[0].label
    prompts = ["a red seven", "a blue two, a yellow four", "a green nine"]
    session.page.locator(BOX).fill("\n".join(prompts))
    session.page.locator(ASK).click()
    session.settle()
    model = vizlib.load_clip(CLIP).with_prompts(prompts)
    assert list_bars(session) == [row.label for row in model.predict(digits)]
    assert read_query(session)["q"] == ["\n".join(prompts)]
    session.page.locator("#bars .viz-class", has_text="a red seven").click()
    session.settle()
    found = vizlib.explain_words(model, digits, "a red seven")
    assert [button.inner_text() for button in session.page.locator(WORDS).all()] == list(found.words)
    session.open_tab("Use in code")
    code = session.page.locator("#code-lines").inner_text()
    assert 'vizlib.load_clip("clip-digits")' in code
    assert "vizlib clip" in code
    assert "/clip" in code


def test_a_word_contrasts_the_prompt_with_the_prompt_without_it(open_checked_session):
    session = open_checked_session(f"?m={CLIP}&q={quote('a red seven' + chr(10) + 'a blue two')}&c=a+red+seven")
    session.page.locator(WORDS, has_text="red").click()
    session.settle()
    assert session.page.locator(BOX).input_value() == "a red seven\na blue two\na seven"
    assert read_query(session)["vs"] == ["a seven"]
    assert "a red seven" in session.page.locator("#why-caption h2").inner_text()
    assert "a seven" in session.page.locator("#why-caption h2").inner_text()
    session.page.locator(WORDS, has_text="red").click()  # the same again ends the contrast
    session.settle()
    assert "vs" not in read_query(session)


def test_a_link_with_prompts_restores_the_view(open_checked_session):
    prompts = "a red seven\na blue two, at the bottom right\na white one"
    target = quote("a blue two, at the bottom right")
    query = f"?m={CLIP}&q={quote(prompts)}&c={target}&vs={quote('a white one')}&w=hires-cam"
    session = open_checked_session(query)
    assert session.page.locator(BOX).input_value() == prompts
    heading = session.page.locator("#why-caption h2").inner_text()
    assert "a blue two, at the bottom right" in heading
    assert "a white one" in heading
    before = read_query(session)
    again = open_checked_session("?" + urlsplit(session.page.url).query)
    assert read_query(again) == before
    assert again.page.locator("#why-caption h2").inner_text() == heading


@pytest.mark.parametrize("prompt", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_prompts_are_one_sentence_and_nothing_is_lost(open_checked_session, prompt):
    session = open_checked_session(f"?m={CLIP}")
    bars = list_bars(session)
    session.page.locator(BOX).evaluate("(box, text) => { box.value = text; }", prompt)
    session.page.locator(ASK).click()
    session.settle()
    if prompt.startswith("a seven"):  # one prompt, ten thousand times
        assert list_bars(session) == ["a seven"]
        return
    toast = session.page.locator(".toast-body").first
    toast.wait_for()
    assert session.page.locator(".toast-body").count() == 1
    assert (
        session.page.evaluate("() => document.images.length")
        == session.page.locator("img:not(.toast-body img)").count()
    )
    assert list_bars(session) == bars
    assert session.page.locator(BOX).input_value() == prompt.replace("\0", "\ufffd") or "\0" in prompt
    toast.locator("button").click()
    session.page.locator(BOX).fill("a red seven\na blue two")
    session.page.locator(ASK).click()
    session.settle()
    assert sorted(list_bars(session)) == ["a blue two", "a red seven"]


def test_prompts_in_a_link_that_cannot_be_used_are_named(open_checked_session):
    for query in (
        f"?m={CLIP}&q=an+elephant",
        "?m=resnet18-imagenette&img=ex:tower&q=a+dog",
        f"?m={CLIP}&q={'x' * 4000}",
    ):
        session = open_checked_session(query)
        assert "prompts “" in session.page.locator(".viz-link-note").inner_text()
