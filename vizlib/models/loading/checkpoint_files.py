"""Weight files and the sidecars that say what is in them. Nothing in a file is ever executed."""

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
STATE_DICT_KEYS = ("state_dict", "model_state_dict", "model")  # what training scripts put a state dict under
KEY_PREFIXES = (
    "module.",
    "_orig_mod.",
    "model.",
)  # what DataParallel, torch.compile and Lightning put before every name

_PACKAGE = Path(__file__).resolve().parents[2]
BUNDLED_FOLDER = next((p for p in (_PACKAGE / "_checkpoints", _PACKAGE.parent / "checkpoints") if p.is_dir()), _PACKAGE)
_SAVE_AGAIN = "save a plain state dict with torch.save(model.state_dict(), path), or better a .safetensors file"


@dataclass(frozen=True)
class Sidecar:
    """What a weight file cannot say of itself: `name.json` beside `name.safetensors`."""

    architecture: str | None = None
    arguments: Mapping[str, object] = field(default_factory=dict)  # for `timm.create_model`, besides the name
    labels: Sequence[str] | None = None
    preprocessing: Mapping[str, object] | None = None  # timm's data config: input_size, crop_pct, mean, ...
    sha256: str | None = None
    origin: Mapping[str, object] = field(default_factory=dict)  # data, licence, command, duration, machine
    accuracy: Mapping[str, object] = field(default_factory=dict)  # top1, interval95, photos, data
    ood: Mapping[str, object] = field(default_factory=dict)  # score, threshold, kept, data; see familiarity.py
    faithfulness: Mapping[str, object] = field(default_factory=dict)  # method, auc, centred_gaussian, photos, ...
    weaknesses: Sequence[str] = ()  # what it is known to do wrong, a sentence each

    @classmethod
    def read_for(cls, weights: Path) -> Sidecar:
        """Read the sidecar of a weight file; an empty one where there is none.

        Fields it does not know are left alone, so a sidecar may say more.

        Raises: ModelError where it is not a JSON object, or a field is of another kind.
        """
        path = weights.with_suffix(".json")
        if not path.is_file():
            return cls()
        try:
            content = json.loads(path.read_text(encoding="utf-8-sig"))  # some editors put a mark before the text
        except (OSError, ValueError, RecursionError) as error:
            raise ModelError(f"the sidecar {path.name} is not JSON ({error}); correct it or take it away") from error
        if not isinstance(content, dict):
            raise ModelError(f"the sidecar {path.name} must hold a JSON object, not a {type(content).__name__}")
        known = {key: content[key] for key in _KINDS if content.get(key) is not None}
        for key, value in known.items():
            if not isinstance(value, _KINDS[key]):
                wanted = {str: "a string", list: "a list of strings", dict: "an object"}[_KINDS[key]]
                raise ModelError(
                    f"the sidecar {path.name} must give {key} as {wanted}, not as a {type(value).__name__}"
                )
        for key in ("labels", "weaknesses"):
            if not all(isinstance(text, str) for text in known.get(key, ())):
                raise ModelError(f"the sidecar {path.name} must give {key} as a list of strings, but one is none")
        return cls(**known)


_KINDS = {  # what each field of a sidecar is in JSON
    "architecture": str,
    "arguments": dict,
    "labels": list,
    "preprocessing": dict,
    "sha256": str,
    "origin": dict,
    "accuracy": dict,
    "ood": dict,
    "faithfulness": dict,
    "weaknesses": list,
}


def list_bundled() -> dict[str, Path]:
    """The checkpoints that travel with vizlib: name to weight file."""
    return {
        path.stem: path for path in sorted(BUNDLED_FOLDER.glob("*.safetensors")) if path.with_suffix(".json").exists()
    }


def list_weight_files(folder: str | os.PathLike[str]) -> list[Path]:
    """The weight files of a folder, by name. Raises: ModelError where there is no such folder."""
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise ModelError(
            f"there is no folder {folder}; --checkpoints names one that holds {', '.join(WEIGHT_SUFFIXES)} files"
        )
    try:
        inside = sorted(path for path in folder.iterdir() if path.suffix.lower() in WEIGHT_SUFFIXES and path.is_file())
    except OSError as error:
        raise ModelError(f"the folder {folder} of --checkpoints cannot be read: {error.strerror}") from error
    return [path for path in inside if not path.name.startswith(".")]  # macOS puts a ._ file beside each


def hash_file(path: Path) -> str:
    """The file's SHA-256 as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def hash_weights(module: nn.Module) -> str:
    """SHA-256 of a network's weights: of the name, type, shape and bytes of all in its state dict, by name.

    The same for the same weights, whatever file they came from; 64 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        if isinstance(value, Tensor):
            plain = value.detach().cpu().contiguous()
            digest.update(f"{name} {plain.dtype} {tuple(plain.shape)}\n".encode())
            digest.update(plain.reshape(-1).view(torch.uint8).numpy().data)
        else:  # what a module of your own keeps besides
            digest.update(f"{name} {value!r}\n".encode())
    return digest.hexdigest()


