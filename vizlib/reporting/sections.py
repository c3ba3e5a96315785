"""Sections of an HTML report: what the template shows of a photo and of each map."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vizlib.attribution.methods.registry import METHODS
from vizlib.attribution.result import MAX_FIGURE_SIDE_PX, Attribution, ExplainedRecord
from vizlib.core.text import format_number, format_percent, format_question, shorten_label
from vizlib.models.model import Model
from vizlib.render.color_scale import compute_limits, draw_color_bar
from vizlib.render.html import MAX_LOSSLESS_PIXELS, InlineImage, inline_image
from vizlib.render.overlay import overlay_heat
from vizlib.reporting.code_snippets import CodeSnippet

TOP_CLASSES = 5


@dataclass(frozen=True)
class PredictionRow:
    """One row of predictions in a section: a class, its probability as text and as the width of a bar in percent."""

    label: str
    probability: str
    width: str
    is_target: bool


@dataclass(frozen=True)
class PhotoSection:
    """The section of a photo: what the model predicts for it, and its size and hash.

    Attributes:
        layout: CSS class of the page's layout for the shape of the photo.
        predictions: Empty if the model was not given.
    """

    layout: str
    image: InlineImage
    caption: str
    predictions: Sequence[PredictionRow]
    facts: Mapping[str, str]


@dataclass(frozen=True)
class TrustRow:
    """One row of a section on how far a map can be trusted: what was measured, its share, and the sentence."""

    name: str
    share: str
    sentence: str


@dataclass(frozen=True)
class MapSection:
    """The section of one attribution: overlay and colour bar, description, raw values, details and code.

    Attributes:
        title: The question that the map answers.
        label: What is explained; empty for a map that depends on no class, of a model without classes.
        verb: Whether the model predicts it, with the probability, or returns it, with the value.
        low: Raw value at the low end of the colour bar, as text; `high` likewise.
        low_meaning: Of a signed map, what values below 0 stand for; `high_meaning` those above.
        values_file: Name under which the browser saves the raw values.
        values_url: The raw values and their metadata as a data URL.
    """

    title: str
    method: str
    model: str
    label: str
    verb: str
    probability: str
    overlay: InlineImage
    color_bar: InlineImage
    signed: bool
    low: str
    high: str
    low_meaning: str
    high_meaning: str
    shows: str
    does_not_show: str
    notes: Sequence[str]
    trust: Sequence[TrustRow]
    values_file: str
    values_url: str
    facts: Mapping[str, str]
    python: str
    shell: str


def build_photo_section(attribution: Attribution, model: Model | None) -> PhotoSection:
    """Return the section of an attribution's photo; its predictions only if the model is given."""
    photo = attribution.photo
    image, _ = attribution.resize_with_heat(MAX_FIGURE_SIDE_PX)
    full_size = image.size == photo.size and image.width * image.height <= MAX_LOSSLESS_PIXELS
    caption = "The photo, pixel for pixel: save it to compute the map again." if full_size else "The photo, compressed."
    return PhotoSection(
        layout="broad" if photo.width > 1.2 * photo.height else "tall",
        image=inline_image(image, lossless=full_size),
        caption=caption,
        predictions=[] if model is None else _list_predictions(attribution, model),
        facts={
            "Photo": f"{photo.width} × {photo.height} pixels",
            "SHA-256 of the RGB pixels": hashlib.sha256(photo.tobytes()).hexdigest(),
        },
    )


def build_map_section(attribution: Attribution, snippet: CodeSnippet, model: Model | None) -> MapSection:
    """Return the section of one attribution."""
    method = METHODS[attribution.method]
    photo, heat = attribution.resize_with_heat(MAX_FIGURE_SIDE_PX)
    limits = compute_limits(heat, signed=attribution.signed)
    overlay = overlay_heat(photo, heat, signed=attribution.signed, limits=limits)
    contrast = attribution.against_label
    return MapSection(
        title=build_title(attribution),
        method=attribution.method,
        model=attribution.model,
        label=shorten_label(attribution.label),
        verb="returns" if attribution.probability is None else "predicts",
        probability=_format_value(attribution),
        overlay=inline_image(overlay),
        color_bar=inline_image(draw_color_bar(signed=attribution.signed)),
        signed=attribution.signed,
        low=format_number(limits[0]),
        high=format_number(limits[1]),
        low_meaning=shorten_label(contrast) or "against",
        high_meaning=shorten_label(attribution.label) if contrast else "for",
        shows=method.shows,
        does_not_show=method.does_not_show,
        notes=attribution.notes,
        trust=_list_trust(attribution),
        values_file=f"{attribution.file_stem}.npz",
        values_url=_encode_values(attribution),
        facts=_list_facts(attribution, model),
        python=snippet.to_python(),
        shell=snippet.to_shell(),
    )


