"""What a report says of one map: the pictures, the words, the numbers, and the code that makes it again."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from html import escape

import numpy as np

from vizlib.attribution.methods.registry import METHODS
from vizlib.attribution.result import MAX_FIGURE_SIDE_PX, Attribution
from vizlib.core.text import format_number, format_percent, format_question, shorten_label
from vizlib.models.model import Model
from vizlib.render.color_scale import Limits, compute_limits, draw_color_bar
from vizlib.render.html import MAX_LOSSLESS_PIXELS, code, inline_image, rows, share
from vizlib.render.overlay import overlay_heat
from vizlib.reporting.code_snippets import CodeSnippet


def alone(answer: Attribution, recipe: CodeSnippet, model: Model | None) -> str:
    """The only map: beside its photo, with all that is known of it in the open."""
    return f"""<article>
<div class="hero {_shape(answer)}">
{_picture(answer, model)}
{_original(answer)}
{_words(answer)}
<div class="sees">{_sees(answer, model)}</div>
</div>
<section><h2>In numbers</h2>
{rows({**_facts(answer, model), **_photo_facts(answer)})}</section>
<section><h2>Make it again</h2>
{_again(recipe)}</section>
</article>
"""


def one_of_many(answer: Attribution, recipe: CodeSnippet, model: Model | None) -> str:
    """One map under the photo that it shares with others."""
    heading = f"<h2>{escape(answer.method)}: {escape(asked(answer, model))}</h2>"
    return f"""<article>
<div class="pair {_shape(answer)}">
{_picture(answer, model)}
{_words(answer, heading)}
</div>
<details><summary>In numbers</summary>
{rows(_facts(answer, model))}</details>
<details><summary>Make it again</summary>
{_again(recipe)}</details>
</article>
"""


def shared_photo(answer: Attribution, model: Model | None) -> str:
    """The photo that many maps share."""
    return f"""<section class="pair {_shape(answer)}">
{_original(answer)}
<div>{_sees(answer, model)}
{rows(_photo_facts(answer))}</div>
</section>
"""


def asked(answer: Attribution, model: Model | None) -> str:
    """The question a map answers."""
    return format_question(answer.label, _rival(answer, model), class_specific=METHODS[answer.method].class_specific)


def _picture(answer: Attribution, model: Model | None) -> str:
    """The map upon the photo, with its colour bar."""
    photo, heat = answer.resize_with_heat(MAX_FIGURE_SIDE_PX)
    limits = compute_limits(heat, signed=answer.signed)
    picture = overlay_heat(photo, heat, signed=answer.signed, limits=limits)
    alt = f"{answer.method} for {answer.label} upon the photo"
    return f'<figure class="map">{inline_image(picture, alt)}\n{_scale(answer, limits, _rival(answer, model))}</figure>'


def _scale(answer: Attribution, limits: Limits, rival: str) -> str:
    """The colour bar, with the raw values at its ends and what they stand for."""
    low, high = (format_number(end) for end in limits)
    less, more = (shorten_label(rival) or "against", shorten_label(answer.label) if rival else "for") if answer.signed else ("", "")
    middle = "<span>0</span>" if answer.signed else ""
    ends = f"<span>{low}<small>{escape(less)}</small></span>{middle}<span>{high}<small>{escape(more)}</small></span>"
    return (
        f'<figcaption class="scale">{inline_image(draw_color_bar(signed=answer.signed), "")}<div>{ends}</div></figcaption>'
    )


def _original(answer: Attribution) -> str:
    """The photo itself."""
    small, _ = answer.resize_with_heat(MAX_FIGURE_SIDE_PX)
    kept = small.size == answer.photo.size and small.width * small.height <= MAX_LOSSLESS_PIXELS
    said = (
        "The photo, to the pixel: save it to make the map again." if kept else "The photo, lighter than it was given."
    )
    caption = f"<figcaption>{said}</figcaption>"
    return f'<figure class="photo">{inline_image(small, "The photo", lossless=kept)}\n{caption}</figure>'


def _words(answer: Attribution, heading: str = "") -> str:
    """What the map means and does not mean, what is worth knowing, and its raw values to take away."""
    row = METHODS[answer.method]
    notes = "".join(f"<li>{escape(note)}</li>" for note in answer.notes)
    file = f"{answer.file_stem}.npz"
    gives = f"{escape(answer.model)} gives {escape(shorten_label(answer.label))}"
    return f"""<div class="words">{heading}
