"""Load a model by name or from a file, or wrap your own: the only file that turns a name into a network."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import timm
import torch
from huggingface_hub import constants as hub
from timm.data.config import resolve_model_data_config
from timm.data.imagenet_info import ImageNetInfo, infer_imagenet_subset
from torch import nn

from vizlib.core.errors import ModelError, suggest_names
from vizlib.models.families import Family, find_family
from vizlib.models.loading.architecture_detection import (
    TORCHVISION_PREFIX,
    DetectedArchitecture,
    build_network,
    detect_architecture,
    unwrap_backbone,
)
from vizlib.models.loading.checkpoint_files import WEIGHT_SUFFIXES, Sidecar, assign_weights, count_classes, read_weights
from vizlib.models.loading.downloads import (
    ProgressCallback,
    download_from_hub,
    download_to_torch_cache,
    get_torchvision_weights,
    is_in_hub_cache,
    is_in_torch_cache,
    require_weights,
)
from vizlib.models.loading.model_index import index_weight_files, list_models
from vizlib.models.model import Model
from vizlib.models.ood import OodScore
from vizlib.models.preprocessing import TimmPreprocessing

HUB_PREFIX = "hf-hub:"
TRANSFORM_INPUT_MODELS = (
    "googlenet",
    "inception_v3",
)  # torchvision's copies of TensorFlow networks, which turn the colours back


def load(
    name: str | os.PathLike[str],
    *,
    architecture: str | None = None,
    labels: Sequence[str] | None = None,
    checkpoints: str | os.PathLike[str] | None = None,
    device: str | torch.device = "cpu",
    progress: ProgressCallback | None = None,
) -> Model:
    """Load a pretrained model by name, or a checkpoint of yours from a file.

    `name` is a bundled one (`models()` lists them; no network needed), any timm name with or without its tag,
    `torchvision/` and a torchvision name, `hf-hub:` and a repository, a path that ends in .safetensors, .pth or .pt, or
    the name of a file in the folder `checkpoints`. A file says what it is by its sidecar or by `architecture`; else
    timm's ResNets and vision transformers are found by the names and shapes of their weights. `labels` replace the
    class names. `progress(here, total)` is told how many bytes of a download have come, and of how many.

    >>> load("resnet18-imagenette").labels[0]
    'tench'

    Raises: ModelError for an unknown name or device, a failed download, labels of another number than the classes, or a
    file that is missing, damaged, dangerous or of another architecture.
    """
    own = index_weight_files(checkpoints)
    if isinstance(name, str) and name in own:
        model = _from_file(own[name], name, architecture, labels)
    elif isinstance(name, os.PathLike) or name.lower().endswith(WEIGHT_SUFFIXES):
        path = Path(name).expanduser()
        if checkpoints is not None and not path.is_file():
            path = Path(checkpoints).expanduser() / path  # its whole name is a name too
        model = _from_file(path, path.stem, architecture, labels)
    elif architecture is not None:
        raise ModelError(f"architecture= goes with a weight file ({', '.join(WEIGHT_SUFFIXES)}), and {name!r} is none")
    else:
        model = _download(name, labels, list(own), progress)
    try:
        model.module.to(device)
    except (RuntimeError, AssertionError) as error:  # torch says some of this by assertion
        raise ModelError(f"{name} cannot be put on the device {str(device)!r}: {_reason(error)}") from error
    return model


def wrap(
    module: nn.Module,
    *,
    preprocessing: TimmPreprocessing | Mapping[str, object] | None = None,
    labels: Sequence[str] | None = None,
    name: str | None = None,
) -> Model:
    """Use a network of your own; it is left as it is.

    `preprocessing` is a mapping with timm's keys (`input_size`, `crop_pct`, `crop_mode`, `interpolation`, `mean`,
    `std`); left out, it is what timm recorded for the network, else ImageNet's. `labels` default to ImageNet's names
    for an ImageNet architecture with 1,000 outputs, else to `class 0` and so on. The network is shown one empty photo,
    to count its outputs.

    Raises: ModelError for something that is no `nn.Module`, was compiled or spread over several GPUs, does not run on
    one photo or answers with something else than logits, or labels of another number than its outputs.
    """
    if not isinstance(module, nn.Module):
        raise ModelError(f"expected an nn.Module, not {type(module).__name__}; load() takes names and files")
    if isinstance(module, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
        raise ModelError(f"a {type(module).__name__} runs copies of a network; wrap its .module instead")
    if any(_is_compiled(part) for part in module.modules()):
        raise ModelError(
            "a compiled or scripted network runs past the hooks that show its inside; wrap it as it was before"
        )
    return _describe(module, name or type(module).__name__, preprocessing, labels)


def _is_compiled(part: nn.Module) -> bool:
    return isinstance(part, (torch.jit.ScriptModule, torch._dynamo.OptimizedModule)) or bool(part._compiled_call_impl)


def convert_torchvision_transforms(transforms) -> TimmPreprocessing:
    """What torchvision's own transforms do, in timm's terms."""
    crop, resize = transforms.crop_size[0], transforms.resize_size[0]
    return TimmPreprocessing.from_config(
        {
            "input_size": (3, crop, crop),
            "crop_pct": crop / (resize + 0.5),  # timm divides and rounds down, which must give `resize` again
            "interpolation": transforms.interpolation.value,
            "mean": transforms.mean,
            "std": transforms.std,
        }
    )


# ---------------------------------------------------------------------------------- what a network brings with it


def _describe(
    module: nn.Module,
    name: str,
    preprocessing: TimmPreprocessing | Mapping[str, object] | None,
    labels: Sequence[str] | None,
) -> Model:
    if not isinstance(preprocessing, TimmPreprocessing):
        preprocessing = TimmPreprocessing.from_config(preprocessing or resolve_model_data_config(module))
    family = find_family(module)
    # Asked, not read off: the `num_classes` of timm and torchvision stays what it was when the head is replaced.
    count = Model(module, name, (), preprocessing, family).num_outputs
    labels = _known_labels(module, family, count) if labels is None else list(labels)
    if len(labels) != count:
        raise ModelError(f"{name} has {count} outputs, but {len(labels)} labels were given; give one for each output")
    return Model(module, name, tuple(labels), preprocessing, family)


def _known_labels(module: nn.Module, family: Family | None, count: int) -> list[str]:
    """The class names recorded with the network, else ImageNet's if it has as many outputs, else numbers."""
    config = getattr(module, "pretrained_cfg", None) or {}  # timm's
    names = config.get("label_names") or ()
    if len(names) == count:
        described = config.get("label_descriptions")
        return [str(described.get(name, name)) if isinstance(described, Mapping) else str(name) for name in names]
    subset = infer_imagenet_subset({"num_classes": count}) if config or family else None
    return list(ImageNetInfo(subset).label_descriptions()) if subset else [f"class {i}" for i in range(count)]


