"""What three backward hooks on one ReLU are handed: on the tensor, on the module and on the node of the graph."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


class HookArguments(NamedTuple):
    """What three backward hooks were handed in one backward pass.

    Attributes:
        tensor: The gradient that a hook on the input tensor gets: the sum over all branches of the graph.
        module: `grad_input` and `grad_output` that a full backward hook of the module gets after the module itself.
        function: `grad_inputs` and `grad_outputs` that a hook on `grad_fn` of the output gets.
        mistake: The error of a function of one argument on `grad_fn`.
    """

    tensor: Tensor
    module: tuple[Tensor, Tensor]
    function: tuple[Tensor, Tensor]
    mistake: str


def compare_relu_hooks(values: Tensor, gradient: Tensor) -> HookArguments:
    """Return what hooks on a ReLU are handed, where its input has a second branch, as in a residual block.

    The score is <gradient, relu(values)> + <gradient, values>. The ReLU and the graph are made here, so that no network
    is hooked.

    Args:
        values: Input of the ReLU.
        gradient: Gradient of the score at its output, and at the second branch, in the same shape.
    """
    handed: dict[str, Any] = {}
    with torch.inference_mode(False), torch.enable_grad():
        leaf, gradient = values.detach().clone().requires_grad_(), gradient.detach().clone()
        inputs = leaf * 1  # a hook of a leaf and one of an inner tensor get the same; the inner one is the usual case
        relu = nn.ReLU()
        inputs.register_hook(lambda one: handed.update(tensor=one))
        relu.register_full_backward_hook(lambda module, *both: handed.update(module=tuple(pair[0] for pair in both)))
        outputs = relu(inputs)
        node = _find_relu_node(outputs)  # the hook of the module adds a node after that of the ReLU
        node.register_hook(lambda *both: handed.update(function=tuple(pair[0] for pair in both)))
        score = (gradient * outputs).sum() + (gradient * inputs).sum()
        score.backward(retain_graph=True)
        node.register_hook(lambda one: None)
        try:
            score.backward()
            mistake = ""
        except TypeError as error:
            mistake = str(error).replace("compare_relu_hooks.<locals>.", "")
    return HookArguments(handed["tensor"], handed["module"], handed["function"], mistake)


def _find_relu_node(outputs: Tensor) -> Any:
    """Return the node of the ReLU in the graph of its module's output."""
    node: Any = outputs.grad_fn
    while "Relu" not in type(node).__name__:
        node = node.next_functions[0][0]
    return node
