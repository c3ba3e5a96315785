"""Floating-point operations, counted by module."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Iterator

from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry


@contextlib.contextmanager
def count_flops(module: nn.Module) -> Iterator[Counter[str]]:
    """Count this thread's floating-point operations by module while the block runs, by PyTorch's own formulas."""
    flops: Counter[str] = Counter()
    owner, path = threading.get_ident(), []

    class Count(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            output = func(*args, **(kwargs or {}))
            formula = flop_registry.get(func._overloadpacket)
            if formula is not None:
                flops.update(dict.fromkeys(set(path), formula(*args, **(kwargs or {}), out_val=output)))
            return output

    def enter(name: str):
        return lambda _module, _inputs: path.append(name) if threading.get_ident() == owner else None

    def leave(_module, _inputs, _output):
        if threading.get_ident() == owner:
            path.pop()

    with contextlib.ExitStack() as undo:
        for name, part in module.named_modules():
            undo.callback(part.register_forward_pre_hook(enter(name), prepend=True).remove)
            undo.callback(part.register_forward_hook(leave, always_call=True).remove)
        undo.enter_context(Count())
        yield flops
