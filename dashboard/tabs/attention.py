"""Attention: point at a patch and see what it looks at, in every layer and head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gradio as gr
import numpy as np
from jaxtyping import Float
from PIL import Image

import vizlib
from dashboard.components.base import box_of, part
from dashboard.components.captions import alternative, caption, nothing_yet
from dashboard.components.linked_heatmaps import Scale, item, linked
from dashboard.components.patches import patches
from dashboard.i18n.translate import describe_method, translate
from dashboard.services.analysis_service import Study
from dashboard.state.context import Shared
from dashboard.state.selection import Selection
from dashboard.tabs import receptive_field as receptive
from vizlib.attribution.methods.registry import METHODS
from vizlib.render import overlay as render

TITLE = "Attention"
FLOW = ("raw-attention", "attention-rollout", "attention-relevance")  # from the answer back to the patches


def maps(study: Study, photo: Image.Image, model: str) -> Float[np.ndarray, "layers heads tokens rows columns"] | None:
    """How much every token takes from each patch, by layer and head; None for a network without attention.

    What a token takes from the class token is left out, as it has no place on the photo.
    """
    tokens = study.catalog.get(model).tokens
    found = study.attention(photo, model)
    if tokens is None or not found:
        return None
    every = np.stack([weights.numpy()[:, :, tokens.num_prefix_tokens :] for weights in found.values()])
    return every.reshape(*every.shape[:-1], *tokens.grid)  # (layers, heads, tokens, patches) -> (..., rows, columns)


def draw(
    study: Study, photo: Image.Image | None, selection: Selection | None, layer: int | None = None
) -> tuple[dict[str, Any], str]:
    """The patch grid, and what it means; for a network without one grid of patches why there is none.

    `layer` is the one whose heads are sent where all would be too many bytes.
    """
    if photo is None or selection is None:
        return {}, nothing_yet()
    model = study.catalog.get(selection.model)
    every = maps(study, photo, selection.model)
    if every is None or model.tokens is None:
        return {}, none_because(study, selection.model)
    geometry = model.preprocessing.geometry(photo)
    similar = study.kernels(selection.model).position_similarity
    value = patches(
        every,
        photo,
        geometry,
        names=model.tokens.names,
        label=translate("attention.photo"),
        places=None if similar is None else similar.flatten(0, 1).numpy(),
        key=f"{selection.photo} {selection.model}",
        layer=layer,
    )
    return value, caption(
        translate("attention.heading"), translate("attention.means"), translate("attention.means-not")
    )


def none_because(study: Study, name: str) -> str:
    """Why there is no grid of patches to point at: windows, other tokens, or no attention at all."""
    model = study.catalog.get(name)
    if side := window(model):
        sentence = translate("attention.windows", model=name, size=" × ".join(map(str, side)), count=side[0] * side[1])
        return caption(translate("attention.windows-heading"), sentence, translate("attention.windows-not"))
    if model.attention_layers:
        return caption(translate("attention.none-here"), translate("attention.grids", model=name))
    convolutions = bool(study.fields(name))  # whose receptive fields are drawn below
    return caption(
        translate("attention.none"),
        translate("attention.convolutions" if convolutions else "attention.no-softmax", model=name),
    )


def window(model: vizlib.Model) -> tuple[int, int] | None:
    """The rows and columns of the window that the first attention layer looks in; `None` where it sees everything."""
    if not model.attention_layers:
        return None
    side = getattr(model.module.get_submodule(model.attention_layers[0]), "window_size", None)
    return (int(side[0]), int(side[1])) if isinstance(side, Sequence) and len(side) == 2 else None


def flow(study: Study, photo: Image.Image | None, selection: Selection | None) -> tuple[dict[str, Any], str]:
    """Raw attention of every layer beside rollout and relevance, and why they differ; nothing without attention."""
    layers = [] if photo is None or selection is None else list(study.attention(photo, selection.model))
    if photo is None or selection is None or not layers:
        return {}, ""
    known = study.explanations(photo, selection.model, selection.target, selection.against)
    items, scales = [], []
    for method in filter(known.__contains__, FLOW):
        answer, name = known[method], translate(f"attention.{method}")
        steps = [answer.by_layer.get(layer, answer) for layer in layers] if answer.by_layer else [answer]
        heats = np.stack([one.heat.numpy() for one in steps])
        scales.append(Scale(name, [render.limits_of(heat, signed=answer.signed) for heat in heats], answer.signed))
        items.append(
            item(
                name,
                heats,
                box_of(answer.geometry),
                len(scales) - 1,
                alt=alternative(answer),
                text=describe_method(METHODS[method])[0],
                smooth=not answer.patches,
            )
        )
    value = linked([("", items)], scales, photo, label=translate("attention.three"), follows="layer")
    return value, caption(translate("attention.three-heading"), translate("attention.differ"))


def build(shared: Shared) -> None:
    """The words, the grid, and below them what follows attention to the answer."""
    words = gr.HTML(elem_id="attention-words", apply_default_css=False)
    grid = part("patches", elem_id="attention-patches")
    why = gr.HTML(elem_id="attention-why", elem_classes="viz-section", apply_default_css=False)
    three = part("linked_heatmaps", elem_id="attention-flow")

    def again(photo: Image.Image | None, selection: Selection | None) -> tuple:
        return draw(shared.study, photo, selection)

    def heads(photo: Image.Image | None, selection: Selection | None, event: gr.SelectData) -> dict[str, Any]:
        return draw(shared.study, photo, selection, event.index if isinstance(event.index, int) else None)[0]

    def below(photo: Image.Image | None, selection: Selection | None) -> tuple:
        return flow(shared.study, photo, selection)

    shared.on_view(again, [], [grid, words])
    shared.on(grid.select, heads, [], [grid])
    shared.on_selection(below, [], [three, why])
    receptive.build(shared)  # a convolutional network's part of this tab
