"""Class activation maps: where in a layer the channels that matter fire."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from vizlib.attribution.methods.base import SCORE, Evidence, Method, Needs, Parameter, Settings
from vizlib.attribution.methods.spatial_features import SpatialFeatures
from vizlib.attribution.methods.top_singular_vector import project_on_top_singular_vector
from vizlib.models.model import Model

CAM_LAYER = Parameter(
    None,
    "the layer to explain; by default the deepest one that keeps spatial information",
    lambda m: m.stages,
    allows_others=True,
)
RELU = Parameter(
    None,
    "set negative values to zero, as in Grad-CAM; by default yes, unless two classes are compared",
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
        shows=means,
        does_not_show=means_not,
        needs=lambda model, knobs: Needs(layers=(at(model, knobs),), layer_gradients=gradient),
        compute=heat,
        unsupported_reason=check_spatial_layer,
        parameters={"layer": CAM_LAYER, **({"relu": RELU} if clips else {}), **({"score": SCORE} if gradient else {})},
        class_specific=gradient,
        everywhere=True,
    )


METHODS = (
    _make_cam_method(
        "grad-cam",
        grad_cam,
        paper="Selvaraju et al.: Grad-CAM, ICCV 2017",
        means="Warm regions are where channels with positive weight for the class are active.",
        means_not="It has the resolution of its layer, and shows evidence for the class, not evidence against it.",
    ),
    _make_cam_method(
        "grad-cam++",
        _grad_cam_plus_plus,
        paper="Chattopadhay, Sarkar, Howlader, Balasubramanian: Grad-CAM++, WACV 2018",
        means="Warm regions are where channels with positive gradients are active, small objects weighted in full.",
        means_not="It ignores negative gradients, and weights can explode where activations are negative.",
    ),
    _make_cam_method(
        "hires-cam",
        _hires_cam,
        at=choose_normed_layer,
        paper="Draelos, Carin: Use HiResCAM instead of Grad-CAM, 2020",
        means="First-order contribution of each position to the score: activation times gradient, over all channels.",
        means_not="It is exact only if later layers are linear, and cancels just before a layer normalisation.",
    ),
    _make_cam_method(
        "layer-cam",
        _layer_cam,
        paper="Jiang, Zhang, Hou, Cheng, Wei: LayerCAM, IEEE Transactions on Image Processing 2021",
        means="Warm regions are where active channels have a positive gradient at that position; suits early layers.",
        means_not="Channels with a negative gradient at a position do not reduce the value there.",
    ),
    _make_cam_method(
        "xgrad-cam",
        _xgrad_cam,
        at=choose_normed_layer,
        paper="Fu et al.: Axiom-based Grad-CAM, BMVC 2020",
        means="Warm regions are where channels are active, weighted so that the map sums to the score to first order.",
        means_not="Channels whose values nearly cancel get extreme weights, which happens in transformers.",
    ),
    _make_cam_method(
        "eigen-cam",
        _eigen_cam,
        clips=False,
        gradient=False,
        paper="Muhammad, Yeasin: Eigen-CAM, IJCNN 2020",
        means="Bright regions show the strongest pattern of channels in this layer, independent of the class.",
        means_not="It does not depend on the class, and the strongest pattern can be the background.",
    ),
    _make_cam_method(
        "eigen-grad-cam",
        _eigen_grad_cam,
        at=choose_normed_layer,
        paper="Gildenblat: pytorch-grad-cam, after Muhammad and Yeasin's Eigen-CAM, 2021",
        means="Warm regions show the strongest pattern among the contributions to the score: a less noisy HiResCAM.",
        means_not="It is only one pattern: evidence that appears in other channels is left out.",
    ),
    _make_cam_method(
        "normgrad",
        _normgrad,
        clips=False,
        paper="Rebuffi, Fong, Ji, Vedaldi: There and Back Again, CVPR 2020",
        means="Bright regions are where the layer has both large activations and large gradients of the score.",
        means_not="It shows how much a position matters, not whether it is evidence for or against the class.",
    ),
)
