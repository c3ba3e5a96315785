"""One page that can be sent to someone: the pictures, the raw values, how they came about, and how to make them again.

It needs no network, no script and no vizlib to be read.
"""

from __future__ import annotations

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

from vizlib.attribution.methods.registry import METHODS
from vizlib.attribution.result import Attribution
from vizlib.core.atomic_files import open_atomic
from vizlib.core.version import __version__
from vizlib.models.loading.checkpoint_files import hash_weights
from vizlib.models.model import Model
from vizlib.render.html import code, rows
from vizlib.reporting.code_snippets import CodeSnippet
from vizlib.reporting.sections import alone, asked, one_of_many, shared_photo

STYLE = Path(__file__).with_suffix(".css")
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
    attributions: Attribution | Iterable[Attribution] | Mapping[str, Attribution],
    path: str | Path,
    *,
    model: Model | None = None,
    snippets: Sequence[CodeSnippet] = (),
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
    attributions = [attributions] if isinstance(attributions, Attribution) else attributions
    attributions = list(attributions.values() if isinstance(attributions, Mapping) else attributions)
    made = list(snippets) or [CodeSnippet.from_attribution(answer, model) for answer in attributions]
    text = _page(list(zip(attributions, made, strict=True)), path.name, model)
    with open_atomic(path) as file:
        file.write(text.encode("utf-8", "replace"))  # a file's name may hold what no text can
    return path


def _page(pairs: Sequence[tuple[Attribution, CodeSnippet]], file: str, model: Model | None) -> str:
    about = [answer for answer, _ in pairs if METHODS[answer.method].class_specific] or [answer for answer, _ in pairs]
    questions = {asked(answer, model) for answer in about}
    title = questions.pop() if len(questions) == 1 else f"{len(pairs)} maps"
    body = []
    for _, group in groupby(pairs, key=lambda pair: id(pair[0].photo)):
        group = list(group)
        if len(pairs) == 1:
            body.append(alone(*group[0], model))
        else:
            body += [shared_photo(group[0][0], model), *(one_of_many(*pair, model) for pair in group)]
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
{rows(_surroundings(pairs[0][0], model, today) if pairs else {})}</div>
<div><h2>Read the values back</h2>
<p>Every map’s raw values are in this file; so is all that is said of them here.</p>
{code(READ.format(file=json.dumps(file)))}</div>
</section>
<footer><p>{escape(CAUTION)}</p></footer>
</main>
</body>
</html>
"""


def _surroundings(answer: Attribution, model: Model | None, today: str) -> dict[str, str]:
    facts = {"Model": answer.model}
    if model is not None:
        weights = model.reference_tensor()
        height, width = model.preprocessing.input_size
        family = model.family.name if model.family else type(model.module).__name__
        facts |= {
            "Model": f"{model.name}: {family}, {len(model.labels):,} classes, input {height} × {width}",
            "SHA-256 of its weights": hash_weights(model.module),
            "Computed on": f"{weights.device.type}, {str(weights.dtype).removeprefix('torch.')}",
        }
    versions = {"vizlib": __version__, "torch": torch.__version__, "timm": timm.__version__}
    versions |= {"NumPy": np.__version__, "Python": platform.python_version()}
    return {**facts, "Versions": ", ".join(f"{name} {one}" for name, one in versions.items()), "Date": today}


def _today() -> str:
    return f"{datetime.now(timezone.utc):%-d %B %Y}"
