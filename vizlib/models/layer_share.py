"""Measure which share of a network's outputs depends on the image through one layer's output."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vizlib.capture import alter_output, compute_gradients
from vizlib.core.errors import MethodError

COMPLETE_SHARE = 0.999  # below it, more than rounding bypasses a layer


@dataclass(frozen=True)
class CamLayer:
    """The default layer of class activation maps.

    Attributes:
        name: Name of the layer.
        share: Share of the gradient at the image that passes through the layer's output, from 0 to 1; `None` where the
            outputs have no gradient at the image.
    """

    name: str
    share: float | None


def choose_most_complete_layer(
    module: nn.Module,
    image: Float[Tensor, "1 3 h w"],
    compute_outputs: Callable[[Tensor], Tensor],
    candidates: Iterable[str],
) -> CamLayer | None:
    """Return the first candidate that all of the outputs' dependence on the image passes through, else the fullest.

    Args:
        module: The network that `compute_outputs` runs.
        image: Input to measure at.
        compute_outputs: Function that returns the network's outputs "1 n" for an input.
        candidates: Names of layers, the preferred ones first.

    Returns:
        The layer and its share; `None` without a candidate.
    """
    best: CamLayer | None = None
    for name in candidates:
        layer = CamLayer(name, measure_layer_share(module, image, compute_outputs, name))
        if layer.share is None or layer.share >= COMPLETE_SHARE:
            return layer
        if best is None or best.share is None or layer.share > best.share:
            best = layer
    return best


def measure_layer_share(
    module: nn.Module, image: Float[Tensor, "1 3 h w"], compute_outputs: Callable[[Tensor], Tensor], layer: str
) -> float | None:
    """Return the share of the outputs' gradient at the image that passes through a layer's output.

    The gradient of a random combination of the outputs is the sum of what passes through the layer and what bypasses
    it; the latter is left where the layer's output is detached from the graph, which changes no value. The share
    compares their Euclidean norms.

    Returns:
        The share from 0 to 1; `None` if there is no gradient at the image at all.
    """

    def compute_gradient(detach: bool) -> Tensor:
        pixels = image.detach().clone().requires_grad_()
        hook = alter_output(module, layer, Tensor.detach) if detach else contextlib.nullcontext()
        with hook:
            outputs = compute_outputs(pixels).flatten().float()
        generator = torch.Generator().manual_seed(0)
        weights = torch.randn(len(outputs), generator=generator, device="cpu", dtype=torch.float32)
        try:
            return compute_gradients((outputs * weights.to(outputs.device)).sum(), [pixels], retain_graph=False)[0]
        except MethodError:  # the path from the image is cut
            return torch.zeros_like(image)

    with torch.inference_mode(False), torch.enable_grad():
        total, bypassing = compute_gradient(False).float(), compute_gradient(True).float()
    if not total.any():
        return None
    through, rest = (total - bypassing).norm(), bypassing.norm()
    return (through / (through + rest)).item() if through + rest > 0 else None  # the squares of tiny values are 0
