"""The lower part of the Inside tab: first-layer kernels, and similarities of position embeddings."""

from __future__ import annotations

from typing import Any

import gradio as gr
from PIL import Image

from dashboard.components.captions import build_caption
from dashboard.components.custom_component import custom_component
from dashboard.components.heatmap import build_heatmap
from dashboard.components.kernels import MAX_KERNELS, build_kernel_grid
from dashboard.components.patches import SIMILARITY, build_patches
from dashboard.i18n.translate import translate
from dashboard.services.analysis_service import AnalysisService
from dashboard.services.prompted_name import get_catalog_name
from dashboard.state.context import TabContext
from dashboard.state.selection import Selection


def compute_content(
    service: AnalysisService, photo: Image.Image | None, selection: Selection | None, kernel: int | None = None
) -> tuple:
    """Return the kernels' content below the inspector: caption, kernel grid, and one kernel's response to the photo.

    `kernel` is the number of the selected kernel; where there is no such kernel, the one whose response varies most.
    """
    if photo is None or selection is None:
        return "", {}, {}
    model = service.catalog.get(selection.model)
    kernels = service.get_kernels(selection.model)
    responses = service.get_activations(photo, selection.model, kernels.layer).maps[:MAX_KERNELS]
    if kernel is None or not 0 <= kernel < len(responses):
        kernel = int(responses.std((1, 2)).argmax())
    count, _, height, width = kernels.weights.shape
    values = responses[kernel].numpy()
    has_patches = model.tokens is not None  # patches do not overlap, so nothing is interpolated between them
    caption = build_caption(
        translate("kernels.heading"),
        translate("kernels.means", count=count, layer=kernels.layer, size=f"{height} × {width}"),
    )
    low, high = (f"{value:.3g}".replace("-", "\u2212") for value in (values.min(), values.max()))
    alt = translate("kernels.alt", kernel=kernel, layer=kernels.layer, low=low, high=high)
    file_name = f"{get_catalog_name(selection.model)}_kernel_{kernel}.png".replace("/", "-")
    number = translate("kernels.number", kernel=kernel, low=low, high=high)
    label = translate("kernels.label", layer=kernels.layer)
    return (
        caption,
        build_kernel_grid(kernels.weights.numpy(), kernel, label=label, caption=number),
        build_heatmap(
            values,
            photo,
            model.preprocessing.geometry(photo),
            signed=True,
            smooth=not has_patches,
            alt=alt,
            file=file_name,
        ),
    )


def build_position_similarity(
    service: AnalysisService, photo: Image.Image | None, selection: Selection | None
) -> tuple[dict[str, Any], str]:
    """Return the grid of similarities of position embeddings, below the kernels; empty for other networks."""
    similarity = (
        None if photo is None or selection is None else service.get_kernels(selection.model).position_similarity
    )
    if photo is None or selection is None or similarity is None:
        return {}, ""
    rows, columns = similarity.shape[:2]
    geometry = service.catalog.get(selection.model).preprocessing.geometry(photo)
    maps = similarity.numpy().reshape(1, 1, rows * columns, rows, columns)
    value = build_patches(maps, photo, geometry, signed=True, label=translate("kernels.places"), sentence=SIMILARITY)
    return value, build_caption(
        translate("kernels.places-heading"), translate("kernels.places-means"), translate("kernels.places-learned")
    )


def build_tab(context: TabContext) -> None:
    """Build the kernel grid beside the response of one kernel, and the position similarities below."""
    caption = gr.HTML(elem_classes="viz-section", apply_default_css=False)
    with gr.Row(equal_height=False):
        with gr.Column(scale=5, min_width=300):
            kernel_grid = custom_component("kernels", elem_id="inside-kernels")
        with gr.Column(scale=6, min_width=320):
            response = custom_component("heatmap", elem_id="inside-kernel")
    with gr.Row(equal_height=False, elem_classes="viz-section"):
        with gr.Column(scale=5, min_width=280):
            similarity_caption = gr.HTML(apply_default_css=False)
        with gr.Column(scale=6, min_width=320):
            similarity = custom_component("patches", elem_id="inside-position-similarity")

    def update(photo: Image.Image | None, selection: Selection | None) -> tuple:
        return *compute_content(context.service, photo, selection), *build_position_similarity(
            context.service, photo, selection
        )

    def select_kernel(photo: Image.Image | None, selection: Selection | None, event: gr.SelectData) -> tuple:
        return compute_content(context.service, photo, selection, event.index if isinstance(event.index, int) else None)

    context.on_photo_or_model(update, [], [caption, kernel_grid, response, similarity, similarity_caption])
    context.on_event(kernel_grid.select, select_kernel, [], [caption, kernel_grid, response])
