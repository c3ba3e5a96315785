"""`load` and `wrap`: make a `Model` from a name, a checkpoint file or an `nn.Module`."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import timm
import torch
from huggingface_hub import constants as hub
from timm.data.config import resolve_model_data_config
from timm.data.imagenet_info import ImageNetInfo, infer_imagenet_subset
from torch import nn

from vizlib.core.errors import ModelError, suggest_names
from vizlib.core.label_formats import LabelSource, read_labels
from vizlib.core.text import Note, make_note
from vizlib.models.families.family import Family
from vizlib.models.loading.checkpoint_files import OTHER_FORMATS, WEIGHT_SUFFIXES, Sidecar, describe_other_format
from vizlib.models.loading.checkpoint_opening import OpenedCheckpoint, open_checkpoint
from vizlib.models.loading.clip_loader import load_clip_file
from vizlib.models.loading.downloads import (
    ProgressCallback,
    download_from_hub,
    download_to_torch_cache,
    get_torchvision_weights,
    is_in_hub_cache,
    is_in_torch_cache,
    require_weights,
)
from vizlib.models.loading.hub_configs import find_recorded_labels, resolve_preprocessing
from vizlib.models.loading.hub_folders import HUB_PREFIX, INDEX_SUFFIX, LOCAL_PREFIX, is_folder_of_weights, name_weights
from vizlib.models.loading.model_index import index_weight_files, list_models
from vizlib.models.loading.output_detection import attach_ood_score, detect_outputs
from vizlib.models.loading.restoring.architecture_outline import TORCHVISION_PREFIX, build_network
from vizlib.models.model import Model
from vizlib.models.ood import OodScore
from vizlib.models.output_kind import OutputKind
from vizlib.models.preprocessing import TimmPreprocessing

# torchvision's ports of TensorFlow networks; `transform_input` converts ImageNet's normalisation to TensorFlow's.
TRANSFORM_INPUT_MODELS = ("googlenet", "inception_v3")


def load(
    name: str | os.PathLike[str],
    *,
    architecture: str | None = None,
    labels: LabelSource | None = None,
    output_kind: str | None = None,
    checkpoints: str | os.PathLike[str] | None = None,
    device: str | torch.device = "cpu",
    progress: ProgressCallback | None = None,
) -> Model:
    """Load a pretrained model by name, or a checkpoint from a file.

    The architecture of a file comes from `architecture`, else from its sidecar (`name.json` beside the file), else from
    the names and shapes of its weights, which identify timm's ResNets and vision transformers. Pickles are read with
    `weights_only=True`, so no code of a file is executed.

    Args:
        name: One of
            a bundled checkpoint, such as "resnet18-imagenette" (`list_models` lists them; works offline);
            a timm name with or without its tag, such as "resnet50.a1_in1k";
            "torchvision/" and a torchvision name, such as "torchvision/resnet50";
            "hf-hub:" and a repository of the Hugging Face Hub with a timm model, optionally with "@revision";
            a path that ends in .safetensors, .pth, .pt, .ckpt or .bin;
            a folder as timm and transformers save it, with `config.json` and weights, or the index of their shards;
            the name of a file in the folder `checkpoints`.
        architecture: timm name, or "torchvision/" and a torchvision name, of the network in a file.
        labels: Label of each class, in a form that `wrap` takes; replaces the recorded ones.
        output_kind: What the outputs mean, as in `wrap`; replaces what the sidecar states.
        checkpoints: Folder with checkpoint files that can be loaded by name.
        device: Device to move the network to.
        progress: Called during a download with the number of bytes received and the number expected.

    Returns:
        The model in evaluation mode, with its labels and preprocessing.

    Raises:
        ModelError: For an unknown name, device or output kind, a failed download, labels that do not match the number
            of classes, or a file that is missing, damaged, unsafe or of another architecture.

    Example:
        >>> import vizlib
        >>> model = vizlib.load("resnet18-imagenette")
        >>> model.labels[0]
        'tench'
    """
    files = index_weight_files(checkpoints)
    if isinstance(name, str) and name in files:
        model = _load_file(files[name], name, architecture, labels, output_kind)
    elif (path := _find_path(name, checkpoints)) is not None:
        model = _load_file(path, name_weights(path), architecture, labels, output_kind)
    elif architecture is not None:
        raise ModelError(
            f"architecture= requires a weight file ({', '.join(WEIGHT_SUFFIXES)}), but {name!r} is not one"
        )
    else:
        model = _load_pretrained(str(name), labels, output_kind, list(files), progress)
    try:
        model.module.to(device)
    except (RuntimeError, AssertionError) as error:  # PyTorch raises AssertionError for a device it was built without
        raise ModelError(f"{name} cannot be moved to the device {str(device)!r}: {_first_line(error)}") from error
    return model


def wrap(
    module: nn.Module,
    *,
    preprocessing: object | None = None,
    labels: LabelSource | None = None,
    output_kind: str | None = None,
    output: Callable[[Any], Any] | None = None,
    name: str | None = None,
) -> Model:
    """Return a `Model` of a network of your own. The network is not modified.

    One pass over a blank input counts the outputs and finds what they mean, where that is not declared.

    Args:
        module: Network that returns logits "n classes", or an object with such `logits`; of any other output, `output`
            picks the logits, or `explain` takes a function of it as target.
        preprocessing: A `Preprocessing`; a mapping with timm's keys `input_size`, `crop_pct`, `crop_mode`,
            `interpolation`, `mean` and `std`, or with the names of transformers, torchvision or open_clip for them;
            evaluation transforms of torchvision, timm or open_clip; or an image processor of transformers. By default
            what the network records: timm's config, or the image processor of its folder or its class in transformers;
            else that of ImageNet. What is assumed is a note.
        labels: Labels in the order of the outputs, a mapping from index to label or from label to index, the number of
            classes, or a .txt or .json file with any of these. By default those recorded with the network, else
            ImageNet's for an ImageNet architecture with as many outputs, else "class 0", "class 1", ...
        output_kind: What the outputs mean: `"softmax"` (logits of classes that exclude each other), `"sigmoid"` (logits
            of labels that are independent, or the logit of one label), `"probabilities"` (the network already ends in a
            softmax or sigmoid), `"values"` (a regression), `"features"` (there is no classifier) or `"structured"` (the
            outputs are no row of numbers, as of segmentation and detection). By default it is found: in a Hugging Face
            `problem_type`, in a softmax, sigmoid or identity that the network ends in, in a single output, which is
            taken as the logit of one label, and in outputs that sum to 1; else it is `"softmax"`. What was assumed is
            a note of the model.
        output: Function that picks the logits from a dictionary, tuple, list or object that the network returns, such
            as `lambda output: output["logits"]`. What it returns may be structured too, and is then what functions
            given as target take.
        name: Name of the model; by default that of its class.

    Raises:
        ModelError: If `module` is not an `nn.Module`, is compiled, scripted, data-parallel or sharded, fails on a blank
            input or does not return logits, if the preprocessing or the labels cannot be read, for an unknown output
            kind or one that the outputs cannot be, or if the number of labels is not that of the outputs.

    Example:
        >>> import torch, vizlib
        >>> module = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
        >>> vizlib.wrap(module, preprocessing={"input_size": (3, 32, 32)}, labels=["red", "green", "blue"])
        <Model Sequential: Sequential, 3 classes, input 32 × 32>
    """
    if not isinstance(module, nn.Module):
        exported = type(module).__name__ == "ExportedProgram"
        advice = "wrap the network that was exported" if exported else "load() takes names and files"
        raise ModelError(f"expected an nn.Module, not {type(module).__name__}; {advice}")
    if isinstance(module, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
        raise ModelError(f"a {type(module).__name__} runs replicas of a network; wrap its .module instead")
    if any(_is_compiled(part) for part in module.modules()):
        raise ModelError(
            "a compiled or scripted network bypasses the hooks that record its layers; wrap the original module instead"
        )
    if _is_sharded(module):
        raise ModelError(
            "the weights of a fully sharded network (FSDP) are spread over processes; load its full state dict into a "
            "network that is not sharded, and wrap that"
        )
    name = name or type(module).__name__
    return replace(_make_model(module, name, preprocessing, labels, output_kind, output), is_wrapped=True)


def _is_compiled(module: nn.Module) -> bool:
    """Return whether a network given to `wrap` is compiled or scripted."""
    optimized = isinstance(module, (torch.jit.ScriptModule, torch._dynamo.OptimizedModule))
    return optimized or bool(module._compiled_call_impl)


def _is_sharded(module: nn.Module) -> bool:
    """Return whether a network given to `wrap` is sharded, by a wrapper or with distributed tensors as weights."""
    wrapped = any(type(part).__name__ == "FullyShardedDataParallel" for part in module.modules())
    return wrapped or any(hasattr(weight, "full_tensor") for weight in module.parameters())


# ---------------------------------------------------------------------------------- labels and preprocessing


def _make_model(
    module: nn.Module,
    name: str,
    preprocessing: object | None,
    labels: LabelSource | None,
    output_kind: str | None = None,
    output: Callable[[Any], Any] | None = None,
) -> Model:
    """Return the `Model` of a loaded or wrapped network, with defaults for what is `None`."""
    preprocessing, notes = resolve_preprocessing(module, preprocessing, name)
    # Counted with a pass: the `num_classes` of timm and torchvision is stale where the head was replaced.
    unlabelled = Model(module, name, (), preprocessing, output=output)
    kind, count, kind_notes = detect_outputs(unlabelled, output_kind)
    family = replace(unlabelled, output_kind=kind.name).find_family()
    labels = _default_labels(module, family, count, kind) if labels is None else read_labels(labels)
    if len(labels) != count:
        raise ModelError(f"{name} has {count} outputs, but {len(labels)} labels were given; give one for each output")
    return Model(
        module, name, tuple(labels), preprocessing, family, (*notes, *kind_notes), output_kind=kind.name, output=output
    )


def _default_labels(module: nn.Module, family: Family | None, count: int, kind: OutputKind) -> list[str]:
    """Return the labels to load a network with: those timm recorded, ImageNet's if the count fits, or numbers."""
    recorded = find_recorded_labels(module, count) if kind.has_classes else None
    if recorded is not None or not kind.is_ranked:  # the classes of ImageNet are no values or features
        return recorded or kind.make_labels(count)
    config = getattr(module, "pretrained_cfg", None)
    subset = infer_imagenet_subset({"num_classes": count}) if config or family else None
    return list(ImageNetInfo(subset).label_descriptions()) if subset else kind.make_labels(count)


