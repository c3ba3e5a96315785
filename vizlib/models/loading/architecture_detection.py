"""Build networks by architecture name, and detect the architecture of a state dict by its names and shapes."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any, cast

import timm
import torch
import torchvision
from torch import Tensor, nn

from vizlib.core.errors import ModelError, suggest_names

TORCHVISION_PREFIX = "torchvision/"
DETECTABLE_TIMM_MODULES = ("resnet", "vision_transformer", "deit")  # timm's modules whose networks can be detected
WIDTH_NAMES = {192: "tiny", 384: "small", 512: "medium", 768: "base", 1024: "large", 1280: "huge"}  # by token width
DEPTH_TOLERANCE = 2  # largest difference between the number in a ResNet's name and its depth
_BACKBONE_PREFIXES = ("backbone.", "model.")  # attribute names of a backbone inside a larger module
_WEIGHT_ARGUMENTS = (
    "pretrained",
    "checkpoint_path",
    "pretrained_cfg",
    "pretrained_cfg_overlay",
    "cache_dir",
    "weights",
)
_NUM_AXES = {"patch_embed.proj.weight": 4, "pos_embed": 3, "cls_token": 3, "dist_token": 3, "reg_token": 3}
_COUNTERS = "num_batches_tracked"  # missing in files of PyTorch before 0.4.1, and not read in evaluation mode

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class DetectedArchitecture:
    """The architecture of a state dict.

    Attributes:
        architecture: timm name, or "torchvision/" and a torchvision name.
        arguments: Arguments of `timm.create_model` besides the name.
    """

    architecture: str
    arguments: Mapping[str, object] = field(default_factory=dict)


def build_network(architecture: str, num_classes: int, arguments: Mapping[str, object] | None = None) -> nn.Module:
    """Return an untrained network of an architecture, in evaluation mode.

    Args:
        architecture: timm name, or "torchvision/" and a torchvision name.
        num_classes: Number of outputs.
        arguments: Further arguments of the architecture.

    Raises:
        ModelError: For an unknown name, arguments that the architecture does not take, or arguments that would make it
            load weights.
    """
    refused = [key for key in arguments or {} if key in _WEIGHT_ARGUMENTS]
    if refused:  # a sidecar must not make timm unpickle a file
        raise ModelError(f"the argument {refused[0]} would load other weights; remove it from the sidecar")
    arguments = {**(arguments or {}), "num_classes": num_classes}
    if architecture.startswith(TORCHVISION_PREFIX):
        create = partial(torchvision.models.get_model, resolve_torchvision_name(architecture), weights=None)
    elif timm.is_model(architecture):
        create = partial(timm.create_model, architecture)
    else:
        raise ModelError(
            f"there is no architecture {architecture!r}; {suggest_names(architecture, timm.list_models())}"
        )
    try:
        return create(**arguments).eval()
    except Exception as error:  # the type depends on where the architecture first uses a wrong argument
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(f"the architecture {architecture} cannot be built with {arguments}: {reason}") from error


def resolve_torchvision_name(name: str) -> str:
    """Return the architecture name of a torchvision classifier without the prefix "torchvision/".

    Raises:
        ModelError: If torchvision has no classifier of this name.
    """
    plain, known = name.removeprefix(TORCHVISION_PREFIX), torchvision.models.list_models(torchvision.models)
    if plain not in known:
        raise ModelError(f"torchvision has no classifier {plain!r}; {suggest_names(plain, known)}")
    return plain


def detect_architecture(weights: Mapping[str, Tensor]) -> DetectedArchitecture | None:
    """Return the architecture among timm's ResNets and vision transformers whose weights have these names and shapes.

    The classifier and the position embedding may have another size, as they depend on the classes and the input. Where
    several architectures match, the one with the shortest name is returned: what weights do not show (the activation
    function, how a width is divided into heads) is then as in the plain network. `None` if none matches.
    """
    shapes = {key: tuple(value.shape) for key, value in weights.items() if not key.endswith(_COUNTERS)}
    if any(len(shapes[key]) != num_axes for key, num_axes in _NUM_AXES.items() if key in shapes):
        return None
    arguments = _infer_image_size(shapes)
    if arguments is None:
        return None
    for name in _candidate_names(shapes):
        expected, variable = _architecture_shapes(name)
        if shapes.keys() == expected.keys() and all(shapes[key] == expected[key] for key in shapes.keys() - variable):
            return DetectedArchitecture(name, arguments)
    return None


def unwrap_backbone(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the state dict of a backbone and one linear layer under the names of the architecture of the backbone.

    The prefix of the backbone is removed, and the linear layer becomes the classifier. Any other state dict is returned
    unchanged.
    """
    prefix = next((prefix for prefix in _BACKBONE_PREFIXES if any(key.startswith(prefix) for key in weights)), None)
    if prefix is None:
        return dict(weights)
    backbone = {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}
    others = {key: value for key, value in weights.items() if not key.startswith(prefix)}
    classifier = "head." if "patch_embed.proj.weight" in backbone else "fc."
    head = {classifier + key.rpartition(".")[2]: value for key, value in others.items()}
    linear = {key.removeprefix(classifier): value.ndim for key, value in head.items()} == {"weight": 2, "bias": 1}
    if others and (len(others) > 2 or not linear or backbone.keys() & head.keys()):  # not one linear layer
        return dict(weights)
    return {**backbone, **head}


