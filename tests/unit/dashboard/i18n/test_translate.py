"""The page in every language: the same sentences with the same facts, and the language the browser asks for."""

from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from html import unescape
from pathlib import Path
from string import Formatter
from types import SimpleNamespace

import gradio as gr
import pytest

import dashboard
from dashboard import app
from dashboard.components.base import custom_component
from dashboard.i18n.translate import (
    LANGUAGES,
    browser_translations,
    language_of_request,
    page_texts,
    parse_accept_language,
    script_texts,
    tab_title,
    translate,
    translate_to,
    use_language,
)
from dashboard.sidebar.prediction_panel import draw_model_input

FOLDER = Path(dashboard.__file__).parent / "i18n"
OTHERS = LANGUAGES[1:]


def facts(text: str) -> list[str]:
    return sorted(name for _, name, *_ in Formatter().parse(text) if name is not None)


def pairs(language: str) -> dict[str, list]:
    """A table as it stands in its file, where a key that stands twice can be seen."""
    rows = json.loads((FOLDER / f"page_{language}.json").read_text("utf-8"), object_pairs_hook=list)
    return {"keys": [key for key, _ in rows], "texts": [text for _, text in rows]}


def test_every_language_has_a_table_and_no_other_table_lies_about():
    assert {path.name for path in FOLDER.glob("page_*.json")} == {f"page_{one}.json" for one in LANGUAGES}


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_table_has_exactly_the_keys_of_the_english_one_in_its_order_and_each_once(language):
    keys = pairs(language)["keys"]
    assert keys == pairs("en")["keys"]
    assert len(keys) == len(set(keys))


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_text_is_empty_or_has_blanks_at_its_ends(language):
    assert all(text and text == text.strip() for text in pairs(language)["texts"])


@pytest.mark.parametrize("language", OTHERS)
@pytest.mark.parametrize("key", page_texts("en"))
def test_a_translation_has_the_same_facts_and_is_one(language, key):
    english, other = page_texts("en")[key], page_texts(language)[key]
    assert facts(other) == facts(english)
    assert other != english
    bare = re.sub(r"\{\w+\}", "", english)
    if re.search(r"[A-Za-z]{3}", bare):
        assert re.search(r"[가-힣]", other), "there is no Korean in it"


@pytest.mark.parametrize("language", LANGUAGES)
def test_texts_for_gradio_have_nothing_its_translator_would_take_for_its_own(language):
    for key, text in browser_translations().translations[language].items():
        assert not re.search(r"[{}']", text), f"{key}: braces and straight apostrophes are ICU's"
        assert key == "page.header" or "<" not in text


def test_korean_speaks_in_one_manner():
    sentences = [text for key, text in page_texts("ko").items() if text.endswith(".")]
    assert len(sentences) > 25
    assert [text for text in sentences if not re.search(r"((니다|세요)(\([^)]*\))?|\})\.$", text)] == []
    assert not [text for text in sentences if re.search(r"[가-힣](해|이에|예|어|아|네)요[.?]", text)]


@pytest.mark.parametrize("language", LANGUAGES)
def test_words_are_typeset_as_the_page_is(language):
    for text in page_texts(language).values():
        assert not re.search(r"""["'`]|\.\.\.|\d-\d| - """, text)


@pytest.mark.parametrize(
    ("header", "language"),
    [
        ("ko-KR,ko;q=0.9,en-US;q=0.8,en;q=0.7", "ko"),
        ("ko", "ko"),
        ("KO-kr", "ko"),
        ("en-US,en;q=0.9,ko;q=0.8", "en"),
        ("en;q=0.5, ko", "ko"),
        ("en;q=0.5,ko;q=0.9", "ko"),
        ("fr-FR,fr;q=0.9,ko;q=0.8", "en"),  # the browser's own part of the page is English then, too
        ("", "en"),
        (None, "en"),
        ("*", "en"),
        ("../../etc/passwd", "en"),
        ("ko;q=nan,en", "en"),
        ("ko;q=9,en;q=0.1", "en"),
        ("ko;x=1,en", "en"),
        ("korean", "en"),
        (",;=,;q=" * 5000, "en"),
        ("x" * 100_000 + ",ko", "en"),
        ("en\r\nSet-Cookie: a=b", "en"),
    ],
)
def test_a_header_asks_for_a_language_and_a_forged_or_missing_one_for_english(header, language):
    assert parse_accept_language(header) == language


