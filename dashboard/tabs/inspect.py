"""Inside: a network as a tree, what the channels and heads of a layer add to a class, and the answer without some."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image

from dashboard.components.ablation_list import build_ablation_list
from dashboard.components.base import custom_component, emit_choice_js
from dashboard.components.captions import build_caption, get_no_photo_text
from dashboard.components.event_queue import acknowledge, parse_choices, report_failure_js
from dashboard.components.heatmap import build_heatmap
from dashboard.components.thumbnails import build_thumbnail, build_thumbnails
from dashboard.components.tree import build_tree
from dashboard.i18n.translate import translate
from dashboard.services.analysis_service import AnalysisService, Unit
from dashboard.state.context import PRIVATE_EVENT, TabContext
from dashboard.state.selection import Selection
from dashboard.tabs import kernels
from dashboard.tabs.inspector_state import At, View, keys, moved, order, settled, unit_of, view
from vizlib.render.color_scale import compute_limits

TITLE = "Inside"
FOR, AGAINST = 36, 12  # units on a sheet: those that speak most for the class, and most against it


def shown(seen: View) -> list[int]:
    """The units on the sheet: of many, the two ends of the order."""
    every = order(seen)
    return every if len(every) <= FOR + AGAINST else every[:FOR] + every[-AGAINST:]


def sheet(seen: View, at: At, unit: Unit) -> dict[str, Any]:
    """The units as buttons on one scale, each with what it adds to the class."""
    numbers = shown(seen)
    signed = bool(seen.maps.min() < 0)
    limits = compute_limits(seen.maps[numbers], signed=signed)
    off = {one.number for one in at.off if one.layer == at.layer and one.head == seen.heads}
    notes = {} if seen.added is None else dict(zip(numbers, amounts(seen.added[numbers]), strict=True))
    items = []
    for i in numbers:
        name = translate("inside.head", number=i + 1) if seen.heads else str(i)
        hint = named(Unit(at.layer, i, seen.heads))
        item = build_thumbnail(str(i), name, seen.maps[i], limits, signed=signed, smooth=False, hint=hint)
        items.append({**item, "note": translate("inside.off") if i in off else notes.get(i, "")})
    kind = "heads" if seen.heads else "channels"
    label, heading = (
        translate(f"inside.{kind}", layer=at.layer),
        translate(f"inside.{kind}-by", layer=at.layer, **{"class": seen.label}),
    )
    return build_thumbnails(items, str(unit.number), label=label, heading=heading, small=True, of=at.layer)


def named(unit: Unit) -> str:
    """What a person calls a unit; heads are counted from 1, as everywhere on the page."""
    if unit.head:
        return translate("inside.unit-head", layer=unit.layer, number=unit.number + 1)
    return translate("inside.unit", layer=unit.layer, number=unit.number)


def amounts(values: Sequence[float] | np.ndarray) -> list[str]:
    """Signed numbers with as many decimals as the largest needs for two digits.

    >>> amounts([0.394, -0.01, 0.0])
    ['+0.39', '−0.01', '0']
    """
    most = max((abs(float(value)) for value in values), default=0.0)
    decimals = min(max(1 - math.floor(math.log10(most)), 0), 6) if most > 0 else 0
    texts = [f"{float(value):+.{decimals}f}" for value in values]
    return ["0" if not float(text) else text.replace("-", "\u2212") for text in texts]


def onto(service: AnalysisService, photo: Image.Image, selection: Selection, seen: View, unit: Unit) -> dict[str, Any]:
    """Where a unit fires on the photo; a sentence for a layer whose output has no places."""
    if not seen.placed:
        return {"empty": translate("inside.placeless", layer=unit.layer)}
    values = seen.maps[unit.number]
    alt = translate("inside.looks" if unit.head else "inside.responds", unit=named(unit), high=f"{values.max():.3g}")
    geometry = service.catalog.get(selection.model).preprocessing.geometry(photo)
    name = f"{selection.model}_{unit.label}.png".replace("/", "-").replace(" · ", "_").replace(" ", "_")
    return build_heatmap(
        values, photo, geometry, signed=bool(seen.maps.min() < 0), smooth=not unit.head, alt=alt, file=name
    )


def about(service: AnalysisService, selection: Selection, seen: View, unit: Unit) -> str:
    """What the unit is, does and adds, in words."""
    number = unit.number + 1 if unit.head else unit.number
    name = translate("inside.head-name" if unit.head else "inside.channel-name", number=number, layer=unit.layer)
    ends = (seen.maps[unit.number].min(), seen.maps[unit.number].max())
    low, high = (f"{end:.3g}".replace("-", "\u2212") for end in ends)
    tokens = service.catalog.get(selection.model).tokens
    if unit.head and tokens and tokens.classifier_tokens:
        said = translate("inside.token-looks", token=tokens.names[tokens.classifier_tokens[0]])
    elif unit.head:
        said = translate("inside.patches-look")
    elif seen.maps.min() < 0:
        said = translate("inside.signed", low=low, high=high)
    else:
        said = translate("inside.bright", high=high)
    if seen.added is None:
        return build_caption(name, said)
    facts = {"class": seen.label, "score": f"{seen.logit:.2f}".replace("-", "\u2212")}
    said = f"{said} {translate('inside.adds', amount=amounts([seen.added[unit.number]])[0], **facts)}"
    return build_caption(name, said, translate("inside.linear"))


def switch(service: AnalysisService, photo: Image.Image, selection: Selection, at: At, unit: Unit) -> dict[str, Any]:
    """The switch of a unit, and the answers with and without what is off."""
    before = service.predict(photo, selection.model, 10**6)
    after = service.ablate(photo, selection.model, at.off) if at.off else None
    turn = "on" if unit in at.off else "off"
    if unit.head:
        label = translate(f"inside.switch-head-{turn}", number=unit.number + 1)
    else:
        label = translate(f"inside.switch-channel-{turn}", number=unit.number)
    return build_ablation_list(label, [named(one) for one in at.off], before, after, selection.target)


def draw(service: AnalysisService, photo: Image.Image | None, selection: Selection | None, at: At | None) -> tuple:
    """All that depends on the layer and the class: the tree, a unit on the photo, its words and switch, the sheet."""
    if photo is None or selection is None:
        return at, {}, "", {"empty": get_no_photo_text()}, "", {}, {}
    at = settled(service, selection, at)
    model = service.catalog.get(selection.model)
    seen = view(service, photo, selection, at.layer)
    unit = unit_of(seen, at)
    return (
        at,
        build_tree(model, at.layer),
        build_caption(
            translate("inside.heading"),
            translate("inside.attention" if model.attention_layers else "inside.convolutions"),
        ),
        onto(service, photo, selection, seen, unit),
        about(service, selection, seen, unit),
        switch(service, photo, selection, at, unit),
        sheet(seen, at, unit),
    )


def build(shared: TabContext) -> None:
    """Choose a layer and a unit on the left, see it on the right; what every photo meets first below."""
    service, desk, at = shared.service, shared.inspect_queue, gr.State(None)
    with gr.Row(equal_height=False, elem_id="inside-workspace"):
        with gr.Column(scale=5, min_width=300):
            made = gr.HTML(apply_default_css=False)
            parts = custom_component("tree", elem_id="inside-tree")
            units = custom_component(
                "thumbnails", elem_id="inside-channels", choice_key="unit", queue="inside-event-queue"
            )
        with gr.Column(scale=6, min_width=320, elem_classes="viz-sticky"):
            shows = custom_component("heatmap", elem_id="inside-heatmap")
            words = gr.HTML(elem_id="inside-caption", apply_default_css=False)
            silent = custom_component("ablation_list", elem_id="inside-ablation")

    def choose(photo: Image.Image | None, selection: Selection | None, at: At | None, value: Any) -> tuple:
        if photo is not None and selection is not None:
            at = moved(service, photo, selection, at, parse_choices(value))
        at, *drawn = draw(service, photo, selection, at)
        return at, *drawn, {**acknowledge(value), "keys": keys(service, selection, at)}

    alone = {**PRIVATE_EVENT, "trigger_mode": "multiple"}  # the desk sees to it that no two answers meet
    shared.selection.change(None, None, None, js=emit_choice_js("", "{}", "inside-event-queue"), **alone)
    choice = shared.on_event(
        desk.input, choose, [at, desk], [at, parts, made, shows, words, silent, units, desk], **alone
    )
    choice.failure(None, None, None, js=report_failure_js("inside-event-queue"), **PRIVATE_EVENT)
    kernels.build(shared)
