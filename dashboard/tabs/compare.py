"""The Compare tab: maps of two models for two classes, their agreement, and the effect of pretraining."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image

import vizlib
from dashboard.components.captions import build_caption, build_no_photo_caption, format_correlation
from dashboard.components.curves import add_captioned_curves
from dashboard.components.custom_component import custom_component, on_page_load
from dashboard.components.data_encoding import encode_input_box
from dashboard.components.heatmap import build_heatmap_alt_text
from dashboard.components.help_link import build_page_help
from dashboard.components.linked_heatmaps import ColourScale, build_linked_heatmaps, build_linked_item
from dashboard.components.training_comparison import build_training_comparison
from dashboard.i18n.translate import translate, translate_in_browser
from dashboard.services.analysis_service import AnalysisService
from dashboard.services.explanation_request import ExplanationRequest
from dashboard.services.prompted_name import get_catalog_name
from dashboard.state.context import TabContext
from dashboard.state.selection import Selection
from dashboard.tabs.compare_options import Comparison, choose_comparison, list_common_methods, match_classes
from vizlib import Attribution
from vizlib.core.class_labels import name_classes
from vizlib.core.text import shorten_label
from vizlib.metrics.similarity import lift_to_common_region
from vizlib.render.color_scale import compute_limits

TITLE = "Compare"
MAX_DIFFERENCE_SIDE = 168  # longest side of a difference map, in pixels
TOP_FRACTION = 0.2  # of the positions, those with the highest values; their overlap is reported
MAX_SHARED_CLASSES = 5  # that are named where the selected class is not shared
AGREEMENT_LEVELS = {0.7: "much", 0.4: "partly", 0.1: "hardly", -0.1: "chance", -1.1: "reverse"}  # by lowest correlation


def compute_compared_maps(
    service: AnalysisService, photo: Image.Image, comparison: Comparison
) -> list[list[Attribution]]:
    """Return the attributions to compare: of each model (rows) for each class (columns)."""
    return [
        [service.explain(ExplanationRequest(photo, name, target, method=comparison.method)) for target in targets]
        for name, targets in zip(comparison.models, comparison.classes, strict=True)
    ]


def find_maximum(attributions: list[Attribution]) -> float:
    """Return the largest absolute value in the compared maps of one model; 1 where all values are 0."""
    return max(attribution.heat.abs().max().item() for attribution in attributions) or 1.0


def compute_map_difference(a: Attribution, b: Attribution, factors: tuple[float, float]) -> tuple[np.ndarray, tuple]:
    """Return the first of two compared maps minus the second, on the part of the photo that both models receive.

    Args:
        a: First attribution.
        b: Second attribution.
        factors: What to multiply either map with, to get fractions of the model's maximum.

    Returns:
        Difference "2 h w", of the fractions and of the raw values, and its box on the photo.
    """
    first, second, box = lift_to_common_region(a, b, MAX_DIFFERENCE_SIDE)
    return np.stack([first * factors[0] - second * factors[1], first - second]), box


def build_compared_maps(service: AnalysisService, photo: Image.Image, comparison: Comparison) -> dict[str, Any]:
    """Return the four compared maps on one colour scale, and the differences of models and classes on another."""
    attributions = compute_compared_maps(service, photo, comparison)
    factors = [1 / find_maximum(row) for row in attributions]
    signed = attributions[0][0].signed
    names = [[shorten_label(attribution.label) for attribution in row] for row in attributions]

    def build_single(i: int, j: int) -> dict[str, Any]:
        attribution = attributions[i][j]
        alt = f"{attribution.model}: {build_heatmap_alt_text(attribution)}"
        text, smooth = attribution.text, not attribution.patch_values
        box, units = encode_input_box(attribution.geometry), (factors[i], 1.0)
        return build_linked_item(
            names[i][j], attribution.heat.numpy()[None], box, 0, alt=alt, text=text, smooth=smooth, factors=units
        )

    differences: list[np.ndarray] = []

    def build_difference(name: str, a: tuple[int, int], b: tuple[int, int]) -> dict[str, Any]:
        pair = attributions[a[0]][a[1]], attributions[b[0]][b[1]]
        values, box = compute_map_difference(*pair, (factors[a[0]], factors[b[0]]))
        differences.append(values)
        text, smooth = format_agreement(*pair), not any(attribution.patch_values for attribution in pair)
        return build_linked_item(
            name,
            values,
            box,
            1,
            alt=translate("compare.difference", name=name, agreement=text),
            text=text,
            smooth=smooth,
        )

    between_classes = [build_difference(" − ".join(names[i]), (i, 0), (i, 1)) for i in (0, 1)]
    rows = [(comparison.models[i], [build_single(i, 0), build_single(i, 1), between_classes[i]]) for i in (0, 1)]
    columns = [" − ".join(dict.fromkeys([names[0][j], names[1][j]])) for j in (0, 1)]  # one name of equal classes
    rows.append((translate("compare.models-differ"), [build_difference(columns[j], (0, j), (1, j)) for j in (0, 1)]))
    fractions = [
        np.concatenate([attribution.heat.numpy().ravel() * factor for attribution in row])
        for row, factor in zip(attributions, factors, strict=True)
    ]
    raw = [attribution.heat.numpy().ravel() for row in attributions for attribution in row]
    scales = [
        ColourScale(
            translate("compare.all-maps"),
            [compute_limits(np.concatenate(values), signed=signed) for values in (fractions, raw)],
            signed,
            (translate("common.against"), translate("common.for")) if signed else ("", ""),
        ),
        ColourScale(
            translate("compare.all-differences"),
            [compute_limits(np.concatenate([v[k].ravel() for v in differences]), signed=True) for k in (0, 1)],
            True,
            (translate("compare.second"), translate("compare.first")),
        ),
    ]
    label = translate("compare.label", method=comparison.method)
    return build_linked_heatmaps(
        rows, scales, photo, label=label, steps=(translate("compare.shares"), translate("compare.raw"))
    )


def format_agreement(a: Attribution, b: Attribution) -> str:
    """Return rank correlation and overlap of two compared maps as text."""
    agreement = vizlib.agreement(a, b, TOP_FRACTION)
    shares = {"overlap": f"{agreement.overlap * 100:.0f}", "top": f"{TOP_FRACTION * 100:.0f}"}
    if np.isnan(agreement.correlation):
        return translate("compare.rank-flat", **shares)
    return translate("compare.rank", rank=format_correlation(agreement.correlation), **shares)


def explain_missing_class(service: AnalysisService, photo: Image.Image, selection: Selection, other: str) -> str:
    """Return the sentence that another model lacks the selected class, and what is compared instead, or could be."""
    model = service.catalog.get(selection.model)
    sentence = translate("compare.unknown", **{"model": other, "class": shorten_label(model.labels[selection.target])})
    common = match_classes(model, service.catalog.get(other))
    ranking = service.predict(photo, selection.model, 10**6)
    shared = [shorten_label(row.label) for row in ranking if row.index in common][:MAX_SHARED_CLASSES]
    sentences = [sentence, translate("compare.own")]
    return " ".join([*sentences, translate("compare.shared", names=", ".join(shared))] if shared else sentences)


def describe_agreement(service: AnalysisService, photo: Image.Image, comparison: Comparison) -> str:
    """Return a sentence that compares both models: the agreement of their maps for the target class."""
    first, second = (row[0] for row in compute_compared_maps(service, photo, comparison))
    agreement = vizlib.agreement(first, second, TOP_FRACTION)
    label = {"class": " / ".join(dict.fromkeys(shorten_label(attribution.label) for attribution in (first, second)))}
    if np.isnan(agreement.correlation):
        return translate("compare.flat", **label)
    level = next(key for lowest, key in AGREEMENT_LEVELS.items() if agreement.correlation >= lowest)
    facts = {"rank": format_correlation(agreement.correlation), "overlap": f"{agreement.overlap * 100:.0f}"}
    return translate("compare.verdict", **label, alike=translate(f"compare.{level}"), **facts)


def compute_content(
    service: AnalysisService,
    photo: Image.Image | None,
    selection: Selection | None,
    other: str | None = None,
    method: str | None = None,
    second: int | None = None,
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any], dict[str, Any], str]:
    """Return the content of the Compare tab: the three menus, the maps and their caption."""
    if photo is None or selection is None:
        return gr.update(), gr.update(), gr.update(), {}, build_no_photo_caption()
    comparison = choose_comparison(service, photo, selection, other, method, second)
    other_models = [row for row in service.catalog.list_menu_rows() if row[1] != get_catalog_name(selection.model)]
    if comparison is None:
        names = [name for _, name in other_models]
        other = other if other in names else next(iter(names), None)
        sentence = translate("compare.single" if other else "compare.alone")
        return (
            gr.update(choices=other_models, value=other),
            gr.update(),
            gr.update(),
            {},
            build_caption(translate("compare.nothing"), sentence),
        )
    first = service.catalog.get(comparison.models[0])
    common = match_classes(first, service.catalog.get(comparison.models[1]))
    names = name_classes(first.labels)
    offered = common if comparison.same_classes else range(len(names))
    classes = sorted((names[index], index) for index in offered if index != selection.target)
    sentence = describe_agreement(service, photo, comparison)
    if not comparison.same_classes:
        sentence = f"{explain_missing_class(service, photo, selection, comparison.models[1])} {sentence}"
    return (
        gr.update(choices=other_models, value=comparison.models[1]),
        gr.update(choices=list_common_methods(service, comparison.models), value=comparison.method),
        gr.update(choices=classes, value=comparison.classes[0][1]),
        build_compared_maps(service, photo, comparison),
        build_caption(
            translate("compare.heading"),
            sentence,
            translate("compare.agreement"),
            help_link=build_page_help("rank-correlation", translate("compare.agreement-help")),
        ),
    )


def build_pretraining_caption(value: Mapping[str, Any]) -> str:
    """Return the Compare tab's caption of the recorded comparison of three initialisations."""
    final = {line["name"]: line["y"][-1] for line in value["lines"] if not line["faint"]}
    ends = ", ".join(f"{name} {top1:.1f} %" for name, top1 in final.items())
    return build_caption(
        translate("compare.pretraining"),
        translate("compare.pretraining-accuracies", ends=ends),
        translate("compare.pretraining-advice"),
    )


