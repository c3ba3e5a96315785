"""What can be loaded by name here: the bundled checkpoints, those of a folder of yours, a few well-known ones."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import timm
from timm.data.imagenet_info import ImageNetInfo

from vizlib.core.errors import ModelError, suggest_names
from vizlib.models.loading import checkpoint_files as checkpoints
from vizlib.models.loading.architecture_detection import DETECTABLE_TIMM_MODULES
from vizlib.models.loading.downloads import get_torchvision_weights, is_in_hub_cache, is_in_torch_cache
from vizlib.models.ood import parse_finite_number

CURATED_MODELS_MB = {  # what the menus offer beyond the bundled ones: name to size of its download in MB
    "resnet18.a1_in1k": 47,
    "resnet50.a1_in1k": 102,
    "deit_tiny_patch16_224.fb_in1k": 23,
    "vit_small_patch16_224.augreg_in21k_ft_in1k": 88,
    "vit_base_patch16_224.augreg2_in21k_ft_in1k": 346,
    "torchvision/resnet50": 98,
    "torchvision/vit_b_16": 330,
}
SUPPORTED_TIMM_MODULES = (
    *DETECTABLE_TIMM_MODULES,
    "vision_transformer_hybrid",
    "swin_transformer",
    "swin_transformer_v2",
)  # timm's files of them
MAX_CLASSES_BY_NAME = 20  # so many classes are named one by one


@dataclass(frozen=True)
class ModelEntry:
    """One model that can be loaded by name."""

    name: str
    source: str  # "bundled", "folder" (a file of yours), "downloaded" (in this machine's cache), "download" or "given"
    size_mb: float
    classes: str = ""  # what it tells apart, in words; empty where only loading would tell
    accuracy: float | None = None  # top-1 in percent, where a sidecar says so
    path: Path | None = None  # the file, for the first two sources

    @property
    def bundled(self) -> bool:
        """Whether it travels with vizlib."""
        return self.source == "bundled"

    @property
    def needs_download(self) -> bool:
        """Whether loading it needs the network."""
        return self.source == "download"


def list_models(folder: str | os.PathLike[str] | None = None) -> list[ModelEntry]:
    """What can be loaded by name here: the bundled checkpoints, the files in `folder`, then a few well-known ones.

    Of the bundled ones the most accurate comes first; the page opens with it. A file in the folder is called by its
    name without ending, or with it where that name is taken or two files share it. Besides these, `load` takes any timm
    name.

    >>> [entry.name for entry in models() if entry.bundled]
    ['vit_tiny-imagenette', 'resnet18-imagenette']

    Raises: ModelError where there is no such folder.
    """
    bundled = checkpoints.list_bundled()
    entries = [
        _of_file(name, path, "bundled" if name in bundled else "folder")
        for name, path in index_weight_files(folder).items()
    ]
    entries.sort(key=lambda entry: -(entry.accuracy or 0.0) if entry.bundled else 0.0)
    many = f"ImageNet's {len(ImageNetInfo().label_names()):,} classes"
    for name, megabytes in CURATED_MODELS_MB.items():
        source = "downloaded" if _is_here(name) else "download"
        entries.append(ModelEntry(name, source, float(megabytes), many))
    return entries


def find_timm_model(name: str, besides: Sequence[str] = ()) -> ModelEntry:
    """What is known of one of timm's ResNets or transformers that have weights, by its name with or without a tag.

    Only its tables are asked: a repository, a folder or a file has no such name. `besides` may have been meant as well.

    >>> of_timm("resnet34").name
    'resnet34'

    Raises: ModelError for any other name, with those that are near.
    """
    plain, _, _ = name.partition(".")
    if plain not in _fitting():
        raise ModelError(f"there is no model {name!r} here; {suggest_names(name, [*besides, *_fitting()])}")
    if not timm.is_model_pretrained(name):
        tagged = timm.list_pretrained(f"{plain}.*")
        hint = suggest_names(name, tagged) if tagged else "choose another one"
        raise ModelError(f"there is no model {name!r} here, as timm has no weights of that name; {hint}")
    return ModelEntry(name, "downloaded" if _is_here(name) else "download", float(CURATED_MODELS_MB.get(name, 0)))


def index_weight_files(folder: str | os.PathLike[str] | None = None) -> dict[str, Path]:
    """The weight files that have a name here: the bundled ones, then those in `folder`.

    Raises: ModelError where there is no such folder.
    """
    named = checkpoints.list_bundled()
    own = checkpoints.list_weight_files(folder) if folder is not None else []
    stems = Counter(path.stem for path in own)
    for path in own:
        taken = path.stem in named or path.stem in CURATED_MODELS_MB or stems[path.stem] > 1
        named[path.name if taken else path.stem] = path
    return named


def describe_classes(labels: Sequence[str]) -> str:
    """What a model tells apart, in words: a few classes by name, many by their number."""
    return ", ".join(labels) if len(labels) <= MAX_CLASSES_BY_NAME else f"{len(labels):,} classes"


@cache
def _fitting() -> tuple[str, ...]:
    return tuple(name for module in SUPPORTED_TIMM_MODULES for name in timm.list_models(module=module))


def _of_file(name: str, path: Path, source: str) -> ModelEntry:
    try:
        sidecar = checkpoints.Sidecar.read_for(path)
    except ModelError:  # said when it is loaded; a list does not fail for one of its lines
        sidecar = checkpoints.Sidecar()
    accuracy = parse_finite_number(sidecar.accuracy.get("top1"))
    return ModelEntry(
        name, source, round(path.stat().st_size / 1e6, 1), describe_classes(sidecar.labels or ()), accuracy, path
    )


def _is_here(name: str) -> bool:
    if name.startswith("torchvision/"):
        return is_in_torch_cache(get_torchvision_weights(name).url)
    config = timm.get_pretrained_cfg(name)
    return bool(config and config.hf_hub_id and is_in_hub_cache(config.hf_hub_id, ["model.safetensors"]))
