"""Detect the architecture of a state dict by the names and shapes of its weights."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from vizlib.models.loading.restoring.architecture_candidates import (
    BIAS_TABLE,
    POSITIONS,
    list_candidates,
    list_similar_candidates,
)
from vizlib.models.loading.restoring.architecture_outline import (
    ArchitectureOutline,
    outline_architecture,
    outline_plain_architecture,
)
from vizlib.models.loading.restoring.key_names import list_renamed_weights
from vizlib.models.loading.restoring.stored_networks import StoredNetwork
from vizlib.models.loading.restoring.weight_fitting import Fit, Shapes, fit_weights

_TYPE_WEIGHT = 100  # another layer says more than another setting of a layer
MAX_WINDOW = 32  # largest side of a window; memory grows with its fourth power


@dataclass(frozen=True)
class DetectedArchitecture:
    """The architecture of a state dict.

    Attributes:
        architecture: timm name, or "torchvision/" and a torchvision name.
        arguments: Arguments of the architecture besides the number of classes.
        outline: Its outline with these arguments.
        same: Other architectures that the weights fit, and that compute the same.
        others: Other architectures that the weights fit, and how each differs from this one.
    """

    architecture: str
    arguments: Mapping[str, object] = field(default_factory=dict)
    outline: ArchitectureOutline | None = field(default=None, compare=False, repr=False)
    same: Sequence[str] = field(default=(), compare=False)
    others: Mapping[str, str] = field(default_factory=dict, compare=False)


def detect_architecture(
    network: StoredNetwork, given: Mapping[str, object] | None = None, ignore: Sequence[str] = ()
) -> DetectedArchitecture | None:
    """Return the architecture among timm's and torchvision's ResNets, ViTs and Swins that a network's weights fit.

    The classifier may have any number of classes, be one linear layer of another name, or be missing. The position
    embedding may have another size, as it depends on the input. Where several architectures match, the one that is
    built for this input size is returned, and of those the one with the shortest name, as it is the plain one: what
    weights do not show (the activation function, how a width is divided into heads) may differ in the others.

    Args:
        network: Weights of a checkpoint.
        given: Arguments of the architecture that are known, so that they are not inferred.
        ignore: Beginnings of names to leave out.

    Returns:
        `None` if none matches.
    """
    for weights in list_renamed_weights(network.weights):
        renamed = replace(network, weights=weights)
        shapes = {key: tuple(value.shape) for key, value in weights.items()}
        for names in list_candidates(shapes):
            matches: list[DetectedArchitecture] = []
            for name in names:
                arguments = _infer_arguments(shapes, outline_plain_architecture(name), given or {})
                if arguments is None:
                    continue
                outline = _outline_with(name, arguments)
                variable = POSITIONS.values()
                if fit_weights(renamed, outline.shapes, outline.classifier, variable=variable, ignore=ignore).complete:
                    matches.append(DetectedArchitecture(name, arguments, outline))
            if matches:
                return _compare_matches(matches)
    return None


def find_closest_architecture(network: StoredNetwork, ignore: Sequence[str] = ()) -> tuple[str, Fit] | None:
    """Return the detectable architecture that fits a network best, and how; `None` if no part of one is in it."""
    best: tuple[str, Fit] | None = None
    for weights in list_renamed_weights(network.weights):
        shapes = {key: tuple(value.shape) for key, value in weights.items()}
        for name in list_similar_candidates(shapes):
            outline = outline_plain_architecture(name)
            variable = POSITIONS.values()
            fit = fit_weights(network, outline.shapes, outline.classifier, variable=variable, ignore=ignore)
            if best is None or fit.badness < best[1].badness:
                best = name, fit
    return best


def infer_image_size(shapes: Shapes, outline: ArchitectureOutline) -> int | None:
    """Return the side of the input in pixels for which a transformer has as many patches as position embeddings.

    Args:
        shapes: Shapes of the weights in a file.
        outline: Outline of the architecture with its default input size.

    Returns:
        `None` if there are no position embeddings, or they form no square grid.
    """
    for patch, position in POSITIONS.items():
        if position in shapes and position in outline.shapes and patch in shapes and outline.image_size:
            patch_side = shapes[patch][-1]
            num_prefix_tokens = outline.shapes[position][1] - (outline.image_size // outline.shapes[patch][-1]) ** 2
            num_patches = max(shapes[position][1] - num_prefix_tokens, 0)
            side = math.isqrt(num_patches)
            return side * patch_side if side and side * side == num_patches else None
    return None


def _infer_arguments(
    shapes: Shapes, outline: ArchitectureOutline, given: Mapping[str, object]
) -> dict[str, object] | None:
    """Return the arguments with which an architecture has the sizes of a file; `None` if there are none."""
    if not {"img_size", "image_size", "window_size"}.isdisjoint(given):
        return {}
    table = next((key for key in outline.shapes if key.endswith(BIAS_TABLE)), "")
    if len(shapes.get(table, ())) not in (0, 2):
        return None
    if table.startswith("layers.") and table in shapes and shapes[table] != outline.shapes[table]:  # timm's Swin
        window = (math.isqrt(shapes[table][0]) + 1) // 2
        if not 0 < window <= MAX_WINDOW:
            return None
        return {"window_size": window, "img_size": 32 * window}  # the last of four stages is one window
    if not any(position in shapes and position in outline.shapes for position in POSITIONS.values()):
        return {}
    size = infer_image_size(shapes, outline)
    argument = "image_size" if "conv_proj.weight" in shapes else "img_size"
    return None if size is None else {argument: size}


def _outline_with(name: str, arguments: Mapping[str, object]) -> ArchitectureOutline:
    """Return the outline of an architecture with inferred arguments; the size of an input alone changes no layer."""
    if "window_size" in arguments:
        return outline_architecture(name, arguments)
    return outline_plain_architecture(name)


def _compare_matches(matches: Sequence[DetectedArchitecture]) -> DetectedArchitecture:
    """Return the plainest of the matching architectures, with what the others are."""

    def plainness(match: DetectedArchitecture) -> tuple[bool, int, str]:
        built_for = match.outline.image_size if match.outline else None
        sizes = [value for key, value in match.arguments.items() if key in ("img_size", "image_size")]
        return bool(sizes) and sizes[0] != built_for, len(match.architecture), match.architecture

    chosen, *rest = sorted(matches, key=plainness)
    assert chosen.outline is not None
    sized = bool(chosen.arguments) and "window_size" not in chosen.arguments
    differences = {
        match.architecture: describe_differences(chosen.outline, match.outline, sized=sized)
        for match in rest
        if match.outline
    }
    return replace(
        chosen,
        same=tuple(name for name, text in differences.items() if not text),
        others={name: text for name, text in differences.items() if text},
    )


def describe_differences(first: ArchitectureOutline, second: ArchitectureOutline, *, sized: bool) -> str:
    """Return the differences of two architectures with equal weights as text, such as "GELU → QuickGELU".

    Args:
        first: Outline of the one.
        second: Outline of the other.
        sized: Whether both are built for the same input size, so that their default sizes are no difference.

    Returns:
        The three that concern most layers; empty if both compute the same.
    """
    counts: Counter[str] = Counter()
    for name in first.layers.keys() | second.layers.keys():
        (type_1, settings_1), (type_2, settings_2) = (o.layers.get(name, ("", {})) for o in (first, second))
        if type_1 != type_2:
            text = f"+ {type_2}" if not type_1 else f"– {type_1}" if not type_2 else f"{type_1} → {type_2}"
            counts[text] += _TYPE_WEIGHT if type_1 and type_2 else 1
            continue
        if sized and type_1 == "PatchEmbed":
            continue
        for key in settings_1.keys() & settings_2.keys():
            if settings_1[key] != settings_2[key]:
                counts[f"{key} {format_setting(settings_1[key])} → {format_setting(settings_2[key])}"] += 1
    return ", ".join(text for text, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:3])


def format_setting(value: object) -> str:
    """Return a setting of an architecture's layers as text, such as "7 × 7"."""
    if isinstance(value, tuple):
        return " × ".join(map(str, value))
    return f"{value:.3g}" if isinstance(value, float) else str(value)
