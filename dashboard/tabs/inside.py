"""Inside: what the channels of any layer respond to, the first kernels, and how a transformer tells places apart."""

from __future__ import annotations

from typing import Any

import gradio as gr
import numpy as np
from PIL import Image

import vizlib
from dashboard.components.base import part
from dashboard.components.figure import figure
from dashboard.components.heat import heat
from dashboard.components.patches import patches
from dashboard.components.thumbs import thumb, thumbs
from dashboard.shared import Selection, Shared
from dashboard.study import Study
from dashboard.words import NO_PHOTO, caption
from vizlib import render

TITLE = "Inside"
MOST = 48  # channels on a sheet; a ResNet-50 stage has 2,048
PASSIVE = ("Identity", "Dropout", "DropPath")  # layers that hand on what they are given


def layers(model: vizlib.Model) -> list[tuple[str, str]]:
    """The layers to choose from: what a person reads, and PyTorch's name."""
    return [
        (f"{layer.name} · {layer.kind} · {' × '.join(map(str, layer.shape))}", layer.name)
        for layer in model.layers
        if layer.shape and not layer.kind.startswith(PASSIVE)
    ]


def layer_of(model: vizlib.Model, wanted: str | None) -> str:
    """The layer that was chosen if this model has it, else the one class activation maps are drawn from."""
    names = [name for _, name in layers(model)]
    return wanted if wanted in names else model.cam_layer or names[-1]


def order(maps: np.ndarray) -> list[int]:
    """The channels, first those that differ most from place to place; without places, those that respond most.

    A transformer's largest channels are often the same everywhere, and say nothing about the photo.
    """
    weight = maps.std((1, 2)) if maps[0].size > 1 else np.abs(maps[:, 0, 0])
    return np.argsort(-weight, kind="stable").tolist()


def sheet(study: Study, photo: Image.Image, model: str, layer: str, chosen: int) -> dict[str, Any]:
    """The first channels of a layer as buttons, all on one scale."""
    maps = study.activations(photo, model, layer)[0].numpy()
    shown = order(maps)[:MOST]
    signed = bool(maps.min() < 0)
    limits = render.limits_of(maps[shown], signed=signed)
    items = [thumb(str(i), str(i), maps[i], limits, signed=signed, smooth=False) for i in shown]
    return thumbs(items, str(chosen), label=f"Channels of {layer}", small=True)


def channel(study: Study, photo: Image.Image, model: str, layer: str, chosen: int) -> dict[str, Any]:
    """One channel on the photo; nothing for a layer whose output has no places."""
    maps, placed = study.activations(photo, model, layer)
    if not placed:
        return {}
    values = maps[chosen].numpy()
    alt = f"Channel {chosen} of {layer} on the photo; it responds up to {values.max():.3g}."
    geometry = study.catalog.get(model).preprocessing.geometry(photo)
    name = f"{model}_{layer}_{chosen}.png".replace("/", "-")
    return heat(values, photo, geometry, signed=bool(maps.min() < 0), smooth=True, alt=alt, file=name)


def about(study: Study, photo: Image.Image, model: str, layer: str, chosen: int) -> str:
    """What the sheet shows, in words."""
    maps, placed = study.activations(photo, model, layer)
    shape = " × ".join(map(str, maps.shape[1:]))
    count = f"{len(maps)} channels" if len(maps) <= MOST else f"{len(maps)} channels, here the {MOST} liveliest"
    where = f"each a map of {shape}" if placed else "each a single number, without a place on the photo"
    low, high = maps[chosen].min().item(), maps[chosen].max().item()
    colours = (
        "red is where a channel responds, blue where it is held back"
        if maps.min() < 0
        else "bright is where a channel responds"
    )
    return caption(
        f"Channel {chosen} of {layer}",
        f"{count}, {where}: {colours}. On this photo this one goes from {low:.3g} to {high:.3g}.".replace("-", "−"),
        "A channel that fires is not yet a reason: what counts is what the layers after it make of it.",
    )


