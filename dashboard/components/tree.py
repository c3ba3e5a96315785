"""A network as a tree of its parts, each with its shape, parameters and work; a click chooses a `layer`."""

from __future__ import annotations

from typing import Any

from dashboard.i18n.translate import LANGUAGES, page_texts, translate
from vizlib import Model
from vizlib.models.layer_summary import Layer

PASSIVE = ("Identity", "Dropout", "DropPath")  # layers that hand on what they are given
ROLES = (  # the beginning of a class's name, and the key of what a person calls it
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
    """The parts in the order they stand; those that hand on what they are given are left out."""
    return {"model": model.name, "chosen": chosen, "rows": [build_row(model, layer) for layer in list_shown_layers(model)]}


def list_shown_layers(model: Model) -> list[Layer]:
    """The parts worth showing."""
    return [layer for layer in model.layers if not layer.class_name.startswith(PASSIVE)]


def list_selectable_layers(model: Model) -> list[str]:
    """The names of the layers whose output can be looked at."""
    return [layer.name for layer in list_shown_layers(model) if layer.shape]


def build_row(model: Model, layer: Layer) -> dict[str, Any]:
    """One part as a line of the tree."""
    return {
        "name": layer.name,
        "role": describe_role(model, layer),
        "shape": " × ".join(map(str, layer.shape)),
        "parameters": format_count(layer.num_parameters),
        "flops": format_count(layer.flops),
        "told": translate(
            "tree.summary", kind=layer.class_name, parameters=f"{layer.num_parameters:,}", flops=f"{layer.flops / 1e6:,.1f}"
        ),
    }


def describe_role(model: Model, layer: Layer) -> str:
    """What a part is, in a person's words: its place in the hierarchy before its class."""
    children = [other for other in model.layers if other.name.rpartition(".")[0] == layer.name]
    blocks = [other for other in children if _key(other.class_name) in BLOCKS]
    if blocks and layer.name in model.stages:
        return translate("tree.stage")
    if blocks:
        return translate("tree.one-block") if len(blocks) == 1 else translate("tree.blocks", count=len(blocks))
    if layer.name.endswith("downsample"):
        return translate("tree.shortcut")
    known = _key(layer.class_name)
    return translate(known) if known in page_texts(LANGUAGES[0]) else known


def format_count(count: int) -> str:
    """A large number in three digits.

    >>> short_count(0), short_count(950), short_count(11_177_538), short_count(1_820_000_000)
    ('–', '950', '11.2 M', '1.82 G')
    """
    if not count:
        return "–"
    size = 0
    value = float(count)
    while value >= 999.5 and size < 4:
        value, size = value / 1000, size + 1
    return f"{value:.3g} {' kMGT'[size]}".strip()


def _key(kind: str) -> str:
    """The key of what a person calls a class of layers; its own name where there is none."""
    return next((key for start, key in ROLES if kind.startswith(start)), kind)
