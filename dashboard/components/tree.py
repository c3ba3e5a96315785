"""The modules of a network as a tree, with output shape, parameters and FLOPs; a click emits the choice `layer`."""

from __future__ import annotations

from typing import Any

from dashboard.i18n.language import LANGUAGES
from dashboard.i18n.translate import get_page_texts, translate
from vizlib import Model
from vizlib.models.layer_summary import Layer

PASSIVE = ("Identity", "Dropout", "DropPath")  # layers that return their input in evaluation mode
ROLES = (  # prefix of a class's name, and the key of its description
    ("Conv", "tree.convolution"),
    ("BatchNorm", "tree.normalisation"),
    ("LayerNorm", "tree.normalisation"),
    ("FrozenBatchNorm", "tree.normalisation"),
    ("MaxPool", "tree.pooling"),
    ("AvgPool", "tree.pooling"),
    ("AdaptiveAvgPool", "tree.pooling"),
    ("SelectAdaptivePool", "tree.pooling"),
    ("BasicBlock", "tree.residual"),
    ("Bottleneck", "tree.residual"),
    ("PatchEmbed", "tree.patches"),
    ("Block", "tree.block"),
    ("EncoderBlock", "tree.block"),
    ("SwinTransformerBlock", "tree.block"),
    ("Attention", "tree.attention"),
    ("MultiheadAttention", "tree.attention"),
    ("WindowAttention", "tree.attention"),
    ("Mlp", "MLP"),
    ("MLP", "MLP"),
    ("Linear", "tree.linear"),
)

BLOCKS = ("tree.block", "tree.residual")


def build_tree(model: Model, chosen: str) -> dict[str, Any]:
    """Return the value of the layer tree, with the name of the chosen layer."""
    rows = [build_tree_row(model, layer) for layer in list_tree_layers(model)]
    return {"model": model.name, "chosen": chosen, "rows": rows}


def list_tree_layers(model: Model) -> list[Layer]:
    """Return the modules in the tree in their order, without those that return their input."""
    return [layer for layer in model.layers if not layer.class_name.startswith(PASSIVE)]


def list_selectable_layers(model: Model) -> list[str]:
    """Return the names of the layers in the tree that have a recorded output shape."""
    return [layer.name for layer in list_tree_layers(model) if layer.shape]


def build_tree_row(model: Model, layer: Layer) -> dict[str, Any]:
    """Return the row of one module in the layer tree."""
    return {
        "name": layer.name,
        "role": describe_module_role(model, layer),
        "shape": " × ".join(map(str, layer.shape)),
        "parameters": format_count(layer.num_parameters),
        "flops": format_count(layer.flops),
        "tooltip": translate(
            "tree.summary",
            kind=layer.class_name,
            parameters=f"{layer.num_parameters:,}",
            flops=f"{layer.flops / 1e6:,.1f}",
        ),
    }


def describe_module_role(model: Model, layer: Layer) -> str:
    """Return the role of a module in the layer tree: by its place in the hierarchy, else by its class."""
    children = [child for child in model.layers if child.name.rpartition(".")[0] == layer.name]
    blocks = [child for child in children if _find_module_role(child.class_name) in BLOCKS]
    if blocks and layer.name in model.stages:
        return translate("tree.stage")
    if blocks:
        return translate("tree.one-block") if len(blocks) == 1 else translate("tree.blocks", count=len(blocks))
    if layer.name.endswith("downsample"):
        return translate("tree.shortcut")
    role = _find_module_role(layer.class_name)
    return translate(role) if role in get_page_texts(LANGUAGES[0]) else role


def format_count(count: int) -> str:
    """Return a count of parameters or FLOPs in the layer tree, with three digits and a prefix.

    >>> format_count(0), format_count(950), format_count(11_177_538), format_count(1_820_000_000)
    ('–', '950', '11.2 M', '1.82 G')
    """
    if not count:
        return "–"
    exponent = 0
    value = float(count)
    while value >= 999.5 and exponent < 4:
        value, exponent = value / 1000, exponent + 1
    return f"{value:.3g} {' kMGT'[exponent]}".strip()


def _find_module_role(class_name: str) -> str:
    """Return the key of the layer tree's description of a module class; the class's own name if there is none."""
    return next((key for prefix, key in ROLES if class_name.startswith(prefix)), class_name)
