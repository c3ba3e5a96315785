"""Pages of the documentation that are generated from the library: methods, commands, bundled models, gallery."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import gradio.media
import typer
from latex2mathml.converter import convert
from typer.cli import get_docs_for_click

import vizlib
from dashboard.services.example_photos import EXAMPLES
from vizlib.attribution.methods.registry import METHODS
from vizlib.attribution.request import ONE_PASS, Method
from vizlib.cli import app
from vizlib.core.documentation import make_anchor
from vizlib.core.text import format_number
from vizlib.metrics import METRICS, BenchmarkSummary, Metric
from vizlib.metrics.ranking import RankedMethod, group_columns, read_ranking

COSTS = {ONE_PASS: "one forward pass and, if it reads gradients, one backward pass, shared by all methods of this cost"}
NOTATION = (
    ("s", "the explained score: by default the logit of the class; with `against`, the difference of two logits"),
    ("x", "the input of the network, with channels c and pixels (i, j)"),
    ("H", "the map"),
    ("A_k", "channel k of the output of the layer; of attention, A^{(l)} are the weights of layer l, with heads h"),
    ("G_k", "the gradient of the score there, \\partial s / \\partial A_k"),
    ("Z, N, T, L", "the numbers of positions, heads, tokens and layers"),
    ("q", "the query: the token that is explained, by default the one that the classifier reads"),
)
GALLERY_SETTINGS: dict[str, Any] = {"masks": 300, "samples": 10, "window": 32, "stride": 16}
GALLERY = (
    ("vit_tiny-imagenet", "cheetah.jpg", "cheetah"),
    ("resnet18-imagenette", "tower.jpg", "church"),
    ("clip-digits", EXAMPLES["Coloured digits"], "a red seven"),
)
SIDE = 224  # of the pictures, in pixels


def write_methods_page() -> str:
    """Return the page of all methods: what each map shows and does not show, its formula, paper and parameters."""
    symbols = "\n".join(f"| {_to_mathml(symbol)} | {_convert_symbols(text)} |" for symbol, text in NOTATION)
    links = ", ".join(f"[`{name}`](#{make_anchor(name)})" for name in METHODS)
    sections = "\n\n".join(_write_method(row) for row in METHODS.values())
    return f"""# Methods

{links}

Which of them support a model: `vizlib.list_methods(model)`, or `vizlib methods --model NAME`. The maps of bundled
networks are in the [gallery](../gallery.md); what none of them can tell is in
[What a heat map cannot tell](../explanations/limits-of-heat-maps.md).

The explained score is the logit of the class, not its probability: see
[Logit or softmax](../explanations/logit-or-softmax.md).

## Methods of many passes

`vizlib.estimate` returns their time, `vizlib.explain_stream` yields intermediate results, and their batches are sized
to a memory budget (`budget_mb`, 1024 by default; a large GPU is fully used only with more). On processors and GPUs with
bfloat16, methods that only compare scores use it after some scores were checked against single precision; a note states
the result, and `precision="float32"` turns it off. Integrated gradients and SmoothGrad use single precision unless
`precision="fast"` is given.

## Symbols

| symbol | meaning |
|---|---|
{symbols}

{sections}
"""


def _write_method(row: Method) -> str:
    cost, equation = COSTS.get(row.cost, row.cost), convert(row.equation, display="block")
    parameters = "\n".join(
        f"| `{name}` | {_format_default(parameter.default)} | {parameter.help} |"
        for name, parameter in row.parameters.items()
    )
    return f"""## {row.name} {{#{make_anchor(row.name)}}}

**It shows:** {row.shows}

**It does not show:** {row.does_not_show}

<div class="vizlib-equation" tabindex="0" role="group" aria-label="Formula">{equation}</div>

* Paper: [{row.paper}]({row.paper_url})
* Cost: {cost}
* Depends on the class: {"yes" if row.class_specific else "no"}

| parameter | default | meaning |
|---|---|---|
{parameters}

