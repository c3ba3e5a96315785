"""Read weight files and their sidecars, without executing anything that is in them."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from vizlib.core.errors import ModelError, suggest_names

WEIGHT_SUFFIXES = (".safetensors", ".pth", ".pt")
STATE_DICT_KEYS = ("state_dict", "model_state_dict", "model")  # under which training scripts save a state dict
KEY_PREFIXES = ("module.", "_orig_mod.", "model.")  # added to every name by DataParallel, torch.compile and Lightning

_PACKAGE = Path(__file__).resolve().parents[2]
BUNDLED_FOLDER = next((p for p in (_PACKAGE / "_checkpoints", _PACKAGE.parent / "checkpoints") if p.is_dir()), _PACKAGE)
_SAVE_AGAIN = "save a plain state dict with torch.save(model.state_dict(), path), or better a .safetensors file"


@dataclass(frozen=True)
class Sidecar:
    """Description of a weight file: `name.json` beside `name.safetensors`. All fields are optional.

    Attributes:
        architecture: timm name, or "torchvision/" and a torchvision name.
        arguments: Further arguments of `timm.create_model`.
        labels: Label of each class, in the order of the outputs.
        output_kind: What the outputs mean, as in `vizlib.wrap`.
        preprocessing: timm's data config: `input_size`, `crop_pct`, `mean`, ...
        sha256: SHA-256 of the weight file in hexadecimal.
        origin: Training data, licence, command, duration, machine.
        accuracy: `top1` in percent, `interval95`, `photos`, `data`.
        ood: Fields of `vizlib.models.ood.OodScore`.
        faithfulness: `method`, `auc`, `centred_gaussian`, `photos`, ...
        weaknesses: Known weaknesses, one sentence each.
    """

    architecture: str | None = None
    arguments: Mapping[str, object] = field(default_factory=dict)
    labels: Sequence[str] | None = None
    output_kind: str | None = None
    preprocessing: Mapping[str, object] | None = None
    sha256: str | None = None
    origin: Mapping[str, object] = field(default_factory=dict)
    accuracy: Mapping[str, object] = field(default_factory=dict)
    ood: Mapping[str, object] = field(default_factory=dict)
    faithfulness: Mapping[str, object] = field(default_factory=dict)
    weaknesses: Sequence[str] = ()

    @classmethod
    def read_for(cls, weights: Path) -> Sidecar:
        """Read the sidecar of a weight file; unknown fields are ignored, and without a file all fields are empty.

        Raises:
            ModelError: If the file is not a JSON object, or a field has another type.
        """
        path = weights.with_suffix(".json")
        if not path.is_file():
            return cls()
        try:
            content = json.loads(path.read_text(encoding="utf-8-sig"))  # some editors write a byte order mark
        except (OSError, ValueError, RecursionError) as error:
            raise ModelError(f"the sidecar {path.name} is not JSON ({error}); correct or remove it") from error
        if not isinstance(content, dict):
            raise ModelError(f"the sidecar {path.name} must hold a JSON object, not a {type(content).__name__}")
        fields = {key: content[key] for key in _FIELD_TYPES if content.get(key) is not None}
        for key, value in fields.items():
            if not isinstance(value, _FIELD_TYPES[key]):
                expected = {str: "a string", list: "a list of strings", dict: "an object"}[_FIELD_TYPES[key]]
                raise ModelError(
                    f"the sidecar {path.name} must give {key} as {expected}, not as a {type(value).__name__}"
                )
        for key in ("labels", "weaknesses"):
            if not all(isinstance(text, str) for text in fields.get(key, ())):
                raise ModelError(f"the sidecar {path.name} must give {key} as a list of strings only")
        return cls(**fields)


_FIELD_TYPES = {  # JSON type of each field of a sidecar
    "architecture": str,
    "arguments": dict,
    "labels": list,
    "output_kind": str,
    "preprocessing": dict,
    "sha256": str,
    "origin": dict,
    "accuracy": dict,
    "ood": dict,
    "faithfulness": dict,
    "weaknesses": list,
}


def list_bundled() -> dict[str, Path]:
    """Return the checkpoint files distributed with vizlib: name -> weight file."""
    return {
        path.stem: path for path in sorted(BUNDLED_FOLDER.glob("*.safetensors")) if path.with_suffix(".json").exists()
    }


def list_weight_files(folder: str | os.PathLike[str]) -> list[Path]:
    """Return the weight files of a folder, sorted by name.

    Raises:
        ModelError: If the folder does not exist or cannot be read.
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise ModelError(
            f"there is no folder {folder}; --checkpoints expects one with {', '.join(WEIGHT_SUFFIXES)} files"
        )
    try:
        files = sorted(path for path in folder.iterdir() if path.suffix.lower() in WEIGHT_SUFFIXES and path.is_file())
    except OSError as error:
        raise ModelError(f"the folder {folder} of --checkpoints cannot be read: {error.strerror}") from error
    return [path for path in files if not path.name.startswith(".")]  # macOS creates a ._ file beside each


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a checkpoint file as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def hash_weights(module: nn.Module) -> str:
    """Return the SHA-256 of a network's weights as 64 hexadecimal digits.

    Covers name, dtype, shape and bytes of every entry of the state dict, sorted by name, so equal weights have equal
    hashes whatever file they came from.
    """
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        if isinstance(value, Tensor):
            tensor = value.detach().cpu().contiguous()
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
        else:  # extra state of a module
            digest.update(f"{name} {value!r}\n".encode())
    return digest.hexdigest()


