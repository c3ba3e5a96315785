"""Attention: point at a patch and see what it looks at, in every layer and head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gradio as gr
import numpy as np
from jaxtyping import Float
from PIL import Image

import vizlib
from dashboard.components.base import compute_input_box, custom_component
from dashboard.components.captions import build_alt_text, build_caption, build_no_photo_caption
from dashboard.components.linked_heatmaps import ColourScale, build_item, build_linked_heatmaps
from dashboard.components.patches import build_patches
from dashboard.i18n.translate import describe_method, translate
from dashboard.services.analysis_service import AnalysisService
from dashboard.state.context import TabContext
from dashboard.state.selection import Selection
from dashboard.tabs import receptive_field as receptive
from vizlib.attribution.methods.registry import METHODS
from vizlib.render.color_scale import compute_limits

TITLE = "Attention"
FLOW = ("raw-attention", "attention-rollout", "attention-relevance")  # from the answer back to the patches


def maps(
    service: AnalysisService, photo: Image.Image, model: str
) -> Float[np.ndarray, "layers heads tokens rows columns"] | None:
    """How much every token takes from each patch, by layer and head; None for a network without attention.

    What a token takes from the class token is left out, as it has no place on the photo.
    """
    tokens = service.catalog.get(model).tokens
    found = service.get_attention(photo, model)
    if tokens is None or not found:
        return None
    every = np.stack([weights.numpy()[:, :, tokens.num_prefix_tokens :] for weights in found.values()])
    return every.reshape(*every.shape[:-1], *tokens.grid)  # (layers, heads, tokens, patches) -> (..., rows, columns)


def draw(
    service: AnalysisService, photo: Image.Image | None, selection: Selection | None, layer: int | None = None
) -> tuple[dict[str, Any], str]:
    """The patch grid, and what it means; for a network without one grid of patches why there is none.

    `layer` is the one whose heads are sent where all would be too many bytes.
    """
    if photo is None or selection is None:
        return {}, build_no_photo_caption()
    model = service.catalog.get(selection.model)
    every = maps(service, photo, selection.model)
    if every is None or model.tokens is None:
        return {}, none_because(service, selection.model)
    geometry = model.preprocessing.geometry(photo)
    similar = service.get_kernels(selection.model).position_similarity
    value = build_patches(
        every,
        photo,
        geometry,
        names=model.tokens.names,
        label=translate("attention.photo"),
        position_similarity=None if similar is None else similar.flatten(0, 1).numpy(),
        key=f"{selection.photo} {selection.model}",
        layer=layer,
    )
    return value, build_caption(
        translate("attention.heading"), translate("attention.means"), translate("attention.means-not")
    )


def none_because(service: AnalysisService, name: str) -> str:
    """Why there is no grid of patches to point at: windows, other tokens, or no attention at all."""
    model = service.catalog.get(name)
    if side := window(model):
        sentence = translate("attention.windows", model=name, size=" × ".join(map(str, side)), count=side[0] * side[1])
        return build_caption(translate("attention.windows-heading"), sentence, translate("attention.windows-not"))
    if model.attention_layers:
        return build_caption(translate("attention.none-here"), translate("attention.grids", model=name))
    convolutions = bool(service.get_receptive_fields(name))  # whose receptive fields are drawn below
    return build_caption(
        translate("attention.none"),
        translate("attention.convolutions" if convolutions else "attention.no-softmax", model=name),
    )


def window(model: vizlib.Model) -> tuple[int, int] | None:
    """The rows and columns of the window that the first attention layer looks in; `None` where it sees everything."""
    if not model.attention_layers:
        return None
    side = getattr(model.module.get_submodule(model.attention_layers[0]), "window_size", None)
    return (int(side[0]), int(side[1])) if isinstance(side, Sequence) and len(side) == 2 else None


def flow(
    service: AnalysisService, photo: Image.Image | None, selection: Selection | None
) -> tuple[dict[str, Any], str]:
    """Raw attention of every layer beside rollout and relevance, and why they differ; nothing without attention."""
    layers = [] if photo is None or selection is None else list(service.get_attention(photo, selection.model))
    if photo is None or selection is None or not layers:
        return {}, ""
    known = service.explain_all(selection.request(photo))
    items, scales = [], []
    for method in filter(known.__contains__, FLOW):
        answer, name = known[method], translate(f"attention.{method}")
        steps = [answer.by_layer.get(layer, answer) for layer in layers] if answer.by_layer else [answer]
        heats = np.stack([one.heat.numpy() for one in steps])
        scales.append(ColourScale(name, [compute_limits(heat, signed=answer.signed) for heat in heats], answer.signed))
        items.append(
            build_item(
                name,
                heats,
                compute_input_box(answer.geometry),
                len(scales) - 1,
                alt=build_alt_text(answer),
                text=describe_method(METHODS[method])[0],
                smooth=not answer.patch_values,
            )
        )
    value = build_linked_heatmaps([("", items)], scales, photo, label=translate("attention.three"), follows="layer")
    return value, build_caption(translate("attention.three-heading"), translate("attention.three-text"))


def build(shared: TabContext) -> None:
    """The words, the grid, and below them what follows attention to the answer."""
    words = gr.HTML(elem_id="attention-caption", apply_default_css=False)
    grid = custom_component("patches", elem_id="attention-patches")
    why = gr.HTML(elem_id="attention-why", elem_classes="viz-section", apply_default_css=False)
    three = custom_component("linked_heatmaps", elem_id="attention-flow")

    def again(photo: Image.Image | None, selection: Selection | None) -> tuple:
        return draw(shared.service, photo, selection)

    def heads(photo: Image.Image | None, selection: Selection | None, event: gr.SelectData) -> dict[str, Any]:
        return draw(shared.service, photo, selection, event.index if isinstance(event.index, int) else None)[0]

    def below(photo: Image.Image | None, selection: Selection | None) -> tuple:
        return flow(shared.service, photo, selection)

    shared.on_photo_or_model(again, [], [grid, words])
    shared.on_event(grid.select, heads, [], [grid])
    shared.on_selection(below, [], [three, why])
    receptive.build(shared)  # a convolutional network's part of this tab
