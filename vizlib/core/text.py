"""How classes, shares, numbers and questions are put into words, wherever a person reads of them."""

from __future__ import annotations


def shorten_label(label: str) -> str:
    """The first of a label's comma-separated names.

    >>> shorten_label("tench, Tinca tinca")
    'tench'
    """
    return label.split(",")[0].strip()


def format_percent(fraction: float) -> str:
    """A share, from 0 to 1, as a person reads it.

    >>> format_percent(0.5), format_percent(0.0123), format_percent(0.00001)
    ('50 %', '1.2 %', '< 0.1 %')
    """
    fraction *= 100
    return "< 0.1 %" if fraction < 0.1 else f"{fraction:.1f} %" if fraction < 10 else f"{fraction:.0f} %"


def format_number(value) -> str:
    """A raw value with three digits.

    >>> format_number(-0.01234)
    '−0.0123'
    """
    return f"{float(value):.3g}".replace("-", "−")


def format_question(label: str, against: str = "", *, class_specific: bool = True) -> str:
    """What a method answers about a class, set against the class `rival` if there is one.

    >>> format_question("church", "tench")
    ('Why tench?', 'Why church and not tench?', 'Where does it look?')
    """
    if not class_specific:
        return "Where does it look?"
    return f"Why {shorten_label(label)} and not {shorten_label(against)}?" if against else f"Why {shorten_label(label)}?"
