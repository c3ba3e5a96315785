"""Load a model by name or from a file, or wrap your own: the only file that turns a name into a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import timm
import torch
import torchvision
from timm.data import ImageNetInfo, resolve_model_data_config
from torch import nn

from vizlib import checkpoints
from vizlib.errors import ModelError, VizlibError, did_you_mean
from vizlib.families import family_of
from vizlib.images import Preprocessing
from vizlib.model import Model

TORCHVISION = "torchvision/"
HUB = "hf-hub:"
CURATED = {  # what the menus offer beyond the bundled ones: name to size of its download in MB
    "resnet18.a1_in1k": 47,
    "resnet50.a1_in1k": 102,
    "deit_tiny_patch16_224.fb_in1k": 23,
    "vit_small_patch16_224.augreg_in21k_ft_in1k": 88,
    "vit_base_patch16_224.augreg2_in21k_ft_in1k": 346,
    "torchvision/resnet50": 98,
    "torchvision/vit_b_16": 330,
}


@dataclass(frozen=True)
class Entry:
    """One model that can be loaded by name."""

    name: str
    bundled: bool
    megabytes: float
    accuracy: float | None = None  # top-1 in percent on its own validation set, where we measured it
    classes: str = ""


def models() -> list[Entry]:
    """What can be loaded by name here: the bundled checkpoints, which need no network, then a few well-known ones.

    Besides these `load` takes any timm name.
    """
    own = []
    for name, path in checkpoints.bundled().items():
        sidecar = checkpoints.Sidecar.beside(path)
        top1 = sidecar.accuracy.get("top1")
        size = round(path.stat().st_size / 1e6, 1)
        own.append(Entry(name, True, size, top1, ", ".join(sidecar.labels or ())))
    return own + [Entry(name, False, size, None, "ImageNet's 1,000 classes") for name, size in CURATED.items()]


def load(
    name: str | Path,
    *,
    architecture: str | None = None,
    labels: Sequence[str] | None = None,
    device: str | torch.device = "cpu",
) -> Model:
    """Load a pretrained model by name, or a checkpoint of yours from a file.

    `name` is a bundled one (`models()` lists them; no network needed), any timm name with or without its tag,
    `torchvision/` and a torchvision name, `hf-hub:` and a repository, or a path that ends in .safetensors, .pth or .pt.
    A file says what it is by its sidecar, or by `architecture`; `labels` replace the class names.

    >>> load("resnet18-imagenette").labels[0]
    'tench'

    Raises: ModelError for an unknown name, a failed download, or a file that is missing, damaged, dangerous or of
    another architecture.
    """
    name = str(name)
    own = checkpoints.bundled()
    if name in own:
        model = _from_file(own[name], name, architecture, labels)
    elif name.endswith(checkpoints.ENDINGS):
        model = _from_file(Path(name), Path(name).stem, architecture, labels)
    elif architecture is not None:
        raise ModelError(
            f"architecture= goes with a weight file ({', '.join(checkpoints.ENDINGS)}), and {name!r} is none"
        )
    else:
        model = _download(name, labels)
    model.module.to(device)
    return model


def wrap(
    module: nn.Module,
    *,
    preprocessing: Preprocessing | Mapping[str, object] | None = None,
    labels: Sequence[str] | None = None,
    name: str | None = None,
) -> Model:
    """Use a network of your own; it is left as it is.

    `preprocessing` is a mapping with timm's keys (`input_size`, `crop_pct`, `crop_mode`, `interpolation`, `mean`,
    `std`); left out, it is what timm recorded for the network, else ImageNet's. `labels` default to ImageNet's names for
    a known family with 1,000 outputs, else to `class 0` and so on.

    Raises: ModelError for something that is no `nn.Module` or was compiled, or labels of another number than the outputs.
    """
    if not isinstance(module, nn.Module):
        raise ModelError(f"expected an nn.Module, not {type(module).__name__}; load() takes names and files")
    if isinstance(module, (torch.jit.ScriptModule, torch._dynamo.OptimizedModule)):
        raise ModelError(
            "a compiled or scripted network runs past the hooks that show its inside; wrap the module it was made from"
        )
    return _describe(module, name or type(module).__name__, preprocessing, labels)


def _describe(module: nn.Module, name: str, preprocessing, labels: Sequence[str] | None) -> Model:
    if not isinstance(preprocessing, Preprocessing):
        preprocessing = Preprocessing.from_config(preprocessing or resolve_model_data_config(module))
    family = family_of(module)
    count = getattr(module, "num_classes", None)
    if not isinstance(count, int):
        count = Model(module, name, (), preprocessing, family).outputs
    if labels is None:
        known = family is not None and count == 1000
        labels = imagenet_labels() if known else [f"class {i}" for i in range(count)]
    if len(labels) != count:
        raise ModelError(f"{name} has {count} outputs, but {len(labels)} labels were given")
    return Model(module, name, tuple(labels), preprocessing, family)


def imagenet_labels() -> list[str]:
    """ImageNet-1k's class names in the order of its outputs, as WordNet gives them: "tench, Tinca tinca"."""
    return ImageNetInfo().label_descriptions()


