"""The Attention tab: attention of each patch in every layer and head, and the attention methods."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gradio as gr
import numpy as np
from jaxtyping import Float
from PIL import Image

import vizlib
from dashboard.components.captions import build_caption, build_no_photo_caption
from dashboard.components.custom_component import custom_component
from dashboard.components.data_encoding import encode_input_box
from dashboard.components.heatmap import build_heatmap_alt_text
from dashboard.components.linked_heatmaps import ColourScale, build_linked_heatmaps, build_linked_item
from dashboard.components.patches import build_patches
from dashboard.i18n.translate import translate, translate_method_description
from dashboard.services.analysis_service import AnalysisService
from dashboard.state.context import TabContext
from dashboard.state.selection import Selection
from dashboard.tabs import receptive_field
from vizlib.attribution.methods.registry import METHODS
from vizlib.render.color_scale import compute_limits

TITLE = "Attention"
FLOW_METHODS = ("raw-attention", "attention-rollout", "attention-relevance")


def compute_attention_maps(
    service: AnalysisService, photo: Image.Image, model: str
) -> Float[np.ndarray, "layers heads tokens rows columns"] | None:
    """Return the attention of every token to each patch for the Attention tab; `None` without attention.

    The attention to prefix tokens such as the class token is left out, as those have no position on the photo.
    """
    tokens = service.catalog.get(model).tokens
    attention = service.get_attention(photo, model)
    if tokens is None or not attention:
        return None
    stacked = np.stack([weights.numpy()[:, :, tokens.num_prefix_tokens :] for weights in attention.values()])
    return stacked.reshape(
        *stacked.shape[:-1], *tokens.grid
    )  # (layers, heads, tokens, patches) -> (..., rows, columns)


def compute_content(
    service: AnalysisService, photo: Image.Image | None, selection: Selection | None, layer: int | None = None
) -> tuple[dict[str, Any], str]:
    """Return the content of the Attention tab: patch grid and caption, or the reason why there is no grid.

    `layer` is the layer whose heads are sent where those of all layers would be too many bytes.
    """
    if photo is None or selection is None:
        return {}, build_no_photo_caption()
    model = service.catalog.get(selection.model)
    maps = compute_attention_maps(service, photo, selection.model)
    if maps is None or model.tokens is None:
        return {}, explain_missing_patch_grid(service, selection.model)
    geometry = model.preprocessing.geometry(photo)
    similarity = service.get_kernels(selection.model).position_similarity
    value = build_patches(
        maps,
        photo,
        geometry,
        names=model.tokens.names,
        label=translate("attention.photo"),
        position_similarity=None if similarity is None else similarity.flatten(0, 1).numpy(),
        key=f"{selection.photo} {selection.model}",
        layer=layer,
    )
    return value, build_caption(
        translate("attention.heading"), translate("attention.means"), translate("attention.means-not")
    )


def explain_missing_patch_grid(service: AnalysisService, name: str) -> str:
    """Return the reason why the Attention tab has no patch grid: windows, other tokens, or no attention."""
    model = service.catalog.get(name)
    if size := get_attention_window_size(model):
        sentence = translate("attention.windows", model=name, size=" × ".join(map(str, size)), count=size[0] * size[1])
        return build_caption(translate("attention.windows-heading"), sentence, translate("attention.windows-not"))
    if model.attention_layers:
        return build_caption(translate("attention.none-here"), translate("attention.grids", model=name))
    has_receptive_fields = bool(service.get_receptive_fields(name))  # which are drawn below
    return build_caption(
        translate("attention.none"),
        translate("attention.convolutions" if has_receptive_fields else "attention.no-softmax", model=name),
    )


def get_attention_window_size(model: vizlib.Model) -> tuple[int, int] | None:
    """Return rows and columns of the windows of the first attention layer; `None` without windows."""
    if not model.attention_layers:
        return None
    size = getattr(model.module.get_submodule(model.attention_layers[0]), "window_size", None)
    return (int(size[0]), int(size[1])) if isinstance(size, Sequence) and len(size) == 2 else None


def build_attention_flow(
    service: AnalysisService, photo: Image.Image | None, selection: Selection | None
) -> tuple[dict[str, Any], str]:
    """Return the Attention tab's raw attention beside rollout and relevance, and the caption; empty without any."""
    layers = [] if photo is None or selection is None else list(service.get_attention(photo, selection.model))
    if photo is None or selection is None or not layers:
        return {}, ""
    attributions = service.explain_all(selection.make_request(photo))
    items, scales = [], []
    for method in filter(attributions.__contains__, FLOW_METHODS):
        attribution, name = attributions[method], translate(f"attention.{method}")
        steps = (
            [attribution.by_layer.get(layer, attribution) for layer in layers]
            if attribution.by_layer
            else [attribution]
        )
        heats = np.stack([step.heat.numpy() for step in steps])
        scales.append(
            ColourScale(name, [compute_limits(heat, signed=attribution.signed) for heat in heats], attribution.signed)
        )
        items.append(
            build_linked_item(
                name,
                heats,
                encode_input_box(attribution.geometry),
                len(scales) - 1,
                alt=build_heatmap_alt_text(attribution),
                text=translate_method_description(METHODS[method])[0],
                smooth=not attribution.patch_values,
            )
        )
    value = build_linked_heatmaps([("", items)], scales, photo, label=translate("attention.three"), follows="layer")
    return value, build_caption(translate("attention.three-heading"), translate("attention.three-text"))


def build_tab(context: TabContext) -> None:
    """Build the Attention tab: caption, patch grid, attention methods; receptive fields of convolutional networks."""
    caption = gr.HTML(elem_id="attention-caption", apply_default_css=False)
    grid = custom_component("patches", elem_id="attention-patches")
    flow_caption = gr.HTML(elem_id="attention-why", elem_classes="viz-section", apply_default_css=False)
    flow = custom_component("linked_heatmaps", elem_id="attention-flow")

    def update(photo: Image.Image | None, selection: Selection | None) -> tuple:
        return compute_content(context.service, photo, selection)

    def send_heads(photo: Image.Image | None, selection: Selection | None, event: gr.SelectData) -> dict[str, Any]:
        return compute_content(
            context.service, photo, selection, event.index if isinstance(event.index, int) else None
        )[0]

    def update_flow(photo: Image.Image | None, selection: Selection | None) -> tuple:
        return build_attention_flow(context.service, photo, selection)

    context.on_photo_or_model(update, [], [grid, caption])
    context.on_event(grid.select, send_heads, [], [grid])
    context.on_selection(update_flow, [], [flow, flow_caption])
    receptive_field.build_tab(context)
