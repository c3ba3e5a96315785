"""Why this class: any method's map on the photo, and all the one-pass methods beside each other."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from contextlib import closing
from typing import Any, NamedTuple

import gradio as gr
from PIL import Image

import vizlib
from dashboard.components.base import custom_component
from dashboard.components.captions import (
    build_alt_text,
    build_caption,
    format_attribution_heading,
    format_confidence,
    format_duration,
    format_heading,
    format_probability,
    get_no_photo_text,
)
from dashboard.components.heatmap import build_attribution_heatmap, build_photo_only
from dashboard.components.parameters import build_parameter_menus, parse_parameters
from dashboard.components.progress import build_running, build_waiting
from dashboard.components.thumbnails import build_thumbnail, build_thumbnails, downsample_map
from dashboard.i18n.translate import describe_method, translate
from dashboard.services.analysis_service import TOP_FRACTION, AnalysisService
from dashboard.services.executor import TopFractionProbabilities
from dashboard.services.request import ExplanationRequest
from dashboard.state.context import PRIVATE_EVENT, STREAM_QUEUE, TabContext, TabView
from dashboard.state.selection import Selection
from vizlib.attribution.methods.registry import METHODS
from vizlib.attribution.request import MANY_PASSES
from vizlib.render.color_scale import compute_limits

TITLE = "Why"
DEFAULT_METHOD = "grad-cam"  # fits both kinds of network, so that a change of model keeps the method
MAX_AUTOSTART_SECONDS = 3.0  # seconds: what takes no longer begins by itself


class WhyContent(NamedTuple):
    """All the tab shows."""

    method: str | None
    heatmap: dict[str, Any]
    caption: str
    menus: dict[str, Any]
    strip: dict[str, Any]
    progress: dict[str, Any]
    metric: str = ""  # empty where it is still to be worked out


def choose_method(service: AnalysisService, model: str, wanted: str | None) -> str:
    """The method to show: the one that was chosen if it fits this model, else the one to begin with."""
    fitting = vizlib.list_methods(service.catalog.get(model))
    return next(name for name in (wanted, DEFAULT_METHOD, *fitting) if name in fitting)


def compute_content(
    service: AnalysisService, photo: Image.Image | None, selection: Selection | None, method: str | None, menus: Any
) -> WhyContent:
    """All the tab shows: the method, its map, its words, its knobs and the strip.

    A method of many passes that was not yet worked out has no map, but says how long it will take.
    """
    if photo is None or selection is None:
        return WhyContent(method, {"empty": get_no_photo_text()}, "", {}, {}, {})
    method = choose_method(service, selection.model, method)
    model = service.catalog.get(selection.model)
    settings = parse_parameters(menus, model, method)
    request = selection.request(photo, method, settings)
    answer = service.find_or_explain(request)
    offered = build_parameter_menus(model, method, settings, in_url=True)
    others = build_method_strip(service, photo, selection, method, answer)
    if answer is None:
        heat, words = build_pending_map(service, photo, selection, method)
        return WhyContent(method, heat, words, offered, others, build_start_button(service, request))
    heat, words = build_map(answer, photo, get_contrast_label(service, selection))
    pair = service.find_top_fraction(selection.model, answer)
    return WhyContent(method, heat, words, offered, others, {}, format_metric(pair) if pair else "")


def stream_content(
    service: AnalysisService, photo: Image.Image | None, selection: Selection | None, method: str | None, menus: Any
) -> Generator[WhyContent, None, None]:
    """A method of many passes as a map that gets better and better; with the last step all else is drawn again."""
    if photo is None or selection is None:
        return
    method = choose_method(service, selection.model, method)
    settings = parse_parameters(menus, service.catalog.get(selection.model), method)
    keep = gr.skip()
    began = time.perf_counter()
    for step in service.stream_explanation(selection.request(photo, method, settings)):
        if step.done < step.total:
            each = (time.perf_counter() - began) / step.done
            bar = build_running(step.done, step.total, format_duration(each * (step.total - step.done)))
            heat, words = build_map(step.attribution, photo, get_contrast_label(service, selection))
            yield WhyContent(method, heat, words, keep, keep, bar)
    yield compute_content(service, photo, selection, method, menus)


def build_map(answer: vizlib.Attribution, photo: Image.Image, rival: str = "") -> tuple[dict[str, Any], str]:
    """The map on the photo, and what it means and does not mean."""
    row = METHODS[answer.method]
    return (
        build_attribution_heatmap(answer, photo, build_alt_text(answer), rival),
        build_caption(
            format_attribution_heading(answer, rival), *describe_method(row), answer.notes, format_confidence(answer)
        ),
    )


def build_pending_map(
    service: AnalysisService, photo: Image.Image, selection: Selection, method: str
) -> tuple[dict[str, Any], str]:
    """The photo without a map, and what the map will mean."""
    model, row = service.catalog.get(selection.model), METHODS[method]
    found = {one.index: one for one in service.predict(photo, selection.model, 10**6)}[selection.target]
    heading = format_heading(method, found.label, get_contrast_label(service, selection))
    words = build_caption(heading, *describe_method(row), (), format_probability(model.name, found.probability))
    return build_photo_only(
        photo, model.preprocessing.geometry(photo), alt=translate("why.not-run", method=method)
    ), words


def build_start_button(service: AnalysisService, request: ExplanationRequest) -> dict[str, Any]:
    """How long a method of many passes will take, and the button to begin; what is over soon begins by itself."""
    seconds = service.estimate_seconds(request)
    said = translate("why.cost", method=request.method, time=format_duration(seconds))
    return build_waiting(said, start_now=seconds <= MAX_AUTOSTART_SECONDS)


def get_contrast_label(service: AnalysisService, selection: Selection) -> str:
    """The label of the class that the target is set against, or nothing."""
    return "" if selection.against is None else service.catalog.get(selection.model).labels[selection.against]


def build_method_strip(
    service: AnalysisService, photo: Image.Image, selection: Selection, method: str, shown: vizlib.Attribution | None
) -> dict[str, Any]:
    """Every method that fits as a button, with its map where it is known already."""
    items = []
    at_hand = service.explain_all(selection.request(photo))
    for name in vizlib.list_methods(service.catalog.get(selection.model)):
        answer = at_hand.get(name) or service.find_explanation(selection.request(photo, name))
        answer = shown if name == method else answer
        values = None if answer is None else downsample_map(answer.heat.numpy())
        signed = answer is not None and answer.signed
        limits = (0.0, 1.0) if values is None else compute_limits(values, signed=signed)
        smooth = not METHODS[name].patch_values
        items.append(build_thumbnail(name, name, values, limits, signed=signed, smooth=smooth, hint=format_hint(name)))
    geometry = service.catalog.get(selection.model).preprocessing.geometry(photo)
    return build_thumbnails(
        items,
        method,
        label=translate("why.methods"),
        heading=translate("why.other-ways"),
        photo=photo,
        geometry=geometry,
    )


def format_hint(name: str) -> str:
    """What a method's picture means, and whether it takes long."""
    row = METHODS[name]
    means = describe_method(row)[0]
    return f"{means} {translate('why.many')}" if row.cost == MANY_PASSES else means


