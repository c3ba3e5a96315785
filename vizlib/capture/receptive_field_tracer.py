"""Trace receptive fields through every operation of a forward pass.

A rule is defined for each operation that common networks consist of. After an operation without a rule, the receptive
field is reported as unknown.

References:
    Araujo, Norris, Sim: Computing receptive fields of convolutional neural networks, Distill 2019,
    doi:10.23915/distill.00021.
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
    """The traced receptive field of a layer: the pixels of the model's input that each position can depend on.

    Every attribute is a pair (rows, columns). The position in row `r`, column `c` depends on `size` pixels centred at
    `centre + (r, c) * jump`, padding included.

    Attributes:
        size: Number of pixels; infinity means the whole input.
        jump: Distance in pixels between the fields of two adjacent positions (the layer's cumulative stride).
        centre: Centre of the first position's field, in pixels from the input's top left corner.

    References:
        Araujo, Norris, Sim: Computing receptive fields of convolutional neural networks, Distill 2019,
        doi:10.23915/distill.00021.

    Example:
        >>> field = ReceptiveField(size=(11.0, 11.0), jump=(4.0, 4.0), centre=(3.5, 3.5))
        >>> field.box(0, 2)
        (-2.0, 6.0, 9.0, 17.0)
    """

    size: tuple[float, float]
    jump: tuple[float, float]
    centre: tuple[float, float]

    def box(self, row: int, column: int) -> tuple[float, float, float, float]:
        """Return the traced receptive field of one position as a box.

        Args:
            row: Row of the position in the layer's output.
            column: Column of the position in the layer's output.

        Returns:
            (top, left, bottom, right) in pixels of the input; outside the input where the field includes padding.
        """
        ends = [
            (centre + index * jump - size / 2, centre + index * jump + size / 2)
            for size, jump, centre, index in zip(self.size, self.jump, self.centre, (row, column), strict=True)
        ]
        return ends[0][0], ends[1][0], ends[0][1], ends[1][1]


INPUT_FIELD = ReceptiveField((1.0, 1.0), (1.0, 1.0), (0.5, 0.5))  # of the model's input itself


@dataclass(frozen=True)
class TensorTrace:
    """What is traced of a tensor: the receptive field of its positions, and the axes along which they lie.

    Attributes:
        field: Receptive field of the positions.
        axes: The axes of rows and columns; a single axis holds all positions row by row, after any tokens that depend
            on no pixel.
        grid: Number of rows and columns, while the positions lie along a single axis.
        unsupported_operation: Name of the operation after which the field is unknown; empty if it is known.
    """

    field: ReceptiveField
    axes: tuple[int, ...]
    grid: tuple[int, ...] = ()
    unsupported_operation: str = ""

    @property
    def covers_input(self) -> bool:
        """Whether each position of the traced tensor depends on the whole input."""
        return math.isinf(self.field.size[0])


WHOLE_INPUT = TensorTrace(ReceptiveField((math.inf, math.inf), (0.0, 0.0), (0.0, 0.0)), ())
IDENTITY_OPS = ("clone", "_to_copy", "detach", "contiguous", "native_dropout", "alias", "expand", "copy_")
# Element-wise operations that PyTorch does not tag as such.
POINTWISE_OPS = ("hardswish", "hardsigmoid", "hardtanh", "elu", "leaky_relu", "gelu", "silu", "mish", "softplus")
BATCH_NORM_OPS = ("native_batch_norm", "_native_batch_norm_legit_no_training", "cudnn_batch_norm", "miopen_batch_norm")
POOLING_OPS = ("max_pool2d_with_indices", "avg_pool2d", "mkldnn_max_pool2d", "max_pool2d")
REDUCTION_OPS = (
    *("mean", "sum", "amax", "var", "_softmax"),
    *("adaptive_avg_pool2d", "_adaptive_avg_pool2d", "adaptive_max_pool2d"),
)


class ReceptiveFieldTracer(TorchDispatchMode):
    """Intercepts every operation of a pass and derives the receptive field of its outputs.

    Args:
        image: The model's input, "n 3 h w".

    Attributes:
        traces: Tensor -> what is known of it; tensors that do not depend on the input have no entry.
    """

    def __init__(self, image: Tensor) -> None:
        super().__init__()
        self.traces = WeakTensorKeyDictionary()
        self.traces[image] = TensorTrace(INPUT_FIELD, (2, 3))

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        output = func(*args, **(kwargs or {}))
        flat_args = [item for arg in args for item in (arg if isinstance(arg, (list, tuple)) else (arg,))]
        tensors = [arg for arg in flat_args if isinstance(arg, Tensor)]
        traces = [self.traces.get(tensor) for tensor in tensors]
        if any(traces):
            for result in output if isinstance(output, (list, tuple)) else (output,):
                if isinstance(result, Tensor):
                    self.traces[result] = self._trace_operation(func, args, tensors, traces, result)
        return output

    def _trace_operation(self, func, args, tensors, traces, output: Tensor) -> TensorTrace:
        """Return the trace of an operation's output from those of its input tensors (`None`: no dependence)."""
        name, known = func._overloadpacket.__name__, [trace for trace in traces if trace is not None]
        unsupported = next((trace for trace in known if trace.unsupported_operation), None)
        if unsupported is not None:
            return unsupported
        if any(trace.covers_input for trace in known):
            return WHOLE_INPUT
        first = known[0]
        result: TensorTrace | None = None
        if torch.Tag.pointwise in func.tags or name.rstrip("_") in POINTWISE_OPS:
            result = _trace_combination(tensors, traces, output)
        elif name == "cat":
            # A class token may be concatenated along the axis of the positions, but no other part of the photo.
            along_positions = (*args[1:2], 0)[0] % output.ndim in first.axes
            result = None if along_positions and len(known) > 1 else _trace_combination(tensors, traces, output)
        elif name in IDENTITY_OPS or name in BATCH_NORM_OPS or name in ("native_layer_norm", "native_group_norm"):
            result = _trace_norm(name, args, first)
        elif name == "convolution":
            result = _trace_convolution(args, first)
        elif name in POOLING_OPS:
            kernel, stride, padding = args[1], (args[2] if len(args) > 2 else ()) or args[1], (*args[3:4], 0)[0]
            dilation = args[4] if "max" in name and len(args) > 4 else 1
            result = _trace_sliding(first, kernel, stride, padding, dilation) if first.axes == (2, 3) else None
        elif name == "constant_pad_nd":
            result = _trace_padding(args, first)
        elif name in REDUCTION_OPS:
            result = _trace_reduction(name, args, first, tensors[0])
        elif name in ("mm", "addmm", "bmm", "_scaled_dot_product_flash_attention_for_cpu") or "attention" in name:
            result = _trace_product(name, tensors, traces)
        elif name in ("view", "_unsafe_view", "_reshape_alias", "unsqueeze", "squeeze"):
            result = _trace_view(first, tensors[0], output)
        elif name in ("permute", "transpose", "t"):
            result = _trace_permutation(name, args, first, tensors[0])
        elif name in ("unbind", "select", "slice", "split", "split_with_sizes"):
            result = _trace_slice(name, args, first, tensors[0])
        return result or replace(first, unsupported_operation=name)


def _trace_sliding(trace: TensorTrace, kernel, stride, padding, dilation) -> TensorTrace:
    """Return the trace after a sliding window (convolution or pooling): the recursion of Araujo et al. 2019."""
    size, jump, centre = [], [], []
    for axis in range(2):
        extent = _axis_value(dilation, axis) * (_axis_value(kernel, axis) - 1)
        field = trace.field
        size.append(field.size[axis] + extent * field.jump[axis])
        centre.append(field.centre[axis] + (extent / 2 - _axis_value(padding, axis)) * field.jump[axis])
        jump.append(field.jump[axis] * _axis_value(stride, axis))
    return replace(trace, field=ReceptiveField(_float_pair(size), _float_pair(jump), _float_pair(centre)))


def _trace_convolution(args, trace: TensorTrace) -> TensorTrace | None:
    """Return the trace after a convolution."""
    _, weight, _, stride, padding, dilation, transposed = args[:7]
    if transposed or trace.axes != (2, 3):
        return None
    return _trace_sliding(trace, weight.shape[2:], stride, padding, dilation)


def _trace_padding(args, trace: TensorTrace) -> TensorTrace | None:
    """Return the trace after padding, which shifts the centres by the rows and columns before the first."""
    if trace.axes != (2, 3):
        return None
    before = (*args[1][2:3], 0)[0], args[1][0]  # PyTorch lists the padding of the last axis first
    centre = [
        centre - padding * jump
        for centre, padding, jump in zip(trace.field.centre, before, trace.field.jump, strict=True)
    ]
    return replace(trace, field=replace(trace.field, centre=_float_pair(centre)))


def _trace_combination(tensors, traces, output: Tensor) -> TensorTrace | None:
    """Return the trace after an addition, product or concatenation: the smallest field that contains all."""
    aligned = [
        replace(trace, axes=tuple(axis + output.ndim - tensor.ndim for axis in trace.axes))
        for tensor, trace in zip(tensors, traces, strict=True)
        if trace is not None
    ]
    first = aligned[0]
    if any(trace.axes != first.axes or trace.field.jump != first.field.jump for trace in aligned):
        return None
    low, high = [], []
    for axis in range(2):
        low.append(min(trace.field.centre[axis] - trace.field.size[axis] / 2 for trace in aligned))
        high.append(max(trace.field.centre[axis] + trace.field.size[axis] / 2 for trace in aligned))
    size = _float_pair([b - a for a, b in zip(low, high, strict=True)])
    centre = _float_pair([(a + b) / 2 for a, b in zip(low, high, strict=True)])
    return replace(first, field=ReceptiveField(size, first.field.jump, centre))


def _trace_norm(name: str, args, trace: TensorTrace) -> TensorTrace | None:
    """Return the trace after a norm: per position for batch norm and for layer norm over channels, else everything."""
    if name == "native_group_norm":
        return WHOLE_INPUT
    if name == "native_layer_norm" and max(trace.axes) >= args[0].ndim - len(args[1]):
        return WHOLE_INPUT
    return trace


def _trace_reduction(name: str, args, trace: TensorTrace, tensor: Tensor) -> TensorTrace | None:
    """Return the trace after a reduction: over positions it depends on everything, over channels on its own field."""
    if "adaptive" in name:
        return WHOLE_INPUT if all(_axis_value(args[1], axis) == 1 for axis in range(2)) else None
    dims = args[1] if len(args) > 1 and args[1] is not None else range(tensor.ndim)
    reduced = {axis % tensor.ndim for axis in ([dims] if isinstance(dims, int) else dims)}
    if reduced & set(trace.axes):
        return WHOLE_INPUT
    if name == "_softmax" or (len(args) > 2 and args[2] is True):  # keepdim
        return trace
    return replace(trace, axes=tuple(axis - sum(removed < axis for removed in reduced) for axis in trace.axes))


def _trace_product(name: str, tensors, traces) -> TensorTrace | None:
    """Return the trace after a matrix product: a linear layer acts per position, attention mixes all positions."""
    if "attention" in name:
        return WHOLE_INPUT
    (left, _), (left_trace, right_trace) = tensors[-2:], traces[-2:]
    if left_trace is not None and right_trace is None and left.ndim - 1 not in left_trace.axes:
        return left_trace
    return WHOLE_INPUT if name == "bmm" else None


def _trace_view(trace: TensorTrace, before: Tensor, after: Tensor) -> TensorTrace | None:
    """Return the trace after a reshape, if the positions stay on two adjacent axes or on one, row by row."""
    if len(trace.axes) == 2:
        if trace.axes[1] != trace.axes[0] + 1:
            return None
        trace = replace(trace, grid=tuple(before.shape[axis] for axis in trace.axes))
        count = math.prod(trace.grid)
    else:
        count = before.shape[trace.axes[0]]  # number of tokens, which may exceed the number of positions
    leading = math.prod(before.shape[: trace.axes[0]])
    starts = [start for start in range(after.ndim) if math.prod(after.shape[:start]) == leading]
    for start in starts:
        if after.shape[start : start + 2] == trace.grid and count == math.prod(trace.grid):
            return replace(trace, axes=(start, start + 1), grid=())
    return next((replace(trace, axes=(start,)) for start in starts if after.shape[start] == count), None)


def _trace_permutation(name: str, args, trace: TensorTrace, tensor: Tensor) -> TensorTrace:
    """Return the trace after a permutation of axes."""
    axes = list(range(tensor.ndim))
    if name == "permute":
        axes = [axis % tensor.ndim for axis in args[1]]
    else:
        a, b = (args[1], args[2]) if name == "transpose" else (0, tensor.ndim - 1)
        axes[a], axes[b] = axes[b], axes[a]
    return replace(trace, axes=tuple(axes.index(axis) for axis in trace.axes))


def _trace_slice(name: str, args, trace: TensorTrace, tensor: Tensor) -> TensorTrace | None:
    """Return the trace of a part of a tensor that was cut along an axis without positions."""
    dim = args[2] if name.startswith("split") and len(args) > 2 else (*args[1:2], 0)[0]
    axis = (0 if name.startswith("split") and len(args) < 3 else dim) % tensor.ndim
    if axis in trace.axes:
        return None
    if name in ("unbind", "select"):
        return replace(trace, axes=tuple(position - (position > axis) for position in trace.axes))
    return trace


def _axis_value(value, axis: int) -> int:
    """Return a traced operation's kernel, stride or padding on one axis, where one number may stand for both axes."""
    return value if isinstance(value, int) else value[axis if len(value) > 1 else 0]


def _float_pair(values) -> tuple[float, float]:
    """Return the two values of a traced field as floats."""
    return float(values[0]), float(values[1])
