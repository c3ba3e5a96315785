"""Class activation maps: where in a layer the channels that matter fire."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from vizlib.attribution.methods.base import SCORE, Evidence, Knob, Method, Needs, Settings
from vizlib.attribution.methods.spatial_features import SpatialFeatures
from vizlib.attribution.methods.top_singular_vector import project_on_top_singular_vector
from vizlib.models.model import Model

CAM_LAYER = Knob(
    None, "the layer to look at; left out, the deepest that still knows where things are", lambda m: m.stages, open=True
)
RELU = Knob(
    None,
    "keep only what speaks for the class, as Grad-CAM does; left out, yes, unless two classes are compared",
    (True, False),
)


def choose_cam_layer(model: Model, knobs: Settings) -> str:
    """The layer the knobs ask for, or the model's own best."""
    name = knobs.get("layer") or model.cam_layer
    assert name is not None  # the method fits no model without such a layer
    return str(name)


def choose_normed_layer(model: Model, knobs: Settings) -> str:
    """The same for methods that multiply each activation by its own gradient, which cancels before a normalisation."""
    behind = model.family and model.family.normalised_cam_layer
    return behind(model.module) if behind and not knobs.get("layer") else choose_cam_layer(model, knobs)


def check_spatial_layer(model: Model) -> str | None:
    """Why there is nothing to draw a class activation map from, where there is not."""
    return None if model.cam_layer else "no layer of this model has an output with places in it"


# -------------------------------------------------------------------- one value a place, each from its paper's formula


def grad_cam(places: SpatialFeatures) -> Float[Tensor, " places"]:
    """Each channel in each place, weighted by its mean gradient."""
    return places.gradients.mean(1) @ places.activations  # the paper's alpha: how much each channel matters


def _grad_cam_plus_plus(places: SpatialFeatures) -> Tensor:
    # Equation 19's alpha times the gradient is, where that is positive, gradient / (2 + sum of the channel * gradient).
    # The paper explains exp(score): that factor of all channels is positive, and left out.
    below = torch.mul(places.positive_gradients, places.activation_sums[:, None]).add_(2)
    weights = torch.div(places.positive_gradients, below, out=below).sum(1)
    # A channel whose sum is negative can make the lower side 0: no alpha there. (To ask a GPU is slower.)
    if not weights.is_cpu or not weights.isfinite().all():
        weights = below.masked_fill_(below.isposinf(), 0).sum(1)
    return weights @ places.activations


def _hires_cam(places: SpatialFeatures) -> Tensor:
    return places.contribution_sums


def _layer_cam(places: SpatialFeatures) -> Tensor:
    return (places.positive_gradients * places.activations).sum(0)


def _xgrad_cam(places: SpatialFeatures) -> Tensor:
    weights = places.contributions.sum(1) / places.activation_sums  # equation 8
    return weights.masked_fill_(places.activation_sums == 0, 0) @ places.activations


def _eigen_cam(places: SpatialFeatures) -> Tensor:
    found = project_on_top_singular_vector(places.activations)
    return _orient_sign(found, found.sum())


def _eigen_grad_cam(places: SpatialFeatures) -> Tensor:
    found = project_on_top_singular_vector(places.contributions)
    alike = found @ places.contribution_sums  # in units of its square: the sum of the channels' shares in the component
    return _orient_sign(found, torch.where(alike.abs() > 1e-2 * (found @ found), alike, found.sum()))


def _normgrad(places: SpatialFeatures) -> Tensor:
    return (places.activations.square().sum(0) * places.gradients.square().sum(0)).sqrt()


def _orient_sign(found: Float[Tensor, " places"], value: Float[Tensor, ""]) -> Float[Tensor, " places"]:
    """A vector whose sign is anybody's, turned so that a value that turns with it is not negative."""
    return torch.where(value < 0, -found, found)


# ------------------------------------------------------------------------------------------------------ their table


