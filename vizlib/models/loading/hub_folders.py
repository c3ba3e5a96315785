"""Find the weights of a model in a folder as timm and transformers save it: one file, or shards with an index."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vizlib.core.errors import ModelError
from vizlib.models.loading.checkpoint_files import WEIGHT_SUFFIXES, is_weight_file
from vizlib.models.loading.hub_configs import read_json_object

HUB_PREFIX = "hf-hub:"  # timm's prefix of a repository of the Hugging Face Hub
LOCAL_PREFIX = "local-dir:"  # timm's prefix of a folder
INDEX_SUFFIX = ".index.json"
CONFIG_FILE = "config.json"
HUB_FILES = (  # names of the weights in a folder, in the order of preference
    "model.safetensors",
    "pytorch_model.bin",
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.bin",
)
_SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})(?P<suffix>\.\w+)")
# What training scripts save beside the weights.
_NOT_WEIGHTS = re.compile(r"(?:training_args|optimizer|scheduler|scaler|random_states_\d+|rng_state(?:_\d+)?)\.\w+")


@dataclass(frozen=True)
class WeightFiles:
    """The files that hold the weights of one model.

    Attributes:
        path: The file that was asked for, or that stands for all: an index, or the only file.
        files: All files, in the order of reading.
        config: Content of the `config.json` beside them, where the names are those of a hub; empty without one.
    """

    path: Path
    files: Sequence[Path]
    config: Mapping[str, Any] = field(default_factory=dict)

    @property
    def sidecar(self) -> Path:
        """The file beside the weights that may describe them."""
        return self.path.with_name(self.path.name.removesuffix(INDEX_SUFFIX)).with_suffix(".json")


def is_folder_of_weights(path: Path) -> bool:
    """Return whether a folder holds a model: weights, or the index of shards, under a name of the hubs."""
    names = (*HUB_FILES, *(f"{name}{INDEX_SUFFIX}" for name in HUB_FILES))
    return path.is_dir() and any((path / name).is_file() for name in names)


def name_weights(path: Path) -> str:
    """Return the name of a model by the path of its file, index of shards or folder."""
    return path.name if path.is_dir() else Path(path.name.removesuffix(INDEX_SUFFIX)).stem


def locate_weight_files(path: Path) -> WeightFiles:
    """Return the files of a model.

    Args:
        path: A folder, the index of shards, one of the shards, or a weight file; the file of a hub may be missing where
            its shards are there.

    Raises:
        ModelError: If a folder has no weights or several, a shard is missing, or an index cannot be read.
    """
    if path.is_dir():
        path = _find_in_folder(path)
    index = path if path.name.endswith(INDEX_SUFFIX) else path.with_name(f"{path.name}{INDEX_SUFFIX}")
    shard = _SHARD.fullmatch(path.name)
    if shard:
        index = path.with_name(f"{shard['stem']}{shard['suffix']}{INDEX_SUFFIX}")
    if index == path or ((shard or not path.exists()) and index.is_file()):
        return WeightFiles(index, _read_index(index), _read_config(path))
    if shard:
        return WeightFiles(path, _list_shards(path, shard), _read_config(path))
    is_of_hub = path.name in HUB_FILES
    return WeightFiles(path, [path], _read_config(path) if is_of_hub else {})


def list_weight_files(folder: str | os.PathLike[str]) -> list[Path]:
    """Return the models in a folder of checkpoints: weight files, indices of shards and folders, sorted by name.

    Raises:
        ModelError: If the folder does not exist or cannot be read.
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise ModelError(
            f"there is no folder {folder}; --checkpoints expects one with {', '.join(WEIGHT_SUFFIXES)} files"
        )
    try:
        folders = [path for path in folder.iterdir() if is_folder_of_weights(path)]
        return sorted([*_list_weights_in(folder), *folders])
    except OSError as error:
        raise ModelError(f"the folder {folder} of --checkpoints cannot be read: {error.strerror}") from error


def _list_weights_in(folder: Path) -> list[Path]:
    """Return the weights in a folder: files, and the index of shards instead of each shard, sorted by name."""
    # macOS creates a ._ file beside each.
    files = [path for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")]
    indices = [path for path in files if path.name.endswith(tuple(f"{s}{INDEX_SUFFIX}" for s in WEIGHT_SUFFIXES))]
    single = [
        path
        for path in files
        if is_weight_file(path) and not _NOT_WEIGHTS.fullmatch(path.name) and not _SHARD.fullmatch(path.name)
    ]
    return sorted([*single, *indices])


def _find_in_folder(folder: Path) -> Path:
    """Return the weight file, or the index of shards, of a folder that holds one model."""
    for name in HUB_FILES:
        for path in (folder / name, folder / f"{name}{INDEX_SUFFIX}"):
            if path.is_file():
                return path
    try:
        found = _list_weights_in(folder)
    except OSError as error:
        raise ModelError(f"the folder {folder} cannot be read: {error.strerror}") from error
    shards = sorted(path for path in folder.iterdir() if _SHARD.fullmatch(path.name))
    if len(found) == 1 or (shards and not found):
        return (found or shards)[0]
    if not found:
        raise ModelError(f"the folder {folder} holds no weights; expected a file with {', '.join(WEIGHT_SUFFIXES)}")
    names = ", ".join(path.name for path in found[:8])
    raise ModelError(f"the folder {folder} holds {len(found)} weight files; name one of them: {names}")


def _list_shards(path: Path, shard: re.Match[str]) -> list[Path]:
    """Return all shards of a model by the name of one of them.

    Raises:
        ModelError: If one is missing.
    """
    count = int(shard["count"])
    present = {
        p.name for p in path.parent.iterdir() if (m := _SHARD.fullmatch(p.name)) and m["count"] == shard["count"]
    }
    if count > len(present) + 1_000:  # a name may state any number
        raise ModelError(f"{path.name} is one of {count} shards, but {len(present)} are in its folder; add the others")
    names = [f"{shard['stem']}-{i:05}-of-{count:05}{shard['suffix']}" for i in range(1, count + 1)]
    _require_shards(path, names)
    return [path.with_name(name) for name in names]


def _read_index(path: Path) -> list[Path]:
    """Return the shards that an index names.

    Raises:
        ModelError: If the index is missing or not that of weights in its folder, or a shard is missing.
    """
    if not path.is_file():
        raise ModelError(f"there is no file {path}; check its folder")
    table = read_json_object(path).get("weight_map")
    if not isinstance(table, dict) or not table or not all(isinstance(name, str) for name in table.values()):
        raise ModelError(f"the index {path.name} has no weight_map of weights to files; save the model again")
    names = sorted(set(table.values()))
    outside = [name for name in names if Path(name).name != name or not is_weight_file(Path(name))]
    if outside:
        raise ModelError(f"the index {path.name} names {outside[0]!r}, which is no weight file of its folder")
    _require_shards(path, names)
    return [path.with_name(name) for name in names]


def _require_shards(path: Path, names: Sequence[str]) -> None:
    missing = [name for name in names if not path.with_name(name).is_file()]
    if missing:
        raise ModelError(
            f"{path.name} is part of a model of {len(names)} shards, of which {len(missing)} are missing, such as "
            f"{missing[0]}; put all of them into one folder"
        )


def _read_config(path: Path) -> Mapping[str, Any]:
    config = path.with_name(CONFIG_FILE)
    return read_json_object(config) if config.is_file() else {}
