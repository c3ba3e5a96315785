"""Steps about layers: hooks, first-layer kernels, activations, patches and receptive fields."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dashboard.components.captions import format_size
from dashboard.tabs.lessons.lesson_context import LessonContext, find_transformer
from dashboard.tabs.lessons.pictures import Lesson, build_image_picture, build_map_picture
from vizlib import Model
from vizlib.capture import compare_relu_hooks, compute_gradients
from vizlib.core.text import shorten_label
from vizlib.render.color_scale import compute_limits
from vizlib.render.image_grid import GRID_GAP_PIXELS, draw_image_grid, draw_kernel_grid
from vizlib.render.overlay import draw_box

MAX_CHANNELS = 6
ACTIVATIONS = ("relu", "gelu", "silu", "swish")  # parts of the class names of activation functions
BACKWARD_CODE = """\
x = values * 1  # the output of {layer}; x has two branches, as in a residual block
relu = torch.nn.ReLU()
relu.register_full_backward_hook(lambda module, grad_input, grad_output: None)  # 3 arguments
y = relu(x)
x.register_hook(lambda gradient: None)  # 1 argument
node = y.grad_fn.next_functions[0][0]  # the hook of the module adds a node after that of the ReLU
node.register_hook(lambda grad_inputs, grad_outputs: None)  # 2 arguments
((v * y).sum() + (v * x).sum()).backward()
"""
HOOK_CODE = """\
outputs = []
layer = network.get_submodule("{layer}")
hook = layer.register_forward_hook(lambda layer, inputs, output: outputs.append(output))
logits = network(photo)
hook.remove()  # outputs[0] is a tensor of {shape}"""


def build_hook_lesson(context: LessonContext) -> Lesson:
    """Return the lesson about hooks: the output of a layer, the first stage, and the code that records it."""
    layer = next(layer for layer in context.model.layers if layer.name == context.sample_stages()[0])
    maps = context.service.get_activations(context.photo, context.model_name, layer.name).maps.numpy()
    channels = rank_channels_by_variation(maps)[:MAX_CHANNELS]
    signed = bool(maps[channels].min() < 0)
    limits = compute_limits(maps[channels], signed=signed)
    shape = format_size(1, *layer.shape)
    return Lesson(
        [
            build_map_picture(
                maps[i], "hook.channel", {"channel": str(i)}, signed=signed, smooth=False, bare=True, limits=limits
            )
            for i in channels
        ],
        ["hook.what", "hook.here", "hook.code"],
        {"layer": layer.name, "model": context.model_name, "shape": shape, "count": f"{math.prod(layer.shape):,}"},
        "inside",
        code=HOOK_CODE.format(layer=layer.name, shape=shape),
        columns=6,
    )


def build_backward_hook_lesson(context: LessonContext) -> Lesson:
    """Return the lesson about backward hooks: what three of them on one ReLU are handed in the same pass."""
    model = context.model
    before, after = find_activation(model, context.photo)
    run = model.run(context.photo, list(dict.fromkeys([before, after])))
    target = context.selection.target
    (gradient,) = run.gradients(target, of=[run.activations[after]])
    values = run.activations[before].detach()
    handed = compare_relu_hooks(values, gradient)
    tensors = {"tensor": handed.tensor, "input": handed.module[0], "output": handed.function[1]}
    maps = {name: sum_channels(model, tensor) for name, tensor in tensors.items()}
    limits = compute_limits(np.stack(list(maps.values())), signed=True)
    facts = {
        "layer": before,
        "label": shorten_label(model.labels[target]) if model.labels else str(target),
        "passed": f"{int((values > 0).sum()):,}",
        "total": f"{values.numel():,}",
        "mistake": handed.mistake,
    }
    return Lesson(
        [build_map_picture(maps[name], f"backward.{name}", facts, signed=True, limits=limits) for name in maps],
        ["backward.what", "backward.here", "backward.so"],
        facts,
        "inside",
        code=BACKWARD_CODE.format(layer=before),
        columns=3,
    )


