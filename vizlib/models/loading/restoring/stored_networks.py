"""Find the networks in the content of a checkpoint, whatever wrappers and key prefixes a training script added."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vizlib.core.errors import ModelError

ANCHORS = (  # first weights by which the networks that can be detected are found
    "patch_embed.proj.weight",  # transformers of timm, DeiT, DINO, MAE, MoCo v3 and Swin
    "patch_embed.projection.weight",  # those of mmpretrain
    "layer1.0.conv1.weight",  # ResNets
    "conv_proj.weight",  # torchvision's ViT
    "features.0.0.weight",  # torchvision's Swin
)
HEAD_NAMES = ("fc", "head", "classifier", "linear", "cls_head")  # of a classifier in a dictionary of its own
NOT_NETWORKS = ("optimizer", "optimizers", "optimizer_states", "optim", "lr_schedulers", "scheduler", "scaler", "amp")
MAX_DEPTH = 5  # of nested dictionaries
MAX_NETWORKS = 32
MAX_TENSORS = 50_000  # of one dictionary; the largest networks have a few thousand

# Inserted anywhere in a name by torch.compile, FSDP, activation checkpointing and Lightning Fabric.
_INSERTED = re.compile(r"(?:^|(?<=\.))(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module|_forward_module)\.")
# Of several copies of one network, the one that its authors evaluate: the moving average (timm, DeiT), the teacher of
# DINO, and in MoCo, BYOL and their like the encoder that is trained by the gradient.
_PREFERRED = re.compile(r"(?:^|[._])(?:ema|averaged|swa|best|teacher|encoder_q|base_encoder|online)(?:$|[._])")
_SECONDARY = re.compile(r"(?:^|[._])(?:student|encoder_k|momentum|target|attacker)(?:$|[._])")


@dataclass(frozen=True)
class StoredNetwork:
    """The weights of one network in a checkpoint.

    Attributes:
        path: Where they are: the keys of the dictionaries and the prefix of the names, joined by dots; empty for a
            plain state dict.
        weights: Name without that prefix -> weight.
        siblings: Tensors beside the network in the same dictionary, by their full names, without those of other
            networks; and those of a classifier in a dictionary of its own.
    """

    path: str
    weights: Mapping[str, Tensor]
    siblings: Mapping[str, Tensor]

    def full_name(self, key: str) -> str:
        """Return the full name of one of the network's weights: the path and the name."""
        return f"{self.path}.{key}" if self.path else key

    def local_name(self, name: str) -> str:
        """Return a full name without the part that it has in common with the path of the network."""
        return ".".join(name.split(".")[_count_common_parts(name, self.path) :])


def find_stored_networks(content: object, anchors: Iterable[str] | None = ANCHORS) -> list[StoredNetwork]:
    """Return the networks in the content of a checkpoint, in the order of the file.

    Args:
        content: What `read_checkpoint` returned: a state dict, or dictionaries that hold one or several.
        anchors: Names of weights of which every network has one; `None` returns each dictionary of tensors as one.

    Raises:
        ModelError: If there are more than a checkpoint of one network can hold.
    """
    endings = None if anchors is None else tuple(anchors)
    networks: list[StoredNetwork] = []
    for path, tensors, heads in _list_state_dicts(content, "", 0, set()):
        prefixes = [""] if endings is None else list(dict.fromkeys(_find_prefixes(tensors, endings)))
        if len(networks) + len(prefixes) > MAX_NETWORKS:
            raise ModelError(f"the file holds more than {MAX_NETWORKS} networks, expected one")
        owners = {key: max((p for p in prefixes if key.startswith(p)), key=len, default=None) for key in tensors}
        others = {key: _find_nearest(key, prefixes) for key, owner in owners.items() if owner is None}
        for prefix in prefixes:
            weights = {key.removeprefix(prefix): tensors[key] for key, owner in owners.items() if owner == prefix}
            siblings = {f"{path}{key}": tensors[key] for key, nearest in others.items() if prefix in nearest}
            networks.append(StoredNetwork(f"{path}{prefix}".rstrip("."), weights, {**heads, **siblings}))
    return networks


