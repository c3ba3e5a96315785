"""The convolution that reads the pixels is linear: many passes can enter it, and leave it, together.

A sum of gradients at the pixels is the sum of the gradients at its output, carried back once; an input on the line
between two others has an output on the line between theirs. On a ResNet-50 that saves about a tenth of each pass.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vizlib.capture import compute_gradients
from vizlib.models.model import Model

MAX_RELATIVE_DIFFERENCE = (
    1e-4  # of the largest value: how far two ways to the same gradient may lie apart in single precision
)


@dataclass(frozen=True, eq=False)
class FirstConvolution:
    """A model's first convolution, when nothing else reads the pixels; `layer` is `None` where there is none such."""

    model: Model
    layer: str | None

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> Tensor:
        """The layer's output for prepared inputs; without a layer they themselves."""
        if self.layer is None:
            return images
        with torch.inference_mode(False), torch.no_grad():
            return self._part()(images)

    def backward(self, gradient: Tensor) -> Float[Tensor, "n 3 h w"]:
        """A gradient at the layer's output, carried back to the pixels."""
        if self.layer is None:
            return gradient
        size = self.model.preprocessing.input_size
        with torch.inference_mode(False), torch.enable_grad():
            pixels = gradient.new_zeros(len(gradient), 3, *size, requires_grad=True)
            return torch.autograd.grad(self._part()(pixels), pixels, gradient)[0]

    def _part(self) -> nn.Module:
        assert self.layer is not None
        return self.model.eval_module().get_submodule(self.layer)


def find_first_convolution(model: Model) -> FirstConvolution:
    """A model's stem, found out by one pass, and kept with the model."""
    if "stem" not in model._plan_cache:
        layer = model.first_convolution
        model._plan_cache["stem"] = layer if layer and _alone(FirstConvolution(model, layer)) else None
    return FirstConvolution(model, model._plan_cache["stem"])


def _alone(stem: FirstConvolution) -> bool:
    """Whether all that the score owes the pixels goes through this layer, which sees them as they are."""
    model, layer = stem.model, stem.layer
    assert layer is not None
    random = torch.Generator().manual_seed(0)
    image = torch.rand(1, 3, *model.preprocessing.input_size, generator=random).to(model.reference_tensor())
    image, logits, seen = model.forward(image, [layer])
    output = seen.activations[layer]
    with torch.inference_mode(False), torch.enable_grad():
        at_pixels, at_output = compute_gradients(logits.square().sum(), [image, output], retain_graph=False)
    same = ((output, stem.forward(image.detach())), (at_pixels, stem.backward(at_output)))
    return all(a.any() and (a - b).abs().max() <= MAX_RELATIVE_DIFFERENCE * a.abs().max() for a, b in same)
