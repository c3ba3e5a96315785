"""The results of one forward pass: `Run`, which holds what gradients need, and `Prediction`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from jaxtyping import Float
from PIL import Image
from torch import Tensor

from vizlib.capture import Recording
from vizlib.core.geometry import Geometry
from vizlib.core.text import format_number, format_percent

# What is explained: the logit of a class, a sum of logits weighted by a tensor "classes", or a function of the logits.
Target = int | Tensor | Callable[[Tensor], Tensor]


class Prediction(NamedTuple):
    """One predicted class of a run, or one value of a regression.

    Attributes:
        index: Index of the class.
        label: Its label.
        probability: Its probability, from 0 to 1; `None` for a value of a regression.
        logit: The network's output: the logit of the class, or where the network returns no logits the probability or
            the value itself.
    """

    index: int
    label: str
    probability: float | None
    logit: float

    @property
    def text(self) -> str:
        """The probability in percent, or the value of a regression, for display."""
        return format_number(self.logit) if self.probability is None else format_percent(self.probability)


@dataclass(frozen=True, eq=False)
class Run:
    """The forward pass of one photo through one model.

    A run holds the whole autograd graph, so drop it when no more gradients are needed. The first axis of `activations`
    and `attention` is the batch axis of 1 that the network computed with (one entry per window, where attention is
    windowed); indexing it away would create a tensor off the graph, through which no gradient flows.

    Attributes:
        image: Normalised input, on the graph; n is 1 except inside `explain` of a list.
        logits: Logits of all classes, on the graph.
        activations: PyTorch's dotted layer name -> output, on the graph.
        attention: Name of the attention layer -> softmax weights, on the graph.
        geometry: How the input is placed on the photo.
        photo: Upright RGB photo.
        notes: Notes about the photo and the model, one sentence each.
        recording: Record of the pass, through which backward rules are applied.
    """

    image: Float[Tensor, "n 3 h w"]
    logits: Float[Tensor, "n classes"]
    activations: Mapping[str, Tensor]
    attention: Mapping[str, Float[Tensor, "windows heads query key"]]
    geometry: Geometry
    photo: Image.Image
    notes: tuple[str, ...] = ()
    recording: Recording = field(default_factory=Recording)

    def __repr__(self) -> str:
        contents = f"{len(self.activations)} activations, {len(self.attention)} attention layers"
        return (
            f"<Run of a photo of {self.photo.width} × {self.photo.height}: {self.logits.shape[-1]} logits, {contents}>"
        )

    def score(self, target: Target) -> Float[Tensor, ""]:
        """Return the scalar that is explained of this run: a logit, a weighted sum of logits, or a function of them.

        Args:
            target: What is explained, as `explain` resolves it.
        """
        if callable(target):
            return target(self.logits).sum()
        if isinstance(target, Tensor):
            return (self.logits[0] * target.to(self.logits)).sum()
        return self.logits[0, target]

    def gradients(self, target: Target, *, of: Sequence[Tensor], rule: str | None = None) -> tuple[Tensor, ...]:
        """Return the gradient of the target's score with respect to each tensor, from one backward pass.

        The graph is kept, so gradients of other targets need no further forward pass.

        Args:
            target: What is explained.
            of: Tensors of this run; the gradient is zero where the score does not depend on one.
            rule: `"guided"` lets every ReLU pass only positive gradients (guided backpropagation); requires
                `Model.run(..., rules=True)`.
        """
        return self.recording.compute_gradients(lambda: self.score(target), of, rule)
