"""Attention: point at a patch and see what it looks at, in every layer and head."""

from __future__ import annotations

from typing import Any

import gradio as gr
import numpy as np
from jaxtyping import Float
from PIL import Image

from dashboard.components.base import box_of, part
from dashboard.components.linked import Scale, item, linked
from dashboard.components.patches import patches
from dashboard.selection import Selection
from dashboard.shared import Shared
from dashboard.study import Study
from dashboard.tabs import receptive
from dashboard.words import NO_PHOTO, alternative, caption
from vizlib import render
from vizlib.methods.registry import METHODS

TITLE = "Attention"
MEANS = (
    "Point at a patch to see which patches it reads from. Click to pin it, click another to compare the two; Escape or "
    "a second click lets go. The arrow keys move, Enter pins, [\u00a0and\u00a0] change the layer."
)
MEANS_NOT = "Attention says where a patch looks, not what it does with what it finds there, and it knows no class."

FLOW = {  # what follows attention from the answer back to the patches, and what a person calls it
    "raw-attention": "Raw attention",
    "attention-rollout": "Attention rollout",
    "attention-relevance": "Attention relevance",
}
DIFFER = (
    "All three start at the token the answer is read from. Raw attention is one step back, in the layer chosen above; "
    "rollout takes every step back to the photo and counts all heads alike; relevance takes the same steps, but counts "
    "each head by how much it raised the score of the chosen class. So only the last one changes with the class."
)


def maps(study: Study, photo: Image.Image, model: str) -> Float[np.ndarray, "layers heads tokens rows columns"] | None:
    """How much every token takes from each patch, by layer and head; None for a network without attention.

    What a token takes from the class token is left out, as it has no place on the photo.
    """
    tokens = study.catalog.get(model).tokens
    found = study.attention(photo, model)
    if tokens is None or not found:
        return None
    every = np.stack([weights.numpy()[:, :, tokens.prefix :] for weights in found.values()])
    return every.reshape(*every.shape[:-1], *tokens.grid)  # (layers, heads, tokens, patches) -> (..., rows, columns)


def draw(
    study: Study, photo: Image.Image | None, selection: Selection | None, layer: int | None = None
) -> tuple[dict[str, Any], str]:
    """The patch grid, and what it means; for a convolutional network why there is none.

    `layer` is the one whose heads are sent where all would be too many bytes.
    """
    if photo is None or selection is None:
        return {}, caption("No photo yet", NO_PHOTO)
    model = study.catalog.get(selection.model)
    every = maps(study, photo, selection.model)
    if every is None or model.tokens is None:
        return {}, caption(
            "No attention here",
            f"{model.name} is built of convolutions: each place sees only its neighbours, so there is no attention to "
            "show. How far each place does see stands just below; for attention choose a ViT on the left.",
        )
    geometry = model.preprocessing.geometry(photo)
    similar = study.kernels(selection.model).position_similarity
    value = patches(
        every,
        photo,
        geometry,
        names=model.tokens.names,
        label="The photo in patches: arrow keys move, Enter pins, brackets change the layer",
        verb="looks most at",
        places=None if similar is None else similar.flatten(0, 1).numpy(),
        key=f"{selection.photo} {selection.model}",
        layer=layer,
    )
    return value, caption("Where does a patch look?", MEANS, MEANS_NOT)


def flow(study: Study, photo: Image.Image | None, selection: Selection | None) -> tuple[dict[str, Any], str]:
    """Raw attention of every layer beside rollout and relevance, and why they differ; nothing without attention."""
    layers = [] if photo is None or selection is None else list(study.attention(photo, selection.model))
    if photo is None or selection is None or not layers:
        return {}, ""
    known = study.explanations(photo, selection.model, selection.target, selection.against)
    items, scales = [], []
    for method, name in FLOW.items():
        if method not in known:
            continue
        answer = known[method]
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
                text=METHODS[method].means,
                smooth=not answer.patches,
            )
        )
    value = linked([("", items)], scales, photo, label="Three readings of attention", follows="layer")
    return value, caption("Three ways to read it", DIFFER)


def build(shared: Shared) -> None:
    """The words, the grid, and below them what follows attention to the answer."""
    words = gr.HTML(elem_id="attention-words", apply_default_css=False)
    grid = part("patches", elem_id="attention-patches")
    why = gr.HTML(elem_id="attention-why", elem_classes="viz-section", apply_default_css=False)
    three = part("linked", elem_id="attention-flow")

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
