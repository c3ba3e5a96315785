"""Call a function with each module that a thread runs, registered in the network or not."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

from torch import nn


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