# ---------------------------------------------------------------------------------- from a file


def _find_path(name: str | os.PathLike[str], checkpoints: str | os.PathLike[str] | None) -> Path | None:
    """Return the path of a file or folder to load; `None` if the name is that of a model."""
    if isinstance(name, str) and name.startswith(LOCAL_PREFIX):
        name = Path(name.removeprefix(LOCAL_PREFIX))
    path = Path(name).expanduser()
    if isinstance(name, str) and not name.lower().endswith((*WEIGHT_SUFFIXES, *OTHER_FORMATS, INDEX_SUFFIX)):
        if not name or timm.is_model(name) or name.startswith((TORCHVISION_PREFIX, HUB_PREFIX)):
            return None
        if not is_folder_of_weights(path) and not (os.sep in name and path.is_dir()):
            return None
    if checkpoints is not None and not path.exists():
        return Path(checkpoints).expanduser() / path  # a file of the folder, given with its suffix
    return path


def _load_file(
    path: Path, name: str, architecture: str | None, labels: LabelSource | None, output_kind: str | None
) -> Model:
    """Load a model from a weight file or folder and its sidecar, and note what was assumed."""
    if path.is_file() and Sidecar.read_for(path).clip:
        clip = load_clip_file(path)
        return clip.with_prompts(clip.default_prompts if labels is None else read_labels(labels))
    opened = open_checkpoint(path, architecture)
    sidecar, file, count = opened.sidecar, opened.file, opened.num_classes
    labels_source = "labels=" if labels is not None else opened.sidecar_name
    labels = sidecar.labels if labels is None else read_labels(labels)
    if labels and count is not None and len(labels) != count:
        has = f"has {count} classes" if count else "has no classifier"
        raise ModelError(f"{file} {has}, but {labels_source} names {len(labels)}; give one label per class")
    notes, preprocessing = opened.notes, sidecar.preprocessing
    if preprocessing is None and not opened.is_of_transformers:  # a network of transformers records its own
        preprocessing = _assume_preprocessing(opened.module, opened.architecture)
        if not opened.records_preprocessing:
            notes += (_note_assumed_preprocessing(preprocessing, opened),)
    model = _make_model(opened.module, name, preprocessing, labels, output_kind or sidecar.output_kind)
    if not labels and (note := _note_assumed_labels(model, opened)):
        notes += (note,)
    return attach_ood_score(replace(model, notes=(*notes, *model.notes)), OodScore.from_sidecar(sidecar.ood))


