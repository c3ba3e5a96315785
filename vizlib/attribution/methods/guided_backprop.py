"""Guided backpropagation, and its product with Grad-CAM."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from vizlib.attribution.methods.base import SCORE, TWO_PASSES, Evidence, Method, Needs
from vizlib.attribution.methods.cam import LAYER, grad_cam, has_places, layer_of
from vizlib.attribution.methods.gradient import CHANNELS, over_channels
from vizlib.models.model import Model


def _guided_backprop(evidence: Evidence, *, channels: str, **_) -> Tensor:
    return over_channels(evidence.guided_at_pixels, channels)


def _guided_grad_cam(evidence: Evidence, *, channels: str, **knobs) -> Tensor:
    places = evidence.places(layer_of(evidence.model, knobs))
    cam = places.laid_out(grad_cam(places)).clamp(min=0)
    guided = over_channels(evidence.guided_at_pixels, channels)
    return guided * F.interpolate(cam[None, None], guided.shape, mode="bilinear")[0, 0]


def _has_relu(model: Model) -> str | None:
    if any(isinstance(part, nn.ReLU) for part in model.module.modules()):
        return None
    return "it changes how gradients pass a ReLU, and this model has none"


METHODS = (
    Method(
        name="guided-backprop",
        paper="Springenberg, Dosovitskiy, Brox, Riedmiller: Striving for Simplicity, ICLR Workshop 2015",
        means="The fine structure that excited the network, followed back along paths that only ever excite.",
        means_not="It hardly depends on the class or the last layers (Adebayo et al. 2018): edges, not reasons.",
        needs=lambda model, knobs: Needs(guided_gradient=True),
        heat=_guided_backprop,
        fits=_has_relu,
        knobs={"channels": CHANNELS, "score": SCORE},
        cost=TWO_PASSES,
    ),
    Method(
        name="guided-grad-cam",
        paper="Selvaraju et al.: Grad-CAM, ICCV 2017",
        means="The fine structure of guided backpropagation, where Grad-CAM finds evidence for the class.",
        means_not="Only the place depends on the class: the fine structure is edges, whichever class is asked for.",
        needs=lambda model, knobs: Needs(guided_gradient=True, layers=(layer_of(model, knobs),)),
        heat=_guided_grad_cam,
        fits=lambda model: _has_relu(model) or has_places(model),
        knobs={"layer": LAYER, "channels": CHANNELS, "score": SCORE},
        cost=TWO_PASSES,
    ),
)