def find_activation(model: Model, photo: Image.Image) -> tuple[str, str]:
    """Return the last layer whose output an activation function takes at places of the photo, and that function.

    Without one both are the deepest stage. A residual connection may be added in between, so that the function is
    applied to the layer's output, to see whether it gives its own.
    """
    layers = {layer.name: layer for layer in model.layers}
    order = [name for name in model.running_order if name in layers and layers[name].class_name != "Identity"]
    for before, after in reversed(list(pairwise(order))):
        is_activation = any(part in layers[after].class_name.lower() for part in ACTIVATIONS)
        if not is_activation or layers[before].shape != layers[after].shape or layers[after].runs != 1:
            continue
        found = model.run(photo, [before, after], graph=False).activations
        with torch.no_grad():
            computed = model.eval_module().get_submodule(after)(found[before].clone())
        if torch.allclose(computed, found[after]) and model.spatial_map(computed) is not None:
            return before, after
    stage = model.stages[-1] if model.stages else order[-1]
    return stage, stage


def sum_channels(model: Model, tensor: Tensor) -> np.ndarray:
    """Return a layer's output or gradient, summed over the channels of each place; of one without places its values."""
    maps = model.spatial_map(tensor)
    return (maps.sum(0) if maps is not None else tensor.reshape(1, -1)).detach().numpy()


def build_kernel_lesson(context: LessonContext) -> Lesson:
    """Return the lesson about first-layer kernels, with the response of the kernel that varies most on the photo."""
    kernels = context.service.get_kernels(context.model_name)
    maps = context.service.get_activations(context.photo, context.model_name, kernels.layer).maps.numpy()
    kernel = rank_channels_by_variation(maps)[0]
    weights = kernels.weights.numpy()
    count, _, height, width = weights.shape
    columns = math.ceil(math.sqrt(count))
    grid = draw_kernel_grid(weights, cell=24, columns=columns)
    cell_width = (grid.width + GRID_GAP_PIXELS) // columns
    rows = math.ceil(count / columns)
    cell_height = (grid.height + GRID_GAP_PIXELS) // rows
    top, left = kernel // columns * cell_height, kernel % columns * cell_width
    box = (
        float(top),
        float(left),
        float(top + cell_height - GRID_GAP_PIXELS),
        float(left + cell_width - GRID_GAP_PIXELS),
    )
    facts = {"kernel": str(kernel), "kernels": str(count)}
    return Lesson(
        [
            build_image_picture(draw_box(grid, box), "kernels.all", facts),
            build_image_picture(draw_kernel_grid(weights[[kernel]], cell=240), "kernels.one", facts),
            build_map_picture(maps[kernel], "kernels.answer", facts, bare=True, signed=bool(maps[kernel].min() < 0)),
        ],
        ["kernels.what", "kernels.learned", "kernels.here"],
        {
            **facts,
            "size": format_size(height, width),
            "low": format_number(float(maps[kernel].min())),
            "high": format_number(float(maps[kernel].max())),
        },
        "inside",
        columns=3,
    )


def build_activation_lesson(context: LessonContext) -> Lesson:
    """Return the lesson about activations: in layers of several depths, the channel that varies most over positions."""
    pictures, grids, counts = [], [], []
    for layer in context.sample_stages():
        maps = context.service.get_activations(context.photo, context.model_name, layer).maps.numpy()
        channel = rank_channels_by_variation(maps)[0]
        grids.append(format_size(*maps.shape[1:]))
        counts.append(f"{len(maps):,}")
        facts = {"layer": layer, "channel": str(channel), "grid": grids[-1]}
        pictures.append(
            build_map_picture(
                maps[channel], "activations.layer", facts, signed=bool(maps[channel].min() < 0), smooth=False
            )
        )
    facts = {
        "first": context.sample_stages()[0],
        "last": context.sample_stages()[-1],
        "first_grid": grids[0],
        "last_grid": grids[-1],
        "first_count": counts[0],
        "last_count": counts[-1],
    }
    change_key = "activations.same" if grids[0] == grids[-1] else "activations.smaller"
    return Lesson(pictures, ["activations.what", change_key], facts, "inside", columns=4)


