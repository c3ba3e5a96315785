"""Print the results of many photos as soon as each is known, and report the photos that cannot be used."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from textwrap import indent
from types import TracebackType
from typing import Any

import typer
from tqdm import tqdm

from vizlib.core.errors import ImageError

SOME_FAILED, ALL_FAILED = 1, 2  # exit codes


def echo_line(text: str) -> None:
    """Print one line of a result without breaking the progress bar; a file name may hold bytes that are no UTF-8."""
    with tqdm.external_write_mode():
        typer.echo(_replace_surrogates(text))


def format_result(method: str, label: str, probability: float | None, score: float | None) -> str:
    """Return what a command says about one map: the method, what it explains, and its probability or value.

    >>> format_result("grad-cam", "church", 0.9, 4.2), format_result("eigen-cam", "", None, None)
    ('grad-cam for church (90.0%)', 'eigen-cam')
    """
    if score is None:
        return method
    return f"{method} for {label} ({f'{score:.4g}' if probability is None else f'{probability:.1%}'})"


class JsonPrinter:
    """Prints the items of one JSON array or object, or one item a line, so that no result has to be kept.

    Used in a `with` block, at whose end the array or object is closed, after an error too.

    Args:
        brackets: `"[]"` for an array, `"{}"` for an object; `""` for one item a line.
    """

    def __init__(self, brackets: str) -> None:
        self._brackets = brackets
        self._count = 0

    def __enter__(self) -> JsonPrinter:
        return self

    def add(self, item: Any, key: str = "") -> None:
        """Print a result.

        Args:
            item: What `json.dumps` accepts.
            key: Its name, if it belongs to an object.
        """
        with tqdm.external_write_mode():
            if not self._brackets:
                typer.echo(json.dumps(item))
                return
            text = indent(json.dumps(item, indent=1), " ")
            text = f" {json.dumps(key)}: {text.lstrip()}" if self._brackets == "{}" else text
            typer.echo(f"{',' if self._count else self._brackets[0]}\n{text}", nl=False)
            self._count += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._brackets and self._count:
            typer.echo(f"\n{self._brackets[1]}")
        elif self._brackets and error is None:
            typer.echo(self._brackets)


class PhotoFailures:
    """Reports each photo that cannot be used on a line of its own, so that the results of the others are not lost.

    Args:
        count: How many photos a command was given; the error of a single one is raised.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._failed = 0

    @contextmanager
    def report(self, path: object) -> Iterator[None]:
        """Print the `ImageError` of a photo, with its path, instead of raising it."""
        try:
            yield
        except ImageError as error:
            if self._count == 1:
                raise
            self._failed += 1
            with tqdm.external_write_mode():
                typer.echo(_replace_surrogates(f"vizlib: {path}: {error}"), err=True)

    def exit_if_any(self) -> None:
        """End the command with the exit code of photos that failed, if there are any."""
        if self._failed:
            typer.echo(f"vizlib: {self._failed} of {self._count} photos cannot be used", err=True)
            raise typer.Exit(ALL_FAILED if self._failed == self._count else SOME_FAILED)


def _replace_surrogates(text: str) -> str:
    """Return a line of a result without the surrogates that stand for bytes of a file name that are no UTF-8."""
    return text.encode("utf-8", "replace").decode()
