"""The lower part of Inside: the kernels that read the pixels, and how a transformer tells its places apart."""

from __future__ import annotations

from typing import Any

import gradio as gr
from PIL import Image

from dashboard.components.base import custom_component
from dashboard.components.captions import build_caption
from dashboard.components.heatmap import build_heatmap
from dashboard.components.kernels import MAX_KERNELS, build_kernel_grid
from dashboard.components.patches import SIMILARITY, build_patches
from dashboard.i18n.translate import translate
from dashboard.services.analysis_service import AnalysisService
from dashboard.state.context import TabContext
from dashboard.state.selection import Selection


def draw(
    service: AnalysisService, photo: Image.Image | None, selection: Selection | None, chosen: int | None = None
) -> tuple:
    """The words, the kernels as buttons, and what one of them answers on this photo."""
    if photo is None or selection is None:
        return "", {}, {}
    model = service.catalog.get(selection.model)
    found = service.get_kernels(selection.model)
    answers = service.get_activations(photo, selection.model, found.layer).maps[:MAX_KERNELS]
    if chosen is None or not 0 <= chosen < len(answers):
        chosen = int(answers.std((1, 2)).argmax())
    count, _, height, width = found.weights.shape
    values = answers[chosen].numpy()
    apart = model.tokens is not None  # patches do not overlap, so nothing lies between two of them
    words = build_caption(
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
        build_kernel_grid(found.weights.numpy(), chosen, label=label, caption=number),
        build_heatmap(
            values, photo, model.preprocessing.geometry(photo), signed=True, smooth=not apart, alt=alt, file=name
        ),
    )


def places(
    service: AnalysisService, photo: Image.Image | None, selection: Selection | None
) -> tuple[dict[str, Any], str]:
    """How alike the position embeddings of a transformer's patches are; nothing for other networks."""
    similar = None if photo is None or selection is None else service.get_kernels(selection.model).position_similarity
    if photo is None or selection is None or similar is None:
        return {}, ""
    rows, columns = similar.shape[:2]
    geometry = service.catalog.get(selection.model).preprocessing.geometry(photo)
    every = similar.numpy().reshape(1, 1, rows * columns, rows, columns)
    value = build_patches(every, photo, geometry, signed=True, label=translate("kernels.places"), sentence=SIMILARITY)
    return value, build_caption(
        translate("kernels.places-heading"), translate("kernels.places-means"), translate("kernels.places-learned")
    )


def build(shared: TabContext) -> None:
    """The kernels beside what one of them answers; below, a transformer's places."""
    words = gr.HTML(elem_classes="viz-section", apply_default_css=False)
    with gr.Row(equal_height=False):
        with gr.Column(scale=5, min_width=300):
            every = custom_component("kernels", elem_id="inside-kernels")
        with gr.Column(scale=6, min_width=320):
            answer = custom_component("heatmap", elem_id="inside-kernel")
    with gr.Row(equal_height=False, elem_classes="viz-section"):
        with gr.Column(scale=5, min_width=280):
            place_words = gr.HTML(apply_default_css=False)
        with gr.Column(scale=6, min_width=320):
            similar = custom_component("patches", elem_id="inside-position-similarity")

    def again(photo: Image.Image | None, selection: Selection | None) -> tuple:
        return *draw(shared.service, photo, selection), *places(shared.service, photo, selection)

    def clicked(photo: Image.Image | None, selection: Selection | None, event: gr.SelectData) -> tuple:
        return draw(shared.service, photo, selection, event.index if isinstance(event.index, int) else None)

    shared.on_photo_or_model(again, [], [words, every, answer, similar, place_words])
    shared.on_event(every.select, clicked, [], [words, every, answer])
