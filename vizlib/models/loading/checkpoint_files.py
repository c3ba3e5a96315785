"""Read weight files and their sidecars, without executing anything that is in them."""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from vizlib.core.errors import ModelError, suggest_names
from vizlib.models.loading.inert_globals import allow_inert_globals

WEIGHT_SUFFIXES = (".safetensors", ".pth", ".pt", ".ckpt", ".bin", ".pth.tar")
SAVE_AGAIN = "save a plain state dict with torch.save(model.state_dict(), path), or better a .safetensors file"
_NOT_WEIGHTS_OF_TORCH = "not weights of PyTorch"
_PROGRAM = "whose layers cannot be observed; save the weights of the network that it was made from, with"
OTHER_FORMATS = {  # suffix -> what such a file is, and what to do instead
    ".pt2": f"a program of torch.export, {_PROGRAM} torch.save(model.state_dict(), path)",
    ".torchscript": f"a TorchScript program, {_PROGRAM} torch.save(model.state_dict(), path)",
    ".onnx": f"an ONNX graph, {_PROGRAM} torch.save(model.state_dict(), path)",
    ".engine": f"a TensorRT program, {_PROGRAM} torch.save(model.state_dict(), path)",
    ".tflite": f"a TensorFlow Lite program, {_NOT_WEIGHTS_OF_TORCH}; give the file of the PyTorch network",
    ".pb": f"a TensorFlow graph, {_NOT_WEIGHTS_OF_TORCH}; give the file of the PyTorch network",
    **dict.fromkeys(
        (".h5", ".hdf5", ".keras"),
        f"a file of Keras, {_NOT_WEIGHTS_OF_TORCH}; convert it where the network is defined in "
        f"PyTorch, and {SAVE_AGAIN}",
    ),
    **dict.fromkeys(
        (".npz", ".npy"),
        "a file of NumPy arrays, whose names and axes differ from PyTorch's; load them into the network with its own "
        f"code (timm: model.load_pretrained(path)), and {SAVE_AGAIN}",
    ),
    ".msgpack": f"a file of Flax, {_NOT_WEIGHTS_OF_TORCH}; convert it where it was made, and {SAVE_AGAIN}",
    ".gguf": f"a file of llama.cpp, {_NOT_WEIGHTS_OF_TORCH}; give the file of the PyTorch network",
    **dict.fromkeys(
        (".pkl", ".pickle", ".joblib"),
        "a pickle, which may run code when it is opened, so it is not; if torch.save wrote a state dict into it, "
        f"rename it to .pth, else open it where it was made and {SAVE_AGAIN}",
    ),
}

_PACKAGE = Path(__file__).resolve().parents[2]
BUNDLED_FOLDER = next((p for p in (_PACKAGE / "_checkpoints", _PACKAGE.parent / "checkpoints") if p.is_dir()), _PACKAGE)


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
        state_dict: Where the network is in a file that holds several, such as "teacher" or "model_ema".
        ignore: Beginnings of the names of weights that are no part of the network.
        clip: Of a network that reads prompts: `model_cfg` as open_clip has it, and the `words` of its tokenizer.
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
    state_dict: str | None = None
    ignore: Sequence[str] = ()
    clip: Mapping[str, Any] = field(default_factory=dict)

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
        for key in ("labels", "weaknesses", "ignore"):
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
    "state_dict": str,
    "ignore": list,
    "clip": dict,
}


def list_bundled() -> dict[str, Path]:
    """Return the checkpoint files distributed with vizlib: name -> weight file."""
    return {
        path.stem: path for path in sorted(BUNDLED_FOLDER.glob("*.safetensors")) if path.with_suffix(".json").exists()
    }


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


def read_checkpoint(path: Path, *, expected_sha256: str | None = None) -> object:
    """Return the content of a file: a state dict, or whatever else a training script put around it.

    Pickles are read with `weights_only=True`, so one that contains code is refused before it can run. Objects of plain
    data besides weights, such as training arguments, are replaced by stand-ins.

    Args:
        path: File that ends in one of `WEIGHT_SUFFIXES`.
        expected_sha256: SHA-256 that the file must have.

    Raises:
        ModelError: If the file is missing, truncated, unsafe, of another kind or has another SHA-256.
    """
    if refused := describe_other_format(path):
        raise ModelError(refused)
    if not path.is_file():
        names = [file.name for file in path.parent.glob("*") if is_weight_file(file)]
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
    suffix = path.suffix.lower()
    if suffix != ".safetensors" and (program := _describe_program(path)):
        raise ModelError(f"{path.name} is {program}; {SAVE_AGAIN}")
    try:
        if suffix == ".safetensors":
            return load_file(path)
        with allow_inert_globals():
            return torch.load(path, "cpu", weights_only=True)
    except Exception as error:  # the readers raise anything on a damaged file, even KeyError
        raise ModelError(f"{path.name} {_describe_read_error(error, suffix)}") from error


def is_weight_file(path: Path) -> bool:
    """Return whether the name of a file is that of weights."""
    return path.name.lower().endswith(WEIGHT_SUFFIXES)


def describe_other_format(path: Path) -> str | None:
    """Return what a file is and what to do instead, by its name; `None` for a weight file."""
    if is_weight_file(path):
        return None
    kind = OTHER_FORMATS.get(path.suffix.lower())
    if kind is None:
        return f"{path.name} is not a weight file; expected a name with {', '.join(WEIGHT_SUFFIXES)}"
    return f"{path.name} is {kind}"


def _describe_program(path: Path) -> str | None:
    """Return what kind of program a zip file holds; `None` for weights, and for any other file."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (OSError, ValueError, RuntimeError, NotImplementedError, zipfile.BadZipFile):
        return None  # the reader of weights says what is wrong
    parts = {name.split("/")[1] for name in names if "/" in name}
    if "code" in parts or "constants.pkl" in parts:
        return "a TorchScript program, not weights"
    if "archive_format" in parts or "serialized_exported_program.json" in {*parts, *names}:
        return "a program of torch.export, not weights"
    return None


def _describe_read_error(error: Exception, suffix: str) -> str:
    """Return the rest of a sentence about an unreadable file, without PyTorch's advice to disable `weights_only`."""
    if isinstance(error, PermissionError):
        return "cannot be read: permission denied"
    code = re.search(r"GLOBAL ([\w.]+)", str(error))
    if code:
        return f"was not loaded, because it contains more than weights: it uses Python's {code[1]}; {SAVE_AGAIN}"
    if re.search(r"Trying to call reduce|Can only (?:create new object|build)|persistent", str(error)):
        return f"was not loaded, because it contains more than weights: it calls functions; {SAVE_AGAIN}"
    return f"is damaged, truncated or not a {suffix} file; download or save it again"


def describe_content(content: object) -> str:
    """Return what a checkpoint file holds instead of a state dict, for an error message."""
    if isinstance(content, dict):
        return f"a dictionary with {', '.join(map(repr, list(content)[:3]))}" if content else "an empty dictionary"
    return f"a {type(content).__name__}"
