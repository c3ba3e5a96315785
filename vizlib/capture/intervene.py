"""Another output in a layer's place, for one thread and one block."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

from torch import Tensor, nn

from vizlib.capture.module_output import first_tensor, no_layer
from vizlib.core.errors import ModelError


def substitute(module: nn.Module, layer: str, output: Callable[[], Tensor]) -> contextlib.AbstractContextManager[None]:
    """Let a layer hand on what `output` gives instead of its own output, in this thread while the block runs.

    The other may have another batch size: what follows then computes as many answers, and what came before ran once.

    Raises: ModelError for a layer that does not exist.
    """
    return alter(module, layer, lambda _own: output())


@contextlib.contextmanager
def alter(module: nn.Module, layer: str, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Let a layer hand on what `change` makes of its output, in this thread while the block runs.

    Raises: ModelError for a layer that does not exist, or whose output is no tensor.
    """
    modules, owner = dict(module.named_modules()), threading.get_ident()
    if layer not in modules:
        raise no_layer(layer, modules)

    def hook(_module, _inputs, own):
        if threading.get_ident() != owner:
            return None
        tensor, rebuild = first_tensor(own)
        if tensor is None:
            raise ModelError(f"layer {layer!r} returns {type(own).__name__}, not a tensor, so it cannot be changed")
        return rebuild(change(tensor))

    handle = modules[layer].register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()
