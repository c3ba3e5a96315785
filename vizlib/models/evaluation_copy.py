"""Copy a network to evaluation mode without gradient checkpointing, sharing its parameters and buffers."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from typing import Any

from torch import nn

from vizlib.core.errors import ModelError

# The dictionaries of a module that PyTorch reads when the module runs; the copy has its own.
HOOK_DICTIONARIES = (
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_backward_hooks",
    "_backward_pre_hooks",
)
# Flags of timm and transformers. A checkpointed part runs again during the backward pass, where nothing is recorded,
# and timm's checkpointed stages run their blocks without calling the stage itself.
CHECKPOINTING_FLAGS = frozenset({"grad_checkpointing", "gradient_checkpointing"})
REPLACEABLE_FUNCTIONS = (types.FunctionType, types.MethodType, functools.partial)
CALL_EVAL = "call .eval() on the network before it is explained"


def is_in_training_mode(module: nn.Module) -> bool:
    """Return whether a part of the network is in training mode, parametrisations apart: they start in that mode."""
    if module.training:
        return True
    children = (child for name, child in module.named_children() if name != "parametrizations")
    return any(is_in_training_mode(child) for child in children)


def make_evaluation_copy(module: nn.Module) -> nn.Module:
    """Return a copy of the module tree in evaluation mode that shares every parameter and buffer with the original.

    In training mode a network computes with the batch statistics of its input and with random dropout, and running it
    updates its running means. The copy computes as the network does in evaluation mode, without gradient checkpointing;
    the original is not changed.

    Every module of the copy has its own hook dictionaries. They start with the original's hooks, so that hooks of a
    user still run; a hook that is registered on the copy is not registered on the original, and the reverse.

    Attributes that refer to parts of the original refer to the parts of the copy: lists, dictionaries, bound methods,
    partial functions and closures, such as a `forward` that was set on an instance. What this cannot reach,
    `make_copy_check` finds.

    Raises:
        ModelError: If `forward` was replaced on an instance by an object that may refer to the original.
    """
    copies = {id(original): nn.Module.__new__(type(original)) for original in module.modules()}
    replace_modules = _ModuleReplacement(copies)
    own = {"_parameters", "_buffers", *HOOK_DICTIONARIES}  # a pass that assigns a buffer must not change the original
    for original in module.modules():
        forward = vars(original).get("forward")
        if forward is not None and not isinstance(forward, REPLACEABLE_FUNCTIONS):
            raise ModelError(
                f"the forward of a {type(original).__name__} was replaced by a {type(forward).__name__}, so the "
                f"network cannot be copied to evaluation mode; {CALL_EVAL}"
            )
        attributes = {
            name: value.copy() if name in own else replace_modules(value) for name, value in vars(original).items()
        }
        flags = {name: False for name in CHECKPOINTING_FLAGS if name in attributes}
        vars(copies[id(original)]).update(attributes, **flags, training=False)
    return copies[id(module)]


def make_copy_check(copy: nn.Module) -> Callable[[nn.Module, object], None]:
    """Return a check for `watch_modules`: a pass of a copy runs only modules of the copy, all in evaluation mode.

    It stops the pass before any other module runs, so that no running mean of the original is updated.

    Args:
        copy: From `make_evaluation_copy`.

    Returns:
        Function that raises a `ModelError` for a module of the original network, or one in training mode.
    """
    parts = set(copy.modules())

    def check(part: nn.Module, inputs: object) -> None:
        """Raise an error for a module that is not part of the evaluation copy, or is in training mode."""
        if part not in parts:
            raise ModelError(
                f"the network runs a {type(part).__name__} that its copy in evaluation mode does not hold, as with a "
                f"forward replaced from outside; {CALL_EVAL}"
            )
        require_evaluation_mode(part, inputs)

    return check


def require_evaluation_mode(part: nn.Module, _inputs: object = None) -> None:
    """Raise an error for a module that is about to run in training mode.

    Raises:
        ModelError: If the module is in training mode.
    """
    if part.training:
        raise ModelError(
            f"the network runs a {type(part).__name__} in training mode that is not one of its registered modules, "
            f"where .eval() does not reach it; call .eval() on it, or keep it in an nn.ModuleList"
        )


class _ModuleReplacement:
    """Returns values in which each module of a network is replaced by its copy; values without one are shared.

    Args:
        copies: `id` of a module -> its copy.
    """

    def __init__(self, copies: dict[int, nn.Module]) -> None:
        self.copies = copies
        self._results: dict[int, Any] = {}  # by the id of the value, for references that form a cycle
        self._values: list[Any] = []  # keeps the values alive, as the id of a freed one may be reused

    def __call__(self, value: Any) -> Any:
        if isinstance(value, nn.Module):
            return self.copies.get(id(value), value)
        if not isinstance(value, (*REPLACEABLE_FUNCTIONS, list, tuple, dict, set)):
            return value
        if id(value) not in self._results:
            self._values.append(value)
            self._results[id(value)] = value  # what a cycle sees
            self._results[id(value)] = self._replace(value)
        return self._results[id(value)]

    def _replace(self, value: Any) -> Any:
        if isinstance(value, types.MethodType):
            owner = self(value.__self__)
            return value if owner is value.__self__ else types.MethodType(value.__func__, owner)
        if isinstance(value, functools.partial):
            function, args, keywords = self(value.func), self(value.args), self(value.keywords)
            if function is value.func and args is value.args and keywords is value.keywords:
                return value
            replaced = functools.partial(function, *args, **keywords)
            vars(replaced).update(vars(value))
            return replaced
        if isinstance(value, types.FunctionType):
            return self._replace_in_function(value)
        if isinstance(value, dict):
            items = {key: self(item) for key, item in value.items()}
            return value if all(items[key] is value[key] for key in items) else _rebuild(value, items)
        items = [self(item) for item in value]
        same = all(new is old for new, old in zip(items, value, strict=True))
        return value if same else _rebuild(value, items)

    def _replace_in_function(self, function: types.FunctionType) -> types.FunctionType:
        cells = function.__closure__ or ()
        contents = [_read_cell(cell) for cell in cells]
        replaced = [self(content) for content in contents]
        defaults, keyword_defaults = self(function.__defaults__), self(function.__kwdefaults__)
        unchanged = all(new is old for new, old in zip(replaced, contents, strict=True))
        if unchanged and defaults is function.__defaults__ and keyword_defaults is function.__kwdefaults__:
            return function
        closure = tuple(
            cell if new is old else types.CellType(new)
            for cell, new, old in zip(cells, replaced, contents, strict=True)
        )
        copy = types.FunctionType(function.__code__, function.__globals__, function.__name__, defaults, closure)
        copy.__kwdefaults__ = keyword_defaults
        vars(copy).update(vars(function))
        return copy


def _read_cell(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # a variable that is assigned later
        return None


def _rebuild(container: Any, items: Any) -> Any:
    """Return a container of the same type with other items; a type that cannot be built from items is kept as it is."""
    make: Any = type(container)
    try:
        return make(*items) if hasattr(container, "_fields") else make(items)
    except TypeError:
        return container
