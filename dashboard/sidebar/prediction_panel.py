"""The sidebar's view of a photo: predictions, the cropped model input, and the address of the page."""

from __future__ import annotations

from typing import Any, NamedTuple

import gradio as gr
from PIL import Image

from dashboard.components.bars import build_bars
from dashboard.components.captions import format_size
from dashboard.components.copy_link import build_copy_link
from dashboard.components.figure import build_figure
from dashboard.components.model_card import describe_preprocessing
from dashboard.components.prompts import build_prompts
from dashboard.i18n.translate import translate
from dashboard.services.analysis_service import AnalysisService
from dashboard.services.photo_key import compute_photo_key
from dashboard.state.page_address import build_selection_address
from dashboard.state.selection import PhotoAndModel, Selection
from vizlib.core.class_labels import name_classes
from vizlib.core.imagenet_groups import find_imagenet_classes
from vizlib.core.text import format_percent
from vizlib.models.class_groups import group_predictions


class PredictionPanel(NamedTuple):
    """The selection and what the sidebar shows of it, in the order of the components that receive it."""

    selection: Selection | None  # `None` without a photo
    photo_and_model: PhotoAndModel | None
    bars: dict[str, Any]
    classes: Any  # an update of the menu of classes
    prompts: dict[str, Any]  # of the box of prompts, which models that read text have in place of that menu
    model_input: Any
    copy_link: dict[str, Any]

    def without_unchanged(self, before: Selection) -> PredictionPanel:
        """Return the panel without what the page has shown since an earlier selection, such as the menu of classes."""
        if self.selection is None or self.selection.model != before.model:
            return self
        panel = self._replace(classes=gr.skip() if self.prompts else gr.update(value=self.selection.target))
        return panel._replace(model_input=gr.skip()) if self.selection.photo == before.photo else panel


def build_prediction_panel(
    service: AnalysisService,
    photo: Image.Image | None,
    model: str,
    target: int | None = None,
    against: int | None = None,
) -> PredictionPanel:
    """Return the selection for a photo and all that the prediction panel shows of it.

    Args:
        service: Source of the predictions.
        photo: The photo; `None` while there is none.
        model: Name of the model.
        target: Class index; the most probable class if `None`.
        against: Index of the contrast class.
    """
    if photo is None:
        empty = build_copy_link(dict.fromkeys(("m", "img", "c", "vs")))
        return PredictionPanel(None, None, {}, gr.update(choices=[], value=None), {}, {}, empty)
    predictions = service.predict(photo, model, top=10**6)
    target = service.resolve_target(photo, model, target)
    against = service.resolve_against(photo, model, target, None if against == target else against)
    network = service.catalog.get(model)
    complement = next((row for row in network.list_outcomes(predictions) if row.index < 0), None)
    short_names = name_classes(network.labels)
    menu = sorted(((name, index) for index, name in enumerate(short_names)), key=lambda row: row[0].lower())
    reads_prompts = network.prompt_source is not None
    selection = Selection(compute_photo_key(photo), model, target, against)
    return PredictionPanel(
        selection,
        selection.photo_and_model,
        build_bars(
            predictions,
            target,
            against=against,
            ood_note=service.get_ood_note(photo, model),
            model=model,
            complement=complement,
            groups=group_predictions(network, predictions),
            known_classes=find_imagenet_classes(network.labels) or (),
            short_names=short_names,
            are_prompts=reads_prompts,
        ),
        gr.update(choices=[], value=None, visible=False)
        if reads_prompts
        else gr.update(choices=menu, value=target, visible=True),
        build_prompts(model, network.labels, target, service.get_word_relevance(photo, model, target))
        if reads_prompts
        else {},
        build_model_input_figure(service, photo, model),
        build_copy_link(build_selection_address(service, selection)),
    )


def build_model_input_figure(service: AnalysisService, photo: Image.Image, model: str) -> dict[str, Any]:
    """Return the prediction panel's figure of the cropped model input: its share of the photo, the preprocessing."""
    picture, network = service.render_model_input(photo, model), service.catalog.get(model)
    visible = network.preprocessing.geometry(photo).visible_fraction
    facts = {"size": format_size(picture.width, picture.height), "share": format_percent(visible)}
    grid, rows = network.tokens.grid if network.tokens else (), describe_preprocessing(network)
    if not grid:
        caption = translate("sidebar.crop", **facts)
    else:
        caption = translate("sidebar.crop-patches", **facts, grid=format_size(*grid))
        patch = format_size(picture.height // grid[0], picture.width // grid[1])
        rows = {**rows, translate("sidebar.patches"): translate("sidebar.each", grid=format_size(*grid), size=patch)}
    return build_figure(picture, caption, alt=translate("sidebar.alt"), fit="small", grid=grid, rows=rows)
