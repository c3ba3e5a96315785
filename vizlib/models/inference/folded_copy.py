"""Copy a network with its batch normalisations folded into its convolutions, for passes with fewer operations."""

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

ConvNormPairs = Mapping[str, str]  # name of a convolution -> name of the batch normalisation that alone reads it


def make_folded_copy(
    module: nn.Module,
    pairs: ConvNormPairs,
    *,
    exact_layers: Collection[str] = (),
    dtype: torch.dtype | None = None,
) -> nn.Module:
    """Return a folded copy in evaluation mode: the same outputs, to rounding, and fewer operations.

    Each batch normalisation of `pairs` is folded into its convolution, whose weights are stored channels last, and no
    parameter requires a gradient. The copy has the parameters' values at this moment, and its own hooks (see
    `make_evaluation_copy`). A pair that the user has hooked, or whose `forward` was replaced, is not folded.

    Whether the copy has the network's outputs must be measured: a module may read the weights of another.

    Args:
        module: The network; it is not changed.
        pairs: From `find_conv_norm_pairs`.
        exact_layers: Layers whose own output must be that of the network: they are not folded.
        dtype: Cast the weights of convolutions and linear layers once, as autocasting does in each pass.
    """
    folded = make_evaluation_copy(module)
    submodules: dict[str, Any] = dict(folded.named_modules())
    pairs = {
        conv: norm
        for conv, norm in pairs.items()
        if conv not in exact_layers
        and norm not in exact_layers
        and not _is_customised(submodules[conv])
        and not _is_customised(submodules[norm])
    }
    for name, submodule in submodules.items():
        values = {key: value.detach() for key, value in submodule._parameters.items() if value is not None}
        if name in pairs:
            values["weight"], values["bias"] = _fold_weights(submodule, submodules[pairs[name]])
        if dtype is not None and type(submodule) in (nn.Conv2d, nn.Linear):
            values = {key: value.to(dtype) for key, value in values.items()}
        if type(submodule) is nn.Conv2d and "weight" in values:  # pruning and weight_norm compute it in each pass
            values["weight"] = values["weight"].contiguous(memory_format=torch.channels_last)
        frozen = {key: nn.Parameter(value, requires_grad=False) for key, value in values.items()}
        submodule.__dict__["_parameters"] = {**submodule._parameters, **frozen}
    for name in pairs.values():
        parent, _, child = name.rpartition(".")
        # In evaluation mode, or every pass would make another evaluation copy of the whole network.
        submodules[parent]._modules[child] = nn.Identity().eval()
    return folded


def find_conv_norm_pairs(module: nn.Module, run: Callable[[], object]) -> ConvNormPairs:
    """Return the convolutions that can be folded: one batch normalisation reads their output, and nothing else does.

    Only PyTorch's own `Conv2d` and `BatchNorm2d` count: subclasses may compute more than their name says.

    Args:
        module: The network.
        run: Runs a forward pass of it.
    """
    convolutions = {id(part.weight): name for name, part in module.named_modules() if type(part) is nn.Conv2d}
    norms = {id(part.running_mean): name for name, part in module.named_modules() if type(part) is nn.BatchNorm2d}
    with torch.no_grad(), _ConvOutputReads(convolutions, norms) as reads:
        run()
    return reads.pairs


class _ConvOutputReads(TorchFunctionMode):
    """Records what reads the outputs of convolutions, to find those that can be folded.

    Args:
        convolutions: `id` of a convolution's weight -> its name.
        norms: `id` of a batch normalisation's running mean -> its name.
    """

    def __init__(self, convolutions: Mapping[int, str], norms: Mapping[int, str]) -> None:
        super().__init__()
        self.convolutions, self.norms = convolutions, norms
        self.outputs: dict[int, tuple[Tensor, str]] = {}  # holds the tensors: the id of a freed one may be reused
        self.reads: list[tuple[str, str | None]] = []  # convolution, batch normalisation that read it

    @property
    def pairs(self) -> ConvNormPairs:
        """Each convolution that can be folded: run once, and read once, by a batch normalisation that ran once."""
        read_convs, reading_norms = [conv for conv, _ in self.reads], [norm for _, norm in self.reads]
        run_convs = [conv for _, conv in self.outputs.values()]
        return {
            conv: norm
            for conv, norm in self.reads
            if norm is not None and read_convs.count(conv) == reading_norms.count(norm) == run_convs.count(conv) == 1
        }

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        inputs = tree_leaves((args, kwargs))
        if any(isinstance(leaf, Tensor) for leaf in tree_leaves(output)):  # reads values, not only a shape
            running_mean = kwargs.get("running_mean", args[1] if len(args) > 1 else None)
            norm = self.norms.get(id(running_mean), "?") if func is F.batch_norm else None
            self.reads += [(self.outputs[id(leaf)][1], norm) for leaf in inputs if id(leaf) in self.outputs]
        if func is F.conv2d:
            names = [self.convolutions[id(leaf)] for leaf in inputs if id(leaf) in self.convolutions]
            self.outputs |= {id(output): (output, name) for name in names}
        return output


def _is_customised(module: nn.Module) -> bool:
    """Return whether a module must not be folded, because of hooks or a `forward` set on the instance."""
    return "forward" in vars(module) or bool(
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    )


def _fold_weights(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Return the folded weight and bias: those of the convolution that includes the batch normalisation."""
    assert norm.running_mean is not None  # `find_conv_norm_pairs` identifies a normalisation by it
    assert norm.running_var is not None
    weight, bias = fuse_conv_bn_weights(
        convolution.weight, convolution.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
    )
    return weight.detach(), bias.detach()
