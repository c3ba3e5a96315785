"""What one forward pass gives: `Run` with everything gradients need, and `Prediction`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from vizlib.capture import Recording, compute_gradients
from vizlib.core.geometry import Geometry

Target = int | Tensor | Callable[[Tensor], Tensor]  # a class, one weight a class, or a number made of the logits


class Prediction(NamedTuple):
    """One class and how much the model believes in it."""

    index: int
    label: str
    probability: float
    logit: float


@dataclass(frozen=True, eq=False)
class Run:
    """One photo, seen once by one model; it holds the whole graph, so let it go when the questions are answered.

    The leading axis of `activations` and `attention` is the batch axis of 1 the network computed with (one entry a
    window, where attention is windowed): taking it off would make a new tensor beside the graph, through which no
    gradient flows.
    """

    image: Float[Tensor, "n 3 h w"]  # normalised model input, on the graph; n is 1 but inside `explain` of a list
    logits: Float[Tensor, "n classes"]
    activations: Mapping[str, Tensor]  # PyTorch's own dotted layer name -> output, on the graph
    attention: Mapping[
        str, Float[Tensor, "windows heads query key"]
    ]  # attention layer -> softmax weights, on the graph
    geometry: Geometry  # model input <-> original photo
    photo: Image.Image  # upright RGB
    notes: tuple[str, ...] = ()
    recording: Recording = field(default_factory=Recording)

    def __repr__(self) -> str:
        held = f"{len(self.activations)} activations, {len(self.attention)} attention layers"
        return f"<Run of a photo of {self.photo.width} × {self.photo.height}: {self.logits.shape[-1]} logits, {held}>"

    def score(self, target: Target) -> Float[Tensor, ""]:
        """The number that is explained: a logit, a weighted sum of logits, or what a callable makes of them."""
        if callable(target):
            return target(self.logits).sum()
        if isinstance(target, Tensor):
            return (self.logits[0] * target.to(self.logits)).sum()
        return self.logits[0, target]

    def gradients(self, target: Target, *, of: Sequence[Tensor], rule: str | None = None) -> tuple[Tensor, ...]:
        """The gradient of the target's score with respect to each tensor, all from one backward pass.

        `rule="guided"` is guided backpropagation's: a ReLU passes on positive gradient only. Zeros where the score does
        not depend on a tensor. Ask again for another target: the forward pass is not repeated.
        """
        with self.recording.backward_rule(rule), torch.inference_mode(False), torch.enable_grad():
            return compute_gradients(self.score(target), of)