def read_weights(path: Path, *, expected_sha256: str | None = None) -> dict[str, Tensor]:
    """Read a state dict, taking off the wrappers and prefixes of training scripts.

    `.pth` and `.pt` are read with `weights_only=True`: a pickle that wants to run code is refused before it can.

    Raises: ModelError for a missing, truncated, altered (`expect` is its SHA-256) or dangerous file, or one that holds
    something else than named tensors.
    """
    ending = path.suffix.lower()
    if ending not in WEIGHT_SUFFIXES:
        raise ModelError(f"{path.name} is no weight file; expected one that ends in {', '.join(WEIGHT_SUFFIXES)}")
    if not path.is_file():
        there = [other.name for other in path.parent.glob("*") if other.suffix.lower() in WEIGHT_SUFFIXES]
        raise ModelError(f"there is no file {path}; {suggest_names(path.name, there) if there else 'check its folder'}")
    try:
        found = hash_file(path) if expected_sha256 is not None else None
    except OSError as error:
        raise ModelError(f"{path.name} cannot be read: {error.strerror}") from error
    if expected_sha256 is not None and found != expected_sha256.lower():
        raise ModelError(
            f"{path.name} is not the file that {path.with_suffix('.json').name} describes, because its sha256 differs: "
            "it was cut short or changed, so fetch it again"
        )
    try:
        content = load_file(path) if ending == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except Exception as error:  # on a damaged file the readers raise whatever they stumble on, KeyError included
        raise ModelError(f"{path.name} {_what_is_wrong(error, ending)}") from error
    return _state_dict(content, path.name)


def assign_weights(module: nn.Module, weights: Mapping[str, Tensor], file: str, architecture: str) -> None:
    """Put weights into a network of ours; half precision becomes the network's own.

    Raises: ModelError for weights that are missing, unknown or of another shape, naming the first of each.
    """
    own = module.state_dict()
    missing = sorted(key for key in own.keys() - weights.keys() if not key.endswith("num_batches_tracked"))
    unknown = sorted(weights.keys() - own.keys())
    other = sorted(key for key in own.keys() & weights.keys() if own[key].shape != weights[key].shape)
    reasons = [
        *([f"{len(missing)} of its weights are missing, such as {missing[0]}"] if missing else []),
        *([f"{len(unknown)} are unknown to it, such as {unknown[0]}"] if unknown else []),
        *(f"{key} is {_shape(weights[key])} and should be {_shape(own[key])}" for key in other[:1]),
    ]
    if reasons:
        raise ModelError(
            f"{file} does not fit the architecture {architecture}: {', and '.join(reasons)}; "
            "give the architecture, and in its sidecar the arguments, that it was trained as"
        )
    try:
        module.load_state_dict(weights, strict=False)  # old files do not count BatchNorm's batches; nothing reads it
    except RuntimeError as error:  # the right shapes, but sparse, quantised or without values
        raise ModelError(f"{file} holds tensors that {architecture} cannot take over; {_SAVE_AGAIN}") from error


def count_classes(weights: Mapping[str, Tensor], module: nn.Module, classes: int) -> int:
    """How many classes the weights tell apart, given a network built for `classes`: what its classifier's rows say.

    The classifier is where only the first axis differs, and is `classes` long in the network. Unchanged if in doubt.
    """
    found = {
        len(weights[key])
        for key, own in module.state_dict().items()
        if key in weights and own.ndim and len(own) == classes
        if weights[key].ndim == own.ndim and weights[key].shape[1:] == own.shape[1:] and len(weights[key]) != classes
    }
    return found.pop() if len(found) == 1 else classes


def _state_dict(content: object, name: str) -> dict[str, Tensor]:
    for wrapper in STATE_DICT_KEYS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    if not isinstance(content, dict) or not content or not all(isinstance(v, Tensor) for v in content.values()):
        raise ModelError(f"{name} holds {_describe(content)}, not a state dict of named tensors; {_SAVE_AGAIN}")
    weights = {str(key): value for key, value in content.items()}
    while prefix := next((p for p in KEY_PREFIXES if all(key.startswith(p) for key in weights)), None):
        weights = {key.removeprefix(prefix): value for key, value in weights.items()}
    return weights


def _what_is_wrong(error: Exception, ending: str) -> str:
    """The rest of a sentence about a file that cannot be read; PyTorch's own advice is to switch the safety off."""
    if isinstance(error, PermissionError):
        return "cannot be read: this user may not"
    wanted = re.search(r"GLOBAL ([\w.]+)", str(error))
    if wanted:
        return f"was not loaded, because it is more than weights: it asks for Python's {wanted[1]}; {_SAVE_AGAIN}"
    if "TorchScript" in str(error):
        return f"is a TorchScript program, not weights; {_SAVE_AGAIN}"
    return f"is damaged, cut short or no {ending} file at all; fetch it or save it again"


def _describe(content: object) -> str:
    if isinstance(content, dict):
        return f"a dictionary with {', '.join(map(repr, list(content)[:3]))}" if content else "an empty dictionary"
    return f"a {type(content).__name__}"


def _shape(tensor: Tensor) -> str:
    return " × ".join(map(str, tensor.shape)) or "one number"
