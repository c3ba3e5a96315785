"""What methods read of a run: layers as spatial features, and gradients of the explained score, gathered once for all.

`SIGNALS` is the one table of what can be gathered. A method requests signals; `gather_evidence` computes all that the
requested signals need, from one backward pass where that is possible.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from vizlib.core.errors import MethodError
from vizlib.models.families.layouts import TokenLayout
from vizlib.models.model import Model
from vizlib.models.run import Run

Score = Callable[[Float[Tensor, "n classes"]], Float[Tensor, " n"]]  # logits -> the number that is explained
TensorsByName = Mapping[str, Tensor]
IMAGE = "image"  # the name of the single tensor of a signal at the input


# ----------------------------------------------------------------------------------------------- what can be gathered


@dataclass(frozen=True, eq=False)
class Signal:
    """One kind of evidence: tensors that methods read besides the logits and the image.

    Attributes:
        name: What it is, for error messages.
        needs_attention: Whether the run must have recorded attention weights.
        needs_backward_rules: Whether the run must have been made with backward rules.
        select: From a run and the requested layers, the tensors whose gradients the shared backward pass computes;
            `None` if the signal has no part in it.
        compute: From a model, a run and a score, tensors that need a backward pass of their own; `None` if none does.
    """

    name: str
    needs_attention: bool = False
    needs_backward_rules: bool = False
    select: Callable[[Run, tuple[str, ...]], TensorsByName] | None = None
    compute: Callable[[Model, Run, Score], TensorsByName] | None = None

    @property
    def needs_graph(self) -> bool:
        """Whether the run must keep the autograd graph for this evidence."""
        return self.select is not None or self.compute is not None


def _compute_guided_gradient(model: Model, run: Run, score: Score) -> TensorsByName:
    """Gather the evidence of guided backpropagation: the gradient at the image."""
    return {IMAGE: run.recording.compute_gradients(lambda: score(run.logits).sum(), [run.image], rule="guided")[0]}


def _compute_block_attention_gradients(model: Model, run: Run, score: Score) -> TensorsByName:
    """Gather the evidence of LeGrad: at each block's attention, the gradient of the score of the block's mean token.

    References:
        Bousselham, Boggust, Chaybouti, Strobelt, Kuehne. LeGrad: An Explainability Method for Vision Transformers via
        Feature Formation Sensitivity. ICCV 2025. arXiv:2404.03214
    """
    assert model.family is not None
    assert model.family.classify_tokens is not None
    classify_tokens, module = model.family.classify_tokens, model.eval_module()
    gradients: dict[str, Tensor] = {}
    for block in model.stages:
        weights = {name: tensor for name, tensor in run.attention.items() if name.startswith(f"{block}.")}
        tokens = run.activations[block]

        def compute_score(tokens: Tensor = tokens) -> Tensor:
            """Return the score that the classifier gives the mean token of a block."""
            return score(classify_tokens(module, tokens.mean(1))).sum()

        # Through the recording, so that no other thread's backward rule applies.
        gradients |= zip(weights, run.recording.compute_gradients(compute_score, list(weights.values())), strict=True)
    return gradients


ATTENTION = Signal("attention weights", needs_attention=True)
IMAGE_GRADIENT = Signal("the gradient at the image", select=lambda run, layers: {IMAGE: run.image})
LAYER_GRADIENTS = Signal(
    "gradients at layers", select=lambda run, layers: {layer: run.activations[layer] for layer in layers}
)
ATTENTION_GRADIENTS = Signal(
    "gradients at attention weights", needs_attention=True, select=lambda run, layers: run.attention
)
GUIDED_GRADIENT = Signal(
    "the guided gradient at the image", needs_backward_rules=True, compute=_compute_guided_gradient
)
BLOCK_ATTENTION_GRADIENTS = Signal(
    "gradients within each block", needs_attention=True, compute=_compute_block_attention_gradients
)
SIGNALS = (
    ATTENTION,
    IMAGE_GRADIENT,
    LAYER_GRADIENTS,
    ATTENTION_GRADIENTS,
    GUIDED_GRADIENT,
    BLOCK_ATTENTION_GRADIENTS,
)


@dataclass(frozen=True)
class RequiredSignals:
    """The evidence that one method, or several together, read: signals, and layers that the run must record.

    `a | b` is what both read.

    >>> request = RequiredSignals(layers=("layer4",)) | RequiredSignals(frozenset({LAYER_GRADIENTS}), ("layer3",))
    >>> request.layers, request.needs_graph
    (('layer4', 'layer3'), True)
    """

    signals: frozenset[Signal] = frozenset()
    layers: tuple[str, ...] = ()

    def __or__(self, other: RequiredSignals) -> RequiredSignals:
        layers = tuple(dict.fromkeys((*self.layers, *other.layers)))
        return RequiredSignals(self.signals | other.signals, layers)

    @property
    def needs_attention(self) -> bool:
        """Whether a run must record attention weights for this evidence."""
        return any(signal.needs_attention for signal in self.signals)

    @property
    def needs_graph(self) -> bool:
        """Whether a run must keep the autograd graph for this evidence; without one it holds much less memory."""
        return any(signal.needs_graph for signal in self.signals)

    @property
    def run_kwargs(self) -> dict[str, Any]:
        """The keyword arguments of `Model.run` and `Model.forward` that record all of this evidence."""
        return {
            "layers": self.layers,
            "attention": self.needs_attention,
            "rules": any(signal.needs_backward_rules for signal in self.signals),
            "graph": self.needs_graph,
        }


# ---------------------------------------------------------------------------------------------- what methods read


@dataclass(frozen=True, eq=False)
class LayerEvidence:
    """The evidence of one layer for one image: activations and gradients, and quantities that several methods share.

    Attributes:
        activation_maps: Output of the layer.
        gradient_maps: Gradient of the explained score at that output; `None` where no method needs it.
    """

    activation_maps: Float[Tensor, "channels rows columns"]
    gradient_maps: Float[Tensor, "channels rows columns"] | None

    @cached_property
    def activations(self) -> Float[Tensor, "channels positions"]:
        """The activation maps, flattened, in single precision at least."""
        return _flatten_positions(self.activation_maps)

    @cached_property
    def gradients(self) -> Float[Tensor, "channels positions"]:
        """The gradient maps, flattened, in single precision at least."""
        assert self.gradient_maps is not None  # a method that reads gradients requests them
        return _flatten_positions(self.gradient_maps)

    @cached_property
    def positive_gradients(self) -> Float[Tensor, "channels positions"]:
        """The gradients, with negative values set to 0."""
        return self.gradients.clamp(min=0)

    @cached_property
    def contributions(self) -> Float[Tensor, "channels positions"]:
        """Activation times gradient: the first-order contribution of each channel at each position to the score."""
        return self.activations * self.gradients

    @cached_property
    def contribution_sums(self) -> Float[Tensor, " positions"]:
        """The contributions, summed over channels."""
        return self.contributions.sum(0)

    @cached_property
    def activation_sums(self) -> Float[Tensor, " channels"]:
        """The activations, summed over positions."""
        return self.activations.sum(1)

    def reshape_to_map(self, values: Float[Tensor, " positions"]) -> Float[Tensor, "rows columns"]:
        """Return one value per position as a map."""
        return values.unflatten(0, self.activation_maps.shape[1:])

    def weighted_sum(self, weights: Float[Tensor, " channels"]) -> Float[Tensor, "rows columns"]:
        """Return the sum of the activation maps, each multiplied by the weight of its channel."""
        return self.reshape_to_map(weights.to(self.activations) @ self.activations)


def extract_layer_evidence(layer: str, activation: Tensor, gradient: Tensor | None, model: Model) -> LayerEvidence:
    """Return the evidence of one layer: its output, and the gradient there, as maps of channels by rows by columns.

    Args:
        layer: Name of the layer, for the error message.
        activation: Output of the layer for a batch of one image.
        gradient: Gradient at that output, of the same shape, or `None`.
        model: The model that holds the layer.

    Raises:
        MethodError: If the output has no spatial positions.
    """
    maps = model.spatial_map(activation)
    if maps is None:
        shape = tuple(activation.shape[1:])
        stages = f"use one of {', '.join(model.stages)}"
        raise MethodError(f"the output of {layer} has shape {shape}, which has no spatial positions; {stages}")
    return LayerEvidence(maps, None if gradient is None else model.spatial_map(gradient))


def _flatten_positions(maps: Float[Tensor, "channels rows columns"]) -> Float[Tensor, "channels positions"]:
    """Flatten rows and columns of a layer's evidence, in single precision at least."""
    # Half precision is too coarse to sum thousands of positions, or to square a gradient.
    return maps.flatten(1).to(torch.promote_types(maps.dtype, torch.float32))


