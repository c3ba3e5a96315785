"""What the page says: plain sentences in the visitor's language, made safe for HTML."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from dashboard.i18n.translate import translate, translate_note
from vizlib import Attribution
from vizlib.attribution.methods.registry import METHODS
from vizlib.core.text import format_percent, shorten_label


def format_confidence(answer: Attribution) -> str:
    """How sure the model is of the class a picture is about, in a few words above it."""
    return format_probability(answer.model, answer.probability)


def format_probability(model: str, probability: float) -> str:
    """How sure a model is, in a few words."""
    return translate("common.gives", model=model, share=format_percent(probability))


def format_attribution_heading(answer: Attribution, against: str = "") -> str:
    """What a picture is about, in a few words that can head it."""
    return format_heading(answer.method, answer.label, against)


def format_heading(method: str, label: str, against: str = "") -> str:
    """What a method answers about a class, set against the class `rival` if there is one."""
    if not METHODS[method].class_specific:
        return translate("question.where")
    label, against = shorten_label(label), shorten_label(against)
    return (
        translate("question.why-not", **{"class": label, "other": against})
        if against
        else translate("question.why", **{"class": label})
    )


def build_alt_text(answer: Attribution) -> str:
    """A text alternative: the method, the class, and where on the photo the map is strongest."""
    rows, columns = answer.heat.shape
    row, column = divmod(int(answer.heat.argmax()), columns)
    vertical = ("top", "middle", "bottom")[min(3 * row // rows, 2)]
    horizontal = ("left", "centre", "right")[min(3 * column // columns, 2)]
    facts = {"method": answer.method, "class": shorten_label(answer.label), "place": translate(f"common.{vertical}-{horizontal}")}
    return translate("common.strongest", **facts)


def format_duration(seconds: float) -> str:
    """About how long something takes, as a person says it.

    >>> [duration(each) for each in (0.2, 7.4, 44.0, 100.0, 400.0)]
    ['a second', '7 seconds', '45 seconds', '1½ minutes', '7 minutes']
    """
    if seconds < 1.5:
        return translate("common.a-second")
    if seconds < 55:
        return translate("common.seconds", count=round(seconds) if seconds < 10 else 5 * round(seconds / 5))
    if seconds < 80:
        return translate("common.a-minute")
    return translate("common.minute-and-half") if seconds < 105 else translate("common.minutes", count=round(seconds / 60))


def get_no_photo_text() -> str:
    """What to do where there is nothing to look at."""
    return translate("common.no-photo")


def build_caption(heading: str, sentence: str, caveat: str = "", notes: Sequence[str] = (), overline: str = "") -> str:
    """What a picture means, what it does not mean, and what is worth knowing about this one, as safe HTML.

    The notes are translated here; the sentence and the caveat are in the current language already.
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
    """The words of a tab that waits for a photo."""
    return build_caption(translate("common.no-photo-yet"), get_no_photo_text())
