"""The architectures that weights may belong to, by a few of their shapes, before each is compared completely."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache

import timm
import torchvision

from vizlib.core.errors import ModelError
from vizlib.models.loading.restoring.architecture_outline import (
    TORCHVISION_PREFIX,
    ArchitectureOutline,
    outline_architecture,
)
from vizlib.models.loading.restoring.weight_fitting import Shapes

WIDTH_NAMES = {192: "tiny", 384: "small", 512: "medium", 768: "base", 1024: "large", 1280: "huge"}  # by token width
MAX_SIMILAR = 4  # candidates to compare weights with that fit none
DEPTH_TOLERANCE = 2  # largest difference between the number in a ResNet's name and its depth
# First weight of a transformer with position embeddings -> these embeddings, in timm and in torchvision.
POSITIONS = {"patch_embed.proj.weight": "pos_embed", "conv_proj.weight": "encoder.pos_embedding"}
BIAS_TABLE = "relative_position_bias_table"  # of Swin, whose size depends on that of the windows
# timm's modules whose networks can be detected, and the arguments that leave one block in each of their stages: a
# candidate whose first blocks have other shapes is not built completely.
_SHORT: Mapping[str, Mapping[str, object]] = {
    "resnet": {"layers": (1, 1, 1, 1)},
    "vision_transformer": {"depth": 1},
    "deit": {"depth": 1},
    "swin_transformer": {"depths": (1, 1, 1, 1)},
    "swin_transformer_v2": {"depths": (1, 1, 1, 1)},
    "swin_transformer_v2_cr": {"depths": (1, 1, 1, 1)},
}
DETECTABLE_TIMM_MODULES = tuple(_SHORT)

_NUM_AXES = {"patch_embed.proj.weight": 4, "pos_embed": 3, "conv_proj.weight": 4, "encoder.pos_embedding": 3}
_LAST_NORM = ".norm3."  # only the last block of a stage may have one in swin_transformer_v2_cr


def list_candidates(shapes: Shapes) -> Iterator[Sequence[str]]:
    """Yield groups of architectures that weights may belong to, the most probable group first.

    Architectures with equal weights are in one group.

    Args:
        shapes: Shapes of the weights, under timm's or torchvision's names.
    """
    if _has_known_axes(shapes):
        for names in _list_similar_names(shapes):
            yield [name for name in names if _fits_first_blocks(name, shapes)]


def list_similar_candidates(shapes: Shapes) -> Sequence[str]:
    """Return the few architectures whose first blocks have most in common with weights.

    Args:
        shapes: Shapes of the weights, under timm's or torchvision's names.
    """

    def count_differences(name: str) -> int:
        outline = _outline_first_blocks(name)
        return sum(shapes.get(key) != shape for key, shape in outline.shapes.items()) if outline else 0

    names = next(_list_similar_names(shapes), ()) if _has_known_axes(shapes) else ()
    return sorted(names, key=count_differences)[:MAX_SIMILAR]


def _has_known_axes(shapes: Shapes) -> bool:
    """Return whether the weights by which candidates are found have as many axes as in every one of them."""
    return all(len(shapes[key]) == num_axes for key, num_axes in _NUM_AXES.items() if key in shapes)


def _list_similar_names(shapes: Shapes) -> Iterator[Sequence[str]]:
    """Yield groups of architectures whose names do not contradict the shapes, such as by another depth."""
    names = _list_detectable()
    if "patch_embed.proj.weight" in shapes and any(key.startswith("blocks.0.") for key in shapes):
        width, *_, patch_side = shapes["patch_embed.proj.weight"]
        fits_patches = re.compile(rf".*patch{patch_side}(_|$)|(?!.*patch)").match  # this size, or none in the name
        modules = ("vision_transformer", "deit")
        fitting = [name for name, module in names.items() if module in modules and fits_patches(name)]
        hint, hints = WIDTH_NAMES.get(width, ""), set(WIDTH_NAMES.values())
        likely = [name for name in fitting if hint in name.split("_") or hints.isdisjoint(name.split("_"))]
        yield likely
        yield [name for name in fitting if name not in likely]  # "base_plus" is wider than "base"
    elif "layer1.0.conv1.weight" in shapes:
        num_blocks = sum(re.fullmatch(r"layer\d\.\d+\.conv1\.weight", key) is not None for key in shapes)
        depth = 2 + num_blocks * (3 if "layer1.0.conv3.weight" in shapes else 2)  # 50 for a ResNet-50
        numbers = {name: re.search(r"\d+", name) for name, module in names.items() if module == "resnet"}
        yield [name for name, n in numbers.items() if not n or abs(int(n[0]) - depth) <= DEPTH_TOLERANCE]
    elif any(key.startswith("layers.0.blocks.0.") for key in shapes):
        version = "swin_transformer" if f"layers.0.blocks.0.attn.{BIAS_TABLE}" in shapes else "swin_transformer_v2"
        yield [name for name, module in names.items() if module == version]
    elif any(key.startswith("stages.0.blocks.0.") for key in shapes):
        yield [name for name, module in names.items() if module == "swin_transformer_v2_cr"]
    elif "conv_proj.weight" in shapes or "features.1.0.norm1.weight" in shapes:
        beginning = "vit" if "conv_proj.weight" in shapes else "swin"
        second = "features.1.0.attn.logit_scale" in shapes
        found = torchvision.models.list_models(torchvision.models)
        found = [name for name in found if name.startswith(beginning) and ("_v2" in name) == second]
        yield [f"{TORCHVISION_PREFIX}{name}" for name in found]


def _fits_first_blocks(name: str, shapes: Shapes) -> bool:
    """Return whether weights have the shapes of a candidate's first blocks."""
    outline = _outline_first_blocks(name)
    return outline is None or all(
        key in outline.classifier
        or key.endswith((BIAS_TABLE, "num_batches_tracked"))
        or _LAST_NORM in key
        or (key in shapes and (shapes[key] == shape or key in POSITIONS.values()))
        for key, shape in outline.shapes.items()
    )


@cache
def _outline_first_blocks(name: str) -> ArchitectureOutline | None:
    """Return the outline of a candidate with one block in each stage; `None` if its code does not allow that."""
    if name.startswith(TORCHVISION_PREFIX):
        return None
    with suppress(ModelError):
        return outline_architecture(name, _SHORT[_list_detectable()[name]])
    return None


@cache
def _list_detectable() -> Mapping[str, str]:
    """Return the candidates that timm has: name -> module."""
    return {name: module for module in DETECTABLE_TIMM_MODULES for name in timm.list_models(module=module)}
