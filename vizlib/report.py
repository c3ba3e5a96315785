"""One page that can be sent to someone: the pictures, the raw values, how they came about, and how to make them again.

It needs no network, no script and no vizlib to be read.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import platform
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from html import escape
from itertools import groupby
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image

from vizlib import render
from vizlib.checkpoints import fingerprint
from vizlib.files import written
from vizlib.methods.notes import percent
from vizlib.methods.registry import METHODS
from vizlib.model import Model
from vizlib.recipes import Recipe
from vizlib.results import LARGEST, Attribution
from vizlib.version import __version__

STYLE = Path(__file__).with_suffix(".css")
LOSSLESS = 1_500_000  # pixels: a larger photo is kept as JPEG, or the page would be too heavy to send
READ = """import base64, io, re
import numpy as np

page = open({file}, encoding="utf-8").read()
texts = re.findall(r'/x-npz;base64,([^"]+)"', page)
files = map(io.BytesIO, map(base64.b64decode, texts))
maps = [np.load(file) for file in files]
print(maps[0]["heat"])  # the raw values
print(maps[0]["about"])  # all that is said of them, as JSON
"""
CAUTION = (
    "A map shows where a score is sensitive or where evidence was found. It does not prove that the model reasons as "
    "you would, that the evidence is the cause, or that another photo would be treated alike."
)


def report(
    answers: Attribution | Iterable[Attribution] | Mapping[str, Attribution],
    path: str | Path,
    *,
    model: Model | None = None,
    recipes: Sequence[Recipe] = (),
) -> Path:
    """Write one or many attributions as a single HTML file that can be sent to someone.

    It holds the photo, the map upon it with its colour bar, the raw values (to read them back, it says how), what the
    picture means and does not mean, its notes, the method, its knobs and paper, the versions, and the code that makes
    it again. Given the `model` they are of, also a hash of its weights, its likeliest classes, and names instead of
    numbers for classes. `recipes`, one an attribution, tell the code by what names photo and model are loaded.

    The same attributions give the same file, but for the date.

    >>> report(explain(model, "church.jpg"), "why.html", model=model)  # doctest: +SKIP

    Raises: VizlibError where the file cannot be written.
    """
    path = Path(path)
    answers = [answers] if isinstance(answers, Attribution) else answers
    answers = list(answers.values() if isinstance(answers, Mapping) else answers)
    code = list(recipes) or [Recipe.of(answer, model) for answer in answers]
    text = _page(list(zip(answers, code, strict=True)), path.name, model)
    with written(path) as file:
        file.write(text.encode("utf-8", "replace"))  # a file's name may hold what no text can
    return path


def _page(pairs: Sequence[tuple[Attribution, Recipe]], file: str, model: Model | None) -> str:
    asked = [answer for answer, _ in pairs if METHODS[answer.method].of_class] or [answer for answer, _ in pairs]
    questions = {_question(answer, model) for answer in asked}
    title = questions.pop() if len(questions) == 1 else f"{len(pairs)} maps"
    body = []
    for _, group in groupby(pairs, key=lambda pair: id(pair[0].photo)):
        group = list(group)
        if len(pairs) == 1:
            body.append(_alone(*group[0], model))
        else:
            body += [_photo(group[0][0], model), *(_one_of_many(*pair, model) for pair in group)]
    today = _today()
    methods = list(dict.fromkeys(answer.method for answer, _ in pairs))
    above = [*(methods if len(methods) == 1 else ()), *dict.fromkeys(answer.model for answer, _ in pairs), today]
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(title)} · vizlib</title>
<style>
{STYLE.read_text(encoding="utf-8")}</style>
</head>
<body>
<main>
<header>
<p class="above">{escape(" · ".join(above))}</p>
<h1>{escape(title)}</h1>
</header>
{"".join(body)}
<section class="pair">
<div><h2>How it was made</h2>
{_rows(_surroundings(pairs[0][0], model, today) if pairs else {})}</div>
<div><h2>Read the values back</h2>
<p>Every map’s raw values are in this file; so is all that is said of them here.</p>
{_code(READ.format(file=json.dumps(file)))}</div>
</section>
<footer><p>{escape(CAUTION)}</p></footer>
</main>
</body>
</html>
"""


