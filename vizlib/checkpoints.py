"""Weight files and the sidecars that say what is in them. Nothing in a file is ever executed."""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from vizlib.errors import ModelError

ENDINGS = (".safetensors", ".pth", ".pt")
WRAPPERS = ("state_dict", "model_state_dict", "model")  # what training scripts put a state dict under
PREFIXES = ("module.", "_orig_mod.")  # what DataParallel and torch.compile put before every name

_HERE = Path(__file__).resolve().parent
FOLDER = next((p for p in (_HERE / "_checkpoints", _HERE.parent / "checkpoints") if p.is_dir()), _HERE)


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

    @classmethod
    def beside(cls, weights: Path) -> Sidecar:
        """Read the sidecar of a weight file; an empty one where there is none.

        Raises: ModelError where it is not a JSON object with these fields.
        """
        path = weights.with_suffix(".json")
        if not path.exists():
            return cls()
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            known = {key: content[key] for key in cls.__dataclass_fields__ if key in content}
        except (OSError, ValueError, TypeError) as error:
            raise ModelError(f"the sidecar {path.name} cannot be read as a JSON object: {error}") from error
        labels = known.get("labels")
        if labels is not None and not (isinstance(labels, list) and all(isinstance(label, str) for label in labels)):
            raise ModelError(
                f"the sidecar {path.name} must give labels as a list of strings, not {type(labels).__name__}"
            )
        return cls(**known)


def bundled() -> dict[str, Path]:
    """The checkpoints that travel with vizlib: name to weight file."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.safetensors")) if path.with_suffix(".json").exists()}


def sha256(path: Path) -> str:
    """The file's SHA-256 as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def read_weights(path: Path, *, expect: str | None = None) -> dict[str, Tensor]:
    """Read a state dict, taking off the wrappers and prefixes of training scripts.

    `.pth` and `.pt` are read with `weights_only=True`: a pickle that wants to run code is refused before it can.

    Raises: ModelError for a missing, truncated, altered (`expect` is its SHA-256) or dangerous file, or one that holds
    something else than named tensors.
    """
    if path.suffix not in ENDINGS:
        raise ModelError(f"{path.name} is no weight file; expected one that ends in {', '.join(ENDINGS)}")
    if not path.is_file():
        raise ModelError(f"there is no file {path}")
    if expect is not None and sha256(path) != expect:
        raise ModelError(
            f"{path.name} is not the file its sidecar describes: its sha256 differs, so it was cut or changed"
        )
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{path.name} was not loaded, because it wants to run code or is no PyTorch file; "
            "save a plain state dict with torch.save(model.state_dict(), path), or better a .safetensors file"
        ) from error
    except (SafetensorError, RuntimeError, EOFError, OSError, ValueError) as error:
        raise ModelError(f"{path.name} is cut short or no {path.suffix} file: {_first_line(error)}") from error
    return _state_dict(content, path.name)


def _state_dict(content: object, name: str) -> dict[str, Tensor]:
    for wrapper in WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    if not isinstance(content, dict) or not content or not all(isinstance(v, Tensor) for v in content.values()):
        raise ModelError(f"{name} holds {_describe(content)}, not a state dict of named tensors")
    weights = {str(key): value for key, value in content.items()}
    for prefix in PREFIXES:
        if all(key.startswith(prefix) for key in weights):
            weights = {key.removeprefix(prefix): value for key, value in weights.items()}
    return weights


def _describe(content: object) -> str:
    if isinstance(content, dict):
        return f"a dictionary with {', '.join(map(repr, list(content)[:3]))}" if content else "an empty dictionary"
    return f"a {type(content).__name__}"


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
