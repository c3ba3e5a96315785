"""What goes on inside: hooks, kernels, activations, patches and places."""

from __future__ import annotations

import math

import numpy as np
import torch

from dashboard.tabs.lessons.base import Asked, Lesson, by, heat, liveliest, number, still
from vizlib.capture import compute_gradients
from vizlib.render.color_scale import compute_limits
from vizlib.render.image_grid import GRID_GAP_PIXELS, draw_image_grid, draw_kernel_grid
from vizlib.render.overlay import draw_box

CHANNELS = 6
CODE = """\
kept = []
layer = network.get_submodule("{layer}")
hook = layer.register_forward_hook(lambda layer, given, output: kept.append(output))
logits = network(photo)
hook.remove()  # kept[0] is a tensor of {shape}"""


def hook(asked: Asked) -> Lesson:
    """What a hook is: the output of the first stage, and how to get hold of it."""
    layer = next(layer for layer in asked.model.layers if layer.name == asked.depths()[0])
    maps = asked.study.get_activations(asked.photo, asked.name, layer.name)[0].numpy()
    shown = liveliest(maps)[:CHANNELS]
    signed = bool(maps[shown].min() < 0)
    limits = compute_limits(maps[shown], signed=signed)
    shape = by(1, *layer.shape)
    return Lesson(
        [
            heat(maps[i], "hook.channel", {"channel": str(i)}, signed=signed, smooth=False, bare=True, limits=limits)
            for i in shown
        ],
        ["hook.what", "hook.here", "hook.code"],
        {"layer": layer.name, "model": asked.name, "shape": shape, "count": f"{math.prod(layer.shape):,}"},
        "inside",
        code=CODE.format(layer=layer.name, shape=shape),
        columns=6,
    )


def kernels(asked: Asked) -> Lesson:
    """The first kernels, and what the one that answers most makes of the photo."""
    found = asked.study.get_kernels(asked.name)
    maps = asked.study.get_activations(asked.photo, asked.name, found.layer)[0].numpy()
    chosen = liveliest(maps)[0]
    weights = found.weights.numpy()
    count, _, height, width = weights.shape
    columns = math.ceil(math.sqrt(count))
    sheet = draw_kernel_grid(weights, cell=24, columns=columns)
    across = (sheet.width + GRID_GAP_PIXELS) // columns
    rows = math.ceil(count / columns)
    down = (sheet.height + GRID_GAP_PIXELS) // rows
    top, left = chosen // columns * down, chosen % columns * across
    box = (float(top), float(left), float(top + down - GRID_GAP_PIXELS), float(left + across - GRID_GAP_PIXELS))
    facts = {"kernel": str(chosen), "kernels": str(count)}
    return Lesson(
        [
            still(draw_box(sheet, box), "kernels.all", facts),
            still(draw_kernel_grid(weights[[chosen]], cell=240), "kernels.one", facts),
            heat(maps[chosen], "kernels.answer", facts, bare=True, signed=bool(maps[chosen].min() < 0)),
        ],
        ["kernels.what", "kernels.learned", "kernels.here"],
        {
            **facts,
            "size": by(height, width),
            "low": number(float(maps[chosen].min())),
            "high": number(float(maps[chosen].max())),
        },
        "inside",
        columns=3,
    )


def activations(asked: Asked) -> Lesson:
    """The same photo at a few depths, each as the channel that differs most from place to place."""
    pictures, grids, counts = [], [], []
    for layer in asked.depths():
        maps = asked.study.get_activations(asked.photo, asked.name, layer)[0].numpy()
        chosen = liveliest(maps)[0]
        grids.append(by(*maps.shape[1:]))
        counts.append(f"{len(maps):,}")
        facts = {"layer": layer, "channel": str(chosen), "grid": grids[-1]}
        pictures.append(
            heat(maps[chosen], "activations.layer", facts, signed=bool(maps[chosen].min() < 0), smooth=False)
        )
    facts = {
        "first": asked.depths()[0],
        "last": asked.depths()[-1],
        "first_grid": grids[0],
        "last_grid": grids[-1],
        "first_count": counts[0],
        "last_count": counts[-1],
    }
    changes = "activations.same" if grids[0] == grids[-1] else "activations.smaller"
    return Lesson(pictures, ["activations.what", changes], facts, "inside", columns=4)


def patches(asked: Asked) -> Lesson:
    """The photo in the model's patches and how alike their places are; of a convolutional network what a place sees."""
    return _patches(asked) if asked.relevance else _fields(asked)


def _patches(asked: Asked) -> Lesson:
    tokens = asked.model.tokens
    assert tokens is not None
    rows, columns = tokens.grid
    eye = np.asarray(asked.study.render_model_input(asked.photo, asked.name))
    height, width = eye.shape[0] // rows, eye.shape[1] // columns
    cut = [
        eye[row * height : (row + 1) * height, column * width : (column + 1) * width]
        for row in range(rows)
        for column in range(columns)
    ]
    facts = {"model": asked.name, "grid": by(rows, columns), "size": by(height, width)}
    pictures = [still(draw_image_grid(cut, cell=2 * max(height, width), columns=columns), "patches.cut", facts)]
    similar = asked.study.get_kernels(asked.name).position_similarity
    if similar is None:
        return Lesson(pictures, ["patches.what"], facts, "attention", columns=1)
    row, column = rows // 3, columns // 3
    map_ = similar[row, column].numpy()
    others = np.delete(map_.ravel(), row * columns + column)
    limits = compute_limits(others, signed=True)  # it is most like itself, which says nothing
    frame = [row / rows, column / columns, (row + 1) / rows, (column + 1) / columns]
    pictures.append(heat(map_, "patches.places", facts, signed=True, smooth=False, limits=limits, frame=frame))
    beside = [map_[row - 1, column], map_[row + 1, column], map_[row, column - 1], map_[row, column + 1]]
    facts |= {"near": f"{np.mean(beside):.2f}", "far": f"{map_[-1, -1]:.2f}".replace("-", "−")}
    return Lesson(pictures, ["patches.what", "patches.embedding", "patches.here"], facts, "attention")


def _fields(asked: Asked) -> Lesson:
    names = asked.depths()
    run = asked.model.run(asked.photo, names)
    pictures, widths = [], []
    for layer in names:
        maps = asked.model.spatial_map(run.activations[layer])
        assert maps is not None
        with torch.inference_mode(False), torch.enable_grad():
            middle = maps[:, maps.shape[1] // 2, maps.shape[2] // 2].sum()
        reach = compute_gradients(middle, [run.image])[0][0].norm(dim=0).cpu()
        widths.append(int((reach > 0).any(0).sum()))
        pictures.append(heat(reach.numpy(), "fields.place", {"layer": layer, "width": str(widths[-1])}))
    facts = {
        "first": names[0],
        "last": names[-1],
        "first_width": str(widths[0]),
        "last_width": str(widths[-1]),
        "whole": str(run.image.shape[-1]),
    }
    return Lesson(pictures, ["fields.what", "fields.here"], facts, "attention", other=transformer(asked), columns=4)


def transformer(asked: Asked) -> str:
    """A transformer on offer that need not be downloaded; nothing where there is none."""
    return _on_offer(asked, "vit")


def residual(asked: Asked) -> str:
    """A ResNet on offer that need not be downloaded; nothing where there is none."""
    return _on_offer(asked, "resnet")


def _on_offer(asked: Asked, kind: str) -> str:
    entries = asked.study.catalog.entries
    return next((entry.name for entry in entries if kind in entry.name and not entry.needs_download), "")