def _note_assumed_preprocessing(assumed: TimmPreprocessing, opened: OpenedCheckpoint) -> Note:
    """Return that a loaded file does not state how photos are prepared, and how they are."""
    height, width = assumed.input_size
    return make_note(
        "model.assumed-preprocessing",
        file=opened.file,
        architecture=opened.architecture,
        height=height,
        width=width,
        mean=f"{assumed.mean[0]:.3g}",
        sidecar=opened.sidecar_name,
    )


def _note_assumed_labels(model: Model, opened: OpenedCheckpoint) -> Note | None:
    """Return that the labels of a loaded file are ImageNet's because of their number; `None` if they are others."""
    recorded = getattr(opened.module, "pretrained_cfg", None) or {}
    subset = infer_imagenet_subset({"num_classes": len(model.labels)})
    if recorded.get("label_names") or not subset or model.labels != tuple(ImageNetInfo(subset).label_descriptions()):
        return None
    count = f"{len(model.labels):,}"
    return make_note("model.assumed-labels", file=opened.file, count=count, sidecar=opened.sidecar_name)


def _assume_preprocessing(module: nn.Module, architecture: str) -> TimmPreprocessing:
    """Return the preprocessing to load a file with that states none: timm's or torchvision's of its architecture."""
    if architecture.startswith(TORCHVISION_PREFIX):
        return TimmPreprocessing.from_torchvision(get_torchvision_weights(architecture).transforms())
    config = resolve_model_data_config(module)
    if size := getattr(getattr(module, "patch_embed", None), "img_size", None):
        config["input_size"] = (3, *size)  # a transformer may be built for another size than timm's default
    return TimmPreprocessing.from_config(config)


