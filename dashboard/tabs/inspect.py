"""The Inside tab: the layer tree, contributions of channels and heads to a class, and predictions after ablation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image

from dashboard.components.ablation_list import build_ablation_list
from dashboard.components.captions import build_caption, get_no_photo_text
from dashboard.components.choice_button import build_choice_button
from dashboard.components.custom_component import custom_component
from dashboard.components.event_queue import acknowledge_choices, emit_choice_js, parse_choices, report_failure_js
from dashboard.components.heatmap import build_heatmap
from dashboard.components.thumbnails import build_thumbnail, build_thumbnails
from dashboard.components.tree import build_tree
from dashboard.i18n.translate import translate
from dashboard.services.analysis_service import AnalysisService, Unit
from dashboard.services.prompted_name import get_catalog_name
from dashboard.state.context import PRIVATE_EVENT, TabContext
from dashboard.state.selection import Selection
from dashboard.tabs import kernels
from dashboard.tabs.inspector_state import (
    WHOLE_CHANNEL,
    InspectorState,
    apply_inspector_choices,
    format_inspector_link,
    normalise_inspector_state,
    select_unit,
)
from dashboard.tabs.layer_view import LayerView, compute_layer_view, rank_units
from vizlib.render.color_scale import compute_limits

TITLE = "Inside"
MAX_UNITS_FOR, MAX_UNITS_AGAINST = 36, 12  # in the unit grid: highest and lowest contributions


def select_grid_units(view: LayerView) -> list[int]:
    """Return the numbers of the units in the inspector's grid: all, or of many the two ends of the ranking."""
    units = rank_units(view)
    if len(units) <= MAX_UNITS_FOR + MAX_UNITS_AGAINST:
        return units
    return units[:MAX_UNITS_FOR] + units[-MAX_UNITS_AGAINST:]


def build_unit_grid(view: LayerView, state: InspectorState, unit: Unit) -> dict[str, Any]:
    """Return the inspector's grid: units as thumbnails on one colour scale, each with its contribution to the class."""
    numbers = select_grid_units(view)
    signed = bool(view.maps.min() < 0)
    limits = compute_limits(view.maps[numbers], signed=signed)
    ablated = {
        other.number for other in state.ablated if other.layer == state.layer and other.head == view.is_attention
    }
    notes = (
        {}
        if view.contributions is None
        else dict(zip(numbers, format_contributions(view.contributions[numbers]), strict=True))
    )
    items = []
    for i in numbers:
        name = translate("inside.head", number=i + 1) if view.is_attention else str(i)
        hint = format_unit(Unit(state.layer, i, view.is_attention))
        item = build_thumbnail(str(i), name, view.maps[i], limits, signed=signed, smooth=False, hint=hint)
        items.append({**item, "note": translate("inside.off") if i in ablated else notes.get(i, "")})
    kind = "heads" if view.is_attention else "channels"
    label, heading = (
        translate(f"inside.{kind}", layer=state.layer),
        translate(f"inside.{kind}-by", layer=state.layer, **{"class": view.label}),
    )
    return build_thumbnails(items, str(unit.number), label=label, heading=heading, small=True, of=state.layer)


def format_unit(unit: Unit) -> str:
    """Return the name of a unit in the inspector; heads are counted from 1, as everywhere on the page."""
    if unit.head:
        return translate("inside.unit-head", layer=unit.layer, number=unit.number + 1)
    return translate("inside.unit", layer=unit.layer, number=unit.number)


def format_contributions(values: Sequence[float] | np.ndarray) -> list[str]:
    """Return the contributions in the inspector as signed numbers: two digits of the largest, as many decimals of all.

    >>> format_contributions([0.394, -0.01, 0.0])
    ['+0.39', '−0.01', '0']
    """
    largest = max((abs(float(value)) for value in values), default=0.0)
    decimals = min(max(1 - math.floor(math.log10(largest)), 0), 6) if largest > 0 else 0
    texts = [f"{float(value):+.{decimals}f}" for value in values]
    return ["0" if not float(text) else text.replace("-", "\u2212") for text in texts]


