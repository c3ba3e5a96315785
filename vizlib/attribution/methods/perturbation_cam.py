"""Class activation maps by perturbation: channels are weighted by the scores of perturbed inputs, without gradients."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from vizlib.attribution.evidence import Evidence, RequiredSignals
from vizlib.attribution.methods.cam import CAM_LAYER, RELU, check_spatial_layer, choose_cam_layer, is_unclipped
from vizlib.attribution.methods.scoring import SCORING_PARAMETERS, score_inputs
from vizlib.attribution.request import MANY_PASSES, Method, PartialHeat
from vizlib.core.text import make_note


def make_channel_masks(
    activation_maps: Float[Tensor, "channels rows columns"], size: tuple[int, int]
) -> Float[Tensor, "channels h w"]:
    """Return Score-CAM's masks: each channel, upsampled to the input and scaled to 0 to 1 (equations 6 and 7)."""
    upsampled = F.interpolate(activation_maps.unsqueeze(0), size, mode="bilinear")[0]
    low, high = upsampled.amin((1, 2), keepdim=True), upsampled.amax((1, 2), keepdim=True)
    return (upsampled - low) / (high - low)


def _score_cam(
    evidence: Evidence, *, relu: bool, precision: str, budget_mb: int, **parameters
) -> Iterator[PartialHeat]:
    """Yield the sum of the channels, weighted by the softmax over the scores of the image masked by each channel.

    Channels that are constant make no mask and get weight 0.

    References:
        Wang, Wang, Du, Yang, Zhang, Ding, Mardziel, Hu. Score-CAM: Score-Weighted Visual Explanations for Convolutional
        Neural Networks. CVPR Workshops 2020, equations 4 to 8. arXiv:1910.01279
    """
    image, size = evidence.run.image.detach(), evidence.model.preprocessing.input_size
    features = evidence.at_layer(choose_cam_layer(evidence.model, parameters))
    activation_maps = features.activation_maps
    channels = _find_varying_channels(activation_maps)
    if not len(channels):
        yield _make_empty_map(activation_maps)

    def make_inputs(indices: Int[Tensor, " n"]) -> Tensor:
        """Return the image masked by the channels with the given indices."""
        return image * make_channel_masks(activation_maps[channels[indices]], size).unsqueeze(1)

    scores = image.new_full((len(activation_maps),), -math.inf)
    for batch in score_inputs(evidence, make_inputs, len(channels), precision=precision, budget_mb=budget_mb):
        scores[channels[batch.indices]] = batch.scores.to(scores)
        heat = features.weighted_sum(scores.softmax(0))
        yield PartialHeat(heat.clamp(min=0) if relu else heat, batch.done, len(channels), batch.notes)


def _ablation_cam(
    evidence: Evidence, *, relu: bool, precision: str, budget_mb: int, **parameters
) -> Iterator[PartialHeat]:
    """Yield the sum of the channels, weighted by the relative drop of the score when each channel is set to 0.

    The drop is divided by the absolute value of the score, where the paper divides by the score, so that a negative
    score does not reverse the sign of the map.

    References:
        Desai, Ramaswamy. Ablation-CAM: Visual Explanations for Deep Convolutional Network via Gradient-free
        Localization. WACV 2020, equations 3 and 4.
    """
    layer = choose_cam_layer(evidence.model, parameters)
    features, output = evidence.at_layer(layer), evidence.run.activations[layer].detach()
    channels = _find_varying_channels(features.activation_maps, constant=0.0)
    if not len(channels):
        yield _make_empty_map(features.activation_maps)
    axis = evidence.model.channel_axis(output)

    def make_outputs(indices: Int[Tensor, " n"]) -> Tensor:
        """Return the layer's output with each of the channels with the given indices set to 0."""
        outputs = output.repeat(len(indices), *(1,) * (output.ndim - 1))
        outputs.movedim(axis, 1)[torch.arange(len(indices), device=outputs.device), channels[indices]] = 0
        return outputs

    full_score = evidence.score(evidence.run.logits.detach())
    scale = full_score.abs().clamp(min=torch.finfo(full_score.dtype).tiny)  # a class against itself has score 0
    weights = features.activation_maps.new_zeros(len(features.activation_maps))
    for batch in score_inputs(
        evidence, make_outputs, len(channels), precision=precision, budget_mb=budget_mb, layer=layer
    ):
        weights[channels[batch.indices]] = ((full_score - batch.scores) / scale).to(weights)
        heat = features.weighted_sum(weights)
        yield PartialHeat(heat.clamp(min=0) if relu else heat, batch.done, len(channels), batch.notes)


def _find_varying_channels(
    activation_maps: Float[Tensor, "channels rows columns"], constant: float | None = None
) -> Int[Tensor, " varying"]:
    """Return the indices of the channels that Score-CAM or Ablation-CAM weights: those that are not constant.

    Args:
        activation_maps: Output of a layer.
        constant: Leave out only channels that have this value everywhere; by default those with any constant value.
    """
    reference = activation_maps[:, :1, :1] if constant is None else constant
    return (activation_maps != reference).flatten(1).any(1).nonzero().flatten()


def _make_empty_map(activation_maps: Float[Tensor, "channels rows columns"]) -> PartialHeat:
    """Return a class activation map of zeros, with the note that no channel of the layer varies."""
    return PartialHeat(torch.zeros_like(activation_maps[0]), 1, 1, (make_note("map.constant-channels"),))


def _make_method(
    name: str,
    compute_steps: Callable[..., Iterator[PartialHeat]],
    *,
    paper: str,
    paper_url: str,
    equation: str,
    shows: str,
    does_not_show: str,
) -> Method:
    """Return the class activation map method that weights the channels of one layer by perturbation."""
    return Method(
        name=name,
        paper=paper,
        paper_url=paper_url,
        equation=equation,
        shows=shows,
        does_not_show=does_not_show,
        signals=lambda model, values: RequiredSignals(layers=(choose_cam_layer(model, values),)),
        compute_steps=compute_steps,
        unsupported_reason=check_spatial_layer,
        parameters={"layer": CAM_LAYER, "relu": RELU, **SCORING_PARAMETERS},
        is_signed=is_unclipped,
        cost=MANY_PASSES,
    )


METHODS = (
    _make_method(
        "score-cam",
        _score_cam,
        paper="Wang et al.: Score-CAM, CVPR Workshops 2020",
        paper_url="https://arxiv.org/abs/1910.01279",
        equation=(
            r"H_{ij} = \operatorname{ReLU}\left( \sum_k \alpha_k A_{kij} \right), "
            r"\quad \alpha = \operatorname{softmax}_k\, "
            r"s\left( x \odot \operatorname{normalise}(\operatorname{upsample}(A_k)) \right)"
        ),
        shows="Warm regions are where channels are active that give a high class score when used as a mask.",
        does_not_show="A channel is weighted by the region it reveals, not by how the network uses the channel.",
    ),
    _make_method(
        "ablation-cam",
        _ablation_cam,
        paper="Desai, Ramaswamy: Ablation-CAM, WACV 2020",
        paper_url="https://doi.org/10.1109/WACV45572.2020.9093360",
        equation=(
            r"H_{ij} = \operatorname{ReLU}\left( \sum_k w_k A_{kij} \right), "
            r"\quad w_k = \frac{s - s \text{ with } A_k = 0}{s}"
        ),
        shows="Warm regions are where channels are active whose ablation lowers the class score.",
        does_not_show="Channels are ablated one at a time: two redundant channels both seem unimportant.",
    ),
)