def test_a_request_is_answered_in_its_language_and_none_in_english():
    assert language_of_request(SimpleNamespace(headers={"accept-language": "ko-KR"})) == "ko"
    assert language_of_request(SimpleNamespace(headers={})) == "en"
    assert language_of_request(SimpleNamespace(headers={"accept-language": ["ko"]})) == "en"
    assert language_of_request(None) == "en"


def test_facts_are_never_read_as_a_form_of_their_own():
    said = translate_to("en", "learn.hook.channel", {"channel": "{layer} %s <b>"})
    assert said == "Channel {layer} %s <b>"


def test_the_header_is_the_title_and_the_sentence():
    for language, table in browser_translations().translations.items():
        title, sentence = re.fullmatch(r"<h1>([^<]*)</h1><p>([^<]*)</p>", table["page.header"]).groups()
        assert unescape(title) == translate_to(language, "page.title")
        assert unescape(sentence) == translate_to(language, "page.sentence")


def test_every_tab_has_a_title_in_every_language_that_is_its_own_in_english():
    for tab in app.TABS:
        name = app._id(tab)
        assert tab_title(name, tab.TITLE).key == f"page.tab.{name}"
        assert page_texts("en")[f"page.tab.{name}"] == tab.TITLE
    assert tab_title("nowhere", "A tab of yours") == "A tab of yours"


def test_every_text_a_script_says_is_in_the_tables_and_every_one_of_the_tables_is_said():
    scripts = "".join(path.read_text("utf-8") for path in (FOLDER.parent / "components").rglob("*.js"))
    calls = re.findall(r"say\(((?:[^()]|\([^()]*\))*)\)", scripts)
    said = {text for inside in calls for text in re.findall(r'"([^"]+)"', inside)}
    python = "".join(path.read_text("utf-8") for path in FOLDER.parent.rglob("*.py"))
    for language in OTHERS:
        table = script_texts()[language]
        assert said - {"img"} <= set(table)
        assert [text for text in table if text not in said and f'"{text}"' not in python + scripts] == []
        assert all(
            table[page_texts("en")[key]] == page_texts(language)[key]
            for key in page_texts("en")
            if key.startswith("script.")
        )


@pytest.mark.parametrize(
    ("name", "own", "others"), [("heatmap", "Opacity", "Copy link"), ("patches", "mean", "Opacity")]
)
def test_a_part_brings_the_words_of_its_own_scripts_with_it(name, own, others):
    script = custom_component(name).js_on_load
    table = json.loads(re.match(r"const SAID = (\{.*\});\n", script).group(1))
    for language in OTHERS:
        assert table[language].items() <= script_texts()[language].items()
        assert own in table[language]
        assert others not in table[language]


def test_sentences_made_in_python_are_in_the_language_of_whoever_is_answered():
    with use_language("ko"):
        assert translate("common.seconds", count=5) == "5초"
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(copy_context().run, translate, "common.a-minute").result() == "1분"
    assert translate("common.seconds", count=5) == "5 seconds"


def test_what_the_model_sees_is_told_to_each_in_their_language(service, cheetah):
    """Results are kept for all visitors together; words are not."""

    def told(language: str) -> str:
        with use_language(language):
            shown = draw_model_input(service, cheetah, "vit_tiny-imagenette")
        return str({key: value for key, value in shown.items() if not str(value).startswith("data:")})

    first, other = told("en"), told("ko")
    assert re.search("[가-힣]", other)
    assert not re.search("[가-힣]", first)
    assert told("en") == first


def test_an_event_is_answered_in_the_language_of_its_request(finished, monkeypatch):
    async def answer(self, *args, **kwargs):
        return translate("common.no-photo-yet")

    monkeypatch.setattr(gr.Blocks, "process_api", answer)
    page = object.__new__(app.Page)
    asks = SimpleNamespace(headers={"accept-language": "ko-KR,ko;q=0.9"})
    for request, language in ((asks, "ko"), (None, "en")):
        assert finished(page.process_api(request=request)) == page_texts(language)["common.no-photo-yet"]


def test_the_page_is_launched_with_its_translations(monkeypatch):
    told = {}
    app.launch(SimpleNamespace(launch=lambda **how: told.update(how)))
    assert told["i18n"].translations == browser_translations().translations
    assert set(told["i18n"].translations) == set(LANGUAGES)