def build_patch_lesson(context: LessonContext) -> Lesson:
    """Return the lesson about patches and position embeddings; for a convolutional network about receptive fields."""
    return (
        _build_patch_grid_lesson(context) if context.has_attention_relevance else _build_receptive_field_lesson(context)
    )


def _build_patch_grid_lesson(context: LessonContext) -> Lesson:
    """Return the lesson about the patch layer: the patches and the similarities of their position embeddings."""
    tokens = context.model.tokens
    assert tokens is not None
    rows, columns = tokens.grid
    pixels = np.asarray(context.service.render_model_input(context.photo, context.model_name))
    height, width = pixels.shape[0] // rows, pixels.shape[1] // columns
    tiles = [
        pixels[row * height : (row + 1) * height, column * width : (column + 1) * width]
        for row in range(rows)
        for column in range(columns)
    ]
    facts = {"model": context.model_name, "grid": format_size(rows, columns), "size": format_size(height, width)}
    pictures = [
        build_image_picture(draw_image_grid(tiles, cell=2 * max(height, width), columns=columns), "patches.cut", facts)
    ]
    similarity = context.service.get_kernels(context.model_name).position_similarity
    if similarity is None:
        return Lesson(pictures, ["patches.what"], facts, "attention", columns=1)
    row, column = rows // 3, columns // 3
    row_similarity = similarity[row, column].numpy()
    without_itself = np.delete(row_similarity.ravel(), row * columns + column)  # always 1, would set the colour scale
    limits = compute_limits(without_itself, signed=True)
    frame = [row / rows, column / columns, (row + 1) / rows, (column + 1) / columns]
    pictures.append(
        build_map_picture(
            row_similarity, "patches.places", facts, signed=True, smooth=False, limits=limits, frame=frame
        )
    )
    adjacent = [
        row_similarity[y, x] for y, x in ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1))
    ]
    facts |= {"near": f"{np.mean(adjacent):.2f}", "far": f"{row_similarity[-1, -1]:.2f}".replace("-", "−")}
    return Lesson(pictures, ["patches.what", "patches.embedding", "patches.here"], facts, "attention")


def _build_receptive_field_lesson(context: LessonContext) -> Lesson:
    """Return the lesson about the receptive fields of layers at several depths."""
    layers = context.sample_stages()
    run = context.model.run(context.photo, layers)
    pictures, widths = [], []
    for layer in layers:
        maps = context.model.spatial_map(run.activations[layer])
        assert maps is not None
        with torch.inference_mode(False), torch.enable_grad():
            centre = maps[:, maps.shape[1] // 2, maps.shape[2] // 2].sum()
        gradient = compute_gradients(centre, [run.image])[0][0].norm(dim=0).cpu()
        widths.append(int((gradient > 0).any(0).sum()))
        pictures.append(build_map_picture(gradient.numpy(), "fields.place", {"layer": layer, "width": str(widths[-1])}))
    facts = {
        "first": layers[0],
        "last": layers[-1],
        "first_width": str(widths[0]),
        "last_width": str(widths[-1]),
        "whole": str(run.image.shape[-1]),
    }
    return Lesson(
        pictures, ["fields.what", "fields.here"], facts, "attention", other_model=find_transformer(context), columns=4
    )


def rank_channels_by_variation(maps: np.ndarray) -> list[int]:
    """Return the channels of a layer's maps "channels h w" by decreasing standard deviation over the positions."""
    return np.argsort(-maps.std((1, 2)), kind="stable").tolist()


def format_number(value: float) -> str:
    """Return a raw value in a lesson about layers, with three significant digits.

    >>> format_number(0.00212), format_number(-1.5), format_number(0.0000164), format_number(0.0)
    ('0.00212', '−1.50', '0.0000164', '0')
    """
    size = abs(value)
    if size >= 1e4 or 0 < size < 1e-6:
        text = f"{value:.1e}"
    else:
        text = np.format_float_positional(float(f"{value:.3g}"), trim="-") if size < 1e-3 else f"{value:#.3g}"
    return text.rstrip(".").replace("-", "−")
