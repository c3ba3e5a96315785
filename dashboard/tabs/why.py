"""The Why tab: the map of one method on the photo, and thumbnails of all methods that fit the model."""

from __future__ import annotations

import time
import zlib
from collections.abc import Generator, Iterator
from contextlib import closing
from typing import Any, NamedTuple

import gradio as gr
from PIL import Image

import vizlib
from dashboard.components.captions import (
    build_caption,
    format_attribution_heading,
    format_confidence,
    format_heading,
    get_no_photo_text,
)
from dashboard.components.custom_component import custom_component
from dashboard.components.heatmap import build_attribution_heatmap, build_heatmap_alt_text, build_photo_only
from dashboard.components.help_link import build_method_help, build_page_help
from dashboard.components.parameters import build_parameter_menus, parse_parameter_menus
from dashboard.components.perturbation import build_perturbation
from dashboard.components.progress import build_running_progress, build_waiting_progress, format_duration
from dashboard.components.thumbnails import (
    build_ranking,
    build_ranking_step,
    build_thumbnail,
    build_thumbnails,
    downsample_map,
)
from dashboard.components.trust import (
    build_measured_trust,
    build_trust_scores,
    build_trust_step,
    build_waiting_trust,
    read_turn,
)
from dashboard.i18n.translate import translate, translate_method_description
from dashboard.services.analysis_service import TOP_FRACTION, AnalysisService
from dashboard.services.executor_tasks import TopFractionProbabilities
from dashboard.services.explanation_request import ExplanationRequest
from dashboard.services.photo_key import compute_photo_key
from dashboard.state.context import PRIVATE_EVENT, STREAM_QUEUE, TRUST_QUEUE, FollowUp, TabContext, TabView
from dashboard.state.selection import Selection
from vizlib import VizlibError
from vizlib.attribution.measurement import TRUST_PARTS
from vizlib.attribution.methods.registry import METHODS, choose_default_method
from vizlib.attribution.request import MANY_PASSES
from vizlib.render.color_scale import compute_limits

TITLE = "Why"
MAX_AUTOSTART_SECONDS = 3.0  # a method of many passes that takes longer waits for the start button


class WhyContent(NamedTuple):
    """Values of the components of the tab.

    Attributes:
        method: Selected method; `None` before there is a photo.
        heatmap: Value of the heat map.
        caption: Caption of the map, as safe HTML.
        menus: Value of the parameter menus.
        strip: Value of the thumbnails of all methods.
        progress: Value of the progress bar and its start button.
        trust: Value of the bars that say how far the map can be trusted.
        perturbation: Value of the deletion and insertion curves of the map.
        metric: Result of the top-fraction check, as safe HTML; empty where it is not computed yet.
    """

    method: str | None
    heatmap: dict[str, Any]
    caption: str
    menus: dict[str, Any]
    strip: dict[str, Any]
    progress: dict[str, Any]
    trust: dict[str, Any]
    perturbation: dict[str, Any]
    metric: str = ""


def choose_shown_method(service: AnalysisService, model: str, requested: str | None) -> str:
    """Return the method of the Why tab: the requested one if it fits the model, else the default, else any other."""
    network = service.catalog.get(model)
    fitting = vizlib.list_methods(network)
    return next(name for name in (requested, choose_default_method(network), *fitting) if name in fitting)


def compute_content(
    service: AnalysisService,
    photo: Image.Image | None,
    selection: Selection | None,
    method: str | None,
    menus: Any,
    *,
    auto_trust: bool = False,
) -> WhyContent:
    """Return the content of the Why tab: map, caption, menus, thumbnails, progress bar, trust and check of the map.

    A method of many passes that is not cached has no map, but a start button with its estimated duration.

    Args:
        service: The analysis service.
        photo: The photo.
        selection: Model and classes.
        method: The chosen method.
        menus: Its parameters.
        auto_trust: Whether it is measured at once how far the map can be trusted.
    """
    if photo is None or selection is None:
        return WhyContent(method, {"empty": get_no_photo_text()}, "", {}, {}, {}, {}, {})
    method = choose_shown_method(service, selection.model, method)
    model = service.catalog.get(selection.model)
    parameters = parse_parameter_menus(menus, model, method)
    request = selection.make_request(photo, method, parameters)
    attribution = service.find_or_explain(request)
    parameter_menus = build_parameter_menus(model, method, parameters, in_url=True)
    strip = build_method_strip(service, photo, selection, method, attribution)
    if attribution is None:
        heatmap, caption = build_pending_map(service, photo, selection, method)
        start = build_start_button(service, request)
        return WhyContent(method, heatmap, caption, parameter_menus, strip, start, {}, {})
    heatmap, caption = build_map(attribution, photo, get_contrast_label(service, selection))
    probabilities = service.find_top_fraction(selection.model, attribution)
    return WhyContent(
        method,
        heatmap,
        caption,
        parameter_menus,
        strip,
        {},
        build_trust_bars(service, selection, attribution, auto_trust=auto_trust),
        build_curves(service, selection, attribution),
        format_top_fraction_check(probabilities) if probabilities else "",
    )


