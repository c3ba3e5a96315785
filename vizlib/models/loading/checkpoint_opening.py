"""Open a weight file or a folder of a hub: the network in it, and what is known and assumed of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from vizlib.core.errors import ModelError
from vizlib.core.text import Note, make_note
from vizlib.models.loading.checkpoint_files import Sidecar, describe_content, read_checkpoint
from vizlib.models.loading.hub_folders import WeightFiles, locate_weight_files
from vizlib.models.loading.restoring.checkpoint_messages import shorten_names
from vizlib.models.loading.restoring.network_restoring import restore_network
from vizlib.models.loading.transformers_networks import build_transformers_network, is_transformers_config


@dataclass(frozen=True)
class OpenedCheckpoint:
    """A network with the weights of a checkpoint, and what its files state.

    Attributes:
        module: The network, in evaluation mode.
        architecture: Its architecture, for messages.
        num_classes: Number of its classes, 0 without a classifier; `None` if only a pass shows it.
        file: Name of the checkpoint, for messages.
        sidecar: Description of the weight file.
        sidecar_name: Name of the file with that description, which may not exist.
        notes: What was assumed or left out.
        records_preprocessing: Whether the module records how photos are prepared.
        is_of_transformers: Whether the module is one of Hugging Face's transformers.
    """

    module: nn.Module
    architecture: str
    num_classes: int | None
    file: str
    sidecar: Sidecar
    sidecar_name: str
    notes: tuple[Note, ...]
    records_preprocessing: bool = False
    is_of_transformers: bool = False


def open_checkpoint(path: Path, architecture: str | None) -> OpenedCheckpoint:
    """Return the network of a checkpoint.

    Args:
        path: Weight file, index of shards, one of the shards, or a folder as timm and transformers save it.
        architecture: Architecture that the caller states; by default that of the sidecar, else that of the
            `config.json` of a folder, else it is detected.

    Raises:
        ModelError: If a file is missing, damaged, unsafe or of another architecture.
    """
    source = locate_weight_files(path)
    sidecar = Sidecar.read_for(source.sidecar)
    sidecar = replace(sidecar, architecture=architecture or sidecar.architecture)
    content, file = _read_files(source, sidecar), source.path.name
    config = source.config if sidecar.architecture is None else {}  # what is stated elsewhere replaces it
    if isinstance(config.get("architecture"), str):  # timm's, also where transformers wrapped the network
        return _open_timm(content, file, source, sidecar, config)
    if is_transformers_config(config):
        module, unused = build_transformers_network(config, _require_tensors(content, file), source.path.parent)
        kind = type(module).__name__
        names = {"file": file, "architecture": kind, "names": shorten_names(unused)}
        notes = (make_note("model.unused-weights", **names),) if unused else ()
        return OpenedCheckpoint(module, kind, None, file, sidecar, source.sidecar.name, notes, True, True)
    restored = restore_network(content, file, source.sidecar.name, sidecar)
    return OpenedCheckpoint(
        restored.module,
        restored.architecture,
        restored.num_classes,
        file,
        sidecar,
        source.sidecar.name,
        restored.notes,
    )


def _open_timm(
    content: object, file: str, source: WeightFiles, sidecar: Sidecar, config: Mapping[str, Any]
) -> OpenedCheckpoint:
    """Return the network of a checkpoint that timm saved with its config."""
    arguments, record = config.get("model_args") or {}, config.get("pretrained_cfg") or {}
    if not isinstance(arguments, Mapping) or not isinstance(record, Mapping):
        raise ModelError(f"the config.json beside {file} must give model_args and pretrained_cfg as objects")
    stated = replace(sidecar, architecture=config["architecture"], arguments={**arguments, **sidecar.arguments})
    restored = restore_network(content, file, source.sidecar.name, stated)
    labels = {key: config[key] for key in ("label_names", "label_descriptions") if config.get(key)}
    module: Any = restored.module
    module.pretrained_cfg = {**module.pretrained_cfg, **record, **labels}
    return OpenedCheckpoint(
        module,
        restored.architecture,
        restored.num_classes,
        file,
        stated,
        source.sidecar.name,
        restored.notes,
        records_preprocessing="mean" in record,
    )


def _read_files(source: WeightFiles, sidecar: Sidecar) -> object:
    """Return the content of a checkpoint's file, or of all its shards together."""
    if len(source.files) == 1:
        return read_checkpoint(source.files[0], expected_sha256=sidecar.sha256)
    merged: dict[str, Tensor] = {}
    for path in source.files:
        merged |= _require_tensors(read_checkpoint(path), path.name)
    return merged


def _require_tensors(content: object, file: str) -> dict[str, Tensor]:
    """Return the content of a checkpoint as a state dict; raise a `ModelError` if it is none."""
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise ModelError(f"{file} holds {describe_content(content)}, not a state dict of named tensors")
    return {str(key): value for key, value in content.items()}