def build_tab(context: TabContext) -> None:
    """Build the Compare tab: caption, menus, maps, and the comparison of initialisations below."""
    caption = gr.HTML(elem_id="compare-caption", apply_default_css=False)
    with gr.Row(elem_id="compare-menus"):
        other = gr.Dropdown(
            [], label=translate_in_browser("compare-with"), elem_id="compare-model", interactive=True, min_width=220
        )
        method = gr.Dropdown(
            [], label=translate_in_browser("method"), elem_id="compare-method", interactive=True, min_width=220
        )
        second = gr.Dropdown(
            [], label=translate_in_browser("other-class"), elem_id="compare-class", interactive=True, min_width=220
        )
    maps = custom_component("linked_heatmaps", elem_id="compare-maps")
    outputs = [other, method, second, maps, caption]
    if build_training_comparison()[0]:
        pretraining_caption, curves = add_captioned_curves("compare-training")

        def show_pretraining() -> tuple[str, dict[str, Any]]:
            value = build_training_comparison()[0]
            return build_pretraining_caption(value), value

        on_page_load(show_pretraining, [pretraining_caption, curves])

    def reset(photo: Image.Image | None, selection: Selection | None) -> tuple[dict[str, Any], None]:
        return {} if photo is None or selection is None else {"waiting": [*selection]}, None

    def update(
        photo: Image.Image | None,
        selection: Selection | None,
        other: str | None,
        method: str | None,
        second: int | None,
    ) -> tuple:
        return compute_content(context.service, photo, selection, other, method, second)

    # The second model runs only for a visible tab: the maps send a `select` event once they are on the screen.
    context.on_selection(reset, [], [maps, second])
    for event in (maps.select, other.input, method.input, second.input):
        context.on_event(event, update, [other, method, second], outputs)