def _alone(answer: Attribution, recipe: Recipe, model: Model | None) -> str:
    """The only map: beside its photo, with all that is known of it in the open."""
    return f"""<article>
<div class="hero {_shape(answer)}">
{_picture(answer, model)}
{_original(answer)}
{_words(answer)}
<div class="sees">{_sees(answer, model)}</div>
</div>
<section><h2>In numbers</h2>
{_rows({**_facts(answer, model), **_photo_facts(answer)})}</section>
<section><h2>Make it again</h2>
{_again(recipe)}</section>
</article>
"""


def _one_of_many(answer: Attribution, recipe: Recipe, model: Model | None) -> str:
    """One map under the photo that it shares with others."""
    heading = f"<h2>{escape(answer.method)}: {escape(_question(answer, model))}</h2>"
    return f"""<article>
<div class="pair {_shape(answer)}">
{_picture(answer, model)}
{_words(answer, heading)}
</div>
<details><summary>In numbers</summary>
{_rows(_facts(answer, model))}</details>
<details><summary>Make it again</summary>
{_again(recipe)}</details>
</article>
"""


def _photo(answer: Attribution, model: Model | None) -> str:
    """The photo that many maps share."""
    return f"""<section class="pair {_shape(answer)}">
{_original(answer)}
<div>{_sees(answer, model)}
{_rows(_photo_facts(answer))}</div>
</section>
"""


def _picture(answer: Attribution, model: Model | None) -> str:
    """The map upon the photo, with its colour bar."""
    photo, heat = answer.within(LARGEST)
    limits = render.limits_of(heat, signed=answer.signed)
    picture = render.overlay(photo, heat, signed=answer.signed, limits=limits)
    alt = f"{answer.method} for {answer.label} upon the photo"
    return f'<figure class="map">{_image(picture, alt)}\n{_scale(answer, limits, model)}</figure>'


def _original(answer: Attribution) -> str:
    """The photo itself."""
    small, _ = answer.within(LARGEST)
    kept = small.size == answer.photo.size and small.width * small.height <= LOSSLESS
    said = (
        "The photo, to the pixel: save it to make the map again." if kept else "The photo, lighter than it was given."
    )
    caption = f"<figcaption>{said}</figcaption>"
    return f'<figure class="photo">{_image(small, "The photo", lossless=kept)}\n{caption}</figure>'


def _words(answer: Attribution, heading: str = "") -> str:
    """What the map means and does not mean, what is worth knowing, and its raw values to take away."""
    row = METHODS[answer.method]
    notes = "".join(f"<li>{escape(note)}</li>" for note in answer.notes)
    file = f"{answer.stem}.npz"
    gives = f"{escape(answer.model)} gives {escape(_short(answer.label))}"
    return f"""<div class="words">{heading}
<p class="verdict">{gives} <strong>{_share(answer.probability)}</strong></p>
<p class="means">{escape(row.means)}</p>
<p class="quiet">{escape(row.means_not)}</p>
{f'<ul class="notes">{notes}</ul>' if notes else ""}
<p><a class="button" download="{escape(file)}" href="{_npz(answer)}">Raw values (.npz)</a></p>
</div>"""


def _sees(answer: Attribution, model: Model | None) -> str:
    """What the model thinks the photo is."""
    if model is None:
        return ""
    about = (answer.target, answer.knobs.get("against"))
    ranked = model.predict(answer.photo, top=len(model.labels))
    bars = "".join(
        f"<li{' class=chosen' if one.index == answer.target else ''}><span>{escape(_short(one.label))}</span>"
        f'<span>{_share(one.probability)}</span><i><b style="width:{100 * one.probability:.1f}%"></b></i></li>'
        for one in [*ranked[:5], *(one for one in ranked[5:] if one.index in about)]
    )
    return f'<h2>What the model sees</h2><ol class="bars">{bars}</ol>'


def _again(recipe: Recipe) -> str:
    python, shell = _code(recipe.python()), _code(recipe.shell())
    return f'<div class="pair code"><div><h3>Python</h3>{python}</div><div><h3>Shell</h3>{shell}</div></div>'


def _photo_facts(answer: Attribution) -> dict[str, str]:
    photo = answer.photo
    pixels = hashlib.sha256(photo.tobytes()).hexdigest()
    return {"Photo": f"{photo.width} × {photo.height} pixels", "SHA-256 of its RGB pixels": pixels}


