"""The page's texts in every language: same keys and facts, and the language of a request."""

from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from html import unescape
from pathlib import Path
from string import Formatter
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest
from gradio.i18n import I18nData

import dashboard
from dashboard import app
from dashboard.components.custom_component import custom_component
from dashboard.i18n.language import LANGUAGES, get_request_language, parse_accept_language, use_language
from dashboard.i18n.translate import (
    build_browser_translations,
    get_page_texts,
    get_script_translations,
    translate,
    translate_tab_title,
    translate_to,
)
from dashboard.sidebar.prediction_panel import build_model_input_figure

FOLDER = Path(dashboard.__file__).parent / "i18n"
TRANSLATIONS = LANGUAGES[1:]
LETTERS = {"ko": "[가-힣]"}  # of each translation's language; a language written in Latin letters needs no row


def fact_names(text: str) -> list[str]:
    return sorted(name for _, name, *_ in Formatter().parse(text) if name is not None)


def read_rows(language: str) -> dict[str, list]:
    """Keys and texts of a table in file order, with duplicate keys."""
    rows = json.loads((FOLDER / f"page_{language}.json").read_text("utf-8"), object_pairs_hook=list)
    return {"keys": [key for key, _ in rows], "texts": [text for _, text in rows]}


def test_every_language_has_exactly_one_table():
    assert {path.name for path in FOLDER.glob("page_*.json")} == {f"page_{language}.json" for language in LANGUAGES}


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_table_has_the_keys_of_the_english_one_in_order(language):
    keys = read_rows(language)["keys"]
    assert keys == read_rows("en")["keys"]
    assert len(keys) == len(set(keys))


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_text_is_empty_or_padded_with_blanks(language):
    assert all(text and text == text.strip() for text in read_rows(language)["texts"])


@pytest.mark.parametrize("language", TRANSLATIONS)
def test_a_translation_has_the_same_facts_and_its_own_script(language):
    for key, english in get_page_texts("en").items():
        other = get_page_texts(language)[key]
        assert fact_names(other) == fact_names(english), key
        assert other != english, key
        bare = re.sub(r"\{\w+\}", "", english)
        if re.search(r"[A-Za-z]{3}", bare):
            assert re.search(LETTERS.get(language, ""), other), f"{key}: not written in {language}"


@pytest.mark.parametrize("language", LANGUAGES)
def test_texts_for_gradio_contain_no_icu_syntax(language):
    for key, text in build_browser_translations().translations[language].items():
        assert not re.search(r"[{}']", text), f"{key}: braces and straight apostrophes are ICU's"
        assert key == "page.header" or "<" not in text


def test_korean_sentences_are_formal():
    sentences = [text for key, text in get_page_texts("ko").items() if text.endswith(".")]
    assert len(sentences) > 25
    assert [text for text in sentences if not re.search(r"((니다|세요)(\([^)]*\))?|\})\.$", text)] == []
    assert not [text for text in sentences if re.search(r"[가-힣](해|이에|예|어|아|네)요[.?]", text)]


@pytest.mark.parametrize("language", LANGUAGES)
def test_texts_use_typographic_characters(language):
    for text in get_page_texts(language).values():
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
        ("fr-FR,fr;q=0.9,ko;q=0.8", "en"),  # the front end displays English then, too
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
def test_accept_language_header_gives_a_language_with_english_as_default(header, language):
    assert parse_accept_language(header) == language


def make_request(headers: dict[str, Any]) -> Any:
    return SimpleNamespace(headers=headers)


def test_language_of_request():
    assert get_request_language(make_request({"accept-language": "ko-KR"})) == "ko"
    assert get_request_language(make_request({})) == "en"
    assert get_request_language(make_request({"accept-language": ["ko"]})) == "en"
    assert get_request_language(None) == "en"


def test_facts_are_not_formatted_again():
    text = translate_to("en", "learn.hook.channel", {"channel": "{layer} %s <b>"})
    assert text == "Channel {layer} %s <b>"


def test_page_header_has_the_title_and_the_sentence():
    for language, table in build_browser_translations().translations.items():
        header = re.fullmatch(r"<h1>([^<]*)</h1><p>([^<]*)</p>", table["page.header"])
        assert header is not None
        title, sentence = header.groups()
        assert unescape(title) == translate_to(language, "page.title")
        assert unescape(sentence) == translate_to(language, "page.sentence")


