"""Headings, captions and text alternatives in the language of the request."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from dashboard.i18n.translate import translate, translate_note
from vizlib import Attribution
from vizlib.attribution.methods.registry import METHODS
from vizlib.core.text import shorten_label


def format_confidence(model: str, text: str, *, is_probability: bool = True) -> str:
    """Return the probability that a model gives to a class, or the value that it returns, as a short sentence."""
    return translate("common.gives" if is_probability else "common.returns", model=model, share=text)


def format_attribution_heading(attribution: Attribution, against: str = "") -> str:
    """Return the heading of an attribution; `against` is the label of the contrast class, if any."""
    return format_heading(attribution.method, attribution.label, against)


def format_heading(method: str, label: str, against: str = "") -> str:
    """Return the question that a method answers about a class, in contrast to the class `against` if given."""
    if not METHODS[method].class_specific:
        return translate("question.where")
    label, against = shorten_label(label), shorten_label(against)
    return (
        translate("question.why-not", **{"class": label, "other": against})
        if against
        else translate("question.why", **{"class": label})
    )


def build_alt_text(attribution: Attribution) -> str:
    """Return a text alternative: the method, the class, and where on the photo the map has its maximum."""
    rows, columns = attribution.heat.shape
    row, column = divmod(int(attribution.heat.argmax()), columns)
    vertical = ("top", "middle", "bottom")[min(3 * row // rows, 2)]
    horizontal = ("left", "centre", "right")[min(3 * column // columns, 2)]
    place = translate(f"common.{vertical}-{horizontal}")
    facts = {"method": attribution.method, "class": shorten_label(attribution.label), "place": place}
    return translate("common.strongest", **facts)


def format_duration(seconds: float) -> str:
    """Return a duration in rounded words.

    >>> [format_duration(seconds) for seconds in (0.2, 7.4, 44.0, 100.0, 400.0)]
    ['a second', '7 seconds', '45 seconds', '1½ minutes', '7 minutes']
    """
    if seconds < 1.5:
        return translate("common.a-second")
    if seconds < 55:
        return translate("common.seconds", count=round(seconds) if seconds < 10 else 5 * round(seconds / 5))
    if seconds < 80:
        return translate("common.a-minute")
    if seconds < 105:
        return translate("common.minute-and-half")
    return translate("common.minutes", count=round(seconds / 60))


def get_no_photo_text() -> str:
    """Return the request to upload a photo."""
    return translate("common.no-photo")


def build_caption(heading: str, sentence: str, caveat: str = "", notes: Sequence[str] = (), overline: str = "") -> str:
    """Return the caption of a picture as HTML, with all texts escaped.

    Args:
        heading: The heading.
        sentence: What the picture means, in the language of the request.
        caveat: What it does not mean, in the language of the request.
        notes: Notes of the library, which are translated here.
        overline: A line above the heading.
    """
    parts = [f'<p class="viz-overline">{escape(overline)}</p>'] if overline else []
    parts += [f"<h2>{escape(heading)}</h2>", f'<p class="viz-meaning">{escape(sentence)}</p>']
    if caveat:
        parts.append(f'<p class="viz-caveat">{escape(caveat)}</p>')
    if notes:
        items = "".join(f"<li>{escape(translate_note(note))}</li>" for note in notes)
        parts.append(f'<ul class="viz-notes" aria-label="{escape(translate("common.notes"))}">{items}</ul>')
    return f'<div class="viz-caption" role="status">{"".join(parts)}</div>'


def build_no_photo_caption() -> str:
    """Return the caption of a tab without a photo."""
    return build_caption(translate("common.no-photo-yet"), get_no_photo_text())