@dataclass(frozen=True, eq=False)
class Evidence:
    """One run of one photo, and the gradients of one target's score, for as many methods as read them.

    Attributes:
        model: The model.
        run: Its forward pass.
        score: The score that is explained, as a function of logits.
        tensors: Tensors of each gathered signal, by name of the layer (`IMAGE` for those at the input).
    """

    model: Model
    run: Run
    score: Score
    tensors: Mapping[Signal, TensorsByName] = field(default_factory=dict)
    _by_layer: dict[str, LayerEvidence] = field(default_factory=dict, repr=False)

    @cached_property
    def logits(self) -> Float[Tensor, " classes"]:
        """The logits of the photo, on the CPU, as notes are not worth waiting for a GPU."""
        return self.run.logits[0].detach().cpu()

    @cached_property
    def probabilities(self) -> list[float] | None:
        """The probability of each class, from single precision, as in half precision many tie; `None` without any."""
        if not self.model.output_row.is_ranked:
            return None
        return self.model.compute_probabilities(self.logits).tolist()

    @cached_property
    def explained_score(self) -> float:
        """The value of the score for the photo."""
        return self.score(self.logits[None])[0].item()

    @cached_property
    def top_class(self) -> int | None:
        """The likeliest class; `None` without probabilities, and where not all logits are finite."""
        if self.probabilities is None or not self.logits.isfinite().all():
            return None
        return int(self.logits.argmax())

    def rank(self, index: int) -> int:
        """Return the rank of a class, from 1, by its logit: unlikely classes share the probability 0."""
        return int((self.logits > self.logits[index]).sum()) + 1

    @property
    def tokens(self) -> TokenLayout:
        """The token layout of the model; only methods that support no other models read it."""
        assert self.model.tokens is not None
        return self.model.tokens

    @property
    def image_gradient(self) -> Float[Tensor, "1 3 h w"]:
        """The gradient at the image."""
        return self.tensors[IMAGE_GRADIENT][IMAGE]

    @property
    def guided_gradient(self) -> Float[Tensor, "1 3 h w"]:
        """The gradient at the image by guided backpropagation."""
        return self.tensors[GUIDED_GRADIENT][IMAGE]

    @property
    def layer_gradients(self) -> TensorsByName:
        """The gradient at the output of each requested layer, by its name."""
        return self.tensors.get(LAYER_GRADIENTS, {})

    @property
    def attention_gradients(self) -> Mapping[str, Float[Tensor, "windows heads query key"]]:
        """The gradient at the weights of each attention layer, by its name."""
        return self.tensors.get(ATTENTION_GRADIENTS, {})

    @property
    def block_attention_gradients(self) -> Mapping[str, Float[Tensor, "windows heads query key"]]:
        """The gradient at the weights of each attention layer of the score of that block's tokens, by its name."""
        return self.tensors.get(BLOCK_ATTENTION_GRADIENTS, {})

    def at_layer(self, layer: str) -> LayerEvidence:
        """Return the evidence of one layer, as maps, extracted once for all methods.

        Raises:
            MethodError: If the output of the layer has no spatial positions.
        """
        if layer not in self._by_layer:
            activation = self.run.activations[layer].detach()
            gradient = self.layer_gradients.get(layer)
            self._by_layer[layer] = extract_layer_evidence(layer, activation, gradient, self.model)
        return self._by_layer[layer]


