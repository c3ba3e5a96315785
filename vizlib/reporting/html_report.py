"""Write attributions as one HTML file: images, raw values, details, and code to reproduce them.

The page can be read without network, scripts or vizlib.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from PIL import Image

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
    if isinstance(attributions, Attribution):
        attributions = [attributions]
    given = attributions.values() if isinstance(attributions, Mapping) else attributions
    builder = ReportBuilder(model)
    for attribution, snippet in zip(given, snippets, strict=True) if snippets else zip(given, repeat(None)):
        builder.add(attribution, snippet)
    return builder.write(path)


class ReportBuilder:
    """Makes a report from one attribution after another, of which it keeps the sections and not the photos.

    Args:
        model: As in `report`.
    """

    def __init__(self, model: Model | None = None) -> None:
        self._model = model
        self._photo: Image.Image | None = None  # of the last attribution: those of one photo share a section
        self._groups: list[dict[str, Any]] = []
        self._methods: list[str] = []  # of each attribution
        self._models: dict[str, None] = {}
        self._titles: dict[bool, dict[str, None]] = {True: {}, False: {}}  # by whether their maps are class-specific

    def __len__(self) -> int:
        return len(self._methods)

    def add(self, attribution: Attribution, snippet: CodeSnippet | None = None) -> None:
        """Add an attribution after the others.

        Args:
            attribution: The attribution; those of one photo that follow each other are shown beside it.
            snippet: Its code; by default made from the attribution.
        """
        model = self._model
        if attribution.photo is not self._photo:
            self._photo = attribution.photo
            self._groups.append({"photo": build_photo_section(attribution, model), "maps": []})
        snippet = CodeSnippet.from_attribution(attribution, model) if snippet is None else snippet
        self._groups[-1]["maps"].append(build_map_section(attribution, snippet, model))
        self._methods.append(attribution.method)
        self._models[attribution.model] = None
        self._titles[METHODS[attribution.method].class_specific][build_title(attribution)] = None

    def write(self, path: str | Path) -> Path:
        """Write the report and return the path of its file.

        Raises:
            VizlibError: If the file cannot be written.
        """
        path = Path(path)
        page = self._render(path.name)
        with open_atomic(path) as file:
            file.write(page.encode("utf-8", "replace"))  # a file name may hold characters that UTF-8 cannot encode
        return path

    def _render(self, file: str) -> str:
        """Return the HTML of the report."""
        date = _format_date(datetime.now(timezone.utc))
        methods = list(dict.fromkeys(self._methods))
        return render_template(
            TEMPLATE,
            title=self._choose_title(),
            subtitle=" · ".join([*(methods if len(methods) == 1 else ()), *self._models, date]),
            single=len(self) == 1,
            groups=self._groups,
            provenance=_list_provenance(next(iter(self._models)), self._model, date) if self._models else {},
            read_code=READ_CODE.format(file=json.dumps(file)),
            caution=CAUTION,
        )

    def _choose_title(self) -> str:
        """Return the title of the report: the question that all its maps answer, or their number.

        Class-agnostic maps do not count among others.
        """
        titles = self._titles[True] or self._titles[False]
        return next(iter(titles)) if len(titles) == 1 else f"{len(self)} maps"


def _list_provenance(model_name: str, model: Model | None, date: str) -> dict[str, str]:
    """Return what a report states of its origin: model, weights, device, versions and date, by name."""
    facts = {"Model": model_name}
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
