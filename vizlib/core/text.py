"""Format class labels, fractions, numbers and titles for display, and make notes: sentences with a code and facts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import SupportsFloat

from vizlib.core.note_texts import TEXTS


class Phrase(str):
    """A label that is one name with all its commas, as a prompt is, and not several names.

    >>> split_label(Phrase("a dog, asleep")), split_label("tench, Tinca tinca")
    (['a dog, asleep'], ['tench', 'Tinca tinca'])
    """


def split_label(label: str) -> list[str]:
    """Return the comma-separated names of a label."""
    return [label] if isinstance(label, Phrase) else [name for part in label.split(",") if (name := part.strip())]


def shorten_label(label: str) -> str:
    """Return the first of a label's comma-separated names.

    >>> shorten_label("tench, Tinca tinca")
    'tench'
    """
    return label if isinstance(label, Phrase) else label.split(",")[0].strip()


def format_percent(fraction: float) -> str:
    """Return a fraction from 0 to 1 as a percentage.

    >>> format_percent(0.5), format_percent(0.0123), format_percent(0.00001)
    ('50 %', '1.2 %', '< 0.1 %')
    """
    percent = 100 * fraction
    return "< 0.1 %" if percent < 0.1 else f"{percent:.1f} %" if percent < 10 else f"{percent:.0f} %"


def format_number(value: SupportsFloat) -> str:
    """Return a number with three significant digits.

    >>> format_number(-0.01234)
    '−0.0123'
    """
    return f"{float(value):.3g}".replace("-", "−")


def format_count(count: int, noun: str) -> str:
    """Return a number of things.

    >>> format_count(1, "class"), format_count(1000, "class"), format_count(3, "value")
    ('1 class', '1000 classes', '3 values')
    """
    return f"{count} {noun if count == 1 else form_plural(noun)}"


def form_plural(noun: str) -> str:
    """Return the plural of a regular English noun."""
    return f"{noun}es" if noun.endswith("s") else f"{noun}s"


def format_question(label: str, against: str = "", *, class_specific: bool = True) -> str:
    """Return the question that an attribution answers, as a title.

    Args:
        label: Label of the target class.
        against: Label of the contrast class, if there is one.
        class_specific: Whether the method depends on the target class.

    >>> format_question("tench, Tinca tinca")
    'Why tench?'
    >>> format_question("church", "tench")
    'Why church and not tench?'
    >>> format_question("church", class_specific=False)
    'Which places are salient?'
    """
    if not class_specific:
        return "Which places are salient?"
    contrast = f" and not {shorten_label(against)}" if against else ""
    return f"Why {shorten_label(label)}{contrast}?"


class Note(str):
    """A note as text: one English sentence, with what another language needs to say the same.

    A note is its own text, so it is printed, compared and written to JSON as any string.

    Attributes:
        code: Key of the sentence in `TEXTS`, for example `"map.empty"`.
        facts: Text of each name in braces of that sentence.

    >>> note = make_note("model.training-mode")
    >>> note.code, dict(note.facts)
    ('model.training-mode', {})
    """

    code: str
    facts: Mapping[str, str]


def make_note(code: str, **facts: object) -> Note:
    """Return the note of a code as text: its sentence, formatted with facts.

    Args:
        code: Key in `TEXTS`.
        **facts: Value of each name in braces of the text; turned into text with `str`.

    Raises:
        KeyError: For an unknown code or a missing fact.
    """
    texts = {name: str(fact) for name, fact in facts.items()}
    note = Note(TEXTS[code].format_map(texts))
    note.code, note.facts = code, texts  # a plain dictionary, as notes travel to other processes
    return note
