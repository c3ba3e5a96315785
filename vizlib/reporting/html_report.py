"""Write attributions as one HTML file: images, raw values, details, and code to reproduce them.

The page can be read without network, scripts or vizlib.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
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
from vizlib.render.html import render_template
from vizlib.reporting.code_snippets import CodeSnippet
from vizlib.reporting.sections import build_map_section, build_photo_section, build_title

TEMPLATE = Path(__file__).with_name("templates") / "report.html"
READ_CODE = """import base64, io, pathlib, re
import numpy as np

page = pathlib.Path({file}).read_text(encoding="utf-8")
texts = re.findall(r'/x-npz;base64,([^"]+)"', page)
files = map(io.BytesIO, map(base64.b64decode, texts))
maps = [np.load(file) for file in files]
print(maps[0]["heat"])  # the raw values
print(maps[0]["about"])  # the metadata, as JSON
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
    """Write one or more attributions as a single, self-contained HTML file.

    The file holds, of each attribution: the photo, the overlay with its colour bar, the raw values (with the code that
    reads them), what the map shows and does not show, its notes, the method with its parameters and paper, the versions
    of the libraries, and the code that computes the attribution again. The same attributions give the same file, except
    for the date.

    Args:
        attributions: One attribution, several, or those of `explain_all`.
        path: The file to write.
        model: The model of the attributions. If given, the report also holds a hash of its weights and its most
            probable classes, and names classes instead of numbering them.
        snippets: The code of each attribution, with the names under which photo and model are loaded; by default made
            from the attributions.

    Returns:
        The path of the file.

    Raises:
        VizlibError: If the file cannot be written.

    Example:
        >>> import vizlib
        >>> model = vizlib.load("resnet18-imagenette")
        >>> vizlib.report(vizlib.explain(model, "church.jpg"), "why.html", model=model).name
        'why.html'
    """
    path = Path(path)
    if isinstance(attributions, Attribution):
        attributions = [attributions]
    attributions = list(attributions.values() if isinstance(attributions, Mapping) else attributions)
    snippets = list(snippets) or [CodeSnippet.from_attribution(attribution, model) for attribution in attributions]
    page = _render_page(list(zip(attributions, snippets, strict=True)), path.name, model)
    with open_atomic(path) as file:
        file.write(page.encode("utf-8", "replace"))  # a file name may hold characters that UTF-8 cannot encode
    return path


def _render_page(pairs: Sequence[tuple[Attribution, CodeSnippet]], file: str, model: Model | None) -> str:
    """Return the HTML of a report."""
    date = _format_date(datetime.now(timezone.utc))
    groups = []
    for _, members in groupby(pairs, key=lambda pair: id(pair[0].photo)):
        members = list(members)
        maps = [build_map_section(attribution, snippet, model) for attribution, snippet in members]
        groups.append({"photo": build_photo_section(members[0][0], model), "maps": maps})
    methods = list(dict.fromkeys(attribution.method for attribution, _ in pairs))
    models = dict.fromkeys(attribution.model for attribution, _ in pairs)
    return render_template(
        TEMPLATE,
        title=_choose_title([attribution for attribution, _ in pairs], model),
        subtitle=" · ".join([*(methods if len(methods) == 1 else ()), *models, date]),
        single=len(pairs) == 1,
        groups=groups,
        provenance=_list_provenance(pairs[0][0], model, date) if pairs else {},
        read_code=READ_CODE.format(file=json.dumps(file)),
        caution=CAUTION,
    )


def _choose_title(attributions: Sequence[Attribution], model: Model | None) -> str:
    """Return the title of a report: the question that all its maps answer, or their number.

    Class-agnostic maps do not count among others.
    """
    class_specific = [attribution for attribution in attributions if METHODS[attribution.method].class_specific]
    titles = {build_title(attribution, model) for attribution in class_specific or attributions}
    return titles.pop() if len(titles) == 1 else f"{len(attributions)} maps"


def _list_provenance(attribution: Attribution, model: Model | None, date: str) -> dict[str, str]:
    """Return what a report states of its origin: model, weights, device, versions and date, by name."""
    facts = {"Model": attribution.model}
    if model is not None:
        weights = model.reference_tensor()
        height, width = model.preprocessing.input_size
        family = model.family.name if model.family else type(model.module).__name__
        facts |= {
            "Model": f"{model.name}: {family}, {len(model.labels):,} classes, input {height} × {width}",
            "SHA-256 of the weights": hash_weights(model.module),
            "Computed on": f"{weights.device.type}, {str(weights.dtype).removeprefix('torch.')}",
        }
    versions = {"vizlib": __version__, "torch": torch.__version__, "timm": timm.__version__}
    versions |= {"NumPy": np.__version__, "Python": platform.python_version()}
    return {**facts, "Versions": ", ".join(f"{name} {version}" for name, version in versions.items()), "Date": date}


def _format_date(date: datetime) -> str:
    """Return the date of a report as in 1 April 2000, on every platform (`%-d` fails on Windows)."""
    return f"{date.day} {date:%B %Y}"
