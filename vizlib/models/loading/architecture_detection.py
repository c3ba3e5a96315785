"""Networks by the name of their architecture, and the architecture by what a weight file's names and shapes tell."""

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
DETECTABLE_TIMM_MODULES = (
    "resnet",
    "vision_transformer",
    "deit",
)  # timm's files whose networks are found by their weights
WIDTH_NAMES = {
    192: "tiny",
    384: "small",
    512: "medium",
    768: "base",
    1024: "large",
    1280: "huge",
}  # of a token, by name
DEPTH_TOLERANCE = 2  # so far a ResNet's name may be from its depth
_BODIES = ("backbone.", "model.")  # what a network with a head of its own calls the rest
_ELSEWHERE = ("pretrained", "checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir", "weights")
_AXES = {"patch_embed.proj.weight": 4, "pos_embed": 3, "cls_token": 3, "dist_token": 3, "reg_token": 3}
_COUNTERS = "num_batches_tracked"  # older files have none, and no prediction reads them


@dataclass(frozen=True)
class DetectedArchitecture:
    """The architecture that a state dict's names and shapes fit."""

    architecture: str
    arguments: Mapping[str, object] = field(default_factory=dict)  # for `timm.create_model`


def build_network(architecture: str, classes: int, arguments: Mapping[str, object] | None = None) -> nn.Module:
    """An untrained network in evaluation mode: a timm name, or `torchvision/` and a torchvision name.

    Raises: ModelError for an unknown name, or arguments the architecture does not take, or that fetch other weights.
    """
    if elsewhere := [key for key in arguments or {} if key in _ELSEWHERE]:  # a sidecar must not make timm read a pickle
        raise ModelError(f"the argument {elsewhere[0]} would fetch weights from elsewhere; take it out of the sidecar")
    arguments = {**(arguments or {}), "num_classes": classes}
    if architecture.startswith(TORCHVISION_PREFIX):
        make = partial(torchvision.models.get_model, resolve_torchvision_name(architecture), weights=None)
    elif timm.is_model(architecture):
        make = partial(timm.create_model, architecture)
    else:
        raise ModelError(
            f"there is no architecture {architecture!r}; {suggest_names(architecture, timm.list_models())}"
        )
    try:
        return make(**arguments).eval()
    except Exception as error:  # an architecture trips over a wrong argument wherever it first uses it
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(f"the architecture {architecture} cannot be built with {arguments}: {reason}") from error


def resolve_torchvision_name(name: str) -> str:
    """The plain name of one of torchvision's classifiers. Raises: ModelError for another one."""
    plain, known = name.removeprefix(TORCHVISION_PREFIX), torchvision.models.list_models(torchvision.models)
    if plain not in known:
        raise ModelError(f"torchvision has no classifier {plain!r}; {suggest_names(plain, known)}")
    return plain


def detect_architecture(weights: Mapping[str, Tensor]) -> DetectedArchitecture | None:
    """The first of timm's ResNets and vision transformers whose every weight has the same name and shape.

    Its classifier and its position embedding may be of another size: they follow the classes and the photos. Where
    several fit, the shortest name wins: what weights cannot tell (an activation function, how many heads share a width)
    is then as in the plain network. `None` where nothing fits.
    """
    own = {key: tuple(value.shape) for key, value in weights.items() if not key.endswith(_COUNTERS)}
    if any(len(own[key]) != axes for key, axes in _AXES.items() if key in own):
        return None
    arguments = _size_of_photos(own)
    if arguments is None:
        return None
    for name in _candidates(own):
        wanted, sized = _fingerprint(name)
        if own.keys() == wanted.keys() and all(own[key] == wanted[key] for key in own.keys() - sized):
            return DetectedArchitecture(name, arguments)
    return None


