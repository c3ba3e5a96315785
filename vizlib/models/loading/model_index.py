"""List the models that can be loaded by name: bundled checkpoints, those in a folder, and selected pretrained ones."""

from __future__ import annotations

import importlib.util
import os
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import timm
from timm.data.imagenet_info import ImageNetInfo

from vizlib.core.errors import ModelError, suggest_names
from vizlib.models.loading import checkpoint_files
from vizlib.models.loading.downloads import get_torchvision_weights, is_in_hub_cache, is_in_torch_cache
from vizlib.models.loading.hub_folders import list_weight_files, locate_weight_files, name_weights
from vizlib.models.ood import parse_finite_number

CURATED_MODELS_MB = {  # pretrained models in the menus: name -> download size in MB
    "resnet18.a1_in1k": 47,
    "resnet50.a1_in1k": 102,
    "deit_tiny_patch16_224.fb_in1k": 23,
    "vit_small_patch16_224.augreg_in21k_ft_in1k": 88,
    "vit_base_patch16_224.augreg2_in21k_ft_in1k": 346,
    "torchvision/resnet50": 98,
    "torchvision/vit_b_16": 330,
}
MAX_CLASSES_BY_NAME = 20  # models with more classes are described by the number of classes


@dataclass(frozen=True)
class ModelEntry:
    """One entry of the index of models: a model that can be loaded by name.

    Attributes:
        name: Name that `load` takes.
        source: "bundled"; "folder" (a file in the given folder); "downloaded" (in the cache of this machine);
            "download"; or "given" (passed to the server as an object).
        size_mb: Size of the weights in MB.
        classes: Names or number of its classes; empty if only loading would show them.
        accuracy: Top-1 accuracy in percent, if a sidecar states it.
        path: Weight file, index of shards or folder, for the sources "bundled" and "folder".
        class_count: Number of its classes, if a sidecar states them, else 0.
        reads_prompts: Whether its classes are prompts, those of the user or its own.
    """

    name: str
    source: str
    size_mb: float
    classes: str = ""
    accuracy: float | None = None
    path: Path | None = None
    class_count: int = 0
    reads_prompts: bool = False

    @property
    def bundled(self) -> bool:
        """Whether the model is distributed with vizlib."""
        return self.source == "bundled"

    @property
    def needs_download(self) -> bool:
        """Whether loading the model requires a download."""
        return self.source == "download"


def list_models(folder: str | os.PathLike[str] | None = None) -> list[ModelEntry]:
    """List the models that can be loaded by name; `load` also takes any other timm name.

    Args:
        folder: Folder whose checkpoint files are listed too. A file is called by its name without suffix, or with it if
            the short name is taken or shared by two files.

    Returns:
        The bundled checkpoints, those with the most classes first and then the most accurate, and last the one that
        reads prompts, where open_clip is installed; then the files in `folder`, then selected pretrained models.

    Raises:
        ModelError: If the folder does not exist or cannot be read.

    Example:
        >>> import vizlib
        >>> [entry.name for entry in vizlib.list_models() if entry.bundled]
        ['vit_tiny-imagenet', 'vit_tiny-imagenette', 'resnet18-imagenette', 'clip-digits']
    """
    bundled = checkpoint_files.list_bundled()
    entries = [
        _make_file_entry(name, path, "bundled" if name in bundled else "folder")
        for name, path in index_weight_files(folder).items()
    ]
    if importlib.util.find_spec("open_clip") is None:
        entries = [entry for entry in entries if not entry.reads_prompts]
    entries.sort(key=_rank_entry)
    classes = f"ImageNet's {len(ImageNetInfo().label_names()):,} classes"
    for name, size_mb in CURATED_MODELS_MB.items():
        entries.append(ModelEntry(name, _describe_source(name), float(size_mb), classes))
    return entries


def find_timm_model(name: str, suggestions: Sequence[str] = ()) -> ModelEntry:
    """Return the index entry of one of timm's pretrained models.

    Only timm's tables are read, so the name of a repository, folder or file is refused.

    Args:
        name: timm name with or without a tag.
        suggestions: Further names to suggest for an unknown one.

    Raises:
        ModelError: For any other name; the message suggests similar ones.

    >>> find_timm_model("resnet34").name
    'resnet34'
    """
    architecture, _, _ = name.partition(".")
    if not timm.is_model(architecture):
        raise ModelError(f"there is no model {name!r} here; {suggest_names(name, [*suggestions, *timm.list_models()])}")
    if not timm.is_model_pretrained(name):
        tagged = timm.list_pretrained(f"{architecture}.*")
        hint = suggest_names(name, tagged) if tagged else "choose another one"
        raise ModelError(f"there is no model {name!r} here, as timm has no weights of that name; {hint}")
    return ModelEntry(name, _describe_source(name), float(CURATED_MODELS_MB.get(name, 0)))


def index_weight_files(folder: str | os.PathLike[str] | None = None) -> dict[str, Path]:
    """Return the index of weight files, name -> file: the bundled checkpoints, then the files in `folder`.

    Raises:
        ModelError: If the folder does not exist or cannot be read.
    """
    files = checkpoint_files.list_bundled()
    folder_files = list_weight_files(folder) if folder is not None else []
    stems = Counter(name_weights(path) for path in folder_files)
    for path in folder_files:
        stem = name_weights(path)
        files[path.name if stem in files or stem in CURATED_MODELS_MB or stems[stem] > 1 else stem] = path
    return files


def describe_classes(labels: Sequence[str]) -> str:
    """Return the classes of a model as its index entry states them: their labels, or their number if there are many."""
    return ", ".join(labels) if len(labels) <= MAX_CLASSES_BY_NAME else f"{len(labels):,} classes"


def _make_file_entry(name: str, path: Path, source: str) -> ModelEntry:
    """Return the index entry of a weight file or folder, with what its sidecar states."""
    size, sidecar = 0, checkpoint_files.Sidecar()
    with suppress(ModelError):  # raised again by `load`; one broken sidecar or folder must not break the list
        source_files = locate_weight_files(path)
        size = sum(file.stat().st_size for file in source_files.files)
        sidecar = checkpoint_files.Sidecar.read_for(source_files.sidecar)
    accuracy = parse_finite_number(sidecar.accuracy.get("top1"))
    labels = sidecar.labels or ()
    megabytes, reads_prompts = round(size / 1e6, 1), bool(sidecar.clip)
    return ModelEntry(
        name, source, megabytes, describe_classes(labels), accuracy, path, len(labels), reads_prompts=reads_prompts
    )


def _rank_entry(entry: ModelEntry) -> tuple[float, float]:
    """Return by what entries are sorted: bundled ones by classes and accuracy; others stay as they are."""
    if not entry.bundled:
        return 2, 0.0
    return (1, 0.0) if entry.reads_prompts else (-entry.class_count, -(entry.accuracy or 0.0))


def _describe_source(name: str) -> str:
    """Return the source that a pretrained model's index entry states: "downloaded" if its weights are in the cache."""
    if name.startswith("torchvision/"):
        cached = is_in_torch_cache(get_torchvision_weights(name).url)
    else:
        config = timm.get_pretrained_cfg(name)
        cached = bool(config and config.hf_hub_id and is_in_hub_cache(config.hf_hub_id, ["model.safetensors"]))
    return "downloaded" if cached else "download"