<p class="verdict">{gives} <strong>{share(answer.probability)}</strong></p>
<p class="means">{escape(row.shows)}</p>
<p class="quiet">{escape(row.does_not_show)}</p>
{f'<ul class="notes">{notes}</ul>' if notes else ""}
<p><a class="button" download="{escape(file)}" href="{_npz(answer)}">Raw values (.npz)</a></p>
</div>"""


def _npz(answer: Attribution) -> str:
    """The raw values and all that is said of them, as the address of a file to save."""
    file = io.BytesIO()
    np.savez_compressed(file, heat=answer.heat.numpy(), about=json.dumps(answer.to_dict()))
    return "data:application/x-npz;base64," + base64.b64encode(file.getvalue()).decode()


def _sees(answer: Attribution, model: Model | None) -> str:
    """What the model thinks the photo is."""
    if model is None:
        return ""
    about = (answer.target, answer.parameters.get("against"))
    ranked = model.predict(answer.photo, top=len(model.labels))
    bars = "".join(
        f"<li{' class=chosen' if one.index == answer.target else ''}><span>{escape(shorten_label(one.label))}</span>"
        f'<span>{share(one.probability)}</span><i><b style="width:{100 * one.probability:.1f}%"></b></i></li>'
        for one in [*ranked[:5], *(one for one in ranked[5:] if one.index in about)]
    )
    return f'<h2>What the model sees</h2><ol class="bars">{bars}</ol>'


def _again(recipe: CodeSnippet) -> str:
    python, shell = code(recipe.to_python()), code(recipe.to_shell())
    return f'<div class="pair code"><div><h3>Python</h3>{python}</div><div><h3>Shell</h3>{shell}</div></div>'


def _photo_facts(answer: Attribution) -> dict[str, str]:
    photo = answer.photo
    pixels = hashlib.sha256(photo.tobytes()).hexdigest()
    return {"Photo": f"{photo.width} × {photo.height} pixels", "SHA-256 of its RGB pixels": pixels}


def _facts(answer: Attribution, model: Model | None) -> dict[str, str]:
    row = METHODS[answer.method]
    rival = _rival(answer, model)
    heat, seen = answer.heat, answer.geometry.visible_fraction
    layers = row.needs(model, answer.parameters).layers if model is not None else ()
    knobs = {name: value for name, value in answer.parameters.items() if name in row.parameters}
    return {
        "Method": answer.method,
        "Paper": row.paper,
        "Class": f"{answer.label} (number {answer.target})",
        "Against": rival and f"{rival} (number {answer.parameters['against']})",
        "Probability": f"{answer.probability:.6f}",
        "Knobs": ", ".join(f"{name} = {'automatic' if value is None else value}" for name, value in knobs.items()),
        "Read from": ", ".join(layers),
        "Map": f"{heat.shape[0]} × {heat.shape[1]} values from {format_number(heat.min())} to {format_number(heat.max())}",
        "Seen": f"{format_percent(seen)} of the photo; the rest is dimmed" if seen < 1 else "the whole photo",
    }


def _rival(answer: Attribution, model: Model | None) -> str:
    """The label of the class that the target is set against, or nothing."""
    index = answer.parameters.get("against")
    if index is None:
        return ""
    return f"class {index}" if model is None else model.labels[int(str(index))]


def _shape(answer: Attribution) -> str:
    """How the page is laid out for this photo."""
    return "broad" if answer.photo.width > 1.2 * answer.photo.height else "tall"