# -------------------------------------------------------------------------------------------------- how it is gathered


def gather_evidence(model: Model, run: Run, score: Score, request: RequiredSignals) -> Evidence:
    """Return the evidence that is requested of a run of one photo: all its gradients.

    Raises:
        MethodError: If the run does not hold what is requested.
    """
    if missing := [layer for layer in request.layers if layer not in run.activations]:
        raise MethodError(f"the given run does not hold {', '.join(missing)}; make it with layers= or run_for_all()")
    if request.needs_attention and not run.attention:
        raise MethodError("the given run does not hold attention; make it with attention=True or run_for_all()")
    return Evidence(model, run, score, _compute_signals(model, run, score, request))


def gather_batch_evidence(
    model: Model, batch: Run, photos: list[Image.Image], scores: list[Score], request: RequiredSignals
) -> Iterator[Evidence]:
    """Yield the evidence of each photo of a batch, from backward passes that the batch shares.

    Args:
        model: The model.
        batch: One forward pass of all photos.
        photos: The photos, in the order of the batch.
        scores: The score that is explained of each photo.
        request: What the methods read.
    """

    def compute_scores(logits: Tensor) -> Tensor:
        """Return the score of each photo, from the logits of the batch."""
        return torch.cat([score(logits[i : i + 1]) for i, score in enumerate(scores)])

    tensors = _compute_signals(model, batch, compute_scores, request)
    for i, (photo, score) in enumerate(zip(photos, scores, strict=True)):
        logits = batch.logits[i : i + 1].detach()
        run = Run(
            image=batch.image[i : i + 1].detach(),
            logits=logits,
            activations=_slice_batch(batch.activations, i, len(photos)),
            attention=_slice_batch(batch.attention, i, len(photos)),
            geometry=model.preprocessing.geometry(photo),
            photo=photo,
            notes=model.collect_notes(photo, logits),
        )
        own = {signal: _slice_batch(named, i, len(photos)) for signal, named in tensors.items()}
        yield Evidence(model, run, score, own)


def _compute_signals(model: Model, run: Run, score: Score, request: RequiredSignals) -> dict[Signal, TensorsByName]:
    """Gather the tensors of each requested signal that is a gradient."""
    ordered = [signal for signal in SIGNALS if signal in request.signals]  # a set has no order
    shared = {signal: signal.select(run, request.layers) for signal in ordered if signal.select is not None}
    sources = [tensor for named in shared.values() for tensor in named.values()]
    gradients: Iterator[Tensor] = iter(())
    if sources:
        gradients = iter(run.recording.compute_gradients(lambda: score(run.logits).sum(), sources))
    tensors: dict[Signal, TensorsByName] = {
        signal: {name: next(gradients) for name in named} for signal, named in shared.items()
    }
    return tensors | {signal: signal.compute(model, run, score) for signal in ordered if signal.compute is not None}


def _slice_batch(tensors: TensorsByName, index: int, count: int) -> dict[str, Tensor]:
    """Return one photo's part of the evidence of a batch: one row, or one per window where attention is windowed."""
    return {name: tensor.detach().unflatten(0, (count, -1))[index] for name, tensor in tensors.items()}
