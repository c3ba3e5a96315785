"""Class activation maps: weighted sums of the channels of one layer."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from vizlib.attribution.evidence import LAYER_GRADIENTS, Evidence, LayerEvidence, RequiredSignals
from vizlib.attribution.methods.top_singular_vector import project_on_top_singular_vector
from vizlib.attribution.request import SCORE_PARAMETER, Method, Parameter, ParameterValues
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
    resolve_default=lambda is_contrast: not is_contrast,  # evidence for the other class is half of a contrast
)


def is_unclipped(values: ParameterValues) -> bool:
    """Return whether a class activation map keeps negative values, which are evidence against the class."""
    return values.get("relu") is False


def choose_cam_layer(model: Model, values: ParameterValues) -> str:
    """Return the layer that the parameters select, or the default layer of the model for class activation maps."""
    name = values.get("layer") or model.cam_layer
    assert name is not None  # models without such a layer are refused before
    return str(name)


def choose_normed_layer(model: Model, values: ParameterValues) -> str:
    """Return the layer of the class activation maps that multiply each activation by its own gradient.

    By default it is the first normalisation after the default layer, if the family has one: before a normalisation,
    activation times gradient cancels over the channels.
    """
    name = values.get("layer") or model.normalised_cam_layer
    assert name is not None  # models without such a layer are refused before
    return str(name)


def check_spatial_layer(model: Model) -> str | None:
    """Return why a model has no class activation maps, or `None` where it has."""
    if model.cam_layer:
        return None
    if model.family is None and model.stages:
        return "the evidence of this model does not pass through any one of its layers with spatial positions"
    if model.family is None and model.attention_layers:
        return "this model computes attention, and none of its layers is known to output one map of the photo"
    if model.family is None and any(layer.runs > 1 and len(layer.shape) == 3 for layer in model.layers):
        return (
            "its layers with spatial positions run several times for one photo, as with flipped copies or several "
            "views, so no map of a layer shows one photo"
        )
    return "no layer of this model has an output with spatial positions"


def check_normed_layer(model: Model) -> str | None:
    """Return why a model has no class activation maps of activation times gradient, or `None` where it has."""
    if reason := check_spatial_layer(model):
        return reason
    if model.normalised_cam_layer:
        return None
    return (
        f"activation times gradient cancels over the channels of {model.cam_layer}, as a normalisation follows, and no "
        "layer after it keeps the positions"
    )


# ------------------------------------------------------------ one value per position, by the formula of each paper


def grad_cam(features: LayerEvidence) -> Float[Tensor, " positions"]:
    """Return the sum of the channels, each weighted by its mean gradient; without the final ReLU.

    References:
        Selvaraju, Cogswell, Das, Vedantam, Parikh, Batra. Grad-CAM: Visual Explanations from Deep Networks via
        Gradient-based Localization. ICCV 2017, equations 1 and 2. arXiv:1610.02391
    """
    return features.gradients.mean(1) @ features.activations


def _grad_cam_plus_plus(features: LayerEvidence) -> Tensor:
    """Return the sum of the channels, weighted by their positive gradients times the paper's alpha.

    Where the gradient is positive, alpha times the gradient is `gradient / (2 + sum of the channel * gradient)`. The
    paper explains exp(score), whose positive factor is common to all channels and is left out here.

    References:
        Chattopadhay, Sarkar, Howlader, Balasubramanian. Grad-CAM++: Generalized Gradient-based Visual Explanations for
        Deep Convolutional Networks. WACV 2018, equations 5 and 19. arXiv:1710.11063
    """
    denominator = torch.mul(features.positive_gradients, features.activation_sums[:, None]).add_(2)
    ratios = torch.div(features.positive_gradients, denominator, out=denominator)
    weights = ratios.sum(1)
    # The denominator can be 0 for a channel with a negative sum; alpha is undefined there, and 0 is used. On a GPU the
    # repair is always done, because the check would wait for the GPU, which takes longer.
    if not weights.is_cpu or not weights.isfinite().all():
        weights = ratios.masked_fill_(ratios.isposinf(), 0).sum(1)
    return weights @ features.activations


def _hires_cam(features: LayerEvidence) -> Tensor:
    """Return activation times gradient, summed over channels.

    References:
        Draelos, Carin. Use HiResCAM instead of Grad-CAM for faithful explanations of convolutional neural networks.
        2020. arXiv:2011.08891
    """
    return features.contribution_sums


def _layer_cam(features: LayerEvidence) -> Tensor:
    """Return activation times positive gradient, summed over channels.

    References:
        Jiang, Zhang, Hou, Cheng, Wei. LayerCAM: Exploring Hierarchical Class Activation Maps for Localization. IEEE
        Transactions on Image Processing 2021, equations 5 to 7.
    """
    return (features.positive_gradients * features.activations).sum(0)


def _xgrad_cam(features: LayerEvidence) -> Tensor:
    """Return the sum of the channels, each weighted by its mean gradient under its normalised activations.

    Channels that sum to 0 get weight 0.

    References:
        Fu, Hu, Dong, Guo, Gao, Li. Axiom-based Grad-CAM: Towards Accurate Visualization and Explanation of CNNs. BMVC
        2020, equation 8. arXiv:2008.02312
    """
    weights = features.contributions.sum(1) / features.activation_sums
    return weights.masked_fill_(features.activation_sums == 0, 0) @ features.activations


def _eigen_cam(features: LayerEvidence) -> Tensor:
    """Return the projection of the activations on their first right singular vector, with a positive sum.

    References:
        Muhammad, Yeasin. Eigen-CAM: Class Activation Map using Principal Components. IJCNN 2020, equations 5 and 6.
        arXiv:2008.00299
    """
    projection = project_on_top_singular_vector(features.activations)
    return _orient_sign(projection, projection.sum())


def _eigen_grad_cam(features: LayerEvidence) -> Tensor:
    """Return the projection of activation times gradient on its first right singular vector.

    Its sign is chosen to correlate positively with HiResCAM, or where HiResCAM cancels out, to have a positive sum.

    References:
        Gildenblat. pytorch-grad-cam, class `EigenGradCAM`. 2021. https://github.com/jacobgil/pytorch-grad-cam
    """
    projection = project_on_top_singular_vector(features.contributions)
    agreement = projection @ features.contribution_sums
    cancels = agreement.abs() <= 1e-2 * (projection @ projection)
    return _orient_sign(projection, torch.where(cancels, projection.sum(), agreement))


def _normgrad(features: LayerEvidence) -> Tensor:
    """Return, at each position, the norm of the activations over channels times the norm of the gradients.

    References:
        Rebuffi, Fong, Ji, Vedaldi. There and Back Again: Revisiting Backpropagation Saliency Methods. CVPR 2020,
        table 1. arXiv:2004.02866
    """
    return (features.activations.square().sum(0) * features.gradients.square().sum(0)).sqrt()


def _orient_sign(projection: Float[Tensor, " positions"], value: Float[Tensor, ""]) -> Float[Tensor, " positions"]:
    """Return the projection of Eigen-CAM, negated where `value`, which changes its sign with it, is negative."""
    return torch.where(value < 0, -projection, projection)


# ------------------------------------------------------------------------------------------------------ method table


def _make_cam_method(
    name: str,
    formula: Callable[[LayerEvidence], Float[Tensor, " positions"]],
    *,
    has_relu: bool = True,
    uses_gradient: bool = True,
    uses_products: bool = False,
    paper: str,
    paper_url: str,
    equation: str,
    shows: str,
    does_not_show: str,
) -> Method:
    """Return the class activation map method of a formula that gives one value per position of a layer."""
    choose_layer = choose_normed_layer if uses_products else choose_cam_layer

    def compute(evidence: Evidence, *, relu: bool = False, **values) -> Tensor:
        """Return the class activation map of a formula, clipped at 0 with `relu`."""
        features = evidence.at_layer(choose_layer(evidence.model, values))
        heat = features.reshape_to_map(formula(features))
        return heat.clamp(min=0) if relu else heat

    signals = frozenset({LAYER_GRADIENTS} if uses_gradient else ())
    return Method(
        name=name,
        paper=paper,
        paper_url=paper_url,
        equation=equation,
        shows=shows,
        does_not_show=does_not_show,
        signals=lambda model, values: RequiredSignals(signals, (choose_layer(model, values),)),
        compute=compute,
        unsupported_reason=check_normed_layer if uses_products else check_spatial_layer,
        parameters={
            "layer": CAM_LAYER,
            **({"relu": RELU} if has_relu else {}),
            **({"score": SCORE_PARAMETER} if uses_gradient else {}),
        },
        class_specific=uses_gradient,
        is_signed=is_unclipped,
        list_layers=lambda evidence: evidence.model.stages,
    )


METHODS = (
    _make_cam_method(
        "grad-cam",
        grad_cam,
        paper="Selvaraju et al.: Grad-CAM, ICCV 2017",
        paper_url="https://arxiv.org/abs/1610.02391",
        equation=(
            r"H_{ij} = \operatorname{ReLU}\left( \sum_k \alpha_k A_{kij} \right), "
            r"\quad \alpha_k = \frac{1}{Z} \sum_{ij} \frac{\partial s}{\partial A_{kij}}"
        ),
        shows="Warm regions are where channels with positive weight for the class are active.",
        does_not_show="It has the resolution of its layer, and shows evidence for the class, not evidence against it.",
    ),
    _make_cam_method(
        "grad-cam++",
        _grad_cam_plus_plus,
        paper="Chattopadhay, Sarkar, Howlader, Balasubramanian: Grad-CAM++, WACV 2018",
        paper_url="https://arxiv.org/abs/1710.11063",
        equation=(
            r"H_{ij} = \operatorname{ReLU}\left( \sum_k w_k A_{kij} \right), "
            r"\quad w_k = \sum_{ij} \frac{\operatorname{ReLU}\left( G_{kij} \right)}{2 + G_{kij} \sum_{ab} A_{kab}}"
        ),
        shows="Warm regions are where channels with positive gradients are active, small objects weighted in full.",
        does_not_show="It ignores negative gradients, and weights can explode where activations are negative.",
    ),
    _make_cam_method(
        "hires-cam",
        _hires_cam,
        uses_products=True,
        paper="Draelos, Carin: Use HiResCAM instead of Grad-CAM, 2020",
        paper_url="https://arxiv.org/abs/2011.08891",
        equation=r"H_{ij} = \operatorname{ReLU}\left( \sum_k G_{kij} A_{kij} \right)",
        shows="First-order contribution of each position to the score: activation times gradient, over all channels.",
        does_not_show="It is exact only if later layers are linear, and cancels just before a layer normalisation.",
    ),
    _make_cam_method(
        "layer-cam",
        _layer_cam,
        paper="Jiang, Zhang, Hou, Cheng, Wei: LayerCAM, IEEE Transactions on Image Processing 2021",
        paper_url="https://doi.org/10.1109/TIP.2021.3089943",
        equation=r"H_{ij} = \operatorname{ReLU}\left( \sum_k \operatorname{ReLU}\left( G_{kij} \right) A_{kij} \right)",
        shows="Warm regions are where active channels have a positive gradient at that position; suits early layers.",
        does_not_show="Channels with a negative gradient at a position do not reduce the value there.",
    ),
    _make_cam_method(
        "xgrad-cam",
        _xgrad_cam,
        uses_products=True,
        paper="Fu et al.: Axiom-based Grad-CAM, BMVC 2020",
        paper_url="https://arxiv.org/abs/2008.02312",
        equation=(
            r"H_{ij} = \operatorname{ReLU}\left( \sum_k w_k A_{kij} \right), "
            r"\quad w_k = \sum_{ij} \frac{A_{kij}}{\sum_{ab} A_{kab}} G_{kij}"
        ),
        shows="Warm regions are where channels are active, weighted so that the map sums to the score to first order.",
        does_not_show="Channels whose values nearly cancel get extreme weights, which happens in transformers.",
    ),
    _make_cam_method(
        "eigen-cam",
        _eigen_cam,
        has_relu=False,
        uses_gradient=False,
        paper="Muhammad, Yeasin: Eigen-CAM, IJCNN 2020",
        paper_url="https://arxiv.org/abs/2008.00299",
        equation=r"H = v^{\top} A, \quad v \text{ the first left singular vector of } A_{k,(ij)}",
        shows="Bright regions show the strongest pattern of channels in this layer, independent of the class.",
        does_not_show="It does not depend on the class, and the strongest pattern can be the background.",
    ),
    _make_cam_method(
        "eigen-grad-cam",
        _eigen_grad_cam,
        uses_products=True,
        paper="Gildenblat: pytorch-grad-cam, after Muhammad and Yeasin's Eigen-CAM, 2021",
        paper_url="https://github.com/jacobgil/pytorch-grad-cam",
        equation=(
            r"H = \operatorname{ReLU}\left( v^{\top} C \right), "
            r"\quad C_{kij} = G_{kij} A_{kij}, "
            r"\quad v \text{ the first left singular vector of } C_{k,(ij)}"
        ),
        shows="Warm regions show the strongest pattern among the contributions to the score: a less noisy HiResCAM.",
        does_not_show="It is only one pattern: evidence that appears in other channels is left out.",
    ),
    _make_cam_method(
        "normgrad",
        _normgrad,
        has_relu=False,
        paper="Rebuffi, Fong, Ji, Vedaldi: There and Back Again, CVPR 2020",
        paper_url="https://arxiv.org/abs/2004.02866",
        equation=r"H_{ij} = \left\| A_{\cdot ij} \right\|_2 \left\| G_{\cdot ij} \right\|_2",
        shows="Bright regions are where the layer has both large activations and large gradients of the score.",
        does_not_show="It shows how much a position matters, not whether it is evidence for or against the class.",
    ),
)
