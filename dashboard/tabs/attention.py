"""Attention: point at a patch and see what it looks at, in every layer and head."""

from __future__ import annotations

from typing import Any

import gradio as gr
import numpy as np
from jaxtyping import Float
from PIL import Image

from dashboard.components.base import part
from dashboard.components.patches import patches
from dashboard.shared import Selection, Shared
from dashboard.study import Study
from dashboard.tabs import receptive
from dashboard.words import NO_PHOTO, caption

TITLE = "Attention"
MEANS = (
    "Point at a patch to see which patches it reads from. "
    "Click to keep it; the arrow keys move it, [\u00a0and\u00a0] change the layer."
)
MEANS_NOT = "Attention says where a patch looks, not what it does with what it finds there, and it knows no class."


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


def draw(study: Study, photo: Image.Image | None, selection: Selection | None) -> tuple[dict[str, Any], str]:
    """The patch grid, and what it means; for a convolutional network why there is none."""
    if photo is None or selection is None:
        return {}, caption("No photo yet", NO_PHOTO)
    model = study.catalog.get(selection.model)
    every = maps(study, photo, selection.model)
    if every is None or model.tokens is None:
        return {}, caption(
            "No attention here",
            f"{model.name} is built of convolutions: each place sees only its neighbours, so there is no attention to "
            "show. Choose a ViT on the left, or see what its channels respond to under Inside.",
        )
    geometry = model.preprocessing.geometry(photo)
    value = patches(
        every,
        photo,
        geometry,
        names=model.tokens.names,
        label="The photo in patches: arrow keys move, brackets change the layer",
        verb="looks most at",
    )
    return value, caption("Where does a patch look?", MEANS, MEANS_NOT)


def build(shared: Shared) -> None:
    """The words, then the grid."""
    words = gr.HTML(elem_id="attention-words", apply_default_css=False)
    grid = part("patches", elem_id="attention-patches")

    def again(photo: Image.Image | None, selection: Selection | None) -> tuple:
        return draw(shared.study, photo, selection)

    shared.on_view(again, [], [grid, words])
    receptive.build(shared)  # a convolutional network's part of this tab
