"""Compare: two models and two classes on one colour scale, how far their maps agree, and what three starts teach."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image

import vizlib
from dashboard.components.base import compute_input_box, custom_component, on_page_load
from dashboard.components.captions import build_alt_text, build_caption, build_no_photo_caption
from dashboard.components.linked_heatmaps import ColourScale, build_item, build_linked_heatmaps
from dashboard.components.training_comparison import build_training_comparison
from dashboard.i18n.translate import browser_text, translate
from dashboard.services.analysis_service import AnalysisService
from dashboard.services.request import ExplanationRequest
from dashboard.state.context import TabContext
from dashboard.state.selection import Selection
from dashboard.tabs.compare_options import Comparison, choose_comparison, list_common_methods, match_classes
from vizlib import Attribution
from vizlib.attribution.methods.registry import METHODS
from vizlib.core.text import format_percent, shorten_label
from vizlib.metrics.similarity import lift_to_common_region
from vizlib.render.color_scale import compute_limits

TITLE = "Compare"
MAX_DIFFERENCE_SIDE = 168  # longest side of the photo a difference is drawn on, in pixels
TOP_FRACTION = 0.2  # the share of strongest places whose overlap is told
AGREEMENT_LEVELS = {
    0.7: "much",
    0.4: "partly",
    0.1: "hardly",
    -0.1: "chance",
    -1.1: "reverse",
}  # from this correlation on


def compute_maps(service: AnalysisService, photo: Image.Image, chosen: Comparison) -> list[list[Attribution]]:
    """The map of each model (rows) for each class (columns)."""
    return [
        [service.explain(ExplanationRequest(photo, name, target, method=chosen.method)) for target in targets]
        for name, targets in zip(chosen.models, chosen.classes, strict=True)
    ]


def find_maximum(answers: list[Attribution]) -> float:
    """The largest value by size in the maps of one model: what its share of the strongest is a share of."""
    return max(answer.heat.abs().max().item() for answer in answers) or 1.0


def compute_difference(a: Attribution, b: Attribution, factors: tuple[float, float]) -> tuple[np.ndarray, tuple]:
    """The first map less the second where both models looked, in shares and raw ("2 h w"), and where on the photo."""
    left, right, box = lift_to_common_region(a, b, MAX_DIFFERENCE_SIDE)
    return np.stack([left * factors[0] - right * factors[1], left - right]), box


def build_maps(service: AnalysisService, photo: Image.Image, chosen: Comparison) -> dict[str, Any]:
    """The four maps on one scale, and the differences between models and between classes on another."""
    answers = compute_maps(service, photo, chosen)
    factors = [1 / find_maximum(row) for row in answers]
    signed = METHODS[chosen.method].signed
    names = [shorten_label(answer.label) for answer in answers[0]]

    def one(i: int, j: int) -> dict[str, Any]:
        answer = answers[i][j]
        alt = f"{answer.model}: {build_alt_text(answer)}"
        said, smooth = format_percent(answer.probability), not answer.patch_values
        box, units = compute_input_box(answer.geometry), (factors[i], 1.0)
        return build_item(names[j], answer.heat.numpy()[None], box, 0, alt=alt, text=said, smooth=smooth, factors=units)

    drawn: list[np.ndarray] = []

    def less(name: str, a: tuple[int, int], b: tuple[int, int]) -> dict[str, Any]:
        pair = answers[a[0]][a[1]], answers[b[0]][b[1]]
        values, box = compute_difference(*pair, (factors[a[0]], factors[b[0]]))
        drawn.append(values)
        said, smooth = format_agreement(*pair), not any(answer.patch_values for answer in pair)
        return build_item(
            name, values, box, 1, alt=translate("compare.difference", name=name, told=said), text=said, smooth=smooth
        )

    between = [less(f"{names[0]} − {names[1]}", (i, 0), (i, 1)) for i in (0, 1)]
    rows = [(chosen.models[i], [one(i, 0), one(i, 1), between[i]]) for i in (0, 1)]
    rows.append((translate("compare.models-differ"), [less(names[j], (0, j), (1, j)) for j in (0, 1)]))
    heats = [np.concatenate([a.heat.numpy().ravel() * f for a in row]) for row, f in zip(answers, factors, strict=True)]
    raw = [answer.heat.numpy().ravel() for row in answers for answer in row]
    scales = [
        ColourScale(
            translate("compare.all-maps"),
            [compute_limits(np.concatenate(values), signed=signed) for values in (heats, raw)],
            signed,
            (translate("common.against"), translate("common.for")) if signed else ("", ""),
        ),
        ColourScale(
            translate("compare.all-differences"),
            [compute_limits(np.concatenate([v[k].ravel() for v in drawn]), signed=True) for k in (0, 1)],
            True,
            (translate("compare.second"), translate("compare.first")),
        ),
    ]
    label = translate("compare.label", method=chosen.method)
    return build_linked_heatmaps(
        rows, scales, photo, label=label, steps=(translate("compare.shares"), translate("compare.raw"))
    )


def format_agreement(a: Attribution, b: Attribution) -> str:
    """Two numbers on two maps, in words."""
    found = vizlib.agreement(a, b, TOP_FRACTION)
    shares = {"overlap": f"{found.overlap * 100:.0f}", "top": f"{TOP_FRACTION * 100:.0f}"}
    if np.isnan(found.correlation):
        return translate("compare.rank-flat", **shares)
    return translate("compare.rank", rank=_format_correlation(found.correlation), **shares)


def describe_agreement(service: AnalysisService, photo: Image.Image, chosen: Comparison) -> str:
    """Whether the models look at the same places for the chosen class, in words."""
    first, second = (row[0] for row in compute_maps(service, photo, chosen))
    found = vizlib.agreement(first, second, TOP_FRACTION)
    label = {"class": shorten_label(first.label)}
    if np.isnan(found.correlation):
        return translate("compare.flat", **label)
    alike = next(word for least, word in AGREEMENT_LEVELS.items() if found.correlation >= least)
    facts = {"rank": _format_correlation(found.correlation), "overlap": f"{found.overlap * 100:.0f}"}
    return translate("compare.verdict", **label, alike=translate(f"compare.{alike}"), **facts)


def compute_content(
    service: AnalysisService,
    photo: Image.Image | None,
    selection: Selection | None,
    other: str | None = None,
    method: str | None = None,
    second: int | None = None,
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any], dict[str, Any], str]:
    """The three menus with what fits, the pictures, and what they say."""
    if photo is None or selection is None:
        return gr.update(), gr.update(), gr.update(), {}, build_no_photo_caption()
    chosen = choose_comparison(service, photo, selection, other, method, second)
    others = [row for row in service.catalog.menu_rows() if row[1] != selection.model]
    if chosen is None:
        known = shorten_label(service.catalog.get(selection.model).labels[selection.target])
        asked = other if other in [name for _, name in others] else (others[0][1] if others else None)
        facts = {"model": asked, "class": known}
        words = translate("compare.unknown", **facts) if asked else translate("compare.alone")
        return (
            gr.update(choices=others, value=asked),
            gr.update(),
            gr.update(),
            {},
            build_caption(translate("compare.nothing"), words),
        )
    first = service.catalog.get(chosen.models[0])
    common = match_classes(first, service.catalog.get(chosen.models[1]))
    classes = sorted((shorten_label(first.labels[index]), index) for index in common if index != selection.target)
    return (
        gr.update(choices=others, value=chosen.models[1]),
        gr.update(choices=list_common_methods(service, chosen.models), value=chosen.method),
        gr.update(choices=classes, value=chosen.classes[0][1]),
        build_maps(service, photo, chosen),
        build_caption(
            translate("compare.heading"), describe_agreement(service, photo, chosen), translate("compare.agreement")
        ),
    )


def build_pretraining_caption(value: Mapping[str, Any]) -> str:
    """What the recorded comparison of three starts teaches, with its own numbers."""
    last = {line["name"]: line["y"][-1] for line in value["lines"] if not line["faint"]}
    ends = ", ".join(f"{name} {top1:.1f} %" for name, top1 in last.items())
    return build_caption(
        translate("compare.pretraining"),
        translate("compare.pretraining-accuracies", ends=ends),
        translate("compare.pretraining-advice"),
    )


def build(shared: TabContext) -> None:
    """The menus, the pictures, their words, and the curves of three starts below."""
    words = gr.HTML(elem_id="compare-caption", apply_default_css=False)
    with gr.Row(elem_id="compare-menus"):
        other = gr.Dropdown(
            [], label=browser_text("compare-with"), elem_id="compare-model", interactive=True, min_width=220
        )
        method = gr.Dropdown(
            [], label=browser_text("method"), elem_id="compare-method", interactive=True, min_width=220
        )
        second = gr.Dropdown(
            [], label=browser_text("other-class"), elem_id="compare-class", interactive=True, min_width=220
        )
    pictures = custom_component("linked_heatmaps", elem_id="compare-maps")
    outputs = [other, method, second, pictures, words]
    if build_training_comparison()[0]:
        with gr.Row(equal_height=False, elem_classes="viz-section"):
            with gr.Column(scale=4, min_width=280):
                lesson = gr.HTML(apply_default_css=False)
            with gr.Column(scale=6, min_width=320):
                curves = custom_component("curves", elem_id="compare-training")

        def started() -> tuple[str, dict[str, Any]]:
            value = build_training_comparison()[0]
            return build_pretraining_caption(value), value

        on_page_load(started, [lesson, curves])

    def waiting(photo: Image.Image | None, selection: Selection | None) -> tuple[dict[str, Any], None]:
        return {} if photo is None or selection is None else {"waiting": [*selection]}, None

    def again(
        photo: Image.Image | None,
        selection: Selection | None,
        other: str | None,
        method: str | None,
        second: int | None,
    ) -> tuple:
        return compute_content(shared.service, photo, selection, other, method, second)

    # Another model is asked only when somebody looks: the pictures say so once they are on the screen.
    shared.on_selection(waiting, [], [pictures, second])
    for event in (pictures.select, other.input, method.input, second.input):
        shared.on_event(event, again, [other, method, second], outputs)


def _format_correlation(value: float) -> str:
    return f"{value:.2f}".replace("-", "−")
