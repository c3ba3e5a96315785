"""Share the first convolution among many passes: it is linear, so inputs and gradients can pass it together.

The sum of the gradients at the pixels is the sum of the gradients at the convolution's output, propagated back once; an
input on the line between two others has an output on the line between theirs. On a ResNet-50 this saves about a tenth
of each pass.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vizlib.capture import compute_gradients
from vizlib.core.errors import VizlibError
from vizlib.models.model import Model

# Largest accepted difference of two computations of one gradient in single precision, relative to the largest value.
MAX_GRADIENT_DIFFERENCE = 1e-4


@dataclass(frozen=True, eq=False)
class FirstConvolution:
    """A model's first convolution, if nothing else reads the pixels.

    Attributes:
        model: The model.
        layer: Name of the convolution; `None` for a model without such a convolution, where `forward` and `backward`
            return their argument.
    """

    model: Model
    layer: str | None

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> Tensor:
        """Return the convolution's output for model inputs."""
        if self.layer is None:
            return images
        with torch.inference_mode(False), torch.no_grad(), _without_autocast(images):
            return self._get_module()(images)

    def backward(self, gradient: Tensor) -> Float[Tensor, "n 3 h w"]:
        """Return the gradient at the pixels for a gradient at the convolution's output."""
        if self.layer is None:
            return gradient
        size = self.model.preprocessing.input_size
        with torch.inference_mode(False), torch.enable_grad(), _without_autocast(gradient):
            pixels = gradient.new_zeros(len(gradient), 3, *size, requires_grad=True)
            return torch.autograd.grad(self._get_module()(pixels), pixels, gradient)[0]

    def _get_module(self) -> nn.Module:
        """Return the module of the first convolution."""
        assert self.layer is not None
        return self.model.eval_module().get_submodule(self.layer)


def _without_autocast(tensor: Tensor) -> torch.autocast:
    """Return the context in which a caller's autocasting does not apply."""
    return torch.autocast(tensor.device.type, enabled=False)


def find_first_convolution(model: Model) -> FirstConvolution:
    """Return a model's first convolution, checked with one pass; the result is kept in the model's plan cache."""

    def find() -> str | None:
        """Return the name of the first convolution, `None` if something else reads the pixels."""
        layer = model.first_convolution
        try:
            return layer if layer and _reads_all_pixels(FirstConvolution(model, layer)) else None
        except VizlibError:  # its `forward` is called directly, unseen by hooks; or a target function refuses noise
            return None

    return FirstConvolution(model, model._plan_cache.get_or_compute("first_convolution", find))


def _reads_all_pixels(convolution: FirstConvolution) -> bool:
    """Return whether the logits depend on pixels only through the first convolution, which receives them unchanged."""
    model, layer = convolution.model, convolution.layer
    assert layer is not None
    size, generator = model.preprocessing.input_size, torch.Generator().manual_seed(0)
    image = torch.rand(1, 3, *size, generator=generator, dtype=torch.float32, device="cpu").to(model.reference_tensor())
    image, logits, recording = model.forward(image, [layer])
    output, expected = recording.activations[layer], convolution.forward(image.detach())
    if output.shape != expected.shape:  # the network resizes its input
        return False
    with torch.inference_mode(False), torch.enable_grad():
        at_pixels, at_output = compute_gradients(logits.square().sum(), [image, output], retain_graph=False)
    pairs = ((output, expected), (at_pixels, convolution.backward(at_output)))
    return all(a.any() and (a - b).abs().max() <= MAX_GRADIENT_DIFFERENCE * a.abs().max() for a, b in pairs)
