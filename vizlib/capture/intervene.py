"""Replace the output of a layer during a forward pass, for the calling thread and one `with` block."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

from torch import Tensor, nn

from vizlib.capture.recorder import unknown_layer_error, unpack_first_tensor
from vizlib.core.errors import ModelError


def substitute_output(
    module: nn.Module, layer: str, make_output: Callable[[], Tensor]
) -> contextlib.AbstractContextManager[None]:
    """Replace a layer's output by a given tensor, in this thread while the block runs.

    The replacement may have another batch size: the layers before it then run on the original batch only, and the
    layers after it on the new one.

    Args:
        module: The module that will be run (not a copy of it: copies have their own hooks).
        layer: Dotted name of the layer in `module`.
        make_output: Returns the replacement; called each time the layer runs.

    Raises:
        ModelError: For an unknown layer, or one whose output is not a tensor.
    """
    return alter_output(module, layer, lambda _output: make_output())


@contextlib.contextmanager
def alter_output(module: nn.Module, layer: str, transform: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Replace a layer's output by a function of it, in this thread while the block runs.

    Args:
        module: The module that will be run (not a copy of it: copies have their own hooks).
        layer: Dotted name of the layer in `module`.
        transform: Maps the layer's output to the tensor that the following layers receive.

    Raises:
        ModelError: For an unknown layer, or one whose output is not a tensor.
    """
    modules, owner = dict(module.named_modules()), threading.get_ident()
    if layer not in modules:
        raise unknown_layer_error(layer, modules)

    def hook(_module, _inputs, output):
        """Return the layer's output with the altered tensor in it."""
        if threading.get_ident() != owner:
            return None
        tensor, rebuild = unpack_first_tensor(output)
        if tensor is None:
            raise ModelError(f"layer {layer!r} returns {type(output).__name__}, not a tensor, so it cannot be changed")
        return rebuild(transform(tensor))

    handle = modules[layer].register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()
