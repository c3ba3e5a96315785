"""Copy a network in training mode to evaluation mode, sharing its parameters and buffers."""

from __future__ import annotations

from torch import nn

# The hook dictionaries of a module that PyTorch reads when the module runs.
HOOK_DICTIONARIES = (
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_backward_hooks",
    "_backward_pre_hooks",
)


def make_evaluation_copy(module: nn.Module) -> nn.Module:
    """Return a copy of the module tree in evaluation mode that shares every parameter and buffer with the original.

    In training mode a network computes with the batch statistics of its input and with random dropout, and running it
    updates its running means. The copy computes as the network does in evaluation mode; the original is not changed.

    Every module of the copy has its own hook dictionaries. They start with the original's hooks, so that hooks of a
    user still run; a hook that is registered on the copy is not registered on the original, and the reverse.
    """
    copies: dict[int, nn.Module] = {}

    def copy_tree(original: nn.Module) -> nn.Module:
        """Return the evaluation copy of a module and, by recursion, of its children."""
        if id(original) not in copies:
            copy = copies[id(original)] = original.__new__(type(original))
            children = {name: child and copy_tree(child) for name, child in original._modules.items()}
            hooks = {name: vars(original)[name].copy() for name in HOOK_DICTIONARIES}
            vars(copy).update(vars(original), training=False, _modules=children, **hooks)
        return copies[id(original)]

    return copy_tree(module)
