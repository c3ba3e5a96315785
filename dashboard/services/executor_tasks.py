"""The tasks that `ModelExecutor` runs on a model: each is a function of the model and its other arguments."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from jaxtyping import Float
from PIL import Image
from torch import Tensor

import vizlib
from dashboard.services.explanation_request import ExplanationRequest
from vizlib.analysis.effective_receptive_field import EffectiveReceptiveField, effective_receptive_field
from vizlib.analysis.units import Contributions, contributions_from_evidence
from vizlib.analysis.vector_jacobian import Gradient
from vizlib.attribution.explain import attributions_from, gather_for_all, run_holds
from vizlib.attribution.methods.registry import METHODS
from vizlib.attribution.request import MANY_PASSES
from vizlib.metrics import TrustAllStep, TrustStep, keep_top_fraction, trust_all_stream, trust_stream
from vizlib.metrics.perturbation_curves import list_perturbed_photos
from vizlib.metrics.trust_parts import CURVE_STEPS, DELETION, INSERTION

UnitIndices = Mapping[str, Sequence[int]]  # layer -> indices of its channels, or of its heads
NO_GRADIENTS: dict[str, Any] = {"rules": False, "graph": False}  # of a pass that is read without gradients


class LayerMaps(NamedTuple):
    """The output of a layer as maps.

    An output without places, such as pooled features or logits, is given as maps of a single value.
    """

    maps: Float[Tensor, "channels h w"]
    on_photo: bool  # whether rows and columns are places of the photo


class TopFractionProbabilities(NamedTuple):
    """The probability of a class, 0 to 1: on the photo, and where only its pixels of greatest attribution are kept."""

    before: float
    after: float


class PerturbedPhotos(NamedTuple):
    """What a model is given at each point of the deletion and the insertion curve of a map, in its input size."""

    deletion: list[Image.Image]
    insertion: list[Image.Image]


@dataclass(frozen=True, eq=False)
class ClassAnalysis:
    """All that one backward pass from the score of a class gives."""

    attributions: dict[str, vizlib.Attribution]  # of every one-pass method, by name
    contributions: Contributions  # at the layers those methods read


def compute_predictions(
    model: vizlib.Model, photo: Image.Image, *, run: vizlib.Run | None = None
) -> list[vizlib.Prediction]:
    """Executor task: return the prediction of every class, most probable first."""
    count = len(model.labels)
    return model.predict(photo, top=count) if run is None else model.rank_classes(run.logits, count)


def compute_explanations(
    model: vizlib.Model, request: ExplanationRequest, *, run: vizlib.Run | None = None
) -> ClassAnalysis:
    """Executor task: return the attributions of all one-pass methods and the contributions, by one backward pass."""
    run = vizlib.run_for_all(model, request.photo) if run is None else run
    gathered = gather_for_all(model, run, request.target, request.against)
    units = contributions_from_evidence(gathered.evidence, gathered.spec)
    return ClassAnalysis(attributions_from(gathered), units)


def compute_explanation(
    model: vizlib.Model, request: ExplanationRequest, *, run: vizlib.Run | None = None
) -> vizlib.Attribution:
    """Executor task: return the attribution of one method with its parameters."""
    many = request.method in METHODS and METHODS[request.method].cost == MANY_PASSES
    if run is not None and (many or not run_holds(model, run, request.method, **request.parameters)):
        run = None
    return vizlib.explain(
        model, request.photo, request.method, request.target, request.against, run=run, **request.parameters
    )


def stream_explanation(model: vizlib.Model, request: ExplanationRequest) -> Iterator[vizlib.ExplanationStep]:
    """Executor task: yield the attribution of one method of many passes after each batch of them."""
    return vizlib.explain_stream(
        model, request.photo, request.method, request.target, request.against, **request.parameters
    )


def stream_trust(model: vizlib.Model, attribution: vizlib.Attribution) -> Iterator[TrustStep]:
    """Executor task: yield how far an attribution can be trusted after each batch of passes."""
    return trust_stream(model, attribution)


def stream_trust_all(model: vizlib.Model, attributions: Mapping[str, vizlib.Attribution]) -> Iterator[TrustAllStep]:
    """Executor task: yield how far each of several attributions can be trusted after each batch of passes."""
    return trust_all_stream(model, attributions)


def render_perturbed_photos(model: vizlib.Model, attribution: vizlib.Attribution) -> PerturbedPhotos:
    """Executor task: return the photos whose scores are the curves of `vizlib.trust`."""
    return PerturbedPhotos(
        *(list_perturbed_photos(model, attribution, kind, CURVE_STEPS) for kind in (DELETION, INSERTION))
    )


def compute_word_relevance(model: vizlib.Model, photo: Image.Image, target: int) -> vizlib.WordRelevance:
    """Executor task: return the relevance of each word of a prompt."""
    return vizlib.explain_words(model, photo, target)


def estimate_seconds(model: vizlib.Model, request: ExplanationRequest) -> float:
    """Executor task: return about how many seconds one method takes."""
    return vizlib.estimate(model, request.method, request.photo, **request.parameters)


def compute_top_fraction(
    model: vizlib.Model, attribution: vizlib.Attribution, fraction: float
) -> TopFractionProbabilities:
    """Executor task: return the probability of the class before and after only the top pixels are kept."""
    return TopFractionProbabilities(*keep_top_fraction(model, attribution, fraction=fraction))


def record_attention(model: vizlib.Model, photo: Image.Image, *, run: vizlib.Run | None = None) -> dict[str, Tensor]:
    """Executor task: return the attention among all tokens by layer, (heads, token, token) each; empty if none."""
    if model.tokens is None:
        return {}
    if run is None or not run.attention:
        run = model.run(photo, attention=True, **NO_GRADIENTS)
    shape = (model.tokens.num_tokens, model.tokens.num_tokens)
    weights = {layer: to_cpu(weights[0]) for layer, weights in run.attention.items()}
    return {layer: matrix for layer, matrix in weights.items() if matrix.shape[-2:] == shape}


def record_activations(
    model: vizlib.Model, photo: Image.Image, layer: str, *, run: vizlib.Run | None = None
) -> LayerMaps:
    """Executor task: return the output of a layer as one map a channel."""
    if run is None or layer not in run.activations:
        run = model.run(photo, layers=[layer], **NO_GRADIENTS)
    output = to_cpu(run.activations[layer])
    maps = model.spatial_map(output)
    return LayerMaps(output.reshape(-1, 1, 1), False) if maps is None else LayerMaps(maps, min(maps.shape[1:]) > 1)


def record_stage_maps(
    model: vizlib.Model, photo: Image.Image, layers: Sequence[str], *, run: vizlib.Run | None = None
) -> dict[str, Tensor]:
    """Executor task: return the outputs of several layers as maps (channels, h, w), of those with places."""
    if run is None or not set(layers) <= set(run.activations):
        run = model.run(photo, layers=layers, **NO_GRADIENTS)
    maps = {layer: model.spatial_map(to_cpu(run.activations[layer])) for layer in layers}
    return {layer: channels for layer, channels in maps.items() if channels is not None}


def compute_contributions(
    model: vizlib.Model, request: ExplanationRequest, layer: str, *, run: vizlib.Run | None = None
) -> Contributions:
    """Executor task: return what each channel or head of a layer contributes to a class, or to its lead."""
    heads = layer in model.attention_layers
    if run is not None and (layer not in run.activations or (heads and not run.attention)):
        run = None
    return vizlib.contributions(
        model, request.photo, request.target, request.against, layers=[layer], heads=heads, run=run
    )


def predict_with_ablation(
    model: vizlib.Model, photo: Image.Image, channels: UnitIndices, heads: UnitIndices
) -> list[vizlib.Prediction]:
    """Executor task: return the prediction of every class with some channels and heads ablated."""
    return vizlib.ablate(model, photo, channels=channels, heads=heads)


def compute_effective_receptive_field(
    model: vizlib.Model, photo: Image.Image, layer: str, cell: tuple[int, int], *, run: vizlib.Run | None = None
) -> EffectiveReceptiveField:
    """Executor task: return the gradient of a cell of a layer with respect to each pixel."""
    if run is not None and layer not in run.activations:
        run = None
    return effective_receptive_field(model, photo, layer, cell, run=run)


def compute_gradient(
    model: vizlib.Model, photo: Image.Image, output: str | None, options: Mapping[str, Any]
) -> Gradient:
    """Executor task: return the gradient of a layer or of the outputs; `options` are those of `vizlib.gradient`."""
    return vizlib.gradient(model, photo, output, **options)


def to_cpu(tensor: Tensor) -> Tensor:
    """Return the values of a tensor as executor tasks return them: without a graph, single precision, on the CPU."""
    return tensor.detach().float().cpu()


TASKS_READING_RUN: dict[str, Any] = {  # tasks that read the cached forward pass of the photo
    "predictions": compute_predictions,
    "explanations": compute_explanations,
    "explanation": compute_explanation,
    "attention": record_attention,
    "activations": record_activations,
    "stage_maps": record_stage_maps,
    "contributions": compute_contributions,
    "effective_receptive_field": compute_effective_receptive_field,
}
TASKS: dict[str, Any] = {
    **TASKS_READING_RUN,
    "ablation": predict_with_ablation,
    "seconds": estimate_seconds,
    "top_fraction": compute_top_fraction,
    "perturbed_photos": render_perturbed_photos,
    "gradient": compute_gradient,
    "words": compute_word_relevance,
}
STREAMS: dict[str, Any] = {  # tasks that yield intermediate results
    "stream": stream_explanation,
    "trust": stream_trust,
    "trust_all": stream_trust_all,
}
