"""What the page says in a visitor's language: a table of words for each, and English for everybody else.

Labels, headings, buttons and the lessons are translated. What the library says of a picture, the names of methods and
layers, and the labels of classes stay as they are in Python.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from html import escape
from pathlib import Path
from types import MappingProxyType

import gradio as gr
from gradio.i18n import I18nData

LANGUAGES = ("en", "ko")  # the first is for all others
LONGEST = 1000  # characters of a header that are read
HERE = Path(__file__).parent


@cache
def words(language: str) -> Mapping[str, str]:
    """All that the page says in one of its languages: key -> sentence, in which {names} stand for facts."""
    return MappingProxyType(json.loads((HERE / f"words_{language}.json").read_text(encoding="utf-8")))


def say(language: str, key: str, facts: Mapping[str, str] | None = None) -> str:
    """A sentence in a language, with its facts."""
    return words(language)[key].format_map(facts or {})


def language_of(header: str | None) -> str:
    """The language a browser wants most by its Accept-Language header, if the page speaks it; else English.

    Only the first wish counts, as for what the browser translates itself: a page half in one language helps nobody.

    >>> language_of("ko-KR,ko;q=0.9,en;q=0.8"), language_of("fr,ko;q=0.5"), language_of(None)
    ('ko', 'en', 'en')
    """
    wishes = [wish.strip().lower().partition(";") for wish in (header or "")[:LONGEST].split(",")]
    first = max(wishes, key=lambda wish: _weight(wish[2]))[0]
    language = first.strip().partition("-")[0]
    return language if language in LANGUAGES else LANGUAGES[0]


def asked(request: gr.Request | None) -> str:
    """The language of whoever sent a request."""
    header = getattr(request, "headers", {}).get("accept-language")
    return language_of(header if isinstance(header, str) else None)


def shown(key: str) -> I18nData:
    """A text of the page itself, which the browser puts into its own language."""
    return I18nData(f"page.{key}")


def title_of(tab: str, title: str) -> I18nData | str:
    """What a tab is called: its title where the tables have no word for it."""
    return shown(f"tab.{tab}") if f"page.tab.{tab}" in words(LANGUAGES[0]) else title


def translations() -> gr.I18n:
    """The texts of the page itself in every language, for gradio."""
    tables = {}
    for language in LANGUAGES:
        table = {key: text for key, text in words(language).items() if key.startswith("page.")}
        title, sentence = (escape(table[f"page.{key}"], quote=False) for key in ("title", "sentence"))
        tables[language] = {**table, "page.header": f"<h1>{title}</h1><p>{sentence}</p>"}
    return gr.I18n(**tables)


def in_browser() -> dict[str, dict[str, str]]:
    """What the scripts of the parts say: by language, the English text -> the same in it."""
    english = {key: text for key, text in words(LANGUAGES[0]).items() if key.startswith("part.")}
    return {other: {text: words(other)[key] for key, text in english.items()} for other in LANGUAGES[1:]}


def _weight(parameter: str) -> float:
    """How much a wish counts: its q, or 1; 0 for what is no number from 0 to 1."""
    name, _, value = parameter.strip().partition("=")
    if name.strip() != "q":
        return 1.0 if not parameter else 0.0
    try:
        return weight if 0 <= (weight := float(value)) <= 1 else 0.0
    except ValueError:
        return 0.0