def read_weights(path: Path, *, expected_sha256: str | None = None) -> dict[str, Tensor]:
    """Return the state dict in a file, without the wrappers and key prefixes that training scripts add.

    `.pth` and `.pt` are read with `weights_only=True`, so a pickle that contains code is refused before it can run.

    Args:
        path: File that ends in one of `WEIGHT_SUFFIXES`.
        expected_sha256: SHA-256 that the file must have.

    Raises:
        ModelError: If the file is missing, truncated, unsafe, has another SHA-256 or does not hold named tensors.
    """
    suffix = path.suffix.lower()
    if suffix not in WEIGHT_SUFFIXES:
        raise ModelError(f"{path.name} is not a weight file; expected a name with {', '.join(WEIGHT_SUFFIXES)}")
    if not path.is_file():
        names = [file.name for file in path.parent.glob("*") if file.suffix.lower() in WEIGHT_SUFFIXES]
        raise ModelError(f"there is no file {path}; {suggest_names(path.name, names) if names else 'check its folder'}")
    try:
        actual_sha256 = hash_file(path) if expected_sha256 is not None else None
    except OSError as error:
        raise ModelError(f"{path.name} cannot be read: {error.strerror}") from error
    if expected_sha256 is not None and actual_sha256 != expected_sha256.lower():
        raise ModelError(
            f"{path.name} is not the file that {path.with_suffix('.json').name} describes, because its sha256 differs: "
            "it is truncated or changed; download it again"
        )
    try:
        content = load_file(path) if suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except Exception as error:  # the readers raise anything on a damaged file, even KeyError
        raise ModelError(f"{path.name} {_describe_read_error(error, suffix)}") from error
    return _extract_state_dict(content, path.name)


def assign_weights(module: nn.Module, weights: Mapping[str, Tensor], file: str, architecture: str) -> None:
    """Copy the weights of a checkpoint file into a network, converting their dtype to the network's.

    Args:
        module: Network to fill.
        weights: State dict; counters of BatchNorm may be missing.
        file: Name of the weight file for error messages.
        architecture: Name of the architecture for error messages.

    Raises:
        ModelError: For weights that are missing, unexpected or of another shape; the message names the first of each.
    """
    own = module.state_dict()
    missing = sorted(key for key in own.keys() - weights.keys() if not key.endswith("num_batches_tracked"))
    unexpected = sorted(weights.keys() - own.keys())
    mismatched = sorted(key for key in own.keys() & weights.keys() if own[key].shape != weights[key].shape)
    reasons = [
        *([f"{len(missing)} of its weights are missing, such as {missing[0]}"] if missing else []),
        *([f"{len(unexpected)} are unexpected, such as {unexpected[0]}"] if unexpected else []),
        *(f"{key} is {_format_shape(weights[key])}, expected {_format_shape(own[key])}" for key in mismatched[:1]),
    ]
    if reasons:
        raise ModelError(
            f"{file} does not fit the architecture {architecture}: {', and '.join(reasons)}; "
            "give the architecture, and in its sidecar the arguments, that it was trained with"
        )
    try:
        module.load_state_dict(weights, strict=False)  # old files lack `num_batches_tracked`, which inference ignores
    except RuntimeError as error:  # the right shapes, but sparse, quantised or meta tensors
        raise ModelError(f"{file} holds tensors that {architecture} cannot use; {_SAVE_AGAIN}") from error


def count_classes(weights: Mapping[str, Tensor], module: nn.Module, num_classes: int) -> int:
    """Return the number of classes of the classifier in a checkpoint's state dict.

    Args:
        weights: State dict.
        module: Network of the same architecture, built for `num_classes`.
        num_classes: Returned if the weights do not identify another number: the classifier's weights are those that
            differ from the network's only in the first axis, which has `num_classes` entries in the network.
    """
    counts = {
        len(weights[key])
        for key, own in module.state_dict().items()
        if key in weights and own.ndim and len(own) == num_classes
        if weights[key].ndim == own.ndim
        and weights[key].shape[1:] == own.shape[1:]
        and len(weights[key]) != num_classes
    }
    return counts.pop() if len(counts) == 1 else num_classes


def _extract_state_dict(content: object, name: str) -> dict[str, Tensor]:
    """Return the state dict in the content of a checkpoint file, without the wrappers of training scripts."""
    for key in STATE_DICT_KEYS:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not content or not all(isinstance(v, Tensor) for v in content.values()):
        raise ModelError(f"{name} holds {_describe_content(content)}, not a state dict of named tensors; {_SAVE_AGAIN}")
    weights = {str(key): value for key, value in content.items()}
    while prefix := next((p for p in KEY_PREFIXES if all(key.startswith(p) for key in weights)), None):
        weights = {key.removeprefix(prefix): value for key, value in weights.items()}
    return weights


def _describe_read_error(error: Exception, suffix: str) -> str:
    """Return the rest of a sentence about an unreadable file, without PyTorch's advice to disable `weights_only`."""
    if isinstance(error, PermissionError):
        return "cannot be read: permission denied"
    code = re.search(r"GLOBAL ([\w.]+)", str(error))
    if code:
        return f"was not loaded, because it contains more than weights: it uses Python's {code[1]}; {_SAVE_AGAIN}"
    if "TorchScript" in str(error):
        return f"is a TorchScript program, not weights; {_SAVE_AGAIN}"
    return f"is damaged, truncated or not a {suffix} file; download or save it again"


def _describe_content(content: object) -> str:
    """Return what a checkpoint file holds instead of a state dict, for an error message."""
    if isinstance(content, dict):
        return f"a dictionary with {', '.join(map(repr, list(content)[:3]))}" if content else "an empty dictionary"
    return f"a {type(content).__name__}"


def _format_shape(tensor: Tensor) -> str:
    """Return the shape of a checkpoint's weight, for an error message."""
    return " × ".join(map(str, tensor.shape)) or "one number"