def choose_network(networks: Sequence[StoredNetwork]) -> StoredNetwork | None:
    """Return the one of several networks of a checkpoint that is to be loaded.

    Args:
        networks: At least one network, all of one architecture.

    Returns:
        The copy that authors evaluate, by its name, such as the moving average of the weights; `None` if the names do
        not show it and the weights differ.
    """
    best = min(_rank(network.path) for network in networks)
    chosen, *others = (network for network in networks if _rank(network.path) == best)
    return chosen if all(_have_equal_weights(chosen, other) for other in others) else None


def _list_state_dicts(
    content: object, path: str, depth: int, seen: set[int]
) -> Iterator[tuple[str, dict[str, Tensor], dict[str, Tensor]]]:
    """Yield the path of each dictionary of tensors, its tensors by name, and those of a classifier beside it."""
    if not isinstance(content, Mapping) or depth > MAX_DEPTH or id(content) in seen:  # a pickle may refer to itself
        return
    seen.add(id(content))
    tensors = {key: value for key, value in content.items() if isinstance(key, str) and isinstance(value, Tensor)}
    heads = {
        f"{name}.{key}": value
        for name in HEAD_NAMES
        if isinstance(content.get(name), Mapping)
        for key, value in content[name].items()
        if isinstance(key, str) and isinstance(value, Tensor)
    }
    if len(tensors) > MAX_TENSORS:
        raise ModelError(f"the file holds {len(tensors):,} tensors, expected the state dict of one network")
    if tensors:
        yield path, _apply_pruning_masks({_INSERTED.sub("", key): value for key, value in tensors.items()}), {}
    for name, part in content.items():
        if isinstance(name, str) and name not in NOT_NETWORKS:
            for inner_path, inner, inner_heads in _list_state_dicts(part, f"{path}{name}.", depth + 1, seen):
                yield inner_path, inner, inner_heads or (heads if name not in HEAD_NAMES else {})


def _apply_pruning_masks(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dict in which each weight that `torch.nn.utils.prune` stored is multiplied with its mask."""
    applied = dict(weights)
    for key, mask in weights.items():
        name = key.removesuffix("_mask")
        value = weights.get(f"{name}_orig") if name != key else None
        if value is not None and mask.shape == value.shape and mask.layout == value.layout == torch.strided:
            applied[name] = value * mask
            del applied[key], applied[f"{name}_orig"]
    return applied


def _find_prefixes(names: Iterable[str], endings: tuple[str, ...]) -> Iterator[str]:
    """Yield what precedes one of the endings in each name that ends with it."""
    for name in names:
        for ending in endings:
            if name.endswith(ending):
                prefix = name[: -len(ending)]
                if not prefix or prefix.endswith("."):
                    yield prefix


def _find_nearest(name: str, prefixes: Sequence[str]) -> set[str]:
    """Return the networks that a name outside of all of them has most in common with."""
    common = {prefix: _count_common_parts(name, prefix) for prefix in prefixes}
    return {prefix for prefix in prefixes if common[prefix] == max(common.values())}


def _count_common_parts(name: str, path: str) -> int:
    """Return how many parts between dots two names have in common at their start."""
    pairs = list(zip(name.split("."), path.split("."), strict=False))
    return next((i for i, (a, b) in enumerate(pairs) if a != b), len(pairs))


def _rank(path: str) -> int:
    """Return 0 for a copy that authors evaluate, 1 for one without such a name, 2 for a copy of the training alone."""
    return 0 if _PREFERRED.search(path) else 2 if _SECONDARY.search(path) else 1


def _have_equal_weights(first: StoredNetwork, second: StoredNetwork) -> bool:
    if first.weights.keys() != second.weights.keys():
        return False
    pairs = ((value, second.weights[key]) for key, value in first.weights.items())
    return all(a.shape == b.shape and a.dtype == b.dtype and bool((a == b).all()) for a, b in pairs)
