"""The Attention tab of a convolutional network: theoretical and effective receptive fields."""

from __future__ import annotations

from typing import Any

import gradio as gr
from PIL import Image

from dashboard.components.captions import build_caption
from dashboard.components.custom_component import custom_component
from dashboard.components.receptive_field import Cell, build_receptive_field
from dashboard.components.thumbnails import downsample_map
from dashboard.i18n.translate import translate
from dashboard.services.analysis_service import AnalysisService
from dashboard.state.context import TabContext
from dashboard.state.selection import Selection

MAX_FIELD_SIDE = 112  # values on a side of the effective receptive field that is sent to the page


def choose_cell(service: AnalysisService, photo: Image.Image, model: str, requested: object) -> Cell:
    """Return the cell (layer, row, column) that the receptive-field view shows: the requested one where it exists.

    Otherwise return the middle cell of the last stage whose receptive field is smaller than the input.
    """
    layers, side = service.get_receptive_fields(model), min(service.catalog.get(model).preprocessing.input_size)
    if isinstance(requested, (list, tuple)) and len(requested) == 3 and requested[0] in layers:
        rows, columns = service.get_stage_maps(photo, model)[requested[0]].shape[1:]
        if all(isinstance(i, int) for i in requested[1:]) and 0 <= requested[1] < rows and 0 <= requested[2] < columns:
            return Cell(*requested)
    partial = [layer for layer, field in layers.items() if max(field.size) < side]
    layer = partial[-1] if partial else next(iter(layers))
    rows, columns = service.get_stage_maps(photo, model)[layer].shape[1:]
    return Cell(layer, rows // 2, columns // 2)


def compute_content(
    service: AnalysisService, photo: Image.Image | None, selection: Selection | None, requested: object = None
) -> tuple[dict[str, Any], str]:
    """Return the content of the receptive-field view in a tab: the grid of cells and its caption, if any."""
    if photo is None or selection is None or not service.get_receptive_fields(selection.model):
        return {}, ""
    name = selection.model
    fields, cell = service.get_receptive_fields(name), choose_cell(service, photo, name, requested)
    maps = {layer: values.numpy() for layer, values in service.get_stage_maps(photo, name).items()}
    geometry = service.catalog.get(name).preprocessing.geometry(photo)
    effective = service.get_effective_receptive_field(photo, name, cell.layer, (cell.row, cell.column))
    value = build_receptive_field(
        photo, geometry, maps, fields, cell, downsample_map(effective.heat.numpy(), MAX_FIELD_SIDE), effective.size
    )
    return value, build_caption(
        translate("receptive.heading"), translate("receptive.means"), translate("receptive.means-not")
    )


def build_tab(context: TabContext) -> None:
    """Build the receptive-field view of the Attention tab: the caption, and the grid of cells below it."""
    caption = gr.HTML(elem_id="receptive-caption", apply_default_css=False)
    cells = custom_component("receptive_field", elem_id="receptive-fields")

    def update(photo: Image.Image | None, selection: Selection | None) -> tuple:
        return compute_content(context.service, photo, selection)

    def select_cell(photo: Image.Image | None, selection: Selection | None, event: gr.SelectData) -> dict[str, Any]:
        return compute_content(context.service, photo, selection, event.index)[0]

    context.on_photo_or_model(update, [], [cells, caption])
    context.on_event(cells.select, select_cell, [], [cells])