def build_unit_heatmap(
    service: AnalysisService, photo: Image.Image, selection: Selection, view: LayerView, unit: Unit
) -> dict[str, Any]:
    """Return the inspector's map of a unit on the photo, or a sentence for a layer whose output has no positions."""
    if not view.has_positions:
        return {"empty": translate("inside.placeless", layer=unit.layer)}
    values = view.maps[unit.number]
    alt = translate(
        "inside.looks" if unit.head else "inside.responds", unit=format_unit(unit), high=f"{values.max():.3g}"
    )
    geometry = service.catalog.get(selection.model).preprocessing.geometry(photo)
    number = f"head_{unit.number + 1}" if unit.head else f"channel_{unit.number}"
    file_name = f"{get_catalog_name(selection.model)}_{unit.layer}_{number}.png".replace("/", "-").replace(" ", "_")
    return build_heatmap(
        values, photo, geometry, signed=bool(view.maps.min() < 0), smooth=not unit.head, alt=alt, file=file_name
    )


def build_unit_caption(service: AnalysisService, selection: Selection, view: LayerView, unit: Unit) -> str:
    """Return the inspector's caption of a unit: its name, its map and its contribution."""
    number = unit.number + 1 if unit.head else unit.number
    name = translate("inside.head-name" if unit.head else "inside.channel-name", number=number, layer=unit.layer)
    ends = (view.maps[unit.number].min(), view.maps[unit.number].max())
    low, high = (f"{end:.3g}".replace("-", "\u2212") for end in ends)
    tokens = service.catalog.get(selection.model).tokens
    if unit.head and tokens and tokens.classifier_tokens:
        sentence = translate("inside.token-looks", token=tokens.names[tokens.classifier_tokens[0]])
    elif unit.head:
        sentence = translate("inside.patches-look")
    elif view.maps.min() < 0:
        sentence = translate("inside.signed", low=low, high=high)
    else:
        sentence = translate("inside.bright", high=high)
    if view.contributions is None:
        return build_caption(name, sentence)
    facts = {"class": view.label, "score": f"{view.logit:.2f}".replace("-", "\u2212")}
    amount = format_contributions([view.contributions[unit.number]])[0]
    sentence = f"{sentence} {translate('inside.adds', amount=amount, **facts)}"
    return build_caption(name, sentence, translate("inside.linear"))


def build_ablation_panel(
    service: AnalysisService, photo: Image.Image, selection: Selection, state: InspectorState, unit: Unit
) -> dict[str, Any]:
    """Return the inspector's ablation panel: the switch of a unit, and predictions with and without ablated units."""
    before = service.predict(photo, selection.model, 10**6)
    after = service.ablate(photo, selection.model, state.ablated) if state.ablated else None
    turn = "on" if unit in state.ablated else "off"
    if unit.head:
        label = translate(f"inside.switch-head-{turn}", number=unit.number + 1)
    else:
        label = translate(f"inside.switch-channel-{turn}", number=unit.number)
    return build_ablation_list(label, [format_unit(other) for other in state.ablated], before, after, selection.target)


def build_unit_gradient(
    service: AnalysisService,
    photo: Image.Image,
    selection: Selection,
    view: LayerView,
    unit: Unit,
    state: InspectorState,
) -> tuple[dict[str, Any], dict[str, Any], str]:
    """Return the inspector's button that asks what would raise a channel, the gradient as a map, and its caption."""
    if unit.head or not view.has_positions:
        return {}, {}, ""
    rows, columns = view.maps.shape[1:]
    place = state.place
    if isinstance(place, tuple) and not (place[0] < rows and place[1] < columns):
        place = WHOLE_CHANNEL
    button = build_choice_button(
        translate("inside.raise-hide" if place else "inside.raise"),
        {"raise": "" if place else WHOLE_CHANNEL},
        pressed=place is not None,
    )
    if place is None:
        return button, {}, ""
    at = place if isinstance(place, tuple) else None
    gradient = service.get_gradient(photo, selection.model, unit.layer, unit=unit.number, at=at)
    facts = {"unit": format_unit(unit)}
    if at is None:
        heading = translate("inside.raise-channel", **facts)
    else:
        heading = translate("inside.raise-place", **facts, row=at[0], column=at[1])
    error = gradient.dual_error
    checked = "" if error is None else translate("inside.raise-checked", error=f"{error:.1g}")
    sentences = translate("inside.raise-means"), f"{translate('inside.raise-linear')} {checked}".strip()
    heatmap = build_heatmap(
        gradient.heat(reduction="sum").float().numpy(),
        photo,
        gradient.geometry,
        signed=True,
        smooth=True,
        alt=heading,
        file=f"{get_catalog_name(selection.model)}_{unit.layer}_{unit.number}_gradient.png".replace("/", "-"),
        ends=(translate("inside.darker"), translate("inside.brighter")),
    )
    return button, heatmap, build_caption(heading, *sentences, gradient.notes)


