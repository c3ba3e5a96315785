"""Translation of all texts of the page: one table of texts for each language, English for all other languages.

`page_<language>.json` holds the page's own texts by key. `library_<language>.json` holds the texts that come from
vizlib: notes and error messages by the code of the note, descriptions of methods by method, help texts of parameters
by parameter, groups of classes by name, and texts stored in checkpoint files by the English text. Names of methods,
layers and classes are not translated.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cache
from html import escape
from pathlib import Path
from types import MappingProxyType
from typing import Any

import gradio as gr
from gradio.i18n import I18nData

from dashboard.i18n.language import CURRENT_LANGUAGE, LANGUAGES
from vizlib.attribution.request import Method
from vizlib.core.text import Note

FOLDER = Path(__file__).parent


@cache
def get_page_texts(language: str) -> Mapping[str, str]:
    """Return the page's translated texts in a language: key -> text, in which names in braces stand for facts."""
    return MappingProxyType(_read_table(f"page_{language}.json"))


@cache
def get_library_texts(language: str) -> Mapping[str, Any]:
    """Return the translations of the library's texts.

    Args:
        language: One of `LANGUAGES`.

    Returns:
        Six sections, all empty for English: `notes` (code -> text), `methods` (method -> `shows` and
        `does_not_show`), `parameters` (parameter, or `method.parameter` where a method needs its own text -> text),
        `groups` (group of classes -> text), `stored` and `stored_with_facts` (English text -> text).
    """
    empty = {section: {} for section in ("notes", "methods", "parameters", "groups", "stored", "stored_with_facts")}
    exists = (FOLDER / f"library_{language}.json").exists()
    return MappingProxyType(empty | (_read_table(f"library_{language}.json") if exists else {}))


def translate_to(language: str, key: str, facts: Mapping[str, str] | None = None) -> str:
    """Return a text of the page in the given language, filled with facts."""
    return get_page_texts(language)[key].format_map(facts or {})


def translate(key: str, **facts: object) -> str:
    """Return a text of the page in the current language.

    Args:
        key: Key in `page_<language>.json`.
        **facts: Value of each name in braces of the text; turned into text with `str`.

    Raises:
        KeyError: For an unknown key or a missing fact.
    """
    return translate_to(CURRENT_LANGUAGE.get(), key, {name: str(fact) for name, fact in facts.items()})


def translate_note(note: str) -> str:
    """Return a note of the library in the current language.

    Args:
        note: A `Note`, which has a code. Any other string, and a note whose code has no translation, is returned
            as it is.
    """
    texts = get_library_texts(CURRENT_LANGUAGE.get())
    if isinstance(note, Note) and note.code in texts["notes"]:
        facts = {name: texts["stored"].get(fact, fact) for name, fact in note.facts.items()}
        return texts["notes"][note.code].format_map(facts)
    return str(note)


def translate_error(error: Exception) -> str:
    """Return the message of an error in the current language; English if it was not raised with a `Note`."""
    note = error.args[0] if error.args else None
    return translate_note(note) if isinstance(note, Note) else str(error)


def translate_method_description(method: Method) -> tuple[str, str]:
    """Return what the map of a method shows and what it does not show, in the current language."""
    texts = get_library_texts(CURRENT_LANGUAGE.get())["methods"].get(method.name, {})
    return texts.get("shows", method.shows), texts.get("does_not_show", method.does_not_show)


def translate_parameter_help(method: Method, parameter: str) -> str:
    """Return the help text of a method's parameter in the current language."""
    texts = get_library_texts(CURRENT_LANGUAGE.get())["parameters"]
    shared = texts.get(parameter, method.parameters[parameter].help)
    return texts.get(f"{method.name}.{parameter}", shared)


def translate_group(name: str) -> str:
    """Return the name of a group of classes in the current language."""
    return get_library_texts(CURRENT_LANGUAGE.get())["groups"].get(name, name)


def translate_stored(text: str) -> str:
    """Return a text of a checkpoint file in the current language; as it is where there is no translation.

    Such a text is data: it has no code, so it is found by its English wording. Some sentences contain numbers that
    the training script measured, which are taken over, and groups of classes, which are translated.
    """
    texts = get_library_texts(CURRENT_LANGUAGE.get())
    if text in texts["stored"]:
        return texts["stored"][text]
    for pattern, template in _compile_stored_patterns(CURRENT_LANGUAGE.get()):
        if match := pattern.fullmatch(text):
            return template.format_map({key: translate_group(fact) for key, fact in match.groupdict().items()})
    return text


def translate_in_browser(key: str) -> I18nData:
    """Return a reference to a `page.` text, which gradio's front end replaces by the text in the browser's language."""
    return I18nData(f"page.{key}")


def translate_tab_title(tab: str, title: str) -> I18nData | str:
    """Return a reference to the translated title of a tab, or `title` where there is no translation."""
    return translate_in_browser(f"tab.{tab}") if f"page.tab.{tab}" in get_page_texts(LANGUAGES[0]) else title


def build_browser_translations() -> gr.I18n:
    """Return the `page.` texts in every language for gradio's front end, with the HTML of the page's header."""
    tables = {}
    for language in LANGUAGES:
        table = {key: text for key, text in get_page_texts(language).items() if key.startswith("page.")}
        title, sentence = (escape(table[f"page.{key}"], quote=False) for key in ("title", "sentence"))
        tables[language] = {**table, "page.header": f"<h1>{title}</h1><p>{sentence}</p>"}
    return gr.I18n(**tables)


def get_script_translations(script: str | None = None) -> dict[str, dict[str, str]]:
    """Return the translations of the `script.` texts, which the JavaScript of the components displays.

    Args:
        script: JavaScript source; only the texts that stand in it in double quotes are returned. `None` for all.

    Returns:
        For each language but English: English text -> translation.
    """
    english = {key: text for key, text in get_page_texts(LANGUAGES[0]).items() if key.startswith("script.")}
    used = {key: text for key, text in english.items() if script is None or f'"{text}"' in script}
    return {language: {text: get_page_texts(language)[key] for key, text in used.items()} for language in LANGUAGES[1:]}


def _read_table(file: str) -> dict[str, Any]:
    """Return a table of texts in one language from its JSON file."""
    return json.loads((FOLDER / file).read_text(encoding="utf-8"))


@cache
def _compile_stored_patterns(language: str) -> list[tuple[re.Pattern[str], str]]:
    """Return the patterns of the stored texts with facts, and their translations."""
    table = get_library_texts(language)["stored_with_facts"]
    return [
        (re.compile(re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>.{1,100}?)", re.escape(english))), text)
        for english, text in table.items()
    ]
