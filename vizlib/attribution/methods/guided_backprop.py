"""Guided backpropagation, and its product with Grad-CAM."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from vizlib.attribution.methods.base import SCORE, TWO_PASSES, Evidence, Method, Needs
from vizlib.attribution.methods.cam import CAM_LAYER, check_spatial_layer, choose_cam_layer, grad_cam
from vizlib.attribution.methods.gradient import CHANNELS, reduce_channels
from vizlib.models.model import Model


def _guided_backprop(evidence: Evidence, *, channels: str, **_) -> Tensor:
    return reduce_channels(evidence.guided_at_pixels, channels)


def _guided_grad_cam(evidence: Evidence, *, channels: str, **knobs) -> Tensor:
    places = evidence.places(choose_cam_layer(evidence.model, knobs))
    cam = places.reshape_to_map(grad_cam(places)).clamp(min=0)
    guided = reduce_channels(evidence.guided_at_pixels, channels)
    return guided * F.interpolate(cam[None, None], guided.shape, mode="bilinear")[0, 0]


def _check_relu(model: Model) -> str | None:
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
        fits=_check_relu,
        knobs={"channels": CHANNELS, "score": SCORE},
        cost=TWO_PASSES,
    ),
    Method(
        name="guided-grad-cam",
        paper="Selvaraju et al.: Grad-CAM, ICCV 2017",
        means="The fine structure of guided backpropagation, where Grad-CAM finds evidence for the class.",
        means_not="Only the place depends on the class: the fine structure is edges, whichever class is asked for.",
        needs=lambda model, knobs: Needs(guided_gradient=True, layers=(choose_cam_layer(model, knobs),)),
        heat=_guided_grad_cam,
        fits=lambda model: _check_relu(model) or check_spatial_layer(model),
        knobs={"layer": CAM_LAYER, "channels": CHANNELS, "score": SCORE},
        cost=TWO_PASSES,
    ),
)
