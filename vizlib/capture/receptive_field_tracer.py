"""Follow the places of a photo through every operation of a pass, by what the operation is: for receptive fields.

What an operation does to the places is written down here for those that networks are made of. After one that is not,
nothing is claimed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakTensorKeyDictionary


@dataclass(frozen=True)
class ReceptiveField:
    """The pixels of the model's input that a place of a layer depends on; each pair is (rows, columns).

    The place in row r, column c sees `size` pixels around `centre + r * jump`, `centre + c * jump`; a size of infinity
    is the whole input.
    """

    size: tuple[float, float]
    jump: tuple[float, float]  # how many pixels lie between two neighbours
    centre: tuple[float, float]  # of the first place, in pixels from the input's top left corner

    def box(self, row: int, column: int) -> tuple[float, float, float, float]:
        """What a place sees: (top, left, bottom, right) in pixels of the input, beyond its edges where padding is."""
        ends = [(c + i * j - s / 2, c + i * j + s / 2) for s, j, c, i in self._axes(row, column)]
        return ends[0][0], ends[1][0], ends[0][1], ends[1][1]

    def _axes(self, row: int, column: int):
        return zip(self.size, self.jump, self.centre, (row, column), strict=True)


INPUT_FIELD = ReceptiveField((1.0, 1.0), (1.0, 1.0), (0.5, 0.5))  # of the input itself


@dataclass(frozen=True)
class TensorTrace:
    """What is known of a tensor: its places' field, and along which axes the places lie.

    Two axes are rows and columns; a single one holds all places row by row, after some tokens that see nothing.
    """

    field: ReceptiveField
    axes: tuple[int, ...]
    grid: tuple[int, ...] = ()  # rows and columns, while they lie along a single axis
    unsupported_operation: str = ""  # the operation after which nothing is known

    @property
    def covers_input(self) -> bool:
        """Whether each place depends on the whole input."""
        return math.isinf(self.field.size[0])


WHOLE_INPUT = TensorTrace(ReceptiveField((math.inf, math.inf), (0.0, 0.0), (0.0, 0.0)), ())
IDENTITY_OPS = ("clone", "_to_copy", "detach", "contiguous", "native_dropout", "alias", "expand", "copy_")
POINTWISE_OPS = (
    "hardswish",
    "hardsigmoid",
    "hardtanh",
    "elu",
    "leaky_relu",
    "gelu",
    "silu",
    "mish",
    "softplus",
)  # untagged
BATCH_NORM_OPS = ("native_batch_norm", "_native_batch_norm_legit_no_training", "cudnn_batch_norm", "miopen_batch_norm")
POOLING_OPS = ("max_pool2d_with_indices", "avg_pool2d", "mkldnn_max_pool2d", "max_pool2d")
REDUCTION_OPS = (
    "mean",
    "sum",
    "amax",
    "_softmax",
    "adaptive_avg_pool2d",
    "_adaptive_avg_pool2d",
    "adaptive_max_pool2d",
    "var",
)


class ReceptiveFieldTracer(TorchDispatchMode):
    """Sees every operation of a pass, and works out the receptive field of what comes out."""

    def __init__(self, image: Tensor) -> None:
        super().__init__()
        self.traces = WeakTensorKeyDictionary()
        self.traces[image] = TensorTrace(INPUT_FIELD, (2, 3))

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        output = func(*args, **(kwargs or {}))
        given = [arg for one in args for arg in (one if isinstance(one, (list, tuple)) else (one,))]
        tensors = [arg for arg in given if isinstance(arg, Tensor)]
        known = [self.traces.get(tensor) for tensor in tensors]
        if any(known):
            outputs = output if isinstance(output, (list, tuple)) else (output,)
            for one in outputs:
                if isinstance(one, Tensor):
                    self.traces[one] = self._after(func, args, tensors, known, one)
        return output

    def _after(self, func, args, tensors, known, output: Tensor) -> TensorTrace:
        name, told = func._overloadpacket.__name__, [one for one in known if one is not None]
        lost = next((one for one in told if one.unsupported_operation), None)
        if lost is not None:
            return lost
        if any(one.covers_input for one in told):
            return WHOLE_INPUT
        first = told[0]
        found: TensorTrace | None = None
        if torch.Tag.pointwise in func.tags or name.rstrip("_") in POINTWISE_OPS:
            found = _together(tensors, known, output)
        elif name == "cat":
            beside = (*args[1:2], 0)[0] % output.ndim in first.axes  # a class token may stand there, no other picture
            found = None if beside and len(told) > 1 else _together(tensors, known, output)
        elif name in IDENTITY_OPS or name in BATCH_NORM_OPS or name in ("native_layer_norm", "native_group_norm"):
            found = _normed(name, args, first)
        elif name == "convolution":
            found = _convolved(args, first)
        elif name in POOLING_OPS:
            kernel, stride, padding = args[1], (args[2] if len(args) > 2 else ()) or args[1], (*args[3:4], 0)[0]
            dilation = args[4] if "max" in name and len(args) > 4 else 1
            found = _slid(first, kernel, stride, padding, dilation) if first.axes == (2, 3) else None
        elif name == "constant_pad_nd":
            found = _padded(args, first)
        elif name in REDUCTION_OPS:
            found = _summed(name, args, first, tensors[0])
        elif name in ("mm", "addmm", "bmm", "_scaled_dot_product_flash_attention_for_cpu") or "attention" in name:
            found = _multiplied(name, tensors, known)
        elif name in ("view", "_unsafe_view", "_reshape_alias", "unsqueeze", "squeeze"):
            found = _viewed(first, tensors[0], output)
        elif name in ("permute", "transpose", "t"):
            found = _turned(name, args, first, tensors[0])
        elif name in ("unbind", "select", "slice", "split", "split_with_sizes"):
            found = _taken(name, args, first, tensors[0])
        return found or replace(first, unsupported_operation=name)


def _slid(known: TensorTrace, kernel, stride, padding, dilation) -> TensorTrace:
    """After a window slid over the places: the textbook's recursion."""
    size, jump, centre = [], [], []
    for axis in range(2):
        reach = _of(dilation, axis) * (_of(kernel, axis) - 1)
        field = known.field
        size.append(field.size[axis] + reach * field.jump[axis])
        centre.append(field.centre[axis] + (reach / 2 - _of(padding, axis)) * field.jump[axis])
        jump.append(field.jump[axis] * _of(stride, axis))
    return replace(known, field=ReceptiveField(_pair(size), _pair(jump), _pair(centre)))