def stream_content(
    service: AnalysisService,
    photo: Image.Image | None,
    selection: Selection | None,
    method: str | None,
    menus: Any,
    *,
    auto_trust: bool = False,
) -> Generator[WhyContent, None, None]:
    """Yield the content of the Why tab after each batch of a method of many passes.

    Until the last step only map, caption and progress bar change. The arguments are those of `compute_content`.
    """
    if photo is None or selection is None:
        return
    method = choose_shown_method(service, selection.model, method)
    parameters = parse_parameter_menus(menus, service.catalog.get(selection.model), method)
    unchanged = gr.skip()
    start = time.perf_counter()
    for step in service.stream_explanation(selection.make_request(photo, method, parameters)):
        if step.done < step.total:
            seconds_per_pass = (time.perf_counter() - start) / step.done
            time_left = format_duration(seconds_per_pass * (step.total - step.done))
            progress = build_running_progress(step.done, step.total, time_left)
            heatmap, caption = build_map(step.attribution, photo, get_contrast_label(service, selection))
            yield WhyContent(method, heatmap, caption, unchanged, unchanged, progress, {}, {})
    yield compute_content(service, photo, selection, method, menus, auto_trust=auto_trust)


def stream_trust(
    service: AnalysisService,
    photo: Image.Image | None,
    selection: Selection | None,
    method: str | None,
    menus: Any,
    turn: int,
) -> Generator[tuple[dict[str, Any], Any], None, None]:
    """Yield the Why tab's bars that say how far its map can be trusted, and its curves, after each batch of passes.

    Args:
        service: The analysis service.
        photo: The photo.
        selection: Model and classes.
        method: The chosen method.
        menus: Its parameters.
        turn: That of the bars that the measurement was started from.
    """
    if photo is None or selection is None or selection.photo != compute_photo_key(photo):
        return  # another photo was chosen meanwhile, whose bars are shown
    try:
        method = choose_shown_method(service, selection.model, method)
        parameters = parse_parameter_menus(menus, service.catalog.get(selection.model), method)
        attribution = service.find_or_explain(selection.make_request(photo, method, parameters))
        if attribution is None:
            yield {**build_waiting_trust(start_now=False), "turn": turn, "step": True}, gr.skip()
            return
        for step in service.stream_trust(selection.model, attribution):
            curves = build_curves(service, selection, attribution) if step.fraction >= 1 else gr.skip()
            yield build_trust_step(step.trust, method, step.fraction, turn), curves
    except VizlibError:
        yield {**build_waiting_trust(start_now=False), "turn": turn, "step": True}, gr.skip()
        raise


def stream_ranking(
    service: AnalysisService, photo: Image.Image | None, selection: Selection | None
) -> Generator[dict[str, Any], None, None]:
    """Yield the scores by which the Why tab's thumbnails of methods can be ordered, after each batch of passes.

    Args:
        service: The analysis service.
        photo: The photo.
        selection: Model and classes.
    """
    if photo is None or selection is None or selection.photo != compute_photo_key(photo):
        return
    key = compute_ranking_key(selection)
    attributions = service.explain_all(selection.make_request(photo))
    for step in service.stream_trust_all(selection.model, attributions):
        scores = {name: build_trust_scores(trust) for name, trust in step.trusts.items()}
        yield build_ranking_step(key, step.fraction, scores)


def compute_ranking_key(selection: Selection) -> int:
    """Return a number for what the scores of the Why tab's thumbnails belong to: photo, model and classes."""
    return zlib.crc32(repr(tuple(selection)).encode())


def build_curves(service: AnalysisService, selection: Selection, attribution: vizlib.Attribution) -> dict[str, Any]:
    """Return the Why tab's deletion and insertion curves of a map; empty where they are not measured yet."""
    found = service.find_trust(selection.model, attribution)
    if found is None or found.faithfulness is None:
        return {}
    return build_perturbation(attribution, found, service.get_perturbed_photos(selection.model, attribution))


def build_trust_bars(
    service: AnalysisService, selection: Selection, attribution: vizlib.Attribution, *, auto_trust: bool
) -> dict[str, Any]:
    """Return the Why tab's bars that say how far a map can be trusted: measured, or waiting to be."""
    found = service.find_trust(selection.model, attribution)
    return (
        build_waiting_trust(start_now=auto_trust) if found is None else build_measured_trust(found, attribution.method)
    )


