"""The record of one forward pass, the backward rules for its ReLUs, and gradients."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

BACKWARD_RULES = ("guided",)
# Attribute of a recorded tensor that is not on the graph: the tensor with the same values that is.
GRAPH_SOURCE = "_vizlib_source"


class BackwardRule:
    """The backward rule in force, read by the tensor hooks of the ReLUs.

    A ReLU's tensor hook holds only this object. A hook that held the whole recording would create a reference cycle
    through the autograd graph, which Python's garbage collector cannot see: no run would ever be freed. The lock keeps
    threads that share one run out of each other's backward pass.

    Attributes:
        name: One of `BACKWARD_RULES`, or `None` for ordinary backpropagation.
        lock: Held during a backward pass.
    """

    def __init__(self) -> None:
        self.name: str | None = None
        self.lock = threading.RLock()

    def on_relu_gradient(self, gradient: Tensor) -> Tensor | None:
        """Return the gradient at a ReLU's output under the rule in force; `None` leaves it unchanged."""
        return gradient.clamp(min=0) if self.name == "guided" else None


@dataclass(eq=False)
class Recording:
    """What was recorded of one forward pass: filled while the `record_pass` block runs, read afterwards.

    Attributes:
        activations: Layer name -> output, on the graph; the last call's output if the layer runs several times.
        attention: Name of the attention module -> softmax weights "batch heads query key".
        shapes: Layer name -> output shape without the batch axis.
        active_rule: The backward rule, read by tensor hooks during the backward pass.
        rules: Whether such tensor hooks were set.
    """

    activations: dict[str, Tensor] = field(default_factory=dict)
    attention: dict[str, Tensor] = field(default_factory=dict)
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    active_rule: BackwardRule = field(default_factory=BackwardRule, repr=False)
    rules: bool = True

    @contextlib.contextmanager
    def backward_rule(self, rule: str | None) -> Iterator[None]:
        """Apply a backward rule to the ReLUs in the backward passes of this block.

        Args:
            rule: `"guided"` lets only positive gradients through a ReLU, in addition to the ReLU's own mask; `None` is
                ordinary backpropagation.

        Raises:
            ValueError: For an unknown rule, or a pass that was recorded without rules.

        References:
            Springenberg, Dosovitskiy, Brox, Riedmiller: Striving for simplicity: the all convolutional net, ICLR
            workshop 2015, arXiv:1412.6806.
        """
        if rule is not None and rule not in BACKWARD_RULES:
            raise ValueError(f"no backward rule {rule!r}; there are {', '.join(BACKWARD_RULES)}")
        if rule is not None and not self.rules:
            raise ValueError(f"the pass was recorded without rules, so it cannot follow {rule!r}")
        with self.active_rule.lock:
            previous, self.active_rule.name = self.active_rule.name, rule
            try:
                yield
            finally:
                self.active_rule.name = previous

    def compute_gradients(
        self, score: Callable[[], Tensor], tensors: Sequence[Tensor], rule: str | None = None
    ) -> tuple[Tensor, ...]:
        """Return the gradient of a score with respect to each recorded tensor, from one backward pass.

        The graph is kept, so that gradients of another score need no second forward pass.

        Args:
            score: Function that computes a scalar from the outputs of the pass.
            tensors: Recorded tensors or inputs of the pass.
            rule: Backward rule of the ReLUs, as in `backward_rule`.

        Returns:
            One gradient per tensor, in its shape; zeros where the score does not depend on it.
        """
        with self.backward_rule(rule), torch.inference_mode(False), torch.enable_grad():
            return compute_gradients(score(), tensors)


def compute_gradients(score: Tensor, tensors: Sequence[Tensor], *, retain_graph: bool = True) -> tuple[Tensor, ...]:
    """Return the gradient of a scalar with respect to each tensor, from one backward pass.

    Args:
        score: A tensor with one element.
        tensors: Recorded tensors or inputs of the pass.
        retain_graph: Keep the graph, so that gradients of another score can be computed.

    Returns:
        One gradient per tensor, in its shape; zeros where the score does not depend on it.
    """
    sources = [getattr(tensor, GRAPH_SOURCE, tensor) for tensor in tensors]
    on_graph = [source for source in sources if source.requires_grad]
    computed = iter(
        torch.autograd.grad(score, on_graph, retain_graph=retain_graph, allow_unused=True) if on_graph else ()
    )
    gradients = [next(computed) if source.requires_grad else None for source in sources]
    return tuple(
        torch.zeros_like(tensor) if gradient is None else gradient.view(tensor.shape)
        for tensor, gradient in zip(tensors, gradients, strict=True)
    )
