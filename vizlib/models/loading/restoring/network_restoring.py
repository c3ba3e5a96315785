"""Restore a network from the content of a checkpoint: which of its weights, and which architecture they belong to."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NoReturn

import torch
from torch import Tensor, nn

from vizlib.core.errors import ModelError
from vizlib.core.text import Note
from vizlib.models.loading.checkpoint_files import SAVE_AGAIN, Sidecar, describe_content
from vizlib.models.loading.restoring.architecture_detection import (
    DetectedArchitecture,
    detect_architecture,
    find_closest_architecture,
    infer_image_size,
)
from vizlib.models.loading.restoring.architecture_outline import (
    TORCHVISION_PREFIX,
    ArchitectureOutline,
    build_network,
    outline_architecture,
)
from vizlib.models.loading.restoring.checkpoint_messages import CheckpointMessages
from vizlib.models.loading.restoring.stored_networks import (
    ANCHORS,
    StoredNetwork,
    choose_network,
    find_stored_networks,
)
from vizlib.models.loading.restoring.weight_fitting import Fit, fit_weights

_TRANSFORMERS_NAME = re.compile(
    r"(?:^|\.)embeddings\.patch_embeddings\.projection\.weight$|(?:^|\.)embedder\.embedder\.convolution\.weight$"
)
_NUM_ANCHORS = 3  # so many weights of a stated architecture are looked for, as a file may lack one


@dataclass(frozen=True)
class RestoredNetwork:
    """A network with the weights of a checkpoint.

    Attributes:
        module: The network, in evaluation mode.
        architecture: timm name, or "torchvision/" and a torchvision name.
        num_classes: Number of classes; 0 if the checkpoint has no classifier, so that the outputs are features.
        notes: What was assumed or left out.
    """

    module: nn.Module
    architecture: str
    num_classes: int
    notes: tuple[Note, ...]


@dataclass(frozen=True)
class _Match:
    """A network of a checkpoint, an architecture, and how the one fits the other."""

    network: StoredNetwork
    found: DetectedArchitecture
    outline: ArchitectureOutline
    fit: Fit


def restore_network(content: object, file: str, sidecar_name: str, sidecar: Sidecar) -> RestoredNetwork:
    """Return the network of a checkpoint with its weights.

    Args:
        content: What `read_checkpoint` returned.
        file: Name of the file, for messages.
        sidecar_name: Name of its sidecar, which may not exist, for messages.
        sidecar: What is known of the file. Without an architecture, it is detected.

    Raises:
        ModelError: If the content is no state dict, its architecture is unknown, or it does not fit the architecture.
    """
    messages = CheckpointMessages(file, sidecar_name)
    networks = _list_networks(content, messages, sidecar)
    match = _match_stated(networks, messages, sidecar) if sidecar.architecture else _detect(networks, messages, sidecar)
    architecture, num_classes = match.found.architecture, match.fit.num_classes or 0
    if not match.fit.complete:
        raise ModelError(messages.describe_misfit(match.fit, architecture))
    if not num_classes and architecture.startswith(TORCHVISION_PREFIX):  # torchvision builds none without classifier
        raise ModelError(messages.describe_headless(architecture))
    module = build_network(architecture, num_classes, {**match.found.arguments, **sidecar.arguments})
    if wrong := _find_other_numbers(module, match.fit):
        raise ModelError(f"{file} holds {wrong}, expected floating-point numbers; {SAVE_AGAIN}")
    try:
        module.load_state_dict(match.fit.weights, strict=False)  # only counters may be missing
    except RuntimeError as error:
        raise ModelError(f"{file} holds tensors that {architecture} cannot use; {SAVE_AGAIN}") from error
    outline = None if sidecar.architecture else match.outline
    notes = messages.list_notes(match.network, match.fit, match.found, outline, [network.path for network in networks])
    return RestoredNetwork(module, architecture, num_classes, notes)


# ---------------------------------------------------------------------------------- the networks of a file


def _list_networks(content: object, messages: CheckpointMessages, sidecar: Sidecar) -> list[StoredNetwork]:
    """Return the networks of a checkpoint that the sidecar does not exclude.

    Raises:
        ModelError: If there is none, or their tensors have no values that can be read.
    """
    whole = find_stored_networks(content, None)
    if not whole:
        raise ModelError(
            f"{messages.file} holds {describe_content(content)}, not a state dict of named tensors; {SAVE_AGAIN}"
        )
    if not all(_has_plain_values(value) for network in whole for value in network.weights.values()):
        raise ModelError(f"{messages.file} holds tensors that are sparse, quantised or without values; {SAVE_AGAIN}")
    networks = find_stored_networks(content, _list_anchors(sidecar) if sidecar.architecture else ANCHORS)
    networks = networks or (find_stored_networks(content, ANCHORS) or whole if sidecar.architecture else [])
    if not networks and any(_TRANSFORMERS_NAME.search(key) for network in whole for key in network.weights):
        raise ModelError(
            f"the weights of {messages.file} have the names of Hugging Face's transformers; put its config.json "
            "beside it under the name model.safetensors or pytorch_model.bin, and load the folder"
        )
    if sidecar.state_dict is None:
        return networks
    chosen = [network for network in networks if f"{network.path}.".startswith(f"{sidecar.state_dict}.")]
    if not chosen:
        raise ModelError(
            f"{messages.file} has no network {sidecar.state_dict!r}, which {messages.sidecar} names; it has "
            f"{', '.join(network.path or 'one without a name' for network in networks) or 'none'}"
        )
    return chosen


def _has_plain_values(tensor: Tensor) -> bool:
    """Return whether a tensor has a value in memory for each of its elements: not for one that repeats a few."""
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta or tensor.is_nested:
        return False
    return tensor.untyped_storage().nbytes() >= tensor.numel() * tensor.element_size()


def _find_other_numbers(module: nn.Module, fit: Fit) -> str | None:
    """Return the type and name of a weight of a checkpoint that is not stored as real numbers, such as quantised."""
    for key, own in module.state_dict().items():
        if key in fit.weights and own.is_floating_point() and not fit.weights[key].is_floating_point():
            return f"{fit.weights[key].dtype} numbers as {key}".removeprefix("torch.")
    return None


def _list_anchors(sidecar: Sidecar) -> list[str]:
    """Return the names of a few weights of the stated architecture that no other of its names ends with."""
    outline = outline_architecture(str(sidecar.architecture), sidecar.arguments)
    names = [key for key, shape in outline.shapes.items() if len(shape) > 1 and key not in outline.classifier]
    unique = (key for key in names if not any(name.endswith(f".{key}") for name in names))
    return [key for key, _ in zip(unique, range(_NUM_ANCHORS), strict=False)] or list(outline.shapes)


# ---------------------------------------------------------------------------------- their architectures


def _make_match(network: StoredNetwork, found: DetectedArchitecture, sidecar: Sidecar) -> _Match:
    """Return how a network of a checkpoint fits an architecture with its arguments and those of the sidecar."""
    outline = outline_architecture(found.architecture, {**found.arguments, **sidecar.arguments})
    fit = fit_weights(network, outline.shapes, outline.classifier, ignore=sidecar.ignore)
    return _Match(network, found, outline, fit)


def _match_stated(networks: Sequence[StoredNetwork], messages: CheckpointMessages, sidecar: Sidecar) -> _Match:
    """Return the network of a checkpoint that fits the stated architecture best."""
    plain = DetectedArchitecture(str(sidecar.architecture))
    argument = "image_size" if plain.architecture.startswith(TORCHVISION_PREFIX) else "img_size"
    matches: list[_Match] = []
    for network in networks:
        match = _make_match(network, plain, sidecar)
        shapes = {key: tuple(value.shape) for key, value in match.fit.weights.items()}
        is_open = bool(match.fit.mismatched) and argument not in sidecar.arguments
        size = infer_image_size(shapes, match.outline) if is_open else None
        if size is not None:
            match = _make_match(network, replace(plain, arguments={argument: size}), sidecar)
        matches.append(match)
    complete = [match for match in matches if match.fit.complete]
    return _choose(complete, messages) if complete else min(matches, key=lambda match: match.fit.badness)


def _detect(networks: Sequence[StoredNetwork], messages: CheckpointMessages, sidecar: Sidecar) -> _Match:
    """Return the network of a checkpoint whose architecture can be detected.

    Raises:
        ModelError: If there is none, or it is not clear which one is meant.
    """
    found = [(network, detect_architecture(network, sidecar.arguments, sidecar.ignore)) for network in networks]
    matches = [_make_match(network, detected, sidecar) for network, detected in found if detected is not None]
    if not matches:
        _raise_unknown(networks, messages, sidecar)
    return _choose(matches, messages)


def _choose(matches: Sequence[_Match], messages: CheckpointMessages) -> _Match:
    """Return the one of several networks of a checkpoint that is meant; raise a `ModelError` if that is not clear."""
    matches = [match for match in matches if match.fit.num_classes] or matches
    architectures = {match.found.architecture for match in matches}
    chosen = choose_network([match.network for match in matches]) if len(architectures) == 1 else None
    if chosen is None:
        rows = ", ".join(
            f"{match.network.path or 'one without a name'} ({match.found.architecture})" for match in matches
        )
        raise ModelError(
            f"{messages.file} holds several networks: {rows}; put the name of one, as state_dict, into "
            f"{messages.sidecar}"
        )
    return next(match for match in matches if match.network is chosen)


def _raise_unknown(networks: Sequence[StoredNetwork], messages: CheckpointMessages, sidecar: Sidecar) -> NoReturn:
    """Raise a `ModelError` about a checkpoint whose architecture cannot be detected."""
    closest = [match for n in networks if (match := find_closest_architecture(n, sidecar.ignore)) is not None]
    name, fit = min(closest, key=lambda row: row[1].badness, default=(None, None))
    raise ModelError(messages.describe_unknown(name, fit))
