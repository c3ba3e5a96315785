"""What the page says: plain sentences, made safe for HTML."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from dashboard.components.bars import percent, short
from vizlib import Attribution
from vizlib.methods.registry import METHODS


def verdict(answer: Attribution) -> str:
    """How sure the model is of the class a picture is about, in a few words above it."""
    return f"{answer.model} gives it {percent(answer.probability)}"


def lead(answer: Attribution) -> str:
    """What a picture is about, in a few words that can head it."""
    return f"Why {short(answer.label)}?" if METHODS[answer.method].of_class else "Where does it look?"


def alternative(answer: Attribution) -> str:
    """A text alternative: the method, the class, and where on the photo the map is strongest."""
    rows, columns = answer.heat.shape
    row, column = divmod(int(answer.heat.argmax()), columns)
    vertical = ("top", "middle", "bottom")[min(3 * row // rows, 2)]
    horizontal = ("left", "centre", "right")[min(3 * column // columns, 2)]
    where = f"{vertical} {horizontal}" if vertical != "middle" or horizontal != "centre" else "centre"
    return f"{answer.method} for {short(answer.label)} on the photo; the strongest place is at the {where}."


NO_PHOTO = "Drop a photo on the left, or choose an example."


def caption(heading: str, sentence: str, caveat: str = "", notes: Sequence[str] = (), above: str = "") -> str:
    """What a picture means, what it does not mean, and what is worth knowing about this one, as safe HTML."""
    parts = [f'<p class="viz-above">{escape(above)}</p>'] if above else []
    parts += [f"<h2>{escape(heading)}</h2>", f'<p class="viz-means">{escape(sentence)}</p>']
    if caveat:
        parts.append(f'<p class="viz-caveat">{escape(caveat)}</p>')
    if notes:
        items = "".join(f"<li>{escape(note)}</li>" for note in notes)
        parts.append(f'<ul class="viz-notes" aria-label="Notes on this picture">{items}</ul>')
    return f'<div class="viz-caption" role="status">{"".join(parts)}</div>'
