"""What one forward pass showed, the backward rules it can be read with, and its gradients."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

BACKWARD_RULES = ("guided",)
GRAPH_SOURCE = "_vizlib_source"  # on a recorded tensor beside the graph: the same values, on the graph


class BackwardRule:
    """The backward rule in force. A ReLU's tensor hook holds this and no more.

    A hook that held the recording would close a circle through the graph, where Python's collector cannot see it: every
    run would stay in memory for good. The lock keeps threads that share one run out of each other's backward pass.
    """

    def __init__(self) -> None:
        self.name: str | None = None
        self.lock = threading.RLock()

    def on_relu_gradient(self, gradient: Tensor) -> Tensor | None:
        """What a ReLU hands back under the rule in force; `None` leaves it as it is."""
        return gradient.clamp(min=0) if self.name == "guided" else None


@dataclass(eq=False)
class Recording:
    """What one forward pass showed: filled while the `watch` block runs, read afterwards."""

    activations: dict[str, Tensor] = field(default_factory=dict)  # layer name -> output; the last call's, if reused
    attention: dict[str, Tensor] = field(default_factory=dict)  # layer name -> softmax weights "batch heads query key"
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)  # layer name -> output shape without batch axis
    active_rule: BackwardRule = field(
        default_factory=BackwardRule, repr=False
    )  # read by tensor hooks during the backward pass
    rules: bool = True  # whether such hooks were set

    @contextlib.contextmanager
    def backward_rule(self, rule: str | None) -> Iterator[None]:
        """Let ReLUs follow another rule in the backward passes of this block.

        `"guided"` lets only positive gradient through a ReLU, besides the ReLU's own mask (Springenberg et al. 2015).
        """
        if rule is not None and rule not in BACKWARD_RULES:
            raise ValueError(f"no backward rule {rule!r}; there are {', '.join(BACKWARD_RULES)}")
        if rule is not None and not self.rules:
            raise ValueError(f"the pass was watched without rules, so it cannot follow {rule!r}")
        with self.active_rule.lock:
            before, self.active_rule.name = self.active_rule.name, rule
            try:
                yield
            finally:
                self.active_rule.name = before


def compute_gradients(score: Tensor, tensors: Sequence[Tensor], *, retain_graph: bool = True) -> tuple[Tensor, ...]:
    """The gradient of one number with respect to each tensor, in one backward pass; zeros where it depends on none.

    The graph is kept, so that another score can be asked for, unless `keep` is false.
    """
    sources = [getattr(tensor, GRAPH_SOURCE, tensor) for tensor in tensors]
    asked = [source for source in sources if source.requires_grad]
    found = iter(torch.autograd.grad(score, asked, retain_graph=retain_graph, allow_unused=True) if asked else ())
    answers = [next(found) if source.requires_grad else None for source in sources]
    return tuple(
        torch.zeros_like(tensor) if gradient is None else gradient.view(tensor.shape)
        for tensor, gradient in zip(tensors, answers, strict=True)
    )
