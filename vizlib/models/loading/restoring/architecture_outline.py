"""The outline of an architecture: shapes of its weights and settings of its layers, without memory for weights."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import timm
import torch
import torchvision
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from vizlib.core.errors import ModelError, suggest_names

TORCHVISION_PREFIX = "torchvision/"
WEIGHT_ARGUMENTS = (
    "pretrained",
    "checkpoint_path",
    "pretrained_cfg",
    "pretrained_cfg_overlay",
    "cache_dir",
    "weights",
)
# In-place functions by which layers are initialised.
_INITIALISER = re.compile(
    r"(?:add|clamp|copy|erfinv|fill|kaiming_\w+|mul|normal|trunc_normal|uniform|xavier_\w+|zero)_"
)
_INACTIVE = ("Dropout", "DropPath", "Identity", "StochasticDepth")  # without effect in evaluation mode
_IRRELEVANT = ("training", "num_classes", "fused_attn", "grad_checkpointing", "inplace")  # attributes, likewise
_SIMPLE_TYPES = (bool, int, float, str, type(None))


@dataclass(frozen=True)
class ArchitectureOutline:
    """What an architecture is, as far as its weights and its layers tell.

    Attributes:
        shapes: Shape of each weight, with one class.
        classifier: Names of the weights that depend on the number of classes.
        image_size: Side of the input that a vision transformer is built for, in pixels; `None` for other networks.
        layers: Name -> type and settings of each layer that has an effect in evaluation mode.
        activations: Names of the types of its activation functions.
    """

    shapes: Mapping[str, tuple[int, ...]]
    classifier: frozenset[str]
    image_size: int | None
    layers: Mapping[str, tuple[str, Mapping[str, object]]]
    activations: tuple[str, ...]

    def list_settings(self, name: str) -> list[object]:
        """Return the different values that a setting has in the layers, the most frequent first."""
        counts = Counter(settings[name] for _, settings in self.layers.values() if settings.get(name) is not None)
        return [value for value, _ in counts.most_common()]


def build_network(architecture: str, num_classes: int, arguments: Mapping[str, object] | None = None) -> nn.Module:
    """Return an untrained network of an architecture, in evaluation mode.

    Args:
        architecture: timm name, or "torchvision/" and a torchvision name.
        num_classes: Number of outputs; 0 for the features in front of the classifier.
        arguments: Further arguments of the architecture.

    Raises:
        ModelError: For an unknown name, arguments that the architecture does not take, or arguments that would make it
            load weights.
    """
    refused = [key for key in arguments or {} if key in WEIGHT_ARGUMENTS]
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


def outline_architecture(architecture: str, arguments: Mapping[str, object] | None = None) -> ArchitectureOutline:
    """Return the outline of an architecture.

    Args:
        architecture: timm name, or "torchvision/" and a torchvision name.
        arguments: Further arguments of the architecture.

    Raises:
        ModelError: As `build_network`.
    """
    module = _build_on_meta(architecture, 1, arguments)
    classifier = _find_classifier_of(module)
    shapes = _list_shapes(module)
    if classifier is None:
        other = _list_shapes(_build_on_meta(architecture, 2, arguments))
        classifier = frozenset(key for key, shape in shapes.items() if other.get(key) != shape)
    parts = [(name, part) for name, part in module.named_modules() if not type(part).__name__.startswith(_INACTIVE)]
    return ArchitectureOutline(
        shapes,
        classifier,
        _get_image_size(module),
        {name: (type(part).__name__, _list_simple_attributes(part)) for name, part in parts},
        tuple(sorted({type(part).__name__ for _, part in parts if _is_activation(part)})),
    )


@cache
def outline_plain_architecture(architecture: str) -> ArchitectureOutline:
    """Return the outline of an architecture with its default arguments; kept for the life of the process."""
    return outline_architecture(architecture)


class _SkipInitialisation(TorchFunctionMode):
    """Skips the functions that fill tensors on the meta device, which have no values: most of the time of a build."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        first = args[0] if args else None
        if isinstance(first, Tensor) and first.is_meta and _INITIALISER.fullmatch(getattr(func, "__name__", "")):
            return first
        return func(*args, **(kwargs or {}))


def _build_on_meta(architecture: str, num_classes: int, arguments: Mapping[str, object] | None) -> nn.Module:
    """Return a network without memory for its weights; in memory if its code does not allow that."""
    with suppress(ModelError), torch.device("meta"), _SkipInitialisation():
        return build_network(architecture, num_classes, arguments)
    return build_network(architecture, num_classes, arguments)


def _list_shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in module.state_dict().items() if isinstance(value, Tensor)}


def _find_classifier_of(module: nn.Module) -> frozenset[str] | None:
    """Return the names of the weights of the classifier that a timm network reports; `None` if it reports none."""
    get_classifier = getattr(module, "get_classifier", None)
    reported = get_classifier() if callable(get_classifier) else ()
    heads = reported if isinstance(reported, tuple) else (reported,)  # distilled networks have two
    prefixes = {id(part): f"{name}." for name, part in module.named_modules()}
    if not heads or not all(id(head) in prefixes and isinstance(head, nn.Linear) for head in heads):
        return None
    names = tuple(prefixes[id(head)] for head in heads)
    return frozenset(key for key in module.state_dict() if key.startswith(names))


def _get_image_size(module: nn.Module) -> int | None:
    size = getattr(getattr(module, "patch_embed", module), "img_size", getattr(module, "image_size", None))
    size = size if isinstance(size, tuple) else (size, size)
    return size[0] if len(size) == 2 and size[0] == size[1] else None


def _list_simple_attributes(part: nn.Module) -> dict[str, object]:
    settings: dict[str, object] = {}
    for name, value in vars(part).items():
        if not name.startswith("_") and name not in _IRRELEVANT and "drop" not in name:
            value = tuple(value) if isinstance(value, list) else value
            if all(isinstance(item, _SIMPLE_TYPES) for item in (value if isinstance(value, tuple) else (value,))):
                settings[name] = value
    return settings


def _is_activation(part: nn.Module) -> bool:
    return type(part).__module__.startswith(
        ("torch.nn.modules.activation", "timm.layers.activations")
    ) and not isinstance(part, (nn.MultiheadAttention, nn.Softmax))
