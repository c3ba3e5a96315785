"""Headings, captions and text alternatives in the language of the request."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from dashboard.i18n.translate import translate, translate_note
from vizlib import Attribution
from vizlib.attribution.methods.registry import METHODS
from vizlib.core.text import shorten_label


def format_confidence(model: str, text: str, *, is_probability: bool = True) -> str:
    """Return the sentence of a caption on the probability or other value that a model gives to a class."""
    return translate("common.gives" if is_probability else "common.returns", model=model, share=text)


def format_attribution_heading(attribution: Attribution, against: str = "") -> str:
    """Return the heading of an attribution's caption; `against` is the label of the contrast class, if any."""
    return format_heading(attribution.method, attribution.label, against)


def format_heading(method: str, label: str, against: str = "") -> str:
    """Return the heading of a caption: the question that a method answers about a class, in contrast to `against`."""
    if not METHODS[method].class_specific:
        return translate("question.where")
    label, against = shorten_label(label), shorten_label(against)
    return (
        translate("question.why-not", **{"class": label, "other": against})
        if against
        else translate("question.why", **{"class": label})
    )


def get_no_photo_text() -> str:
    """Return the caption of a view without a photo, as plain text: the request to upload one."""
    return translate("common.no-photo")


def build_caption(
    heading: str,
    sentence: str,
    caveat: str = "",
    notes: Sequence[str] = (),
    overline: str = "",
    help_link: str = "",
) -> str:
    """Return the caption of a picture as HTML, with all texts escaped.

    Args:
        heading: The heading.
        sentence: What the picture means, in the language of the request.
        caveat: What it does not mean, in the language of the request.
        notes: Notes of the library, which are translated here.
        overline: A line above the heading.
        help_link: Link to the documentation, as safe HTML.
    """
    parts = [f'<p class="viz-overline">{escape(overline)}</p>'] if overline else []
    parts += [f"<h2>{escape(heading)}</h2>", f'<p class="viz-meaning">{escape(sentence)}</p>']
    if caveat:
        parts.append(f'<p class="viz-caveat">{escape(caveat)}</p>')
    if notes:
        items = "".join(f"<li>{escape(translate_note(note))}</li>" for note in notes)
        parts.append(f'<ul class="viz-notes" aria-label="{escape(translate("common.notes"))}">{items}</ul>')
    return f'{help_link}<div class="viz-caption" role="status">{"".join(parts)}</div>'


def build_no_photo_caption() -> str:
    """Return the caption of a tab without a photo, as HTML."""
    return build_caption(translate("common.no-photo-yet"), get_no_photo_text())


def format_correlation(value: float) -> str:
    """Return a correlation as captions show it, with two decimals."""
    return f"{value + 0.0:.2f}".replace("-", "−") if abs(value) >= 0.005 else "0.00"


def format_size(*sizes: int) -> str:
    """Return sizes as captions show them, separated by multiplication signs: 14 × 14."""
    return " × ".join(f"{size:,}" for size in sizes)