def _facts(answer: Attribution, model: Model | None) -> dict[str, str]:
    row = METHODS[answer.method]
    rival = _rival(answer, model)
    heat, seen = answer.heat, answer.geometry.seen_fraction
    layers = row.needs(model, answer.knobs).layers if model is not None else ()
    knobs = {name: value for name, value in answer.knobs.items() if name in row.knobs}
    return {
        "Method": answer.method,
        "Paper": row.paper,
        "Class": f"{answer.label} (number {answer.target})",
        "Against": rival and f"{rival} (number {answer.knobs['against']})",
        "Probability": f"{answer.probability:.6f}",
        "Knobs": ", ".join(f"{name} = {'automatic' if value is None else value}" for name, value in knobs.items()),
        "Read from": ", ".join(layers),
        "Map": f"{heat.shape[0]} × {heat.shape[1]} values from {_number(heat.min())} to {_number(heat.max())}",
        "Seen": f"{percent(seen)} of the photo; the rest is dimmed" if seen < 1 else "the whole photo",
    }


def _surroundings(answer: Attribution, model: Model | None, today: str) -> dict[str, str]:
    facts = {"Model": answer.model}
    if model is not None:
        weights = model.like()
        height, width = model.preprocessing.input_size
        family = model.family.name if model.family else type(model.module).__name__
        facts |= {
            "Model": f"{model.name}: {family}, {len(model.labels):,} classes, input {height} × {width}",
            "SHA-256 of its weights": fingerprint(model.module),
            "Computed on": f"{weights.device.type}, {str(weights.dtype).removeprefix('torch.')}",
        }
    versions = {"vizlib": __version__, "torch": torch.__version__, "timm": timm.__version__}
    versions |= {"NumPy": np.__version__, "Python": platform.python_version()}
    return {**facts, "Versions": ", ".join(f"{name} {one}" for name, one in versions.items()), "Date": today}


def _question(answer: Attribution, model: Model | None) -> str:
    if not METHODS[answer.method].of_class:
        return "Where does it look?"
    rival = _rival(answer, model)
    return f"Why {_short(answer.label)}" + (f" and not {_short(rival)}?" if rival else "?")


def _rival(answer: Attribution, model: Model | None) -> str:
    """The label of the class that the target is set against, or nothing."""
    index = answer.knobs.get("against")
    if index is None:
        return ""
    return f"class {index}" if model is None else model.labels[int(str(index))]


def _scale(answer: Attribution, limits: render.Limits, model: Model | None) -> str:
    """The colour bar, with the raw values at its ends and what they stand for."""
    low, high = (_number(end) for end in limits)
    rival = _rival(answer, model)
    less, more = (_short(rival) or "against", _short(answer.label) if rival else "for") if answer.signed else ("", "")
    middle = "<span>0</span>" if answer.signed else ""
    ends = f"<span>{low}<small>{escape(less)}</small></span>{middle}<span>{high}<small>{escape(more)}</small></span>"
    return (
        f'<figcaption class="scale">{_image(render.scale_bar(signed=answer.signed), "")}<div>{ends}</div></figcaption>'
    )


def _npz(answer: Attribution) -> str:
    file = io.BytesIO()
    np.savez_compressed(file, heat=answer.heat.numpy(), about=json.dumps(answer.to_dict()))
    return "data:application/x-npz;base64," + base64.b64encode(file.getvalue()).decode()


def _image(picture: Image.Image, alt: str, *, lossless: bool | None = None) -> str:
    lossless = picture.width * picture.height <= LOSSLESS if lossless is None else lossless
    file = io.BytesIO()
    if lossless:
        picture.save(file, "PNG", compress_level=9)
    else:
        picture.save(file, "JPEG", quality=92, subsampling=0)
    data = base64.b64encode(file.getvalue()).decode()
    size = f'width="{picture.width}" height="{picture.height}"'
    return f'<img src="data:image/{"png" if lossless else "jpeg"};base64,{data}" alt="{escape(alt)}" {size}>'


def _shape(answer: Attribution) -> str:
    """How the page is laid out for this photo."""
    return "broad" if answer.photo.width > 1.2 * answer.photo.height else "tall"


def _rows(facts: Mapping[str, str]) -> str:
    rows = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(said)}</dd></div>" for name, said in facts.items() if said)
    return f"<dl>{rows}</dl>"


def _code(text: str) -> str:
    return f"<pre><code>{escape(text.rstrip())}</code></pre>"


def _number(value) -> str:
    return f"{float(value):.3g}".replace("-", "−")


def _share(probability: float) -> str:
    return percent(probability).replace(" ", "\u00a0")  # no line begins with a %


def _short(label: str) -> str:
    return label.split(",")[0].strip()


def _today() -> str:
    return f"{datetime.now(timezone.utc):%-d %B %Y}"