def build(architecture: str, classes: int, arguments: Mapping[str, object] | None = None) -> nn.Module:
    """An untrained network in evaluation mode: a timm name, or `torchvision/` and a torchvision name.

    Raises: ModelError for an unknown name, or arguments the architecture does not take.
    """
    arguments = dict(arguments or {})
    try:
        if architecture.startswith(TORCHVISION):
            plain = architecture.removeprefix(TORCHVISION)
            return torchvision.models.get_model(plain, weights=None, num_classes=classes, **arguments).eval()
        if timm.is_model(architecture):
            return timm.create_model(architecture, num_classes=classes, **arguments).eval()
    except (TypeError, ValueError, RuntimeError) as error:
        raise ModelError(f"the architecture {architecture!r} cannot be built so: {error}") from error
    raise ModelError(f"there is no architecture {architecture!r}; {did_you_mean(architecture, timm.list_models())}")


def _from_file(path: Path, name: str, architecture: str | None, labels: Sequence[str] | None) -> Model:
    sidecar = checkpoints.Sidecar.beside(path)
    weights = checkpoints.read_weights(path, expect=sidecar.sha256)
    architecture = architecture or sidecar.architecture
    if architecture is None:
        raise ModelError(
            f"{path.name} does not say which network it belongs to; give architecture=, for example "
            f"architecture='resnet18', or put it into {path.with_suffix('.json').name}"
        )
    labels = labels or sidecar.labels
    module = build(architecture, _classes_in(weights, len(labels) if labels else 1000), sidecar.arguments)
    _fill(module, weights, path.name, architecture)
    return _describe(module, name, sidecar.preprocessing, labels)


def _classes_in(weights: Mapping[str, torch.Tensor], default: int) -> int:
    """How many classes a state dict's classifier has: the rows of its last matrix."""
    heads = [
        weights[key] for key in ("fc.weight", "head.weight", "heads.head.weight", "classifier.weight") if key in weights
    ]
    return heads[0].shape[0] if heads else default


def _fill(module: nn.Module, weights: Mapping[str, torch.Tensor], file: str, architecture: str) -> None:
    own = module.state_dict()
    missing = sorted(own.keys() - weights.keys())
    extra = sorted(weights.keys() - own.keys())
    other = [
        f"{key} is {tuple(weights[key].shape)} and should be {tuple(own[key].shape)}"
        for key in own.keys() & weights.keys()
        if own[key].shape != weights[key].shape
    ]
    reasons = [
        f"{len(keys)} {what}, such as {keys[0]}" for keys, what in ((missing, "missing"), (extra, "unknown")) if keys
    ]
    if reasons or other:
        raise ModelError(f"{file} is no {architecture}: " + "; ".join(reasons + sorted(other)[:1]))
    module.load_state_dict(weights)


def _download(name: str, labels: Sequence[str] | None) -> Model:
    try:
        if name.startswith(TORCHVISION):
            return _from_torchvision(name, labels)
        if not name.startswith(HUB) and not timm.is_model(name.split(".")[0]):
            names = [entry.name for entry in models()] + timm.list_models()
            raise ModelError(f"there is no model {name!r}; {did_you_mean(name, names)}")
        return _describe(timm.create_model(name, pretrained=True).eval(), name, None, labels)
    except VizlibError:
        raise
    except Exception as error:  # a download fails in as many ways as there are libraries between here and the hub
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        own = ", ".join(checkpoints.bundled())
        raise ModelError(f"{name} could not be downloaded ({reason}); without a network there are {own}") from error


def _from_torchvision(name: str, labels: Sequence[str] | None) -> Model:
    plain = name.removeprefix(TORCHVISION)
    known = torchvision.models.list_models(torchvision.models)  # its classifiers, not its detectors
    if plain not in known:
        raise ModelError(f"torchvision has no model {plain!r}; {did_you_mean(plain, known)}")
    weights = torchvision.models.get_model_weights(plain).DEFAULT
    module = torchvision.models.get_model(plain, weights=None).eval()
    module.load_state_dict(weights.get_state_dict(check_hash=True, weights_only=True))
    return _describe(
        module, name, torchvision_preprocessing(weights.transforms()), labels or weights.meta["categories"]
    )


def torchvision_preprocessing(transforms) -> Preprocessing:
    """What torchvision's own transforms do, in timm's terms."""
    crop, resize = transforms.crop_size[0], transforms.resize_size[0]
    return Preprocessing.from_config(
        {
            "input_size": (3, crop, crop),
            "crop_pct": crop / (resize + 0.5),  # timm divides and rounds down, which must give `resize` again
            "interpolation": transforms.interpolation.value,
            "mean": transforms.mean,
            "std": transforms.std,
        }
    )