def _convolved(args, known: TensorTrace) -> TensorTrace | None:
    _, weight, _, stride, padding, dilation, transposed = args[:7]
    if transposed or known.axes != (2, 3):
        return None
    return _slid(known, weight.shape[2:], stride, padding, dilation)


def _padded(args, known: TensorTrace) -> TensorTrace | None:
    """Rows and columns that were put before the first, as networks from TensorFlow do."""
    if known.axes != (2, 3):
        return None
    before = (*args[1][2:3], 0)[0], args[1][0]  # the last axis comes first
    centre = [c - n * j for c, n, j in zip(known.field.centre, before, known.field.jump, strict=True)]
    return replace(known, field=replace(known.field, centre=_pair(centre)))


def _together(tensors, known, output: Tensor) -> TensorTrace | None:
    """The field that holds those of all that were added, multiplied, or put side by side."""
    parts = [
        replace(one, axes=tuple(axis + output.ndim - tensor.ndim for axis in one.axes))
        for tensor, one in zip(tensors, known, strict=True)
        if one is not None
    ]
    first = parts[0]
    if any(one.axes != first.axes or one.field.jump != first.field.jump for one in parts):
        return None
    low, high = [], []
    for axis in range(2):
        low.append(min(one.field.centre[axis] - one.field.size[axis] / 2 for one in parts))
        high.append(max(one.field.centre[axis] + one.field.size[axis] / 2 for one in parts))
    size = _pair([b - a for a, b in zip(low, high, strict=True)])
    centre = _pair([(a + b) / 2 for a, b in zip(low, high, strict=True)])
    return replace(first, field=ReceptiveField(size, first.field.jump, centre))