def compute_metric(
    service: AnalysisService, photo: Image.Image | None, selection: Selection | None, method: str | None, menus: Any
) -> str:
    """How sure the model still is where only the warmest of what it saw is left, as a sentence."""
    if photo is None or selection is None:
        return ""
    method = choose_method(service, selection.model, method)
    settings = parse_parameters(menus, service.catalog.get(selection.model), method)
    answer = service.find_or_explain(selection.request(photo, method, settings))
    return "" if answer is None else format_metric(service.keep_top_fraction(selection.model, answer))


def format_metric(probabilities: TopFractionProbabilities) -> str:
    """What keeping only the warmest pixels does to the answer, as safe HTML."""
    said = translate("why.confidence", share=f"{100 * TOP_FRACTION:.0f}\u00a0%")
    return f'<p class="viz-metric">{said} <strong>{probabilities.before:.2f}</strong> → <strong>{probabilities.after:.2f}</strong></p>'


def build(shared: TabContext) -> TabView:
    """The map and its words side by side, the strip of methods below; drawn in one event with the selection."""
    service, method, menus = shared.service, shared.method, shared.parameters
    with gr.Row(equal_height=False):
        with gr.Column(scale=8, min_width=320):
            heat = custom_component("heatmap", elem_id="why-heatmap")
        with gr.Column(scale=5, min_width=280):
            progress = custom_component("progress", elem_id="why-progress")
            words = gr.HTML(elem_id="why-caption", apply_default_css=False)
            kept = gr.HTML(elem_id="why-metric", apply_default_css=False)
            menus.render()
    others = custom_component("thumbnails", elem_id="why-methods", choice_key="method")
    outputs = [method, heat, words, menus, others, progress, kept]

    def again(photo: Image.Image | None, selection: Selection | None, method: str | None, menus: Any) -> tuple:
        return compute_content(service, photo, selection, method, menus)

    def begun(
        photo: Image.Image | None, selection: Selection | None, method: str | None, menus: Any, request: gr.Request
    ) -> Iterator[tuple]:
        turn = shared.generations.current(request)
        with closing(stream_content(service, photo, selection, method, menus)) as steps:
            for shown in steps:
                # gradio ends this only after the answer to another choice, which one more step would undo; and what was
                # handed out last it hands out again at the end.
                if shared.generations.current(request) != turn:
                    yield (gr.skip(),) * len(outputs)
                    return
                yield shown

    def sure(photo: Image.Image | None, selection: Selection | None, method: str | None, menus: Any) -> str:
        return compute_metric(service, photo, selection, method, menus)

    stream = shared.on_event(progress.submit, begun, [method, menus], outputs, **STREAM_QUEUE)
    progress.stop(None, None, None, cancels=[stream], **PRIVATE_EVENT)
    later = sure, [method, menus], [kept]
    shared.on_event(stream.success, *later)
    return TabView(again, [method, menus], outputs, later, long_events=[stream])