def build_title(attribution: Attribution) -> str:
    """Return the title of a map's section: the question that the map answers."""
    class_specific = METHODS[attribution.method].class_specific
    return format_question(attribution.label, attribution.against_label, class_specific=class_specific)


def _list_predictions(attribution: Attribution, model: Model) -> list[PredictionRow]:
    """Return the predictions in a photo's section: the most probable classes, and target and contrast class."""
    if not model.output_row.has_classes:
        return []
    predictions = model.list_outcomes(model.predict(attribution.photo, top=len(model.labels)))
    compared = (attribution.target, attribution.against)
    listed = [*predictions[:TOP_CLASSES], *(row for row in predictions[TOP_CLASSES:] if row.index in compared)]
    return [
        PredictionRow(
            label=shorten_label(row.label),
            probability=row.text.replace(" ", "\u00a0"),
            width=f"{100 * (row.probability or 0):.1f}",
            is_target=attribution.target in (row.index, row.label),
        )
        for row in listed
    ]


def _encode_values(attribution: Attribution) -> str:
    """Return the raw values in a map's section, with their metadata, as the data URL of an `.npz` file."""
    file = io.BytesIO()
    np.savez_compressed(file, heat=attribution.heat.numpy(), about=json.dumps(attribution.to_dict()))
    return "data:application/x-npz;base64," + base64.b64encode(file.getvalue()).decode()


def _list_trust(attribution: Attribution) -> list[TrustRow]:
    """Return the rows of a map's section on how far it can be trusted; none where that was not measured."""
    if attribution.trust is None:
        return []
    return [
        TrustRow(name.capitalize(), part.text.replace(" ", "\u00a0"), part.sentence)
        for name, part in attribution.trust.parts.items()
    ] + [TrustRow("", "", note) for note in attribution.trust.notes]


def _list_facts(attribution: Attribution, model: Model | None) -> dict[str, str]:
    """Return the details in a map's section, by name."""
    method = METHODS[attribution.method]
    contrast = attribution.against_label
    heat, visible = attribution.heat, attribution.geometry.visible_fraction
    layers = method.signals(model, attribution.parameters).layers if model is not None else ()
    parameters = {name: value for name, value in attribution.parameters.items() if name in method.parameters}
    facts = {"Method": attribution.method, "Paper": method.paper}
    if attribution.target is not None:
        facts["Class"] = _number_class(attribution.label, attribution.target)
        facts["Against"] = contrast and _number_class(contrast, attribution.against)
    if attribution.probability is not None:
        facts["Probability"] = f"{attribution.probability:.6f}"
    elif attribution.score is not None:
        facts["Value"] = f"{attribution.score:.6g}"
    return facts | {
        "Parameters": ", ".join(
            f"{name} = {'automatic' if value is None else value}" for name, value in parameters.items()
        ),
        "Layers": ", ".join(layers),
        "Map": f"{heat.shape[0]} × {heat.shape[1]} values from {format_number(heat.min())} "
        f"to {format_number(heat.max())}",
        "Model input": f"{format_percent(visible)} of the photo; the rest is dimmed" if visible < 1 else "whole photo",
    }


def _number_class(label: str, record: ExplainedRecord) -> str:
    """Return the label of a class in a section's details, with its number if it has one."""
    return f"{label} (number {record})" if isinstance(record, int) else label


def _format_value(attribution: Attribution) -> str:
    """Return the probability of a section in percent, or the explained value, with no space where a line may break."""
    return attribution.text.replace(" ", "\u00a0")
