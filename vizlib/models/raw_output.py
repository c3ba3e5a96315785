"""What a network returns, before it is one row of numbers for each photo: tensors, dictionaries, tuples, objects."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from vizlib.core.errors import ModelError, TargetError, VizlibError

STRUCTURED_HINT = (
    "give output=, a function that picks the logits from it, or output_kind='structured' and explain it with functions "
    "as target="
)
UNNAMED = "function of the output"  # the name of a lambda
MAX_NAMES = 6  # keys and fields of an output that a message lists


def pick_output(raw: Any, count: int, pick: Callable[[Any], Any] | None) -> Any:
    """Return the part of a network's output that holds the logits.

    Args:
        raw: What the network returned.
        count: Number of photos; an output of one number for each becomes one column.
        pick: Function that picks the part; by default it is the `logits` of an object, or all of the output.

    Raises:
        ModelError: If the function fails.
    """
    try:
        output = _pick_default(raw) if pick is None else pick(raw)
    except Exception as error:  # the function is third-party code and may raise anything
        raise ModelError(f"the function output= fails on {describe_output(raw)}: {_describe_error(error)}") from error
    is_single = isinstance(output, Tensor) and output.numel() == count and output.ndim < 2
    return output.reshape(count, 1) if is_single else output


def _pick_default(raw: Any) -> Any:
    """Return the `logits` of an output of Hugging Face, any other output as it is."""
    return raw if isinstance(raw, Mapping) and not is_dataclass(raw) else getattr(raw, "logits", raw)


def are_rows(output: Any, count: int) -> bool:
    """Return whether an output is a tensor with one row of numbers for each of `count` photos."""
    return isinstance(output, Tensor) and output.ndim == 2 and len(output) == count and output.shape[1] > 0


def check_rows(output: Any, count: int, labels: Sequence[str], model: str) -> None:
    """Check that an output is one row of logits for each of `count` photos.

    Args:
        output: Output of a network.
        count: Number of photos.
        labels: Labels of the classes; none while they are counted.
        model: Name of the model, for the message.

    Raises:
        ModelError: If it is something else; the message names what it holds.
    """
    if are_rows(output, count) and len(labels) in (0, output.shape[1]):
        return
    expected = f"for each of {len(labels)} classes" if labels else "per class"
    hint = "" if are_rows(output, count) else f"; {STRUCTURED_HINT}"
    raise ModelError(f"{model} returns {describe_output(output)}; expected one logit {expected}{hint}")


def flatten_output(output: Any) -> Float[Tensor, "1 n"]:
    """Return every floating-point number in a network's output in one row."""
    tensors = [tensor.flatten() for tensor in list_tensors(output) if tensor.is_floating_point()]
    return torch.cat(tensors)[None] if tensors else torch.zeros(1, 0, device="cpu", dtype=torch.float32)


def describe_output(output: Any) -> str:
    """Return what a network returned, for messages.

    >>> describe_output({"out": torch.zeros(1, 21, 8, 8), "aux": None})
    'a dictionary with out, aux'
    >>> describe_output((torch.zeros(1, 4), torch.zeros(1, 3, 8, 8)))
    'a tuple of a tensor of shape (1, 4), a tensor of shape (1, 3, 8, 8)'
    """
    if isinstance(output, Tensor):
        return f"a tensor of shape {tuple(output.shape)}"
    if isinstance(output, Mapping) and type(output).__name__ in ("dict", "OrderedDict"):
        return f"a dictionary with {_join(map(str, output))}" if output else "an empty dictionary"
    if names := _list_fields(output):
        return f"{_add_article(type(output).__name__)} with {_join(names)}"
    if isinstance(output, (tuple, list)):
        kind = type(output).__name__
        return f"a {kind} of {_join(map(describe_output, output), separator=', ')}" if output else f"an empty {kind}"
    return _add_article(type(output).__name__)


def list_tensors(output: Any) -> Iterator[Tensor]:
    """Yield the tensors in a network's output, whatever holds them."""
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, Mapping):
        for value in output.values():
            yield from list_tensors(value)
    elif isinstance(output, (tuple, list)):
        for value in output:
            yield from list_tensors(value)
    elif is_dataclass(output):
        for field in fields(output):
            yield from list_tensors(getattr(output, field.name))


