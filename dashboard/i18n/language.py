"""The language of the page: the current one, and that of a request."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import gradio as gr

LANGUAGES = ("en", "ko")  # the first is the default
MAX_HEADER_CHARACTERS = 1000  # of an Accept-Language header; the rest is ignored
CURRENT_LANGUAGE: ContextVar[str] = ContextVar("language", default=LANGUAGES[0])


@contextmanager
def use_language(language: str) -> Iterator[None]:
    """Set the current language inside the `with` block, in this thread and in those that copy its context."""
    token = CURRENT_LANGUAGE.set(language)
    try:
        yield
    finally:
        CURRENT_LANGUAGE.reset(token)


def parse_accept_language(header: str | None) -> str:
    """Return the language that an Accept-Language header prefers, or English if the page has no texts in it.

    Only the first preference counts, as for the texts that the browser translates itself; otherwise the page would
    be in two languages at once.

    >>> [parse_accept_language(header) for header in ("ko-KR,ko;q=0.9,en;q=0.8", "fr,ko;q=0.5", None)]
    ['ko', 'en', 'en']
    """
    ranges = [part.strip().lower().partition(";") for part in (header or "")[:MAX_HEADER_CHARACTERS].split(",")]
    preferred = max(ranges, key=lambda language_range: _parse_language_weight(language_range[2]))[0]
    language = preferred.strip().partition("-")[0]
    return language if language in LANGUAGES else LANGUAGES[0]


def get_request_language(request: gr.Request | None) -> str:
    """Return the language of the browser that sent a request; English without a request."""
    header = getattr(request, "headers", {}).get("accept-language")
    return parse_accept_language(header if isinstance(header, str) else None)


def _parse_language_weight(parameter: str) -> float:
    """Return the weight of a language range: its q, 1 without parameter, 0 unless a number from 0 to 1."""
    name, _, value = parameter.strip().partition("=")
    if name.strip() != "q":
        return 1.0 if not parameter else 0.0
    try:
        return weight if 0 <= (weight := float(value)) <= 1 else 0.0
    except ValueError:
        return 0.0
