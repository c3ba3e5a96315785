"""Call a function with each module that a thread runs, before it runs or with its output."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor, nn

from vizlib.capture.recorder import unpack_first_tensor


@contextlib.contextmanager
def watch_modules(on_run: Callable[[nn.Module, tuple[Any, ...]], None]) -> Iterator[None]:
    """Call `on_run` with each module that this thread runs inside the block and its arguments, before the module runs.

    Unlike hooks on the parts of a network, this also sees modules that the network does not register: those kept in a
    list, in a closure, or reached through a replaced `forward`. Other threads are not affected.

    Args:
        on_run: Called with each module and its positional arguments; an exception it raises stops the pass.
    """
    owner = threading.get_ident()

    def hook(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        if threading.get_ident() == owner:
            on_run(module, inputs)

    handle = nn.modules.module.register_module_forward_pre_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@contextlib.contextmanager
def watch_outputs(module: nn.Module, on_output: Callable[[str, Tensor], None]) -> Iterator[None]:
    """Call `on_output` with the name and output of each submodule that this thread runs inside the block.

    Args:
        module: The module that will be run (not a copy of it: copies have their own hooks).
        on_output: Called with the dotted name of a submodule and its output, the first tensor of several, which it
            must not change. A container is reported after its children.
    """
    owner = threading.get_ident()

    def make_hook(name: str) -> Callable[..., None]:
        """Return the hook that reports the output of one submodule."""

        def hook(_module: nn.Module, _inputs: object, output: object) -> None:
            tensor, _ = unpack_first_tensor(output)
            if tensor is not None and threading.get_ident() == owner:
                on_output(name, tensor)

        return hook

    with contextlib.ExitStack() as cleanup:
        for name, part in module.named_modules():
            if name:
                cleanup.callback(part.register_forward_hook(make_hook(name)).remove)
        yield
