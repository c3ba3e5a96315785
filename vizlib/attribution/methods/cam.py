"""Class activation maps: where in a layer the channels that matter fire."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from vizlib.attribution.methods.base import SCORE, Evidence, Knob, Method, Needs, Settings
from vizlib.attribution.methods.spatial_features import Places
from vizlib.attribution.methods.top_singular_vector import first_component
from vizlib.models.model import Model

LAYER = Knob(
    None, "the layer to look at; left out, the deepest that still knows where things are", lambda m: m.stages, open=True
)
RELU = Knob(
    None,
    "keep only what speaks for the class, as Grad-CAM does; left out, yes, unless two classes are compared",
    (True, False),
)


def layer_of(model: Model, knobs: Settings) -> str:
    """The layer the knobs ask for, or the model's own best."""
    name = knobs.get("layer") or model.cam_layer
    assert name is not None  # the method fits no model without such a layer
    return str(name)


def normed_layer_of(model: Model, knobs: Settings) -> str:
    """The same for methods that multiply each activation by its own gradient, which cancels before a normalisation."""
    behind = model.family and model.family.normed_layer
    return behind(model.module) if behind and not knobs.get("layer") else layer_of(model, knobs)


def has_places(model: Model) -> str | None:
    """Why there is nothing to draw a class activation map from, where there is not."""
    return None if model.cam_layer else "no layer of this model has an output with places in it"


# -------------------------------------------------------------------- one value a place, each from its paper's formula


def grad_cam(places: Places) -> Float[Tensor, " places"]:
    """Each channel in each place, weighted by its mean gradient."""
    return places.slopes.mean(1) @ places.firing  # the paper's alpha: how much each channel matters


def _grad_cam_plus_plus(places: Places) -> Tensor:
    # Equation 19's alpha times the gradient is, where that is positive, gradient / (2 + sum of the channel * gradient).
    # The paper explains exp(score): that factor of all channels is positive, and left out.
    below = torch.mul(places.rises, places.sums[:, None]).add_(2)
    weights = torch.div(places.rises, below, out=below).sum(1)
    # A channel whose sum is negative can make the lower side 0: no alpha there. (To ask a GPU is slower.)
    if not weights.is_cpu or not weights.isfinite().all():
        weights = below.masked_fill_(below.isposinf(), 0).sum(1)
    return weights @ places.firing


def _hires_cam(places: Places) -> Tensor:
    return places.contributions


def _layer_cam(places: Places) -> Tensor:
    return (places.rises * places.firing).sum(0)


def _xgrad_cam(places: Places) -> Tensor:
    weights = places.product.sum(1) / places.sums  # equation 8
    return weights.masked_fill_(places.sums == 0, 0) @ places.firing


def _eigen_cam(places: Places) -> Tensor:
    found = first_component(places.firing)
    return _turned(found, found.sum())


def _eigen_grad_cam(places: Places) -> Tensor:
    found = first_component(places.product)
    alike = found @ places.contributions  # in units of its square: the sum of the channels' shares in the component
    return _turned(found, torch.where(alike.abs() > 1e-2 * (found @ found), alike, found.sum()))


def _normgrad(places: Places) -> Tensor:
    return (places.firing.square().sum(0) * places.slopes.square().sum(0)).sqrt()


def _turned(found: Float[Tensor, " places"], value: Float[Tensor, ""]) -> Float[Tensor, " places"]:
    """A vector whose sign is anybody's, turned so that a value that turns with it is not negative."""
    return torch.where(value < 0, -found, found)


# ------------------------------------------------------------------------------------------------------ their table


def _row(
    name: str,
    values: Callable[[Places], Float[Tensor, " places"]],
    *,
    clips: bool = True,
    gradient: bool = True,
    at: Callable[[Model, Settings], str] = layer_of,
    paper: str,
    means: str,
    means_not: str,
) -> Method:
    """One class activation map: all of them have the same needs, and are drawn at any layer."""

    def heat(evidence: Evidence, *, relu: bool = False, **knobs) -> Tensor:
        places = evidence.places(at(evidence.model, knobs))
        found = places.laid_out(values(places))
        return found.clamp(min=0) if relu else found

    return Method(
        name=name,
        paper=paper,
        means=means,
        means_not=means_not,
        needs=lambda model, knobs: Needs(layers=(at(model, knobs),), layer_gradients=gradient),
        heat=heat,
        fits=has_places,
        knobs={"layer": LAYER, **({"relu": RELU} if clips else {}), **({"score": SCORE} if gradient else {})},
        of_class=gradient,
        everywhere=True,
    )


METHODS = (
    _row(
        "grad-cam",
        grad_cam,
        paper="Selvaraju et al.: Grad-CAM, ICCV 2017",
        means="Warm places are where the channels that speak for this class fire together.",
        means_not="It is as coarse as the layer it is read from, and shows evidence for the class, not against it.",
    ),
    _row(
        "grad-cam++",
        _grad_cam_plus_plus,
        paper="Chattopadhay, Sarkar, Howlader, Balasubramanian: Grad-CAM++, WACV 2018",
        means="Warm places are where channels fire that speak for this class somewhere; small objects count in full.",
        means_not="What channels say against the class is left out, and where values are negative weights can explode.",
    ),
    _row(
        "hires-cam",
        _hires_cam,
        at=normed_layer_of,
        paper="Draelos, Carin: Use HiResCAM instead of Grad-CAM, 2020",
        means="Each place's own contribution to the score, to first order: all its channels, each by its own gradient.",
        means_not="It is exact only where the rest is linear, and right before a layer normalisation it cancels out.",
    ),
    _row(
        "layer-cam",
        _layer_cam,
        paper="Jiang, Zhang, Hou, Cheng, Wei: LayerCAM, IEEE Transactions on Image Processing 2021",
        means="Warm places are where channels fire whose rise just there would raise the score; it suits early layers.",
        means_not="A channel that speaks against the class in a place takes nothing away from it there.",
    ),
    _row(
        "xgrad-cam",
        _xgrad_cam,
        at=normed_layer_of,
        paper="Fu et al.: Axiom-based Grad-CAM, BMVC 2020",
        means="Warm places are where channels fire, weighted so that the map adds up to the score, to first order.",
        means_not="A channel whose values nearly cancel is weighted wildly, as happens in transformers.",
    ),
    _row(
        "eigen-cam",
        _eigen_cam,
        clips=False,
        gradient=False,
        paper="Muhammad, Yeasin: Eigen-CAM, IJCNN 2020",
        means="Bright places show the pattern of channels that is strongest in this layer, whatever the class.",
        means_not="It knows no class, and the strongest pattern can be the background as well as the object.",
    ),
    _row(
        "eigen-grad-cam",
        _eigen_grad_cam,
        at=normed_layer_of,
        paper="Gildenblat: pytorch-grad-cam, after Muhammad and Yeasin's Eigen-CAM, 2021",
        means="Warm places show the strongest pattern among the contributions to the score: HiResCAM, less noisy.",
        means_not="It is one pattern of many: evidence that comes about in other channels is left out.",
    ),
    _row(
        "normgrad",
        _normgrad,
        clips=False,
        paper="Rebuffi, Fong, Ji, Vedaldi: There and Back Again, CVPR 2020",
        means="Bright places are where the layer both fires strongly and has a strong effect on the score.",
        means_not="It does not say whether a place speaks for the class or against it, only how much it matters.",
    ),
)