def _normed(name: str, args, known: TensorTrace) -> TensorTrace | None:
    """A layer norm over the channels leaves the places apart; a norm over groups of channels mixes them all."""
    if name == "native_group_norm":
        return WHOLE_INPUT
    if name == "native_layer_norm" and max(known.axes) >= args[0].ndim - len(args[1]):
        return WHOLE_INPUT
    return known


def _summed(name: str, args, known: TensorTrace, tensor: Tensor) -> TensorTrace | None:
    """A sum over the places sees all of them; one over the channels none but its own."""
    if "adaptive" in name:
        return WHOLE_INPUT if all(_of(args[1], axis) == 1 for axis in range(2)) else None
    given = args[1] if len(args) > 1 and args[1] is not None else range(tensor.ndim)
    over = {axis % tensor.ndim for axis in ([given] if isinstance(given, int) else given)}
    if over & set(known.axes):
        return WHOLE_INPUT
    if name == "_softmax" or (len(args) > 2 and args[2] is True):
        return known
    return replace(known, axes=tuple(axis - sum(one < axis for one in over) for axis in known.axes))


def _multiplied(name: str, tensors, known) -> TensorTrace | None:
    """A linear layer works on each place by itself; attention, and any product over places, on all of them."""
    if "attention" in name:
        return WHOLE_INPUT
    (left, _), (one, other) = tensors[-2:], known[-2:]
    if one is not None and other is None and left.ndim - 1 not in one.axes:
        return one
    return WHOLE_INPUT if name == "bmm" else None


def _viewed(known: TensorTrace, before: Tensor, after: Tensor) -> TensorTrace | None:
    """The same places in another shape, if they can be found there: apart, or row by row along one axis."""
    if len(known.axes) == 2:
        if known.axes[1] != known.axes[0] + 1:
            return None
        known = replace(known, grid=tuple(before.shape[axis] for axis in known.axes))
        count = math.prod(known.grid)
    else:
        count = before.shape[known.axes[0]]  # of tokens, which may be more than the places
    ahead = math.prod(before.shape[: known.axes[0]])
    starts = [start for start in range(after.ndim) if math.prod(after.shape[:start]) == ahead]
    for start in starts:
        if after.shape[start : start + 2] == known.grid and count == math.prod(known.grid):
            return replace(known, axes=(start, start + 1), grid=())
    return next((replace(known, axes=(start,)) for start in starts if after.shape[start] == count), None)


def _turned(name: str, args, known: TensorTrace, tensor: Tensor) -> TensorTrace:
    axes = list(range(tensor.ndim))
    if name == "permute":
        axes = [axis % tensor.ndim for axis in args[1]]
    else:
        a, b = (args[1], args[2]) if name == "transpose" else (0, tensor.ndim - 1)
        axes[a], axes[b] = axes[b], axes[a]
    return replace(known, axes=tuple(axes.index(axis) for axis in known.axes))


def _taken(name: str, args, known: TensorTrace, tensor: Tensor) -> TensorTrace | None:
    """Part of a tensor that was cut along an axis on which no places lie."""
    given = args[2] if name.startswith("split") and len(args) > 2 else (*args[1:2], 0)[0]
    axis = (0 if name.startswith("split") and len(args) < 3 else given) % tensor.ndim
    if axis in known.axes:
        return None
    if name in ("unbind", "select"):
        return replace(known, axes=tuple(one - (one > axis) for one in known.axes))
    return known


def _of(value, axis: int) -> int:
    return value if isinstance(value, int) else value[axis if len(value) > 1 else 0]


def _pair(values) -> tuple[float, float]:
    return float(values[0]), float(values[1])
