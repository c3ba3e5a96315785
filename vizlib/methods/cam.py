"""Class activation maps: where in a layer the channels that matter fire."""

from __future__ import annotations

from torch import Tensor

from vizlib.errors import MethodError
from vizlib.families import as_picture
from vizlib.methods.base import SCORE, Evidence, Knob, Method, Needs
from vizlib.model import Model

LAYER = Knob(
    None, "the layer to look at; left out, the deepest that still knows where things are", lambda m: m.stages, open=True
)


def _layer(model: Model, knobs) -> str:
    name = knobs.get("layer") or model.cam_layer
    assert name is not None  # the method fits no model without such a layer
    return name


def _grad_cam(evidence: Evidence, *, relu: bool, **knobs) -> Tensor:
    name = _layer(evidence.model, knobs)
    activation = as_picture(evidence.run.activations[name].detach(), evidence.model.tokens)
    gradient = as_picture(evidence.layer_gradients[name], evidence.model.tokens)
    if activation is None or gradient is None:
        shape = tuple(evidence.run.activations[name].shape[1:])
        raise MethodError(f"the output of {name} has shape {shape}, with no places in it; {_stages(evidence.model)}")
    weights = gradient.mean((1, 2))  # (c,): how much each channel matters, the paper's alpha
    heat = (weights[:, None, None] * activation).sum(0)
    return heat.clamp(min=0) if relu else heat


def _stages(model: Model) -> str:
    return f"use one of {', '.join(model.stages)}"


def _has_places(model: Model) -> str | None:
    return None if model.cam_layer else "no layer of this model has an output with places in it"


METHODS = (
    Method(
        name="grad-cam",
        paper="Selvaraju et al.: Grad-CAM, ICCV 2017",
        means="Warm places are where the channels that speak for this class fire together.",
        means_not="It is as coarse as the layer it is read from, and shows evidence for the class, not against it.",
        needs=lambda model, knobs: Needs(layers=(_layer(model, knobs),)),
        heat=_grad_cam,
        fits=_has_places,
        knobs={
            "layer": LAYER,
            "relu": Knob(True, "keep only what speaks for the class, as the paper does", (True, False)),
            "score": SCORE,
        },
    ),
)
