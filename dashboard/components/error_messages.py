"""Errors of vizlib as the messages that gradio shows."""

from __future__ import annotations

import errno
import inspect
from collections.abc import Callable, Iterator, Sequence
from functools import wraps
from html import escape
from typing import Any

import gradio as gr

from dashboard.i18n.translate import translate_error
from vizlib import VizlibError

MAX_SENTENCE_CHARS = 800  # of an error message, which may quote the text of a request

UNWRITABLE_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.EACCES, errno.EPERM)
DISK_FULL_MESSAGE = (
    "The server cannot write files now, because its disk is full or closed to it; please try again later."
)


def to_gradio_error(error: Exception) -> gr.Error:
    """Return an error message as gradio shows it: one sentence in the language of the request, without HTML."""
    half = MAX_SENTENCE_CHARS // 2
    sentence = translate_error(error)
    sentence = sentence if len(sentence) <= 2 * half else f"{sentence[:half]} ... {sentence[-half:]}"
    text = escape(sentence, quote=False).rstrip(".")
    text += "" if text.endswith("?") else "."
    return gr.Error("The" + text[3:] if text.startswith("the ") else text, print_exception=False)


def show_errors(function: Callable, *, report_bad_photo: bool = True) -> Callable:
    """Return an event handler, plain or a generator, that raises a VizlibError as the error message gradio shows.

    An error in place of the photo, its first argument, is raised as well, or replaced by `None` if it is not reported.
    """

    def check_photo(args: Sequence[Any]) -> Sequence[Any]:
        if not args or not isinstance(args[0], gr.Error):
            return args
        if report_bad_photo:
            raise args[0]
        return None, *args[1:]

    if inspect.isgeneratorfunction(function):

        @wraps(function)
        def stream(*args: Any, **kwargs: Any) -> Iterator[Any]:
            try:
                yield from function(*check_photo(args), **kwargs)
            except VizlibError as error:
                raise to_gradio_error(error) from None

        return stream

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*check_photo(args), **kwargs)
        except VizlibError as error:
            raise to_gradio_error(error) from None

    return call