```python
import vizlib

model = vizlib.load("{_find_supporting_model(row)}")
vizlib.explain(model, "photo.jpg", "{row.name}"{_list_quick_settings(row)}).save("{make_anchor(row.name)}.png")
```"""


def _find_supporting_model(row: Method) -> str:
    return next(name for name, _, _ in GALLERY if row.unsupported_reason(_load(name)) is None)


@cache
def _load(name: str) -> vizlib.Model:
    return vizlib.load(name)


def _list_quick_settings(row: Method) -> str:
    values = {"masks": 100, "samples": 5, "steps": 10, "window": 64, "stride": 64}
    return "".join(f", {name}={value}" for name, value in values.items() if name in row.parameters)


def _format_default(value: object) -> str:
    return "by model" if value is None else f"`{value}`"


def _to_mathml(formula: str) -> str:
    return convert(formula, display="inline")


def _convert_symbols(text: str) -> str:
    """Return a text with the LaTeX in it as MathML: a derivative, or a symbol with indices."""
    return re.sub(r"\\partial s / \\partial A_k|A\^\{\(l\)\}", lambda match: _to_mathml(match.group()), text)


def write_metrics_page() -> str:
    """Return the page of all metrics: what a good value means and does not mean, its formula, paper and parameters."""
    rows = "\n".join(
        f"| [`{name}`](#{make_anchor(name)}) | {_describe_range(row)} "
        f"| {'higher' if row.higher_is_better else 'lower'} "
        f"| {'the method' if row.measures_method else 'the map and the object' if row.needs_region else 'the map'} |"
        for name, row in METRICS.items()
    )
    sections = "\n\n".join(_write_metric(row) for row in METRICS.values())
    return f"""# Metrics

Every heat map looks convincing; whether it says anything about the model is an empirical question.
`vizlib.metrics.measure` computes each of these metrics, and because a value alone says little, that of random maps, of
a centred Gaussian and of the edges of the photo; metrics of a method have reference values of their own.
[Measure maps](../how-to/measure-maps.md) shows how they are used.

| metric | range | better | measures |
|---|---|---|---|
{rows}

The score s is the probability of the class; of outputs without probabilities, the output itself. In a contrast it is
the difference between the two. Maps are interpolated bilinearly to the input of the model. Ranges are those of a
probability.

{sections}
"""


def _describe_range(row: Metric) -> str:
    low, high = ("∞" if end is None else f"{end:g}".replace("-", "−") for end in row.range)
    return f"{low} to {high}"


def _write_metric(row: Metric) -> str:
    equation = convert(row.equation, display="block")
    parameters = "\n".join(
        f"| `{name}` | {_format_default(parameter.default)} | {parameter.help} |"
        for name, parameter in row.parameters.items()
    )
    table = (
        f"| parameter | default | meaning |\n|---|---|---|\n{parameters}\n" if parameters else "It has no parameters.\n"
    )
    return f"""## {row.name} {{#{make_anchor(row.name)}}}

**It means:** {row.means}

**It does not mean:** {row.does_not_mean}

<div class="vizlib-equation" tabindex="0" role="group" aria-label="Formula">{equation}</div>

* Paper: [{row.paper}]({row.paper_url})

{table}"""


def write_rankings_page(folder: Path) -> str:
    """Return the page that ranks the methods on networks by metrics.

    Args:
        folder: Folder with one CSV file for each network.
    """
    networks = {path.stem: read_ranking(path) for path in sorted(folder.glob("*.csv"), key=_order_networks)}
    sections = "\n\n".join(_write_ranking(name, rows) for name, rows in networks.items())
    findings = "\n".join(f"* {line}" for line in _list_findings(networks))
    return f"""# How the methods rank

Every method on real networks and on the bundled ones, measured by
`python tests/benchmarks/rank_methods.py NETWORK`. Each cell is the mean over photos with its 95 % bootstrap interval;
the best of a column is bold, and ↑ or ↓ says whether higher or lower is better. Where intervals overlap, the difference
is not established. The last rows are maps that know nothing of the model: random maps, a Gaussian in the centre of the
photo, and the edges of the photo. What the metrics mean and do not mean: [Metrics](metrics.md).

For your own network and photos: `vizlib benchmark PHOTOS --model NAME`, or [`vizlib.benchmark`][vizlib.benchmark].

ResNet-18, ResNet-50 and DeiT-Tiny have real ImageNet weights, with which vizlib is tested; they are not part of it. The
weights of the ResNets were rebuilt from compressed ones, so that their accuracy is lower than usual.

## What the tables say

{findings}

{sections}

