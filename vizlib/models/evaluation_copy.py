"""A network in evaluation mode that shares every parameter and buffer with one in training mode."""

from __future__ import annotations

from torch import nn


def make_evaluation_copy(module: nn.Module) -> nn.Module:
    """A second tree of the same modules in evaluation mode, sharing every parameter and buffer.

    A network in training mode answers with this photo's batch statistics and random dropout, and running it would move
    its running means. The twin answers as the network will when it is used, and the network stays as it was found.
    """
    twins: dict[int, nn.Module] = {}

    def twin(part: nn.Module) -> nn.Module:
        if id(part) not in twins:
            other = twins[id(part)] = part.__new__(type(part))
            children = {name: child and twin(child) for name, child in part._modules.items()}
            vars(other).update(vars(part), training=False, _modules=children)
        return twins[id(part)]

    return twin(module)