# ---------------------------------------------------------------------------------- pretrained weights


def _load_pretrained(
    name: str,
    labels: LabelSource | None,
    output_kind: str | None,
    file_names: Sequence[str],
    progress: ProgressCallback | None,
) -> Model:
    """Load a pretrained model of timm, torchvision or the Hugging Face Hub by its name."""
    if name.startswith(TORCHVISION_PREFIX):
        return _load_torchvision(name, labels, output_kind, progress)
    if name.startswith(HUB_PREFIX):
        repository, _, revision = name.removeprefix(HUB_PREFIX).partition("@")
        require_weights(name, hub.ENDPOINT, is_in_hub_cache(repository, ["config.json"], revision or None))
    else:
        _prepare_timm_loading(name, file_names, progress)
    with _translate_loading_errors(name):
        module = timm.create_model(name, pretrained=True).eval()
    return _make_model(module, name, None, labels, output_kind)


def _load_torchvision(
    name: str, labels: LabelSource | None, output_kind: str | None, progress: ProgressCallback | None
) -> Model:
    """Load a pretrained classifier of torchvision by its name."""
    weights = get_torchvision_weights(name)
    cached = is_in_torch_cache(weights.url)
    require_weights(name, weights.url, cached)
    transforms_input = name.removeprefix(TORCHVISION_PREFIX) in TRANSFORM_INPUT_MODELS
    arguments = {"transform_input": True, "init_weights": False} if transforms_input else {}
    module = build_network(name, len(weights.meta["categories"]), arguments)
    with _translate_loading_errors(name):
        if progress and not cached:
            download_to_torch_cache(weights.url, progress)
        module.load_state_dict(weights.get_state_dict(check_hash=True, weights_only=True))
    labels = weights.meta["categories"] if labels is None else labels
    return _make_model(module, name, TimmPreprocessing.from_torchvision(weights.transforms()), labels, output_kind)


def _prepare_timm_loading(name: str, file_names: Sequence[str], progress: ProgressCallback | None) -> None:
    """Prepare to load a timm model: refuse an unknown name; its weights must be at hand, or are fetched.

    Raises:
        ModelError: If timm has no such weights, or they are neither cached nor reachable.
    """
    architecture = name.split(".")[0]
    if not timm.is_model(architecture):
        if os.path.isfile(name):
            raise ModelError(describe_other_format(Path(name)))
        known = list(dict.fromkeys([*file_names, *(entry.name for entry in list_models()), *timm.list_models()]))
        raise ModelError(f"there is no model {name!r}; {suggest_names(name, known)}")
    if not timm.is_model_pretrained(name):
        tagged = timm.list_pretrained(f"{architecture}.*")
        hint = suggest_names(name, tagged) if tagged else f"load a file with architecture={architecture!r}"
        raise ModelError(f"timm has no weights called {name!r}; {hint}")
    config = timm.get_pretrained_cfg(name)
    if config and config.hf_hub_id:
        files = [config.hf_hub_filename] if config.hf_hub_filename else ["model.safetensors", "pytorch_model.bin"]
        cached = is_in_hub_cache(config.hf_hub_id, files)
        require_weights(name, hub.ENDPOINT, cached)
        if progress and not cached:
            with _translate_loading_errors(name):
                download_from_hub(config.hf_hub_id, files, progress)
    elif config and isinstance(config.url, str):
        require_weights(name, config.url, is_in_torch_cache(config.url))


@contextlib.contextmanager
def _translate_loading_errors(name: str) -> Iterator[None]:
    """Raise any exception while pretrained weights are loaded as a `ModelError` of one line."""
    try:
        yield
    except Exception as error:
        raise ModelError(f"{name} could not be downloaded: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    """Return why loading failed: the first line of an exception's message, in plain words where that is obscure."""
    if type(error).__name__ == "RepositoryNotFoundError":
        return "there is no such repository on the hub, or it is private"
    if isinstance(error, KeyError):
        return f"{error} is missing"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()  # without the path, which would reveal folders of the server
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