def _list_fields(output: Any) -> list[str]:
    """Return the names of the fields of a named tuple, a dataclass or a mapping that are not empty."""
    if isinstance(output, Mapping):
        return [str(key) for key in output]
    if hasattr(output, "_fields"):
        return list(output._fields)
    return [field.name for field in fields(output)] if is_dataclass(output) else []


def _describe_error(error: Exception) -> str:
    """Return the class and the first line of an exception of a function that was given."""
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"


def _add_article(noun: str) -> str:
    """Return a noun after "a" or "an"."""
    return f"{'an' if noun[:1].lower() in 'aeiou' else 'a'} {noun}"


def _join(names: Any, separator: str = ", ") -> str:
    """Return names as a list of at most `MAX_NAMES`."""
    names = list(names)
    more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
    return separator.join(names[:MAX_NAMES]) + more


@dataclass(frozen=True)
class TargetFunction:
    """A function of a network's output whose value is explained, one number for each photo.

    Attributes:
        function: From the output to a tensor with one value for each photo.
        name: Its name for people and records.
    """

    function: Callable[[Any], Any]
    name: str

    @classmethod
    def make(cls, function: Callable[[Any], Any], name: str | None) -> TargetFunction:
        """Return a function with the given name, else its own."""
        own = getattr(function, "__name__", type(function).__name__)
        return cls(function, name or (UNNAMED if own == "<lambda>" else own))

    @property
    def _subject(self) -> str:
        """The function as the subject of a message."""
        return "the target function" if self.name == UNNAMED else f"the target function {self.name}"

    def compute(self, output: Any, count: int) -> Tensor:
        """Return the value of each photo as one column "n 1".

        Args:
            output: What the network returned for `count` photos, or what was picked from it.
            count: Number of photos.

        Raises:
            TargetError: If the function fails, or its value is not one finite number for each photo.
        """
        try:
            value = self.function(output)
        except VizlibError:
            raise
        except Exception as error:  # the function is third-party code and may raise anything
            reason = _describe_error(error)
            raise TargetError(f"{self._subject} fails on {describe_output(output)}: {reason}") from error
        if not isinstance(value, Tensor):
            raise TargetError(
                f"{self._subject} returns a {type(value).__name__}; expected a tensor with one value "
                "for each photo, computed from the output without leaving PyTorch"
            )
        if value.numel() != count or value.ndim > 2 or (value.ndim == 2 and len(value) != count):
            raise TargetError(
                f"{self._subject} returns a tensor of shape {tuple(value.shape)} for {count} "
                f"photo{'s' * (count != 1)}; expected one value for each, of shape ({count},)"
            )
        if not value.is_floating_point():
            raise TargetError(
                f"{self._subject} returns numbers of type {str(value.dtype).removeprefix('torch.')}, "
                "which have no gradient; expected floating-point numbers"
            )
        if not value.isfinite().all():
            raise TargetError(f"{self._subject} returns a value that is not finite")
        return value.reshape(count, 1)

    def check_dependence(self, output: Any, value: Tensor) -> None:
        """Check that a gradient leads from the function's value to the network's output.

        Args:
            output: What the function was given.
            value: What `compute` returned for it.

        Raises:
            TargetError: If the value was cut from the output, or is none of its consequences.
        """
        sources = [tensor for tensor in list_tensors(output) if tensor.requires_grad]
        if not sources:
            return  # the network itself cuts the gradient, or its output holds the tensors where they are not found
        gradients = (
            torch.autograd.grad(value.sum(), sources, retain_graph=True, allow_unused=True)
            if value.requires_grad
            else [None]
        )
        if all(gradient is None for gradient in gradients):
            reason = (
                "does not depend on the output" if value.requires_grad else "is cut from the output, as by detach()"
            )
            raise TargetError(
                f"the value of {self._subject} {reason}, so it has no gradient; methods such as "
                "occlusion and rise need none"
            )