def build_map(
    attribution: vizlib.Attribution, photo: Image.Image, contrast_label: str = ""
) -> tuple[dict[str, Any], str]:
    """Return the heat map of the Why tab and its caption."""
    method = METHODS[attribution.method]
    return (
        build_attribution_heatmap(attribution, photo, build_heatmap_alt_text(attribution), contrast_label),
        build_caption(
            format_attribution_heading(attribution, contrast_label),
            *translate_method_description(method),
            attribution.notes,
            format_confidence(attribution.model, attribution.text, is_probability=attribution.probability is not None),
            build_method_help(attribution.method),
        ),
    )


def build_pending_map(
    service: AnalysisService, photo: Image.Image, selection: Selection, method: str
) -> tuple[dict[str, Any], str]:
    """Return the Why tab's photo without a map, and the caption of the map to come."""
    model = service.catalog.get(selection.model)
    predictions = service.predict(photo, selection.model, 10**6)
    prediction = next(row for row in predictions if row.index == selection.target)
    heading = format_heading(method, prediction.label, get_contrast_label(service, selection))
    confidence = format_confidence(model.name, prediction.text, is_probability=prediction.probability is not None)
    description = translate_method_description(METHODS[method])
    caption = build_caption(heading, *description, (), confidence, build_method_help(method))
    alt = translate("why.not-run", method=method)
    return build_photo_only(photo, model.preprocessing.geometry(photo), alt=alt), caption


def build_start_button(service: AnalysisService, request: ExplanationRequest) -> dict[str, Any]:
    """Return the Why tab's start button with the estimated duration; a short computation starts without a click."""
    seconds = service.estimate_seconds(request)
    text = translate("why.cost", method=request.method, time=format_duration(seconds))
    return build_waiting_progress(text, start_now=seconds <= MAX_AUTOSTART_SECONDS)


def get_contrast_label(service: AnalysisService, selection: Selection) -> str:
    """Return the label of the contrast class of the Why tab; empty where there is none."""
    return "" if selection.against is None else service.catalog.get(selection.model).labels[selection.against]


def build_method_strip(
    service: AnalysisService,
    photo: Image.Image,
    selection: Selection,
    method: str,
    attribution: vizlib.Attribution | None,
) -> dict[str, Any]:
    """Return the Why tab's thumbnails of all methods that fit the model, with their maps where they are cached.

    Args:
        service: The analysis service.
        photo: The photo.
        selection: Model and classes.
        method: The selected method.
        attribution: Its attribution, where there is one.
    """
    items: list[dict[str, Any]] = []
    is_measured = True
    one_pass = service.explain_all(selection.make_request(photo))
    for name in vizlib.list_methods(service.catalog.get(selection.model)):
        if name == method:
            shown = attribution
        else:
            shown = one_pass.get(name) or service.find_explanation(selection.make_request(photo, name))
        values = None if shown is None else downsample_map(shown.heat.numpy())
        signed = shown is not None and shown.signed
        limits = (0.0, 1.0) if values is None else compute_limits(values, signed=signed)
        smooth = not METHODS[name].patch_values
        trust = None if shown is None else service.find_trust(selection.model, shown)
        is_measured = is_measured and (trust is not None or name not in one_pass)
        hint, scores = format_method_hint(name), build_trust_scores(trust)
        items.append(
            build_thumbnail(name, name, values, limits, signed=signed, smooth=smooth, hint=hint, scores=scores)
        )
    orders = {part: translate(f"trust.{part}") for part in TRUST_PARTS}
    geometry = service.catalog.get(selection.model).preprocessing.geometry(photo)
    return build_thumbnails(
        items,
        method,
        label=translate("why.methods"),
        heading=translate("why.other-ways"),
        photo=photo,
        geometry=geometry,
        ranking=build_ranking(compute_ranking_key(selection), orders, is_measured=is_measured),
    )


def format_method_hint(name: str) -> str:
    """Return the Why tab's hint on a method: what its map shows, and whether it needs many passes."""
    method = METHODS[name]
    shows, _ = translate_method_description(method)
    return f"{shows} {translate('why.many')}" if method.cost == MANY_PASSES else shows


