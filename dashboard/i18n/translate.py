"""What the page says in a visitor's language: a table of words for each, and English for everybody else.

All that the page says is translated, and of what the library says all that `library_<language>.json` has words for. The
names of methods, layers and classes stay as they are in Python, and so does how a model's file says it was trained.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from html import escape
from pathlib import Path
from types import MappingProxyType

import gradio as gr
from gradio.i18n import I18nData

LANGUAGES = ("en", "ko")  # the first is for all others
MAX_CHARACTERS = 1000  # characters of a header, or of a sentence, that are read
FOLDER = Path(__file__).parent
_SPOKEN: ContextVar[str] = ContextVar("spoken", default=LANGUAGES[0])


@cache
def page_texts(language: str) -> Mapping[str, str]:
    """All that the page says in one of its languages: key -> sentence, in which {names} stand for facts."""
    return MappingProxyType(json.loads((FOLDER / f"page_{language}.json").read_text(encoding="utf-8")))


def translate_to(language: str, key: str, facts: Mapping[str, str] | None = None) -> str:
    """A sentence in a language, with its facts."""
    return page_texts(language)[key].format_map(facts or {})


def translate(key: str, **facts: object) -> str:
    """A sentence in the language of whoever is being answered, with its facts."""
    return translate_to(_SPOKEN.get(), key, {name: str(fact) for name, fact in facts.items()})


@cache
def library_texts(language: str) -> Mapping[str, str]:
    """What the library says and the page repeats: English sentence -> the same in a language, {names} for facts."""
    path = FOLDER / f"library_{language}.json"
    return MappingProxyType(json.loads(path.read_text(encoding="utf-8")) if path.exists() else {})


def from_library(sentence: str) -> str:
    """A sentence of the library in the language of whoever is being answered; one without a translation as it is."""
    if len(sentence) > MAX_CHARACTERS:
        return sentence
    for pattern, other in _patterns(_SPOKEN.get()):
        if found := pattern.fullmatch(sentence):
            return other.format_map(found.groupdict())
    return sentence


@contextmanager
def use_language(language: str) -> Iterator[None]:
    """While this lasts, in this thread and those it starts, `tell` and `from_library` speak this language."""
    before = _SPOKEN.set(language)
    try:
        yield
    finally:
        _SPOKEN.reset(before)


def parse_accept_language(header: str | None) -> str:
    """The language a browser wants most by its Accept-Language header, if the page speaks it; else English.

    Only the first wish counts, as for what the browser translates itself: a page half in one language helps nobody.

    >>> [parse_accept_language(header) for header in ("ko-KR,ko;q=0.9,en;q=0.8", "fr,ko;q=0.5", None)]
    ['ko', 'en', 'en']
    """
    wishes = [wish.strip().lower().partition(";") for wish in (header or "")[:MAX_CHARACTERS].split(",")]
    first = max(wishes, key=lambda wish: _weight(wish[2]))[0]
    language = first.strip().partition("-")[0]
    return language if language in LANGUAGES else LANGUAGES[0]


def language_of_request(request: gr.Request | None) -> str:
    """The language of whoever sent a request."""
    header = getattr(request, "headers", {}).get("accept-language")
    return parse_accept_language(header if isinstance(header, str) else None)


def browser_text(key: str) -> I18nData:
    """A text of the page itself, which the browser puts into its own language."""
    return I18nData(f"page.{key}")


def tab_title(tab: str, title: str) -> I18nData | str:
    """What a tab is called: its title where the tables have no word for it."""
    return browser_text(f"tab.{tab}") if f"page.tab.{tab}" in page_texts(LANGUAGES[0]) else title


def browser_translations() -> gr.I18n:
    """The texts of the page itself in every language, for gradio."""
    tables = {}
    for language in LANGUAGES:
        table = {key: text for key, text in page_texts(language).items() if key.startswith("page.")}
        title, sentence = (escape(table[f"page.{key}"], quote=False) for key in ("title", "sentence"))
        tables[language] = {**table, "page.header": f"<h1>{title}</h1><p>{sentence}</p>"}
    return gr.I18n(**tables)


def script_texts(script: str | None = None) -> dict[str, dict[str, str]]:
    """What the scripts of the parts say, or one of them: by language, the English text -> the same in it."""
    english = {key: text for key, text in page_texts(LANGUAGES[0]).items() if key.startswith("part.")}
    spoken = {key: text for key, text in english.items() if script is None or f'"{text}"' in script}
    return {other: {text: page_texts(other)[key] for key, text in spoken.items()} for other in LANGUAGES[1:]}


@cache
def _patterns(language: str) -> list[tuple[re.Pattern[str], str]]:
    """The library's sentences to be recognised, those with the most words of their own first."""
    table = library_texts(language)
    wordiest = sorted(table, key=lambda english: -len(re.sub(r"\{\w+\}", "", english)))
    return [(re.compile(re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>.+?)", re.escape(one))), table[one]) for one in wordiest]


def _weight(parameter: str) -> float:
    """How much a wish counts: its q, or 1; 0 for what is no number from 0 to 1."""
    name, _, value = parameter.strip().partition("=")
    if name.strip() != "q":
        return 1.0 if not parameter else 0.0
    try:
        return weight if 0 <= (weight := float(value)) <= 1 else 0.0
    except ValueError:
        return 0.0