def _make_cam_method(
    name: str,
    values: Callable[[SpatialFeatures], Float[Tensor, " places"]],
    *,
    clips: bool = True,
    gradient: bool = True,
    at: Callable[[Model, Settings], str] = choose_cam_layer,
    paper: str,
    means: str,
    means_not: str,
) -> Method:
    """One class activation map: all of them have the same needs, and are drawn at any layer."""

    def heat(evidence: Evidence, *, relu: bool = False, **knobs) -> Tensor:
        places = evidence.places(at(evidence.model, knobs))
        found = places.reshape_to_map(values(places))
        return found.clamp(min=0) if relu else found

    return Method(
        name=name,
        paper=paper,
        means=means,
        means_not=means_not,
        needs=lambda model, knobs: Needs(layers=(at(model, knobs),), layer_gradients=gradient),
        heat=heat,
        fits=check_spatial_layer,
        knobs={"layer": CAM_LAYER, **({"relu": RELU} if clips else {}), **({"score": SCORE} if gradient else {})},
        of_class=gradient,
        everywhere=True,
    )


METHODS = (
    _make_cam_method(
        "grad-cam",
        grad_cam,
        paper="Selvaraju et al.: Grad-CAM, ICCV 2017",
        means="Warm places are where the channels that speak for this class fire together.",
        means_not="It is as coarse as the layer it is read from, and shows evidence for the class, not against it.",
    ),
    _make_cam_method(
        "grad-cam++",
        _grad_cam_plus_plus,
        paper="Chattopadhay, Sarkar, Howlader, Balasubramanian: Grad-CAM++, WACV 2018",
        means="Warm places are where channels fire that speak for this class somewhere; small objects count in full.",
        means_not="What channels say against the class is left out, and where values are negative weights can explode.",
    ),
    _make_cam_method(
        "hires-cam",
        _hires_cam,
        at=choose_normed_layer,
        paper="Draelos, Carin: Use HiResCAM instead of Grad-CAM, 2020",
        means="Each place's own contribution to the score, to first order: all its channels, each by its own gradient.",
        means_not="It is exact only where the rest is linear, and right before a layer normalisation it cancels out.",
    ),
    _make_cam_method(
        "layer-cam",
        _layer_cam,
        paper="Jiang, Zhang, Hou, Cheng, Wei: LayerCAM, IEEE Transactions on Image Processing 2021",
        means="Warm places are where channels fire whose rise just there would raise the score; it suits early layers.",
        means_not="A channel that speaks against the class in a place takes nothing away from it there.",
    ),
    _make_cam_method(
        "xgrad-cam",
        _xgrad_cam,
        at=choose_normed_layer,
        paper="Fu et al.: Axiom-based Grad-CAM, BMVC 2020",
        means="Warm places are where channels fire, weighted so that the map adds up to the score, to first order.",
        means_not="A channel whose values nearly cancel is weighted wildly, as happens in transformers.",
    ),
    _make_cam_method(
        "eigen-cam",
        _eigen_cam,
        clips=False,
        gradient=False,
        paper="Muhammad, Yeasin: Eigen-CAM, IJCNN 2020",
        means="Bright places show the pattern of channels that is strongest in this layer, whatever the class.",
        means_not="It knows no class, and the strongest pattern can be the background as well as the object.",
    ),
    _make_cam_method(
        "eigen-grad-cam",
        _eigen_grad_cam,
        at=choose_normed_layer,
        paper="Gildenblat: pytorch-grad-cam, after Muhammad and Yeasin's Eigen-CAM, 2021",
        means="Warm places show the strongest pattern among the contributions to the score: HiResCAM, less noisy.",
        means_not="It is one pattern of many: evidence that comes about in other channels is left out.",
    ),
    _make_cam_method(
        "normgrad",
        _normgrad,
        clips=False,
        paper="Rebuffi, Fong, Ji, Vedaldi: There and Back Again, CVPR 2020",
        means="Bright places are where the layer both fires strongly and has a strong effect on the score.",
        means_not="It does not say whether a place speaks for the class or against it, only how much it matters.",
    ),
)
