"""Copy a model with random parameters in some of its levels; the model itself is not changed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from vizlib.models.evaluation_copy import make_evaluation_copy
from vizlib.models.model import Model

CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


@dataclass(frozen=True)
class Level:
    """Parameters of a network that are randomised together: those of one block, or of one layer outside the blocks.

    Attributes:
        name: Dotted name of the module; `""` for parameters that belong to the network itself.
        parameters: Dotted names of its parameters.
    """

    name: str
    parameters: tuple[str, ...]


def list_levels(model: Model) -> tuple[Level, ...]:
    """Return the levels of a network in the order in which they finish, those nearest to the input first.

    A level is a block where the network is a stack of blocks (`layer4.1`, `blocks.11`), else a layer (`conv1`, `fc`).
    Parameters that belong to no layer, such as the class token, form a level of their own at the input.

    Args:
        model: The model.

    Returns:
        The levels; none for a network without parameters.
    """
    order = {name: position for position, name in enumerate(model.running_order)}
    levels = list(_split_module("", model.module))

    def find_position(level: Level) -> int:
        """Return when a level finishes; parameters of a module that is split are used before its parts."""
        is_split = any(other.name.startswith(f"{level.name}.".lstrip(".")) for other in levels if other != level)
        parts = [position for name, position in order.items() if name.startswith(f"{level.name}.".lstrip("."))]
        return min(parts, default=-1) if is_split else order.get(level.name, -1)

    return tuple(sorted(levels, key=find_position))


def iterate_randomised_copies(model: Model, *, cascading: bool = True, seed: int = 0) -> Iterator[tuple[Level, Model]]:
    """Yield a model with random parameters for each level, from the output of the network to its input.

    Each tensor is drawn from a normal distribution with the mean and standard deviation of its trained values, so that
    activations keep their order of magnitude whatever the network; buffers, such as running means, keep their values.
    Parameters that several modules share stay shared; all that are not random are shared with the model.

    Args:
        model: The model; nothing of it is changed.
        cascading: Randomise the level and all after it; else the level alone.
        seed: Seed of the random numbers. A parameter gets the same ones in every copy made with it.

    Yields:
        The level, and the model in which it is random.

    Raises:
        ModelError: If the network cannot be copied, or a copy would run modules of the original.

    References:
        Adebayo, Gilmer, Muelly, Goodfellow, Hardt, Kim: Sanity checks for saliency maps, NeurIPS 2018, section 3,
        arXiv:1810.03292. There the parameters are drawn as before training.
    """
    by_name = dict(model.module.named_parameters(remove_duplicate=False))
    streams = {name: stream for stream, name in enumerate(by_name)}
    is_checked = False
    drawn: dict[int, nn.Parameter] = {}  # by the id of the parameter that each replaces
    for level in reversed(list_levels(model)):
        if not cascading:
            drawn = {}
        for name in level.parameters:
            if name in by_name and id(by_name[name]) not in drawn:
                drawn[id(by_name[name])] = _draw_like(by_name[name], seed, streams[name])
        copy = _replace_parameters(model, drawn)
        if not is_checked:  # that it runs no part of the network itself, whose parameters are the trained ones
            model.check_copy(copy.module)
            is_checked = True
        yield level, copy


def _replace_parameters(model: Model, replacements: Mapping[int, nn.Parameter]) -> Model:
    """Return a model whose network has some parameters replaced, by the id of the original."""
    copy = make_evaluation_copy(model.module)
    for part in copy.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None and id(parameter) in replacements:
                part._parameters[name] = replacements[id(parameter)]
    return replace(model, module=copy, measured_by=model.measured_by or model)


def _split_module(name: str, module: nn.Module, *, in_block: bool = False) -> Iterator[Level]:
    """Yield the levels of a module: those of its parts where it holds a stack of blocks, else itself."""
    if name and not any(_is_stack(part, in_block=in_block) for part in module.modules()):
        parameters = module.named_parameters(remove_duplicate=False)
        yield Level(name, tuple(f"{name}.{parameter}" for parameter, _ in parameters))
        return
    own = tuple(f"{name}.{parameter}".lstrip(".") for parameter, _ in module.named_parameters(recurse=False))
    if own:
        yield Level(name, own)
    is_stack = _is_stack(module, in_block=in_block)
    for child, part in module.named_children():
        if _has_parameters(part):
            yield from _split_module(f"{name}.{child}".lstrip("."), part, in_block=in_block or is_stack)


def _is_stack(module: nn.Module, *, in_block: bool) -> bool:
    """Return whether a module is a container of blocks: several parts of one class, or one part that has parts.

    Within a block only blocks with parts of their own count: a stage has them, the layers of an MLP have not.
    """
    if not isinstance(module, CONTAINERS):
        return False
    parts = [part for part in module.children() if _has_parameters(part)]
    have_parts = [any(True for _ in part.children()) for part in parts]
    if in_block or len(parts) == 1:
        return bool(parts) and all(have_parts) and len({type(part) for part in parts}) == 1
    return len({type(part) for part in parts}) < len(parts)


def _has_parameters(module: nn.Module) -> bool:
    return next(module.parameters(), None) is not None


def _draw_like(parameter: nn.Parameter, seed: int, stream: int) -> nn.Parameter:
    """Return a normally distributed parameter with the shape, mean and standard deviation of another."""
    values = parameter.detach().float()
    numbers = np.random.Generator(np.random.PCG64([seed, stream])).standard_normal(tuple(values.shape), np.float32)
    random_values = torch.from_numpy(numbers).to(values) * values.std(correction=0) + values.mean()
    return nn.Parameter(random_values.to(parameter), requires_grad=False)
