"""Attention within Swin's windows on the photo: against Swin's definition, and by substitution."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchvision
from torch import Tensor
from torchvision.models.swin_transformer import PatchMergingV2, SwinTransformerBlockV2
from transformers import SwinConfig, SwinForImageClassification, Swinv2Config, Swinv2ForImageClassification

import vizlib

WINDOW = 4
TIMM = {"patch_size": 4, "embed_dim": 6, "num_heads": (2, 2), "depths": (2, 2), "window_size": WINDOW, "num_classes": 5}
TRANSFORMERS = {"embed_dim": 6, "depths": [2, 2], "num_heads": [2, 2], "window_size": WINDOW, "num_labels": 5}
NETWORKS = {
    "timm": lambda size: timm.models.SwinTransformer(size, **TIMM),
    "timm 2": lambda size: timm.models.SwinTransformerV2(size, **TIMM),
    "torchvision": lambda size: torchvision.models.SwinTransformer([4, 4], 6, [2, 2], [2, 2], [4, 4], num_classes=5),
    "torchvision 2": lambda size: torchvision.models.SwinTransformer(
        [4, 4], 6, [2, 2], [2, 2], [4, 4], num_classes=5, block=SwinTransformerBlockV2, downsample_layer=PatchMergingV2
    ),
    "timm 2, C. Reich": lambda size: timm.models.SwinTransformerV2Cr(size, **TIMM),
    "transformers": lambda size: SwinForImageClassification(SwinConfig(image_size=size, **TRANSFORMERS)),
    "transformers 2": lambda size: Swinv2ForImageClassification(Swinv2Config(image_size=size, **TRANSFORMERS)),
}


def wrap(name: str, size: tuple[int, int]) -> tuple[vizlib.Model, np.ndarray]:
    """Return a network with random weights in double precision, and a photo of its input size."""
    torch.manual_seed(0)
    module: Any = NETWORKS[name](size).double().eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=0.4)
    preprocessing = {"input_size": (3, *size), "crop_pct": 1.0, "crop_mode": "squash"}
    photo = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    return vizlib.wrap(module, preprocessing=preprocessing), photo


def compute_attention(block: Any, tokens: Tensor, shift: int) -> Tensor:
    """Return the attention weights "heads query key" among all positions of a grid, pair by pair.

    Two positions attend to each other if they are in one window of the rolled grid and neither was rolled over an edge
    that the other was not (Liu et al. 2021, section 3.2).
    """
    _, rows, columns, width = tokens.shape
    heads = block.attn.num_heads
    query, key, _ = block.attn.qkv(tokens[0].flatten(0, 1)).view(rows * columns, 3, heads, width // heads).unbind(1)
    scores = torch.full((heads, rows * columns, rows * columns), -torch.inf, dtype=tokens.dtype)
    table = block.attn.relative_position_bias_table
    for i in range(rows * columns):
        for j in range(rows * columns):
            places = [divmod(index, columns) for index in (i, j)]
            (y, x), (v, u) = [((row - shift) % rows, (column - shift) % columns) for row, column in places]
            same_side = all((a < shift) == (b < shift) for a, b in zip(*places, strict=True))
            in_last = [y // WINDOW == rows // WINDOW - 1, x // WINDOW == columns // WINDOW - 1]
            wrapped = [
                (a < shift) != (b < shift) and last
                for (a, b), last in zip(zip(*places, strict=True), in_last, strict=True)
            ]
            if (y // WINDOW, x // WINDOW) != (v // WINDOW, u // WINDOW) or (any(wrapped) and not same_side):
                continue
            row = (y - v + WINDOW - 1) * (2 * WINDOW - 1) + x - u + WINDOW - 1
            scores[:, i, j] = (query[i] * key[j]).sum(-1) / (width // heads) ** 0.5 + table[row]
    return scores.softmax(-1)


@pytest.mark.parametrize(
    ("name", "stage", "separator"), [("timm", "layers.0", ".blocks."), ("torchvision", "features.1", ".")]
)
@pytest.mark.parametrize("number", [0, 1])  # the second block of a stage is shifted
def test_stitched_attention_is_that_of_the_definition(name, stage, separator, number):
    model, photo = wrap(name, (48, 32))
    block = model.module.get_submodule(f"{stage}{separator}{number}")
    layer = f"{stage}{separator}{number}.attn"
    run = model.run(photo, layers=[f"{stage}{separator}{number}.norm1"])
    expected = compute_attention(block, run.activations[f"{stage}{separator}{number}.norm1"].detach(), 2 * number)
    for row, column in ((0, 0), (5, 1), (11, 7)):
        heat = vizlib.explain(model, photo, "raw-attention", layer=layer, head=1, query=(row, column)).heat
        assert heat.shape == (12, 8)
        torch.testing.assert_close(heat.double().flatten(), expected[1, 8 * row + column], atol=1e-6, rtol=1e-5)
    mean = vizlib.explain(model, photo, "raw-attention", layer=layer).heat
    torch.testing.assert_close(mean.double().flatten(), expected.mean((0, 1)), atol=1e-6, rtol=1e-5)
    assert mean.sum() == pytest.approx(1, abs=1e-5)
    highest = vizlib.explain(model, photo, "raw-attention", layer=layer, head="max", query=(5, 1)).heat
    torch.testing.assert_close(highest.double().flatten(), expected.amax(0)[41], atol=1e-6, rtol=1e-5)


def mix_positions(network: Any, layer: str, tokens: Tensor) -> Tensor:
    """Return what an attention layer with its windows makes of a grid of tokens; other parts do not mix positions."""
    parent, _, _ = layer.removesuffix(".self").rpartition(".")
    attention, block = network.get_submodule(layer), network.get_submodule(parent)
    if hasattr(block, "_attn"):  # timm
        return block._attn(tokens)
    if hasattr(block, "_shifted_window_attn"):  # Swin 2 by C. Reich
        return block._shifted_window_attn(tokens)
    if hasattr(block, "window_size"):  # transformers
        output = block(tokens.flatten(1, 2), tuple(tokens.shape[1:3]))[0]
        return output.view(tokens.shape)
    return attention(tokens)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("size", [(32, 32), (40, 24)], ids=["whole windows", "padded windows"])
def test_a_position_attends_to_those_that_change_its_output(name, size):
    if name == "transformers":  # it cannot run where a window is larger than the grid
        size = (max(size), 32)
    model, photo = wrap(name, size)
    for layer, layout in model.attention_windows.items():
        rows, columns = layout.grid
        width = 6 * model.attention_windows[next(iter(model.attention_windows))].grid[0] // rows
        tokens = torch.randn(1, rows, columns, width, dtype=torch.float64, requires_grad=True)
        with torch.enable_grad():
            output = mix_positions(model.module, layer, tokens)
        for query in ((0, 0), (rows - 1, columns - 1), (rows // 2, columns // 3)):
            heat = vizlib.explain(model, photo, "raw-attention", layer=layer, query=query).heat
            (gradient,) = torch.autograd.grad(output[0][query].sum(), tokens, retain_graph=True)
            attended = heat > 1e-9
            attended[query] = gradient[0][query].abs().sum() > 0  # also through the query vector
            assert torch.equal(attended, gradient[0].abs().sum(-1) > 1e-30), (layer, query)


def test_refusals_name_positions_heads_and_layers():
    model, photo = wrap("timm", (32, 32))
    with pytest.raises(vizlib.MethodError, match="there is no patch \\(9, 0\\); the grid has 4 rows and 4 columns"):
        vizlib.explain(model, photo, "raw-attention", query=(9, 0))
    with pytest.raises(vizlib.MethodError, match="this model has no token 'class'; it has only patches"):
        vizlib.explain(model, photo, "raw-attention", query="class")
    with pytest.raises(vizlib.MethodError, match="has heads 0 to 1"):
        vizlib.explain(model, photo, "raw-attention", head=2)
    by_layer = vizlib.explain_all(model, photo)["raw-attention"].by_layer
    assert {name: attribution.heat.shape for name, attribution in by_layer.items()} == {
        name: layout.grid for name, layout in model.attention_windows.items()
    }


def test_a_wrapped_network_keeps_its_windows():
    model, photo = wrap("timm", (32, 32))
    wrapped = torch.nn.Sequential()
    wrapped.add_module("inner", model.module)
    outer = vizlib.wrap(wrapped.eval(), preprocessing=model.preprocessing)
    layer = "layers.0.blocks.1.attn"
    expected = vizlib.explain(model, photo, "raw-attention", layer=layer, query=(1, 2)).heat
    heat = vizlib.explain(outer, photo, "raw-attention", layer=f"inner.{layer}", query=(1, 2)).heat
    torch.testing.assert_close(heat, expected)
