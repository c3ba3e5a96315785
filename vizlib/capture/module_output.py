"""A layer by its name, and the tensor in what it returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from vizlib.core.errors import ModelError, suggest_names


def unknown_layer_error(name: str, modules: Mapping[str, nn.Module]) -> ModelError:
    """The error for a layer that does not exist, naming what was meant perhaps."""
    return ModelError(f"this model has no layer {name!r}; {suggest_names(name, [known for known in modules if known])}")


def unpack_first_tensor(output: Any) -> tuple[Tensor | None, Callable[[Tensor], Any]]:
    """The tensor in a layer's output, and how to put another in its place; `None` where there is none."""
    if isinstance(output, Tensor):
        return output, lambda tensor: tensor
    if isinstance(output, (tuple, list)) and output and isinstance(output[0], Tensor):
        make: Any = type(output)
        if hasattr(output, "_fields"):  # a namedtuple takes its fields one by one
            return output[0], lambda tensor: make(tensor, *output[1:])
        return output[0], lambda tensor: make([tensor, *output[1:]])
    return None, lambda tensor: tensor
