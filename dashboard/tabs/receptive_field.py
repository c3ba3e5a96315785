"""The Attention tab of a convolutional network: how far each place of a stage sees, and what it really goes by."""

from __future__ import annotations

from typing import Any

import gradio as gr
from PIL import Image

from dashboard.components.base import custom_component
from dashboard.components.captions import build_caption
from dashboard.components.receptive_field import Cell, build_receptive_field
from dashboard.components.thumbnails import downsample_map
from dashboard.i18n.translate import translate
from dashboard.services.analysis_service import AnalysisService
from dashboard.state.context import TabContext
from dashboard.state.selection import Selection

CELLS = 112  # a side of an effective field needs no more


def cell_of(service: AnalysisService, photo: Image.Image, model: str, wanted: object) -> Cell:
    """The cell that was asked for if there is such a one, else the middle of the last stage that sees only a part."""
    layers, side = service.get_receptive_fields(model), min(service.catalog.get(model).preprocessing.input_size)
    if isinstance(wanted, (list, tuple)) and len(wanted) == 3 and wanted[0] in layers:
        rows, columns = service.get_stage_maps(photo, model)[wanted[0]].shape[1:]
        if all(isinstance(i, int) for i in wanted[1:]) and 0 <= wanted[1] < rows and 0 <= wanted[2] < columns:
            return Cell(*wanted)
    partial = [layer for layer, field in layers.items() if max(field.size) < side]
    layer = partial[-1] if partial else next(iter(layers))
    rows, columns = service.get_stage_maps(photo, model)[layer].shape[1:]
    return Cell(layer, rows // 2, columns // 2)


def draw(
    service: AnalysisService, photo: Image.Image | None, selection: Selection | None, wanted: object = None
) -> tuple[dict[str, Any], str]:
    """The photo in cells and what it means; nothing for a network with attention, where every place sees everything."""
    if photo is None or selection is None or not service.get_receptive_fields(selection.model):
        return {}, ""
    name = selection.model
    theory, cell = service.get_receptive_fields(name), cell_of(service, photo, name, wanted)
    maps = {layer: found.numpy() for layer, found in service.get_stage_maps(photo, name).items()}
    geometry = service.catalog.get(name).preprocessing.geometry(photo)
    used = service.get_effective_receptive_field(photo, name, cell.layer, (cell.row, cell.column))
    value = build_receptive_field(
        photo, geometry, maps, theory, cell, downsample_map(used.heat.numpy(), CELLS), used.size
    )
    return value, build_caption(
        translate("receptive.heading"), translate("receptive.means"), translate("receptive.means-not")
    )


def build(shared: TabContext) -> None:
    """The words, then the photo in cells."""
    words = gr.HTML(elem_id="receptive-caption", apply_default_css=False)
    cells = custom_component("receptive_field", elem_id="receptive-fields")

    def again(photo: Image.Image | None, selection: Selection | None) -> tuple:
        return draw(shared.service, photo, selection)

    def clicked(photo: Image.Image | None, selection: Selection | None, event: gr.SelectData) -> dict[str, Any]:
        return draw(shared.service, photo, selection, event.index)[0]

    shared.on_photo_or_model(again, [], [cells, words])
    shared.on_event(cells.select, clicked, [], [cells])
