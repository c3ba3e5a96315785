"""Another output in a layer's place, for one thread and one block."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

from torch import Tensor, nn

from vizlib.capture.module_output import unknown_layer_error, unpack_first_tensor
from vizlib.core.errors import ModelError


def substitute_output(
    module: nn.Module, layer: str, make_output: Callable[[], Tensor]
) -> contextlib.AbstractContextManager[None]:
    """Let a layer hand on what `output` gives instead of its own output, in this thread while the block runs.

    The other may have another batch size: what follows then computes as many answers, and what came before ran once.

    Raises: ModelError for a layer that does not exist.
    """
    return alter_output(module, layer, lambda _own: make_output())


@contextlib.contextmanager
def alter_output(module: nn.Module, layer: str, transform: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Let a layer hand on what `change` makes of its output, in this thread while the block runs.

    Raises: ModelError for a layer that does not exist, or whose output is no tensor.
    """
    modules, owner = dict(module.named_modules()), threading.get_ident()
    if layer not in modules:
        raise unknown_layer_error(layer, modules)

    def hook(_module, _inputs, own):
        if threading.get_ident() != owner:
            return None
        tensor, rebuild = unpack_first_tensor(own)
        if tensor is None:
            raise ModelError(f"layer {layer!r} returns {type(own).__name__}, not a tensor, so it cannot be changed")
        return rebuild(transform(tensor))

    handle = modules[layer].register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()
