"""How classes, shares, numbers and questions are put into words, wherever a person reads of them."""

from __future__ import annotations


def short(label: str) -> str:
    """The first of a label's comma-separated names.

    >>> short("tench, Tinca tinca")
    'tench'
    """
    return label.split(",")[0].strip()


def percent(share: float) -> str:
    """A share, from 0 to 1, as a person reads it.

    >>> percent(0.5), percent(0.0123), percent(0.00001)
    ('50 %', '1.2 %', '< 0.1 %')
    """
    share *= 100
    return "< 0.1 %" if share < 0.1 else f"{share:.1f} %" if share < 10 else f"{share:.0f} %"


def number(value) -> str:
    """A raw value with three digits.

    >>> number(-0.01234)
    '−0.0123'
    """
    return f"{float(value):.3g}".replace("-", "−")


def question(label: str, rival: str = "", *, of_class: bool = True) -> str:
    """What a method answers about a class, set against the class `rival` if there is one.

    >>> question("tench, Tinca tinca"), question("church", "tench"), question("church", of_class=False)
    ('Why tench?', 'Why church and not tench?', 'Where does it look?')
    """
    if not of_class:
        return "Where does it look?"
    return f"Why {short(label)} and not {short(rival)}?" if rival else f"Why {short(label)}?"
