"""Find a network of a known family inside another module: a wrapper, an adapter, or a head of one's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vizlib.capture import record_pass
from vizlib.capture.module_watch import watch_modules
from vizlib.core.errors import ModelError
from vizlib.models.families.family import Family
from vizlib.models.families.table import find_family, find_inner_families
from vizlib.models.layer_share import COMPLETE_SHARE, measure_layer_share

MAX_INPUT_ERROR = 1e-3  # of the image, as a share of its standard deviation


def find_backbone_family(
    module: nn.Module, image: Float[Tensor, "1 3 h w"], compute_outputs: Callable[[Tensor], Tensor]
) -> Family | None:
    """Return the family of a network, or of the one submodule of a family that sees the whole image.

    A submodule counts if it runs once, its input is the image up to a scale and shift of each channel, and all of the
    outputs' dependence on the image passes through its layer of class activation maps. Otherwise its layers would be
    shown for another picture, or for a part of the evidence.

    Args:
        module: The network, in evaluation mode.
        image: A random input.
        compute_outputs: Function that returns the network's outputs for an input.
    """
    family = find_family(module)
    if family is not None:
        return family
    inner = find_inner_families(module)
    if len(inner) != 1:
        return None
    ((prefix, family),) = inner
    backbone, inputs = module.get_submodule(prefix), list[Any]()

    def keep_input(part: nn.Module, arguments: tuple[Any, ...]) -> None:
        if part is backbone:
            inputs.append(arguments[0] if arguments else None)

    try:
        with torch.no_grad(), watch_modules(keep_input), record_pass(module, [prefix]) as recording:
            outputs = compute_outputs(image)
    except ModelError:  # its output is no tensor, or it did not run
        return None
    if len(inputs) != 1 or not _is_same_picture(inputs[0], image):
        return None
    output = recording.activations[prefix]
    is_output = output.shape == outputs.shape and bool((output == outputs).all())
    found = family.within(prefix, is_output=is_output, has_score=hasattr(module, "score_backbone"))
    share = measure_layer_share(module, image, compute_outputs, found.cam_layer(module))
    return found if share is None or share >= COMPLETE_SHARE else None


def _is_same_picture(given: Any, image: Tensor) -> bool:
    """Return whether a tensor is the image up to a scale and shift of each channel."""
    if not isinstance(given, Tensor) or given.shape != image.shape:
        return False
    a, b = (pixels.detach().float().flatten(2) for pixels in (given, image))
    a, b = a - a.mean(2, keepdim=True), b - b.mean(2, keepdim=True)
    scale = (a * b).sum(2, keepdim=True) / b.square().sum(2, keepdim=True)
    error = (a - scale * b).square().mean(2) <= MAX_INPUT_ERROR**2 * a.square().mean(2)
    return bool((error & (scale[..., 0] > 0)).all())