def unwrap_backbone(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict as the architecture itself would name it, from a class that holds a backbone and one linear layer.

    `backbone.` is taken off; the one layer beside it takes the place of the classifier. Other state dicts are left.
    """
    body = next((prefix for prefix in _BODIES if any(key.startswith(prefix) for key in weights)), None)
    if body is None:
        return dict(weights)
    inside = {key.removeprefix(body): value for key, value in weights.items() if key.startswith(body)}
    beside = {key: value for key, value in weights.items() if not key.startswith(body)}
    place = "head." if "patch_embed.proj.weight" in inside else "fc."
    head = {place + key.rpartition(".")[2]: value for key, value in beside.items()}
    linear = {key.removeprefix(place): value.ndim for key, value in head.items()} == {"weight": 2, "bias": 1}
    if beside and (len(beside) > 2 or not linear or inside.keys() & head.keys()):  # several layers
        return dict(weights)
    return {**inside, **head}


def _candidates(own: Mapping[str, tuple[int, ...]]) -> Iterator[str]:
    """The names worth comparing, likeliest first: building a network to look at it takes a tenth of a second."""
    nets = [name for name in _known() if re.search("nex?t", name)]
    if {"patch_embed.proj.weight", "head.weight"} <= own.keys():
        width, *_, side = own["patch_embed.proj.weight"]
        hint = WIDTH_NAMES.get(width, "")
        sided = re.compile(rf".*patch{side}(_|$)|(?!.*patch)").match  # of these patches, or silent about them
        names = [name for name in _known() if name not in nets and sided(name)]
        names = [name for name in names if hint in name or not _widths(name)]
    elif {"layer1.0.conv1.weight", "fc.weight"} <= own.keys():
        blocks = sum(re.fullmatch(r"layer\d\.\d+\.conv1\.weight", key) is not None for key in own)
        depth = 2 + blocks * (3 if "layer1.0.conv3.weight" in own else 2)  # the 50 of ResNet-50
        hint = str(depth)
        numbers = {name: re.search(r"\d+", name) for name in nets}
        names = [
            name for name, number in numbers.items() if not number or abs(int(number[0]) - depth) <= DEPTH_TOLERANCE
        ]
    else:
        return
    yield from sorted(names, key=lambda name: (hint not in name, not hint and _widths(name), len(name), name))


def _widths(name: str) -> bool:
    """Whether a name says how wide its tokens are."""
    return not set(WIDTH_NAMES.values()).isdisjoint(name.split("_"))


@cache
def _known() -> tuple[str, ...]:
    return tuple(name for module in DETECTABLE_TIMM_MODULES for name in timm.list_models(module=module))


@cache
def _fingerprint(name: str) -> tuple[dict[str, tuple[int, ...]], frozenset[str]]:
    """The names and shapes of an architecture's weights, and which of them follow the classes or the photo's size."""
    with torch.device("meta"):  # no memory, no random numbers
        module = timm.create_model(name, num_classes=1)
    shapes = {key: tuple(value.shape) for key, value in module.state_dict().items() if not key.endswith(_COUNTERS)}
    classifier: Any = cast(Any, module).get_classifier()
    heads = classifier if isinstance(classifier, tuple) else (classifier,)  # distilled networks have two
    names = {id(part): prefix for prefix, part in module.named_modules()}
    sized = {key for key in shapes if any(key.startswith(names[id(head)] + ".") for head in heads)}
    return shapes, frozenset(sized | {"pos_embed"})


def _size_of_photos(own: Mapping[str, tuple[int, ...]]) -> dict[str, object] | None:
    """The argument that gives a vision transformer as many patches as it has position embeddings.

    Empty where there are none, `None` where they are no square.
    """
    if "pos_embed" not in own or "patch_embed.proj.weight" not in own:
        return {}
    patch = own["patch_embed.proj.weight"][-1]
    named = sum(own[key][1] for key in ("cls_token", "dist_token", "reg_token") if key in own)
    for prefix in (named, 0):  # some position embeddings leave the tokens with a name out
        side = math.isqrt(max(own["pos_embed"][1] - prefix, 0))
        if side and side * side == own["pos_embed"][1] - prefix:
            return {"img_size": side * patch}
    return None
