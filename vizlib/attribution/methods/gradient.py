"""Methods that read the gradient at the pixels."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from vizlib.attribution.methods.base import SCORE, Evidence, Knob, Method, Needs, fits_all

CHANNELS = Knob("max", "how the three colour channels become one value", ("max", "mean", "norm"))


def reduce_channels(gradient: Float[Tensor, "1 3 h w"], channels: str) -> Float[Tensor, "h w"]:
    """How large the gradient is in each place: the largest, the mean or the norm of its three colours."""
    size = gradient[0].abs()
    if channels == "norm":
        return size.norm(dim=0)
    return size.amax(0) if channels == "max" else size.mean(0)


def _saliency(evidence: Evidence, *, channels: str, **_) -> Tensor:
    return reduce_channels(evidence.at_pixels, channels)


def _input_x_gradient(evidence: Evidence, **_) -> Tensor:
    return (evidence.run.image.detach() * evidence.at_pixels)[0].sum(0)


METHODS = (
    Method(
        name="saliency",
        paper="Simonyan, Vedaldi, Zisserman: Deep Inside Convolutional Networks, ICLR Workshop 2014",
        means="Bright pixels are those whose smallest change would move the class's score the most.",
        means_not="It does not say whether a pixel speaks for the class or against it, only that the score reacts.",
        needs=lambda model, knobs: Needs(image_gradient=True),
        heat=_saliency,
        fits=fits_all,
        knobs={"channels": CHANNELS, "score": SCORE},
    ),
    Method(
        name="input-x-gradient",
        paper="Shrikumar, Greenside, Shcherbina, Kundaje: Not Just a Black Box, 2016",
        means="Each pixel's share of the score, to first order: warm pixels raised it, cold pixels lowered it.",
        means_not="Pixels near the dataset's mean colour count as nothing, however important the object there is.",
        needs=lambda model, knobs: Needs(image_gradient=True),
        heat=_input_x_gradient,
        fits=fits_all,
        knobs={"score": SCORE},
        signed=True,
    ),
)