def compute_content(
    service: AnalysisService, photo: Image.Image | None, selection: Selection | None, state: InspectorState | None
) -> tuple:
    """Return the content of the inspector (tab Inside).

    Args:
        service: The analysis service.
        photo: The photo.
        selection: Model and classes.
        state: What is selected in the tab.

    Returns:
        State, tree, captions, map, ablation panel and unit grid; the button that asks what would raise the unit, its
        gradient and the caption of that.
    """
    if photo is None or selection is None:
        return state, {}, "", {"empty": get_no_photo_text()}, "", {}, {}, {}, {}, ""
    state = normalise_inspector_state(service, selection, state)
    model = service.catalog.get(selection.model)
    view = compute_layer_view(service, photo, selection, state.layer)
    unit = select_unit(view, state)
    return (
        state,
        build_tree(model, state.layer),
        build_caption(
            translate("inside.heading"),
            translate("inside.attention" if model.attention_layers else "inside.convolutions"),
        ),
        build_unit_heatmap(service, photo, selection, view, unit),
        build_unit_caption(service, selection, view, unit),
        build_ablation_panel(service, photo, selection, state, unit),
        build_unit_grid(view, state, unit),
        *build_unit_gradient(service, photo, selection, view, unit, state),
    )


def build_tab(context: TabContext) -> None:
    """Build the inspector (tab Inside): layers and units, the selected unit, and the first-layer kernels below."""
    service, event_queue, state = context.service, context.inspect_queue, gr.State(None)
    with gr.Row(equal_height=False, elem_id="inside-workspace"):
        with gr.Column(scale=5, min_width=300):
            tree_caption = gr.HTML(apply_default_css=False)
            tree = custom_component("tree", elem_id="inside-tree")
            unit_grid = custom_component(
                "thumbnails", elem_id="inside-channels", choice_key="unit", queue="inside-event-queue"
            )
        with gr.Column(scale=6, min_width=320, elem_classes="viz-sticky"):
            heatmap = custom_component(
                "heatmap", elem_id="inside-heatmap", choice_key="raise", queue="inside-event-queue"
            )
            caption = gr.HTML(elem_id="inside-caption", apply_default_css=False)
            ablation_panel = custom_component("ablation_list", elem_id="inside-ablation")
            gradient_button = custom_component("choice_button", elem_id="inside-raise", queue="inside-event-queue")
            gradient_caption = gr.HTML(elem_id="inside-gradient-caption", apply_default_css=False)
            gradient = custom_component("heatmap", elem_id="inside-gradient")

    def handle_choice(
        photo: Image.Image | None, selection: Selection | None, state: InspectorState | None, value: Any
    ) -> tuple:
        if photo is not None and selection is not None:
            state = apply_inspector_choices(service, photo, selection, state, parse_choices(value))
        state, *values = compute_content(service, photo, selection, state)
        return state, *values, {**acknowledge_choices(value), "keys": format_inspector_link(service, selection, state)}

    options = {**PRIVATE_EVENT, "trigger_mode": "multiple"}  # the event queue already sends one choice at a time
    context.selection.change(None, None, None, js=emit_choice_js("", "{}", "inside-event-queue"), **options)
    choice = context.on_event(
        event_queue.input,
        handle_choice,
        [state, event_queue],
        [
            *(state, tree, tree_caption, heatmap, caption, ablation_panel, unit_grid),
            *(gradient_button, gradient, gradient_caption),
            event_queue,
        ],
        **options,
    )
    choice.failure(None, None, None, js=report_failure_js("inside-event-queue"), **PRIVATE_EVENT)
    kernels.build_tab(context)
