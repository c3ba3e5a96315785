"""Count floating-point operations per module."""

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
    """Count this thread's floating-point operations per module while the block runs, with PyTorch's own formulas.

    Yields:
        Dotted module name -> operations of the module and all modules inside it; `""` is the total.
    """
    flops: Counter[str] = Counter()
    owner, module_path = threading.get_ident(), []

    class FlopCountMode(TorchDispatchMode):
        """Adds the floating-point operations of each operator to the counts of the running modules."""

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            output = func(*args, **(kwargs or {}))
            formula = flop_registry.get(func._overloadpacket)
            if formula is not None:
                flops.update(dict.fromkeys(set(module_path), formula(*args, **(kwargs or {}), out_val=output)))
            return output

    def make_push_hook(name: str):
        """Return the hook that starts to count operations under a module's name."""
        return lambda _module, _inputs: module_path.append(name) if threading.get_ident() == owner else None

    def pop_hook(_module, _inputs, _output):
        """Stop counting operations under the name of the module that ends."""
        if threading.get_ident() == owner:
            module_path.pop()

    with contextlib.ExitStack() as cleanup:
        for name, submodule in module.named_modules():
            cleanup.callback(submodule.register_forward_pre_hook(make_push_hook(name), prepend=True).remove)
            cleanup.callback(submodule.register_forward_hook(pop_hook, always_call=True).remove)
        cleanup.enter_context(FlopCountMode())
        yield flops