def compute_top_fraction_check(
    service: AnalysisService, photo: Image.Image | None, selection: Selection | None, method: str | None, menus: Any
) -> str:
    """Return the Why tab's check of a map, as safe HTML: only its top pixels are kept; empty without a map."""
    if photo is None or selection is None:
        return ""
    method = choose_shown_method(service, selection.model, method)
    parameters = parse_parameter_menus(menus, service.catalog.get(selection.model), method)
    attribution = service.find_or_explain(selection.make_request(photo, method, parameters))
    if attribution is None or attribution.probability is None:  # of a regression there is none to measure
        return ""
    return format_top_fraction_check(service.keep_top_fraction(selection.model, attribution))


def format_top_fraction_check(probabilities: TopFractionProbabilities) -> str:
    """Return the Why tab's check of a map as safe HTML: the probability before and after only top pixels are kept."""
    text = translate("why.confidence", share=f"{100 * TOP_FRACTION:.0f}\u00a0%")
    before, after = (f"<strong>{value:.2f}</strong>" for value in (probabilities.before, probabilities.after))
    help_link = build_page_help("keep-the-hottest-part", translate("why.kept-part"))
    return f'<p class="viz-metric">{text} {before} → {after}{help_link}</p>'


def build_tab(context: TabContext) -> TabView:
    """Build the Why tab: the map beside its caption, and the thumbnails of all methods below.

    Returns:
        The view of the tab, which is computed in the same event as the selection.
    """
    service, method, menus = context.service, context.method, context.parameters
    with gr.Row(equal_height=False, elem_id="why-row"):
        with gr.Column(scale=8, min_width=320):
            heatmap = custom_component("heatmap", elem_id="why-heatmap")
            curves = custom_component("perturbation", elem_id="why-curves")
        with gr.Column(scale=5, min_width=280):
            progress = custom_component("progress", elem_id="why-progress")
            caption = gr.HTML(elem_id="why-caption", apply_default_css=False)
            metric = gr.HTML(elem_id="why-metric", apply_default_css=False)
            trust = custom_component("trust", elem_id="why-trust")
            menus.render()
    strip = custom_component("thumbnails", elem_id="why-methods", choice_key="method")
    outputs = [method, heatmap, caption, menus, strip, progress, trust, curves, metric]

    def update(photo: Image.Image | None, selection: Selection | None, method: str | None, menus: Any) -> tuple:
        return compute_content(service, photo, selection, method, menus, auto_trust=context.auto_trust)

    def stream(
        photo: Image.Image | None, selection: Selection | None, method: str | None, menus: Any, request: gr.Request
    ) -> Iterator[tuple]:
        generation = context.generations.current(request)
        steps = stream_content(service, photo, selection, method, menus, auto_trust=context.auto_trust)
        with closing(steps):
            for content in steps:
                # Gradio cancels this event only after it has processed another choice, whose result one more step would
                # overwrite; and at the end it sends the last value again.
                if context.generations.current(request) != generation:
                    yield (gr.skip(),) * len(outputs)
                    return
                yield content

    def measure_trust(
        photo: Image.Image | None,
        selection: Selection | None,
        method: str | None,
        menus: Any,
        value: Any,
        request: gr.Request,
    ) -> Iterator[Any]:
        generation = context.generations.current(request)
        with closing(stream_trust(service, photo, selection, method, menus, read_turn(value))) as steps:
            for step in steps:
                # Another choice does not cancel this event: gradio would forget that it was triggered again meanwhile.
                if context.generations.current(request) != generation:
                    yield gr.skip(), gr.skip()
                    return
                yield step

    def measure_all(photo: Image.Image | None, selection: Selection | None) -> Iterator[dict[str, Any]]:
        # It goes on when another method is chosen, which changes nothing that it measures. For another photo or class
        # the page stops it and ignores its steps.
        with closing(stream_ranking(service, photo, selection)) as steps:
            yield from steps

    def update_metric(photo: Image.Image | None, selection: Selection | None, method: str | None, menus: Any) -> str:
        return compute_top_fraction_check(service, photo, selection, method, menus)

    stream_event = context.on_event(progress.submit, stream, [method, menus], outputs, **STREAM_QUEUE)
    progress.stop(None, None, None, cancels=[stream_event], **PRIVATE_EVENT)
    trust_event = context.on_event(trust.submit, measure_trust, [method, menus, trust], [trust, curves], **TRUST_QUEUE)
    trust.stop(None, None, None, cancels=[trust_event], **PRIVATE_EVENT)
    ranking_event = context.on_event(strip.submit, measure_all, [], [strip], **TRUST_QUEUE)
    strip.stop(None, None, None, cancels=[ranking_event], **PRIVATE_EVENT)
    follow_up = FollowUp(update_metric, [method, menus], [metric])
    context.on_event(stream_event.success, *follow_up)
    return TabView(update, [method, menus], outputs, follow_up, long_events=[stream_event])
