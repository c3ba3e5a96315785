"""Class activation maps: where in a layer the channels that matter fire."""

from __future__ import annotations

from torch import Tensor

from vizlib.methods.base import SCORE, Evidence, Knob, Method, Needs
from vizlib.model import Model

LAYER = Knob(
    None, "the layer to look at; left out, the deepest that still knows where things are", lambda m: m.stages, open=True
)
RELU = Knob(
    None,
    "keep only what speaks for the class, as the paper does; left out, yes, unless two classes are compared",
    (True, False),
)


def layer_of(model: Model, knobs) -> str:
    """The layer the knobs ask for, or the model's own best."""
    name = knobs.get("layer") or model.cam_layer
    assert name is not None  # the method fits no model without such a layer
    return name


def has_places(model: Model) -> str | None:
    """Why there is nothing to draw a class activation map from, where there is not."""
    return None if model.cam_layer else "no layer of this model has an output with places in it"


def _grad_cam(evidence: Evidence, *, relu: bool, **knobs) -> Tensor:
    places = evidence.places(layer_of(evidence.model, knobs))
    heat = places.weighted(places.gradient.mean((1, 2)))  # the paper's alpha: how much each channel matters
    return heat.clamp(min=0) if relu else heat


METHODS = (
    Method(
        name="grad-cam",
        paper="Selvaraju et al.: Grad-CAM, ICCV 2017",
        means="Warm places are where the channels that speak for this class fire together.",
        means_not="It is as coarse as the layer it is read from, and shows evidence for the class, not against it.",
        needs=lambda model, knobs: Needs(layers=(layer_of(model, knobs),)),
        heat=_grad_cam,
        fits=has_places,
        knobs={
            "layer": LAYER,
            "relu": RELU,
            "score": SCORE,
        },
        everywhere=True,
    ),
)