def kernels(study: Study, model: str) -> tuple[dict[str, Any], str]:
    """The kernels that read the pixels, and what they are."""
    found = study.kernels(model)
    count, _, height, width = found.weights.shape
    columns = 24 if count > 128 else 16
    picture = render.kernel_sheet(found.weights.numpy(), cell=40, columns=columns)
    value = figure(
        picture,
        f"{found.layer}: {count} kernels of {height} × {width} pixels, on one scale; grey is zero.",
        alt=f"The {count} kernels of {found.layer} as coloured squares",
        fit="wide",
        file=f"{model}_kernels.png".replace("/", "-"),
    )
    return value, caption(
        "The first thing it looks for",
        "Each square is one kernel as it lies on the photo: it responds to places that look like it.",
    )


def places(study: Study, photo: Image.Image, model: str) -> dict[str, Any]:
    """How alike the position embeddings of a transformer's patches are; nothing for other networks."""
    similar = study.kernels(model).position_similarity
    if similar is None:
        return {}
    rows, columns = similar.shape[:2]
    geometry = study.catalog.get(model).preprocessing.geometry(photo)
    every = similar.numpy().reshape(1, 1, rows * columns, rows, columns)
    return patches(
        every, photo, geometry, signed=True, label="Similarity of places: arrow keys move", verb="is most like"
    )


def draw(
    study: Study, photo: Image.Image | None, selection: Selection | None, layer: str | None, chosen: int | None = None
) -> tuple:
    """What depends on the layer: the menu, the words, the channel on the photo, the sheet."""
    if photo is None or selection is None:
        return gr.update(), "", {"empty": NO_PHOTO}, {}
    model = study.catalog.get(selection.model)
    layer = layer_of(model, layer)
    count = len(study.activations(photo, selection.model, layer)[0])
    if chosen is None or not 0 <= chosen < count:
        chosen = order(study.activations(photo, selection.model, layer)[0].numpy())[0]
    which = (study, photo, selection.model, layer, chosen)
    return gr.update(choices=layers(model), value=layer), about(*which), channel(*which), sheet(*which)


def fixed(study: Study, photo: Image.Image | None, selection: Selection | None) -> tuple:
    """What depends on the model alone: its kernels, and how it tells places apart."""
    if photo is None or selection is None:
        return {}, "", {}, ""
    similar = places(study, photo, selection.model)
    words = caption(
        "How it tells places apart",
        "Point at a patch: red patches have a position embedding like its own, blue ones an opposite one.",
        "The network learned this by itself; nobody told it which patches are neighbours.",
    )
    return *kernels(study, selection.model), similar, words if similar else ""


def build(shared: Shared) -> None:
    """The channels of a layer above, what every photo meets below."""
    with gr.Row(equal_height=False):
        with gr.Column(scale=6, min_width=320):
            onto = part("heat", elem_id="inside-heat")
        with gr.Column(scale=5, min_width=300):
            layer = gr.Dropdown([], label="Layer", elem_id="layer", interactive=True)
            words = gr.HTML(elem_id="inside-words", apply_default_css=False)
    channels = part("thumbs", elem_id="inside-channels")
    kernel_words = gr.HTML(elem_classes="viz-section", apply_default_css=False)
    first = part("figure", elem_id="inside-kernels")
    with gr.Row(equal_height=False, elem_classes="viz-section"):
        with gr.Column(scale=5, min_width=280):
            place_words = gr.HTML(apply_default_css=False)
        with gr.Column(scale=6, min_width=320):
            similar = part("patches", elem_id="inside-places")
    outputs = [layer, words, onto, channels]

    def again(photo: Image.Image | None, selection: Selection | None, layer: str | None) -> tuple:
        return draw(shared.study, photo, selection, layer)

    def clicked(
        photo: Image.Image | None, selection: Selection | None, layer: str | None, event: gr.SelectData
    ) -> tuple:
        return draw(shared.study, photo, selection, layer, int(event.index) if str(event.index).isdigit() else None)

    def below(photo: Image.Image | None, selection: Selection | None) -> tuple:
        return fixed(shared.study, photo, selection)

    shared.on_view(again, [layer], outputs)
    shared.on(layer.input, again, [layer], outputs)
    shared.on(channels.select, clicked, [layer], outputs)
    shared.on_view(below, [], [first, kernel_words, similar, place_words])