def _candidate_names(shapes: Shapes) -> Iterator[str]:
    """Yield the architectures to compare, the most probable first: building each takes about 0.1 s."""
    resnets = [name for name in _detectable_names() if re.search("nex?t", name)]
    if {"patch_embed.proj.weight", "head.weight"} <= shapes.keys():
        width, *_, patch_side = shapes["patch_embed.proj.weight"]
        hint = WIDTH_NAMES.get(width, "")
        fits_patches = re.compile(
            rf".*patch{patch_side}(_|$)|(?!.*patch)"
        ).match  # this patch size, or none in the name
        names = [name for name in _detectable_names() if name not in resnets and fits_patches(name)]
        names = [name for name in names if hint in name or not _names_width(name)]
    elif {"layer1.0.conv1.weight", "fc.weight"} <= shapes.keys():
        num_blocks = sum(re.fullmatch(r"layer\d\.\d+\.conv1\.weight", key) is not None for key in shapes)
        depth = 2 + num_blocks * (3 if "layer1.0.conv3.weight" in shapes else 2)  # 50 for a ResNet-50
        hint = str(depth)
        numbers = {name: re.search(r"\d+", name) for name in resnets}
        names = [
            name for name, number in numbers.items() if not number or abs(int(number[0]) - depth) <= DEPTH_TOLERANCE
        ]
    else:
        return
    yield from sorted(names, key=lambda name: (hint not in name, not hint and _names_width(name), len(name), name))


def _names_width(name: str) -> bool:
    """Return whether the architecture name of a vision transformer states the width of its tokens."""
    return not set(WIDTH_NAMES.values()).isdisjoint(name.split("_"))


@cache
def _detectable_names() -> tuple[str, ...]:
    """Return the names of timm's architectures that can be detected by their weights."""
    return tuple(name for module in DETECTABLE_TIMM_MODULES for name in timm.list_models(module=module))


@cache
def _architecture_shapes(name: str) -> tuple[dict[str, tuple[int, ...]], frozenset[str]]:
    """Return the shapes of an architecture's weights, and the names of those that depend on classes or input size."""
    with torch.device("meta"):  # allocates no memory and draws no random numbers
        module = timm.create_model(name, num_classes=1)
    shapes = {key: tuple(value.shape) for key, value in module.state_dict().items() if not key.endswith(_COUNTERS)}
    classifier: Any = cast(Any, module).get_classifier()
    heads = classifier if isinstance(classifier, tuple) else (classifier,)  # distilled networks have two
    prefixes = {id(part): prefix for prefix, part in module.named_modules()}
    variable = {key for key in shapes if any(key.startswith(prefixes[id(head)] + ".") for head in heads)}
    return shapes, frozenset(variable | {"pos_embed"})


def _infer_image_size(shapes: Shapes) -> dict[str, object] | None:
    """Return the `img_size` argument of a detected vision transformer, from its position embeddings.

    Empty if there are no position embeddings, `None` if they form no square grid.
    """
    if "pos_embed" not in shapes or "patch_embed.proj.weight" not in shapes:
        return {}
    patch_side = shapes["patch_embed.proj.weight"][-1]
    num_prefix_tokens = sum(shapes[key][1] for key in ("cls_token", "dist_token", "reg_token") if key in shapes)
    for prefix in (num_prefix_tokens, 0):  # some position embeddings cover only the patches
        side = math.isqrt(max(shapes["pos_embed"][1] - prefix, 0))
        if side and side * side == shapes["pos_embed"][1] - prefix:
            return {"img_size": side * patch_side}
    return None