def test_every_tab_has_a_translated_title():
    for tab in app.TABS:
        name = app._make_tab_id(tab)
        title = translate_tab_title(name, tab.TITLE)
        assert isinstance(title, I18nData)
        assert title.key == f"page.tab.{name}"
        assert get_page_texts("en")[f"page.tab.{name}"] == tab.TITLE
    assert translate_tab_title("nowhere", "A new tab") == "A new tab"


def test_every_browser_text_has_a_translation_and_every_page_text_is_used():
    python = "".join(path.read_text("utf-8") for path in FOLDER.parent.rglob("*.py"))
    arguments = "".join(re.findall(r"translate_in_browser\(([^()]*)\)", python))
    used = {f"page.{key}" for key in re.findall(r"""["']([a-z][a-z-]*)["']""", arguments)} - {"page.header"}
    others = {"page.title", "page.sentence", "page.downloading"}  # used in Python
    tabs = {f"page.tab.{app._make_tab_id(tab)}" for tab in app.TABS}
    assert used | others | tabs == {key for key in get_page_texts("en") if key.startswith("page.")}


def test_script_texts_are_all_translated_and_all_used():
    scripts = "".join(path.read_text("utf-8") for path in (FOLDER.parent / "components").rglob("*.js"))
    calls = re.findall(r"translate\(((?:[^()]|\([^()]*\))*)\)", scripts)
    used = {text for arguments in calls for text in re.findall(r'"([^"]+)"', arguments)}
    python = "".join(path.read_text("utf-8") for path in FOLDER.parent.rglob("*.py"))
    for language in TRANSLATIONS:
        table = get_script_translations()[language]
        assert used - {"img"} <= set(table)
        assert [text for text in table if text not in used and f'"{text}"' not in python + scripts] == []
        assert all(
            table[get_page_texts("en")[key]] == get_page_texts(language)[key]
            for key in get_page_texts("en")
            if key.startswith("script.")
        )


@pytest.mark.parametrize(
    ("name", "own", "foreign"), [("heatmap", "Opacity", "Copy link"), ("patches", "mean", "Opacity")]
)
def test_a_component_contains_the_translations_of_its_own_scripts(name, own, foreign):
    script = custom_component(name).js_on_load
    assert script is not None
    statement = re.match(r"const TRANSLATIONS = (\{.*\});\n", script)
    assert statement is not None
    table = json.loads(statement.group(1))
    for language in TRANSLATIONS:
        assert table[language].items() <= get_script_translations()[language].items()
        assert own in table[language]
        assert foreign not in table[language]


def test_translate_uses_the_current_language():
    with use_language("ko"):
        assert translate("common.seconds", count=5) == "5초"
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(copy_context().run, translate, "common.a-minute").result() == "1분"
    assert translate("common.seconds", count=5) == "5 seconds"


def test_cached_results_are_described_in_the_language_of_each_visitor(service, cheetah):
    def describe(language: str) -> str:
        with use_language(language):
            value = build_model_input_figure(service, cheetah, "vit_tiny-imagenette")
        return str({key: value for key, value in value.items() if not str(value).startswith("data:")})

    english, korean = describe("en"), describe("ko")
    assert re.search("[가-힣]", korean)
    assert not re.search("[가-힣]", english)
    assert describe("en") == english


def test_an_event_uses_the_language_of_its_request(run_coroutine, monkeypatch):
    async def answer(self, *args, **kwargs):
        return translate("common.no-photo-yet")

    monkeypatch.setattr(gr.Blocks, "process_api", answer)
    page = object.__new__(app.Page)
    korean_request = make_request({"accept-language": "ko-KR,ko;q=0.9"})
    for request, language in ((korean_request, "ko"), (None, "en")):
        assert run_coroutine(page.process_api(request=request)) == get_page_texts(language)["common.no-photo-yet"]


def test_page_is_launched_with_its_translations(monkeypatch):
    options = {}
    page: Any = SimpleNamespace(launch=lambda **given: options.update(given))
    app.launch(page)
    assert options["i18n"].translations == build_browser_translations().translations
    assert set(options["i18n"].translations) == set(LANGUAGES)
