"""Find the operation that a network's output comes from: a softmax, a sigmoid, or an identity in place of a head."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

# ATen operator -> the name of the function it computes.
ACTIVATIONS = {
    torch.ops.aten._softmax: "softmax",
    torch.ops.aten._safe_softmax: "softmax",
    torch.ops.aten._log_softmax: "log_softmax",
    torch.ops.aten.sigmoid: "sigmoid",
    torch.ops.aten.sigmoid_: "sigmoid",
}
MAX_TRACED_ELEMENTS = 1 << 20  # of one tensor: no network has so many classes, but attention matrices may be larger
COPIES = {torch.ops.aten.clone, torch.ops.aten._to_copy}  # they change no value, but their output has its own memory


class OutputTrace:
    """What was traced of a pass to find its final operation: outputs of softmax, sigmoid and `nn.Identity` modules.

    A tensor and its views share their memory, so an operation is recognised behind any reshaping of its output.
    """

    def __init__(self) -> None:
        self._activations: list[tuple[Tensor, str]] = []
        self._identities: list[tuple[Tensor, str]] = []

    def add_activation(self, output: Tensor, name: str) -> None:
        """Add the output of a softmax or sigmoid, which may be the final operation."""
        if output.numel() <= MAX_TRACED_ELEMENTS:
            self._activations.append((output, name))

    def add_identity(self, output: Tensor, name: str) -> None:
        """Add the output of an `nn.Identity`, which may be the final operation, by its name in the network."""
        if output.ndim == 2:  # a row of features for each photo, as a head receives it
            self._identities.append((output, name))

    def find_activation(self, tensor: Tensor) -> str | None:
        """Return the final operation, one of `ACTIVATIONS`, that a tensor is the output of; `None` if it is of none."""
        return next((name for output, name in reversed(self._activations) if _shares_memory(output, tensor)), None)

    def find_identities(self, tensor: Tensor) -> list[str]:
        """Return the names of the final `nn.Identity` modules, those whose output a tensor is."""
        return [name for output, name in self._identities if _shares_memory(output, tensor)]


@contextlib.contextmanager
def trace_output(module: nn.Module) -> Iterator[OutputTrace]:
    """Trace what may be the final operation of the pass of `module` which this thread runs inside the block."""
    trace, owner = OutputTrace(), threading.get_ident()

    class TraceMode(TorchDispatchMode):
        """Adds the outputs of operations that may be final, and of copies of them."""

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            output = func(*args, **(kwargs or {}))
            operation = func._overloadpacket
            name = ACTIVATIONS.get(operation)
            if name is None and operation in COPIES:
                name = trace.find_activation(args[0])
            if name is not None:
                trace.add_activation(output, name)
            return output

    def make_hook(name: str):
        """Return the hook that adds the output of an `nn.Identity`."""

        def hook(_module, _inputs, output):
            if threading.get_ident() == owner and isinstance(output, Tensor):
                trace.add_identity(output, name)

        return hook

    with contextlib.ExitStack() as cleanup:
        for name, submodule in module.named_modules():
            if type(submodule) is nn.Identity:
                cleanup.callback(submodule.register_forward_hook(make_hook(name)).remove)
        cleanup.enter_context(TraceMode())
        yield trace


def _shares_memory(a: Tensor, b: Tensor) -> bool:
    """Return whether a tensor is the final operation's output, reshaped or not: both have the same memory."""
    return a.untyped_storage().data_ptr() == b.untyped_storage().data_ptr() and a.numel() == b.numel()
