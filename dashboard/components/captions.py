"""What the page says: plain sentences in the visitor's language, made safe for HTML."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from dashboard.i18n.translate import translate, translate_note
from vizlib import Attribution
from vizlib.attribution.methods.registry import METHODS
from vizlib.core.text import percent, short


def verdict(answer: Attribution) -> str:
    """How sure the model is of the class a picture is about, in a few words above it."""
    return gives(answer.model, answer.probability)


def gives(model: str, probability: float) -> str:
    """How sure a model is, in a few words."""
    return translate("tell.gives", model=model, share=percent(probability))


def lead(answer: Attribution, rival: str = "") -> str:
    """What a picture is about, in a few words that can head it."""
    return question(answer.method, answer.label, rival)


def question(method: str, label: str, rival: str = "") -> str:
    """What a method answers about a class, set against the class `rival` if there is one."""
    if not METHODS[method].of_class:
        return translate("question.where")
    label, rival = short(label), short(rival)
    return (
        translate("question.why-not", **{"class": label, "other": rival})
        if rival
        else translate("question.why", **{"class": label})
    )


def alternative(answer: Attribution) -> str:
    """A text alternative: the method, the class, and where on the photo the map is strongest."""
    rows, columns = answer.heat.shape
    row, column = divmod(int(answer.heat.argmax()), columns)
    vertical = ("top", "middle", "bottom")[min(3 * row // rows, 2)]
    horizontal = ("left", "centre", "right")[min(3 * column // columns, 2)]
    facts = {"method": answer.method, "class": short(answer.label), "place": translate(f"tell.{vertical}-{horizontal}")}
    return translate("tell.strongest", **facts)


def duration(seconds: float) -> str:
    """About how long something takes, as a person says it.

    >>> [duration(each) for each in (0.2, 7.4, 44.0, 100.0, 400.0)]
    ['a second', '7 seconds', '45 seconds', '1½ minutes', '7 minutes']
    """
    if seconds < 1.5:
        return translate("tell.a-second")
    if seconds < 55:
        return translate("tell.seconds", count=round(seconds) if seconds < 10 else 5 * round(seconds / 5))
    if seconds < 80:
        return translate("tell.a-minute")
    return translate("tell.minute-and-half") if seconds < 105 else translate("tell.minutes", count=round(seconds / 60))


def no_photo() -> str:
    """What to do where there is nothing to look at."""
    return translate("tell.no-photo")


def caption(heading: str, sentence: str, caveat: str = "", notes: Sequence[str] = (), above: str = "") -> str:
    """What a picture means, what it does not mean, and what is worth knowing about this one, as safe HTML.

    The notes are translated here; the sentence and the caveat are in the current language already.
    """
    parts = [f'<p class="viz-above">{escape(above)}</p>'] if above else []
    parts += [f"<h2>{escape(heading)}</h2>", f'<p class="viz-means">{escape(sentence)}</p>']
    if caveat:
        parts.append(f'<p class="viz-caveat">{escape(caveat)}</p>')
    if notes:
        items = "".join(f"<li>{escape(translate_note(note))}</li>" for note in notes)
        parts.append(f'<ul class="viz-notes" aria-label="{escape(translate("tell.notes"))}">{items}</ul>')
    return f'<div class="viz-caption" role="status">{"".join(parts)}</div>'


def nothing_yet() -> str:
    """The words of a tab that waits for a photo."""
    return caption(translate("tell.no-photo-yet"), no_photo())