# ---------------------------------------------------------------------------------- from a file


def _from_file(path: Path, name: str, architecture: str | None, labels: Sequence[str] | None) -> Model:
    sidecar = Sidecar.read_for(path)
    weights = unwrap_backbone(read_weights(path, expected_sha256=sidecar.sha256))
    described = path.with_suffix(".json").name
    known = architecture or sidecar.architecture
    guess = DetectedArchitecture(known) if known else detect_architecture(weights)
    if guess is None:
        raise ModelError(
            f"{path.name} does not say which network it belongs to, and its weights are those of no ResNet or vision "
            "transformer of timm with a classifier; give architecture= (in a shell, --architecture), for example "
            f"resnet18, or put it into {described}"
        )
    arguments = {**guess.arguments, **sidecar.arguments}
    given = "labels=" if labels is not None else described
    labels = sidecar.labels if labels is None else list(labels)
    classes = len(labels) if labels else 1000
    module = build_network(guess.architecture, classes, arguments)
    if (found := count_classes(weights, module, classes)) != classes:
        if labels is not None:
            raise ModelError(f"{path.name} tells {found} classes apart, but {given} names {len(labels)}; name them all")
        module = build_network(guess.architecture, found, arguments)
    assign_weights(module, weights, path.name, guess.architecture)
    ood_score = OodScore.from_sidecar(sidecar.ood)
    if sidecar.preprocessing is not None:
        return replace(_describe(module, name, sidecar.preprocessing, labels), ood_score=ood_score)
    assumed = _usual_preprocessing(module, guess.architecture)
    note = (
        f"{path.name} does not say how photos are prepared for it; the usual way for {guess.architecture} is taken "
        f"({assumed.input_size[0]} × {assumed.input_size[1]} pixels, mean {assumed.mean[0]:.3g}...). "
        f"Put preprocessing into {described} if it was trained another way."
    )
    return replace(_describe(module, name, assumed, labels), notes=(note,), ood_score=ood_score)