{write_known_truth_section(folder / KNOWN_TRUTH / "clip-digits.csv")}
"""


KNOWN_TRUTH = "known_truth"  # folder of tables of maps on scenes where the right place is known
NETWORK_ORDER = ("resnet18", "resnet50", "deit_tiny_patch16_224")
REFERENCE_ROWS = {"random": "random maps", "centred_gaussian": "Gaussian in the centre", "edges": "edges"}
CLASSIFIER_ALONE = "levels=1 order=independent"


def write_known_truth_section(path: Path) -> str:
    """Return the section on maps of the digit CLIP, whose scenes say where each digit lies.

    Args:
        path: Table that `checkpoints.training.evaluate_clip` writes.
    """
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    weights = list(dict.fromkeys(row["weights"] for row in rows))
    by_method: dict[str, dict[str, dict[str, str]]] = {}
    for row in rows:
        by_method.setdefault(row["method"], {})[row["weights"]] = row
    lines = []
    for method, cells in by_method.items():
        texts = [
            f"{float(cells[name]['peak_on_named']):.2f} / {float(cells[name]['peak_on_other']):.2f}"
            f" | {float(cells[name]['contrast']):.2f}"
            for name in weights
        ]
        lines.append(f"| {method} | {cells[weights[0]]['scenes']} | {' | '.join(texts)} |")
    header = " | ".join(f"{name}: peak | contrast" for name in weights)
    body = "\n".join(lines)
    return f"""## clip-digits: where the truth is known {{#known-truth}}

Scenes of two digits, of which each prompt names one. *Peak*: the share of maps whose largest value is on the named
digit / on the other one. *Contrast*: the share of scenes where the map of one prompt against the other is positive on
the one digit and negative on the other, summed over the patches of each; methods without a sign cannot be. The network
was trained from three seeds (the first is bundled), the last columns have random weights.

| method | scenes | {header} |
|---|---|{"---|" * (2 * len(weights))}
{body}

