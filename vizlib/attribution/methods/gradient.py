"""Attribution by the gradient of the score with respect to the pixels."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from vizlib.attribution.evidence import IMAGE_GRADIENT, Evidence, RequiredSignals
from vizlib.attribution.request import SCORE_PARAMETER, Method, Parameter, supports_every_model

CHANNELS = Parameter(
    "max", "how the gradients of the three colour channels are reduced to one value per pixel", ("max", "mean", "norm")
)


def reduce_channels(gradient: Float[Tensor, "1 3 h w"], channels: str) -> Float[Tensor, "h w"]:
    """Return the magnitude of the gradient at each pixel, from that at its colour channels.

    Args:
        gradient: Gradient with respect to an image.
        channels: Reduction of the absolute values over the three colours: `"max"`, `"mean"` or `"norm"` (L2).
    """
    magnitude = gradient[0].abs()
    if channels == "norm":
        return magnitude.norm(dim=0)
    return magnitude.amax(0) if channels == "max" else magnitude.mean(0)


def _saliency(evidence: Evidence, *, channels: str, **_) -> Tensor:
    """Return the magnitude of the gradient at the pixels.

    References:
        Simonyan, Vedaldi, Zisserman. Deep Inside Convolutional Networks: Visualising Image Classification Models and
        Saliency Maps. ICLR Workshop 2014. arXiv:1312.6034
    """
    return reduce_channels(evidence.image_gradient, channels)


def _input_x_gradient(evidence: Evidence, **_) -> Tensor:
    """Return input times gradient, summed over colours: the first-order contribution of each pixel to the score.

    References:
        Shrikumar, Greenside, Shcherbina, Kundaje. Not Just a Black Box: Learning Important Features Through Propagating
        Activation Differences. 2016. arXiv:1605.01713
    """
    return (evidence.run.image.detach() * evidence.image_gradient)[0].sum(0)


METHODS = (
    Method(
        name="saliency",
        paper="Simonyan, Vedaldi, Zisserman: Deep Inside Convolutional Networks, ICLR Workshop 2014",
        paper_url="https://arxiv.org/abs/1312.6034",
        equation=r"H_{ij} = \max_c \left| \frac{\partial s}{\partial x_{cij}} \right|",
        shows="Bright pixels are those where a small change would change the class score the most.",
        does_not_show="It shows how sensitive the score is, not whether a pixel is evidence for or against the class.",
        signals=lambda model, values: RequiredSignals(frozenset({IMAGE_GRADIENT})),
        compute=_saliency,
        unsupported_reason=supports_every_model,
        parameters={"channels": CHANNELS, "score": SCORE_PARAMETER},
    ),
    Method(
        name="input-x-gradient",
        paper="Shrikumar, Greenside, Shcherbina, Kundaje: Not Just a Black Box, 2016",
        paper_url="https://arxiv.org/abs/1605.01713",
        equation=r"H_{ij} = \sum_c x_{cij} \frac{\partial s}{\partial x_{cij}}",
        shows="First-order contribution of each pixel to the score: warm pixels raise it, cold pixels lower it.",
        does_not_show="Pixels near the mean colour of the training data get values near zero, whatever they show.",
        signals=lambda model, values: RequiredSignals(frozenset({IMAGE_GRADIENT})),
        compute=_input_x_gradient,
        unsupported_reason=supports_every_model,
        parameters={"score": SCORE_PARAMETER},
        is_signed=lambda values: True,
    ),
)