def _usual_preprocessing(module: nn.Module, architecture: str) -> TimmPreprocessing:
    """How timm or torchvision prepare photos for an architecture, at the size that this network was built for."""
    if architecture.startswith(TORCHVISION_PREFIX):
        return convert_torchvision_transforms(get_torchvision_weights(architecture).transforms())
    config = resolve_model_data_config(module)
    if size := getattr(getattr(module, "patch_embed", None), "img_size", None):
        config["input_size"] = (3, *size)  # a transformer may have been built for other photos than timm's
    return TimmPreprocessing.from_config(config)


# ---------------------------------------------------------------------------------- from the network


def _download(name: str, labels: Sequence[str] | None, own: Sequence[str], progress: ProgressCallback | None) -> Model:
    if name.startswith(TORCHVISION_PREFIX):
        return _from_torchvision(name, labels, progress)
    if name.startswith(HUB_PREFIX):
        repository, _, revision = name.removeprefix(HUB_PREFIX).partition("@")
        require_weights(name, hub.ENDPOINT, is_in_hub_cache(repository, ["config.json"], revision or None))
    else:
        _expect_timm(name, own, progress)
    with _plain_errors(name):
        module = timm.create_model(name, pretrained=True).eval()
    return _describe(module, name, None, labels)


def _from_torchvision(name: str, labels: Sequence[str] | None, progress: ProgressCallback | None) -> Model:
    weights = get_torchvision_weights(name)
    here = is_in_torch_cache(weights.url)
    require_weights(name, weights.url, here)
    turned = name.removeprefix(TORCHVISION_PREFIX) in TRANSFORM_INPUT_MODELS
    arguments = {"transform_input": True, "init_weights": False} if turned else {}
    module = build_network(name, len(weights.meta["categories"]), arguments)
    with _plain_errors(name):
        if progress and not here:
            download_to_torch_cache(weights.url, progress)
        module.load_state_dict(weights.get_state_dict(check_hash=True, weights_only=True))
    labels = weights.meta["categories"] if labels is None else labels
    return _describe(module, name, convert_torchvision_transforms(weights.transforms()), labels)


def _expect_timm(name: str, own: Sequence[str], progress: ProgressCallback | None) -> None:
    """Raises: ModelError where timm knows no such weights, or they are neither here nor to be had."""
    plain = name.split(".")[0]
    if not timm.is_model(plain):
        if os.path.isfile(name):
            read_weights(Path(name))  # which says what a weight file ends in
        known = list(dict.fromkeys([*own, *(entry.name for entry in list_models()), *timm.list_models()]))
        raise ModelError(f"there is no model {name!r}; {suggest_names(name, known)}")
    if not timm.is_model_pretrained(name):
        tagged = timm.list_pretrained(f"{plain}.*")
        hint = suggest_names(name, tagged) if tagged else f"load a file of yours with architecture={plain!r}"
        raise ModelError(f"timm has no weights called {name!r}; {hint}")
    config = timm.get_pretrained_cfg(name)
    if config and config.hf_hub_id:
        files = [config.hf_hub_filename] if config.hf_hub_filename else ["model.safetensors", "pytorch_model.bin"]
        here = is_in_hub_cache(config.hf_hub_id, files)
        require_weights(name, hub.ENDPOINT, here)
        if progress and not here:
            with _plain_errors(name):
                download_from_hub(config.hf_hub_id, files, progress)
    elif config and isinstance(config.url, str):
        require_weights(name, config.url, is_in_torch_cache(config.url))


@contextlib.contextmanager
def _plain_errors(name: str) -> Iterator[None]:
    """Say in one sentence what goes wrong in a download, whichever library on the way there says it in many."""
    try:
        yield
    except Exception as error:
        raise ModelError(f"{name} could not be downloaded: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """The first line of what a library complains about."""
    if type(error).__name__ == "RepositoryNotFoundError":
        return "there is no such repository on the hub, or it is private"
    if isinstance(error, KeyError):
        return f"{error} is missing"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()  # without the path, which is nobody's business
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
