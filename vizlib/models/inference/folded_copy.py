"""A network's modules once more, in another tree: in evaluation mode, or made quicker. The network stays as it was."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from vizlib.models.evaluation_copy import make_evaluation_copy

ConvNormPairs = Mapping[str, str]  # a convolution -> the batch normalisation that alone reads it


def make_folded_copy(
    module: nn.Module, pairs: ConvNormPairs, *, exact_layers: Collection[str] = (), dtype: torch.dtype | None = None
) -> nn.Module:
    """A twin that answers the same to rounding and costs less: for many passes with the parameters as they are now.

    Each batch normalisation of `pairs` is folded into its convolution, whose weights lie as convolutions read them, and
    no parameter asks for a gradient. The layers `kept` give what they give in the network. With `dtype` the weights of
    convolutions and linear layers are cast to it once, as autocasting does in each pass.
    """
    twin = make_evaluation_copy(module)
    parts: dict[str, Any] = dict(twin.named_modules())
    pairs = {one: other for one, other in pairs.items() if one not in exact_layers and other not in exact_layers}
    pairs = {one: other for one, other in pairs.items() if not _hooked(parts[one]) and not _hooked(parts[other])}
    for name, part in parts.items():
        own = {key: value.detach() for key, value in part._parameters.items() if value is not None}
        if name in pairs:
            own["weight"], own["bias"] = _folded(part, parts[pairs[name]])
        if dtype is not None and type(part) in (nn.Conv2d, nn.Linear):
            own = {key: value.to(dtype) for key, value in own.items()}
        if type(part) is nn.Conv2d:
            own["weight"] = own["weight"].contiguous(memory_format=torch.channels_last)
        frozen = {key: nn.Parameter(value, requires_grad=False) for key, value in own.items()}
        part.__dict__["_parameters"] = {**part._parameters, **frozen}
    for name in pairs.values():
        above, _, last = name.rpartition(".")
        parts[above]._modules[last] = nn.Identity().eval()  # one in training would be twinned again in each pass
    return twin


def find_conv_norm_pairs(module: nn.Module, run: Callable[[], object]) -> ConvNormPairs:
    """The convolutions whose output a batch normalisation reads, and nothing else does, found while `run` runs it.

    Only PyTorch's own two classes count: others may do more than their name says.
    """
    convolutions = {id(part.weight): name for name, part in module.named_modules() if type(part) is nn.Conv2d}
    means = {id(part.running_mean): name for name, part in module.named_modules() if type(part) is nn.BatchNorm2d}
    with torch.no_grad(), _Readers(convolutions, means) as readers:
        run()
    return readers.pairs


class _Readers(TorchFunctionMode):
    """Sees who reads what the convolutions give."""

    def __init__(self, convolutions: Mapping[int, str], means: Mapping[int, str]) -> None:
        super().__init__()
        self.convolutions, self.means = convolutions, means
        self.outputs: dict[int, tuple[Tensor, str]] = {}  # the tensors too: the id of one that is gone may come again
        self.reads: list[tuple[str, str | None]] = []  # convolution, the normalisation that read it

    @property
    def pairs(self) -> ConvNormPairs:
        """Each convolution that ran once and was read once, by a normalisation that ran once."""
        once = [name for name, _ in self.reads], [name for _, name in self.reads]
        ran = [name for _, name in self.outputs.values()]
        return {
            one: other
            for one, other in self.reads
            if other is not None and once[0].count(one) == once[1].count(other) == ran.count(one) == 1
        }

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        given = tree_leaves((args, kwargs))
        if any(isinstance(one, Tensor) for one in tree_leaves(output)):  # not merely a look at a shape
            mean = kwargs.get("running_mean", args[1] if len(args) > 1 else None)
            by = self.means.get(id(mean), "?") if func is F.batch_norm else None
            self.reads += [(self.outputs[id(one)][1], by) for one in given if id(one) in self.outputs]
        if func is F.conv2d:
            names = [self.convolutions[id(one)] for one in given if id(one) in self.convolutions]
            self.outputs |= {id(output): (output, name) for name in names}
        return output


def _hooked(part: nn.Module) -> bool:
    """Whether somebody listens to this module, or changes what it gives."""
    return bool(part._forward_hooks or part._forward_pre_hooks or part._backward_hooks or part._backward_pre_hooks)


def _folded(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Weight and bias of a convolution that normalises what it gives."""
    assert norm.running_mean is not None  # `pairs_in` knows a normalisation by it
    assert norm.running_var is not None
    weight, bias = fuse_conv_bn_weights(
        convolution.weight, convolution.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
    )
    return weight.detach(), bias.detach()
