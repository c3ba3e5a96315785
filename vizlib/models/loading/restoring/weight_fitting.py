"""Fit the weights of a checkpoint to a network: its classifier, what belongs to the training, what is missing."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from vizlib.models.loading.restoring.key_names import list_renamed_weights
from vizlib.models.loading.restoring.stored_networks import StoredNetwork

Shapes = Mapping[str, tuple[int, ...]]

COUNTERS = "num_batches_tracked"  # missing in files of PyTorch before 0.4.1, and not read in evaluation mode
# Computed by the network itself, and stored in files of earlier versions of its code.
_COMPUTED = ("relative_position_index", "relative_coords_table", "attn_mask")
# Names of what takes part in the training alone: losses, metrics, profilers' counters, copies that follow the network,
# and the parts that self-supervised learning discards.
_TRAINING = re.compile(
    r"(?:^|[._])(?:acc|accuracy|auroc|aux|auxiliary|bank|confmat|contrastive|criterions?|decoder|discriminator|f1|loss|"
    r"losses|mask_token|metrics?|momentum|n_averaged|num_updates|precision|predictor|projection_head|projector|prototypes|"
    r"queue|recall|teacher|total_ops|total_params|class_weights?|pos_weight)(?:$|[._])|(?:^|\.)head\.(?:mlp|last_layer)\."
)


@dataclass(frozen=True)
class Fit:
    """How well the weights of a checkpoint fit a network.

    Attributes:
        weights: The weights under the network's own names.
        num_classes: Number of rows of the classifier; `None` if there is no classifier.
        missing: Names of weights of the network that the checkpoint lacks.
        mismatched: Names of weights that have another shape -> that shape and the network's.
        unexpected: Full names of tensors that neither belong to the network nor to the training alone.
        ignored: Full names of tensors that are left out, as they belong to the training alone.
    """

    weights: Mapping[str, Tensor]
    num_classes: int | None
    missing: Sequence[str] = ()
    mismatched: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]] = field(default_factory=dict)
    unexpected: Sequence[str] = ()
    ignored: Sequence[str] = ()

    @property
    def complete(self) -> bool:
        """Whether every weight is there, with its shape, and nothing else that may belong to the network."""
        return not (self.missing or self.mismatched or self.unexpected)

    @property
    def badness(self) -> tuple[int, int]:
        """Smaller for a better fit."""
        return len(self.missing) + len(self.mismatched), len(self.unexpected)


def fit_weights(
    network: StoredNetwork,
    own: Shapes,
    classifier: Collection[str],
    *,
    variable: Collection[str] = (),
    ignore: Sequence[str] = (),
) -> Fit:
    """Return how the weights of a checkpoint fit a network, under the names of its code or of others.

    Args:
        network: Weights of the checkpoint.
        own: Shapes of the network's weights.
        classifier: Names of the weights of its classifier, which may have any number of rows, be one linear layer of
            another name, or be missing.
        variable: Names of weights that may have any shape.
        ignore: Beginnings of names to leave out.
    """
    fits = [_fit(network, w, own, classifier, variable, ignore) for w in list_renamed_weights(network.weights)]
    return min(fits, key=lambda fit: fit.badness)


def _fit(
    network: StoredNetwork,
    weights: Mapping[str, Tensor],
    own: Shapes,
    classifier: Collection[str],
    variable: Collection[str],
    ignore: Sequence[str],
) -> Fit:
    body = {key: weights[key] for key in own if key in weights and key not in classifier}
    missing = [key for key in own if key not in body and key not in classifier and not key.endswith(COUNTERS)]
    given = {key: tuple(value.shape) for key, value in body.items()}
    mismatched = {key: (given[key], own[key]) for key in body if given[key] != own[key] and key not in variable}
    rest = {key: value for key, value in weights.items() if key not in body and not key.endswith(_COMPUTED)}
    rest = {network.full_name(key): value for key, value in rest.items()}
    direct = {network.full_name(key) for key in classifier}
    rest |= {name: value for name, value in network.siblings.items() if not name.endswith(_COMPUTED)}
    ignored = {
        name
        for name in rest
        if (_TRAINING.search(network.local_name(name)) and name not in direct)
        or (name.startswith(tuple(ignore)) or network.local_name(name).startswith(tuple(ignore)))
    }
    rest = {name: value for name, value in rest.items() if name not in ignored}
    head = _find_classifier(network, rest, own, classifier)
    values = {key: rest[name] for key, name in head.items()}
    num_classes = len(next(iter(values.values()))) if values else None
    for key in classifier:
        if (
            num_classes is not None
            and key not in values
            and network.full_name(key) not in rest
            and key.endswith("bias")
        ):
            values[key] = torch.zeros(num_classes, *own[key][1:])  # a classifier without bias
    wrong = [key for key in classifier if key not in values and network.full_name(key) in rest]
    mismatched |= {key: (tuple(rest[network.full_name(key)].shape), own[key]) for key in wrong}
    if num_classes is not None:
        missing += [key for key in classifier if key not in values and key not in wrong]
    used = {*head.values(), *(network.full_name(key) for key in wrong)}
    unexpected = [name for name in rest if name not in used]
    return Fit({**body, **values}, num_classes, missing, mismatched, unexpected, sorted(ignored))


def _find_classifier(
    network: StoredNetwork, rest: Mapping[str, Tensor], own: Shapes, classifier: Collection[str]
) -> dict[str, str]:
    """Return where the classifier's weights are: name in the network -> full name in the file; empty if nowhere."""

    def fits(name: str, key: str) -> bool:
        if name not in rest or not own[key]:
            return False
        shape = tuple(rest[name].shape)
        return len(shape) == len(own[key]) and shape[0] > 0 and shape[1:] == own[key][1:]

    direct = {key: network.full_name(key) for key in classifier if fits(network.full_name(key), key)}
    if direct:
        return direct
    found: dict[str, str] = {}
    matrices = [key for key in classifier if key.endswith("weight") and len(own[key]) == 2]
    for key in matrices:
        names = [name for name in rest if name.endswith(".weight") and fits(name, key)]
        if len(matrices) > 1:  # distilled networks have two classifiers
            names = [name for name in names if name.split(".")[-2:] == key.split(".")[-2:]]
        bias = [(key.removesuffix("weight") + "bias", name.removesuffix("weight") + "bias") for name in names]
        if len(names) == 1 and not _is_one_of_several(names[0], rest):
            found |= {key: names[0], **{k: name for k, name in bias if k in classifier and name in rest}}
    return found


def _is_one_of_several(name: str, rest: Mapping[str, Tensor]) -> bool:
    """Return whether a linear layer is a numbered one beside others, such as "fc.0.weight" beside "fc.2.weight"."""
    parent, number, _ = name.rsplit(".", 2) if name.count(".") > 1 else ("", "", "")
    siblings = (
        other for other in rest if other.startswith(f"{parent}.") and not other.startswith(f"{parent}.{number}.")
    )
    return number.isdecimal() and any(True for _ in siblings)
