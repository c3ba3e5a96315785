"""Attribution by guided backpropagation, alone and multiplied by Grad-CAM."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from vizlib.attribution.evidence import GUIDED_GRADIENT, LAYER_GRADIENTS, Evidence, RequiredSignals
from vizlib.attribution.methods.cam import CAM_LAYER, check_spatial_layer, choose_cam_layer, grad_cam
from vizlib.attribution.methods.gradient import CHANNELS, reduce_channels
from vizlib.attribution.request import SCORE_PARAMETER, TWO_PASSES, Method
from vizlib.models.model import Model


def _guided_backprop(evidence: Evidence, *, channels: str, **_) -> Tensor:
    """Return the magnitude of the gradient at the pixels, with negative gradients set to 0 at every ReLU.

    References:
        Springenberg, Dosovitskiy, Brox, Riedmiller. Striving for Simplicity: The All Convolutional Net. ICLR Workshop
        2015. arXiv:1412.6806
    """
    return reduce_channels(evidence.guided_gradient, channels)


def _guided_grad_cam(evidence: Evidence, *, channels: str, **parameters) -> Tensor:
    """Return guided backpropagation times Grad-CAM, clamped at 0 and upsampled bilinearly to the input.

    References:
        Selvaraju, Cogswell, Das, Vedantam, Parikh, Batra. Grad-CAM: Visual Explanations from Deep Networks via
        Gradient-based Localization. ICCV 2017, section 3.2. arXiv:1610.02391
    """
    features = evidence.at_layer(choose_cam_layer(evidence.model, parameters))
    cam = features.reshape_to_map(grad_cam(features)).clamp(min=0)
    guided = reduce_channels(evidence.guided_gradient, channels)
    return guided * F.interpolate(cam[None, None], guided.shape, mode="bilinear")[0, 0]


def _check_relu(model: Model) -> str | None:
    """Return why guided backpropagation does not apply to a model, or `None` where it does."""
    if any(isinstance(module, nn.ReLU) for module in model.module.modules()) or model.num_relus:
        return None
    return "it modifies the gradient of ReLU layers, and this model has none"


METHODS = (
    Method(
        name="guided-backprop",
        paper="Springenberg, Dosovitskiy, Brox, Riedmiller: Striving for Simplicity, ICLR Workshop 2015",
        paper_url="https://arxiv.org/abs/1412.6806",
        equation=(
            r"H_{ij} = \max_c \left| g_{cij} \right|, "
            r"\quad \text{with } g^{in} = g^{out} \cdot [a > 0] \cdot [g^{out} > 0] \text{ at every ReLU}"
        ),
        shows="Fine structures that raise the score when only positive gradients are propagated back.",
        does_not_show="It mostly shows edges and depends little on the class or the last layers (Adebayo et al. 2018).",
        signals=lambda model, values: RequiredSignals(frozenset({GUIDED_GRADIENT})),
        compute=_guided_backprop,
        unsupported_reason=_check_relu,
        parameters={"channels": CHANNELS, "score": SCORE_PARAMETER},
        cost=TWO_PASSES,
    ),
    Method(
        name="guided-grad-cam",
        paper="Selvaraju et al.: Grad-CAM, ICCV 2017",
        paper_url="https://arxiv.org/abs/1610.02391",
        equation=(
            r"H_{ij} = \max_c \left| g_{cij} \right| "
            r"\cdot \operatorname{upsample}\left( \operatorname{ReLU}\left( "
            r"\sum_k \alpha_k A_k \right) \right)_{ij}"
        ),
        shows="The fine structures of guided backpropagation where Grad-CAM finds evidence for the class.",
        does_not_show="Only the regions depend on the class; the fine structures are nearly the same for every class.",
        signals=lambda model, values: RequiredSignals(
            frozenset({GUIDED_GRADIENT, LAYER_GRADIENTS}), (choose_cam_layer(model, values),)
        ),
        compute=_guided_grad_cam,
        unsupported_reason=lambda model: _check_relu(model) or check_spatial_layer(model),
        parameters={"layer": CAM_LAYER, "channels": CHANNELS, "score": SCORE_PARAMETER},
        cost=TWO_PASSES,
    ),
)