`python -m checkpoints.training.evaluate_clip RUN... --random --digits DIR` prints this table. On a real CLIP the order
may be another: it has no such truth to measure by.
"""


def _order_networks(path: Path) -> tuple[int, str]:
    """Return the place of a network on the page of rankings: the real ones first."""
    is_listed = path.stem in NETWORK_ORDER
    return (NETWORK_ORDER.index(path.stem) if is_listed else len(NETWORK_ORDER)), path.stem


def _write_ranking(name: str, rows: list[RankedMethod]) -> str:
    """Return the section of a network on the page of rankings."""
    columns = group_columns(rows)
    methods = dict.fromkeys(row.summary.method for row in rows)
    header = "".join(
        f"<th scope='col'>{metric} {'↑' if METRICS[metric].higher_is_better else '↓'}"
        f"<br><small>{', '.join(filter(None, (parameters, _describe_photos(cells.values()))))}</small></th>"
        for (metric, parameters, _), cells in columns.items()
    )
    body = "".join(
        f"<tr><th scope='row'>{method}</th>"
        + "".join(f"<td>{_format_ranked(cells.get(method))}</td>" for cells in columns.values())
        + "</tr>"
        for method in methods
    )
    references = "".join(
        f"<tr><th scope='row'><em>{label}</em></th>"
        + "".join(f"<td>{_format_reference(cells.values(), field)}</td>" for cells in columns.values())
        + "</tr>"
        for field, label in (
            ("random", "random maps"),
            ("centred_gaussian", "Gaussian in the centre"),
            ("edges", "edges"),
        )
    )
    data = ", ".join(dict.fromkeys(row.data for row in rows))
    return (
        f"## {name}\n\nPhotos: {data}.\n\n"
        f'<div class="vizlib-equation" tabindex="0" role="group" aria-label="Ranking on {name}"><table>'
        f"<thead><tr><th scope='col'>method</th>{header}</tr></thead><tbody>{body}{references}</tbody></table></div>"
    )


def _describe_photos(summaries: Iterable[BenchmarkSummary]) -> str:
    return f"{max(one.photos for one in summaries)} photos"


def _format_ranked(one: BenchmarkSummary | None) -> str:
    if one is None or not math.isfinite(one.mean):
        return "–"
    text = f"{format_number(one.mean)}"
    text = f"<b>{text}</b>" if one.rank == 1 else text
    return f"{text}<br><small>{format_number(one.low)} to {format_number(one.high)}</small>"


def _format_reference(summaries: Iterable[BenchmarkSummary], field: str) -> str:
    """Return the mean of a reference map over the methods, whose maps have several resolutions."""
    values = [value for one in summaries if math.isfinite(value := getattr(one, field))]
    return format_number(sum(values) / len(values)) if values else "–"


def _list_findings(networks: dict[str, list[RankedMethod]]) -> Iterator[str]:
    """Yield what the rankings show of published results, one sentence each."""
    for name, rows in networks.items():
        random_classifier = {
            row.summary.method: row.summary
            for row in rows
            if (row.summary.metric, row.parameters) == ("parameter-randomisation", CLASSIFIER_ALONE)
        }
        guided, cam = (random_classifier.get(method) for method in ("guided-backprop", "grad-cam"))
        if guided and cam:
            holds = guided.mean > 0.8 and cam.mean < 0.5
            yield (
                f"**{name}**: with a random classifier, guided backpropagation keeps a rank correlation of "
                f"{guided.mean:.2f} with its map of the trained network, Grad-CAM of {cam.mean:.2f} "
                f"({cam.photos} photos). That is {'' if holds else 'not '}what Adebayo et al. (2018) found."
            )
        boxed = [one for row in rows if (one := row.summary).metric == "energy-pointing-game" and one.photos > 100]
        if boxed:
            share = 100 * max(one.centred_gaussian for one in boxed)
            better = [one.method for one in boxed if one.low > one.centred_gaussian]
            yield (
                f"**{name}**: a Gaussian in the centre has {share:.0f} % of its energy in the boxes of the objects. "
                f"The interval is above that for {', '.join(better) or 'no method'}; it is not for the other "
                f"{len(boxed) - len(better)} methods, although they are computed from the network."
            )


def write_command_line_page() -> str:
    """Return the page of all commands with their options."""
    command = typer.main.get_command(app)
    return get_docs_for_click(obj=command, ctx=typer.Context(command), name="vizlib", title="Command line")


def write_models_page(folder: Path) -> str:
    """Return the model cards of the bundled networks, with links to files of their folder as plain text."""
    text = (folder / "README.md").read_text(encoding="utf-8")
    return re.sub(r"\[([^\]]*)\]\((?!https?:|#)[^)]*\)", r"`\1`", text)


def draw_gallery(*, draw: bool) -> dict[str, str | bytes]:
    """Return the page of the gallery and its pictures by path: every map of two networks, computed now.

    Args:
        draw: Compute the pictures; without it the page only says that they were left out.
    """
    files: dict[str, str | bytes] = {}
    parts = [
        "# Gallery",
        "Every method on a bundled network and a photo, computed while this page was built. Each map has its own "
        f"scale. Methods of many passes use {_format_settings()}.",
    ]
    for name, file, target in GALLERY if draw else ():
        model, photo = (
            _load(name),
            vizlib.open_image(file if Path(file).is_absolute() else gradio.media.get_image(file)),
        )
        prediction = model.predict(photo, top=1)[0]
        parts.append(f"## {name}, class: {target}")
        parts.append(f"The network's first class is *{prediction.label}* ({prediction.probability:.0%}).")
        parts.append('<div class="vizlib-gallery" markdown>')
        for method in vizlib.list_methods(model):
            row = METHODS[method]
            settings = {key: value for key, value in GALLERY_SETTINGS.items() if key in row.parameters}
            attribution = vizlib.explain(model, photo, method, target=target, **settings)
            path = f"gallery/{name}-{make_anchor(method)}.webp"
            picture, buffer = attribution.overlay(), io.BytesIO()
            picture.thumbnail((2 * SIDE, SIDE))
            picture.save(buffer, "webp", quality=80)
            files[path] = buffer.getvalue()
            alt = f"{method} of {model.name} for {target}"
            link = f"reference/methods.md#{make_anchor(method)}"
            parts.append(
                f"<figure markdown>\n![{alt}]({path})\n<figcaption markdown>[{method}]({link})</figcaption>\n</figure>"
            )
        parts.append("</div>")
    if not draw:
        parts.append("This site was built without its pictures (`DOCS_EXECUTE=false`).")
    return {"gallery.md": "\n\n".join(parts) + "\n", **files}


def _format_settings() -> str:
    return ", ".join(f"{name} = {value}" for name, value in GALLERY_SETTINGS.items())
