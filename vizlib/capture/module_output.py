"""Look up layers by name, and unpack the tensor in what a layer returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from vizlib.core.errors import ModelError, suggest_names


def unknown_layer_error(name: str, modules: Mapping[str, nn.Module]) -> ModelError:
    """Return the error for a layer name that does not exist, with the closest existing names."""
    return ModelError(f"this model has no layer {name!r}; {suggest_names(name, [known for known in modules if known])}")


def unpack_first_tensor(output: Any) -> tuple[Tensor | None, Callable[[Tensor], Any]]:
    """Return the first tensor in a layer's output, and a function that rebuilds the output around another tensor.

    Args:
        output: A tensor, or a tuple, namedtuple or list whose first item is a tensor.

    Returns:
        The tensor (`None` if there is none) and the rebuilding function, which keeps the container and its other items.
    """
    if isinstance(output, Tensor):
        return output, lambda tensor: tensor
    if isinstance(output, (tuple, list)) and output and isinstance(output[0], Tensor):
        make: Any = type(output)
        if hasattr(output, "_fields"):  # a namedtuple takes its fields one by one
            return output[0], lambda tensor: make(tensor, *output[1:])
        return output[0], lambda tensor: make([tensor, *output[1:]])
    return None, lambda tensor: tensor
