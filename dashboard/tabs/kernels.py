"""The lower part of Inside: the kernels that read the pixels, and how a transformer tells its places apart."""

from __future__ import annotations

from typing import Any

import gradio as gr
from PIL import Image

from dashboard.components.base import part
from dashboard.components.captions import caption
from dashboard.components.heatmap import heat
from dashboard.components.kernels import MOST, kernels
from dashboard.components.patches import LIKE, patches
from dashboard.i18n.translate import translate
from dashboard.services.analysis_service import Study
from dashboard.state.context import Shared
from dashboard.state.selection import Selection


def draw(study: Study, photo: Image.Image | None, selection: Selection | None, chosen: int | None = None) -> tuple:
    """The words, the kernels as buttons, and what one of them answers on this photo."""
    if photo is None or selection is None:
        return "", {}, {}
    model = study.catalog.get(selection.model)
    found = study.kernels(selection.model)
    answers = study.activations(photo, selection.model, found.layer)[0][:MOST]
    if chosen is None or not 0 <= chosen < len(answers):
        chosen = int(answers.std((1, 2)).argmax())
    count, _, height, width = found.weights.shape
    values = answers[chosen].numpy()
    apart = model.tokens is not None  # patches do not overlap, so nothing lies between two of them
    words = caption(
        translate("kernels.heading"),
        translate("kernels.means", count=count, layer=found.layer, size=f"{height} × {width}"),
    )
    low, high = (f"{value:.3g}".replace("-", "\u2212") for value in (values.min(), values.max()))
    alt = translate("kernels.alt", kernel=chosen, layer=found.layer, low=low, high=high)
    name = f"{selection.model}_kernel_{chosen}.png".replace("/", "-")
    number = translate("kernels.number", kernel=chosen, low=low, high=high)
    label = translate("kernels.label", layer=found.layer)
    return (
        words,
        kernels(found.weights.numpy(), chosen, label=label, caption=number),
        heat(values, photo, model.preprocessing.geometry(photo), signed=True, smooth=not apart, alt=alt, file=name),
    )


def places(study: Study, photo: Image.Image | None, selection: Selection | None) -> tuple[dict[str, Any], str]:
    """How alike the position embeddings of a transformer's patches are; nothing for other networks."""
    similar = None if photo is None or selection is None else study.kernels(selection.model).position_similarity
    if photo is None or selection is None or similar is None:
        return {}, ""
    rows, columns = similar.shape[:2]
    geometry = study.catalog.get(selection.model).preprocessing.geometry(photo)
    every = similar.numpy().reshape(1, 1, rows * columns, rows, columns)
    value = patches(every, photo, geometry, signed=True, label=translate("kernels.places"), says=LIKE)
    return value, caption(
        translate("kernels.places-heading"), translate("kernels.places-means"), translate("kernels.places-learned")
    )


def build(shared: Shared) -> None:
    """The kernels beside what one of them answers; below, a transformer's places."""
    words = gr.HTML(elem_classes="viz-section", apply_default_css=False)
    with gr.Row(equal_height=False):
        with gr.Column(scale=5, min_width=300):
            every = part("kernels", elem_id="inside-kernels")
        with gr.Column(scale=6, min_width=320):
            answer = part("heatmap", elem_id="inside-kernel")
    with gr.Row(equal_height=False, elem_classes="viz-section"):
        with gr.Column(scale=5, min_width=280):
            place_words = gr.HTML(apply_default_css=False)
        with gr.Column(scale=6, min_width=320):
            similar = part("patches", elem_id="inside-places")

    def again(photo: Image.Image | None, selection: Selection | None) -> tuple:
        return *draw(shared.study, photo, selection), *places(shared.study, photo, selection)

    def clicked(photo: Image.Image | None, selection: Selection | None, event: gr.SelectData) -> tuple:
        return draw(shared.study, photo, selection, event.index if isinstance(event.index, int) else None)

    shared.on_view(again, [], [words, every, answer, similar, place_words])
    shared.on(every.select, clicked, [], [words, every, answer])
