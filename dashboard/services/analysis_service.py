"""Results of the library for the page, each computed once and cached; all tabs and endpoints read them here."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

import vizlib
from dashboard.services.byte_cache import ByteCache
from dashboard.services.executor import ModelExecutor
from dashboard.services.executor_tasks import ClassAnalysis, LayerMaps, PerturbedPhotos, TopFractionProbabilities
from dashboard.services.explanation_request import ClassName, ExplanationRequest
from dashboard.services.forward_cache import ForwardCache
from dashboard.services.metrics import RunMetrics
from dashboard.services.model_catalog import ModelCatalog
from dashboard.services.photo_key import compute_photo_key
from vizlib.analysis.effective_receptive_field import EffectiveReceptiveField
from vizlib.analysis.first_layer_kernels import Kernels
from vizlib.analysis.units import Contributions
from vizlib.attribution.methods.registry import METHODS
from vizlib.attribution.request import MANY_PASSES
from vizlib.attribution.target import RUNNER_UP, TargetSpec
from vizlib.capture.receptive_field_tracer import ReceptiveField
from vizlib.core.errors import MethodError
from vizlib.metrics import TrustAllStep, TrustStep
from vizlib.models.receptive_field import receptive_fields

TOP_FRACTION = 0.2  # of the pixels are kept to check a map: those with the greatest attribution
CACHE_BYTES = 384_000_000  # of results and passes of all visitors together
PASS_CACHE_DIVISOR = 3  # a third of the bytes is for forward passes


class Unit(NamedTuple):
    """A channel of a layer, or a head of an attention layer."""

    layer: str
    number: int  # from 0
    head: bool


class AnalysisService:
    """Results for photos and the models of a catalog, cached by all that they depend on and shared by all visitors.

    Forward pass, explanations of the one-pass methods, attention, activations and contributions of a photo come from
    one forward and one backward pass; those of another class of it from one more backward pass.

    Every method raises VizlibError with one sentence for a wrong model, class, method, parameter or layer.
    """

    def __init__(self, catalog: ModelCatalog, max_bytes: int = CACHE_BYTES) -> None:
        self.catalog = catalog
        self.metrics = RunMetrics()
        self._cache = ByteCache(max_bytes - max_bytes // PASS_CACHE_DIVISOR)
        self._passes = ForwardCache(max_bytes // PASS_CACHE_DIVISOR)
        self._executor = ModelExecutor(catalog, self.metrics, self._passes)

    @property
    def cache(self) -> ByteCache:
        """The cache of results."""
        return self._cache

    @property
    def pass_cache(self) -> ByteCache:
        """The cache of forward passes."""
        return self._passes.cache

    def predict(self, photo: Image.Image, model: str, top: int = 5) -> list[vizlib.Prediction]:
        """Return the `top` most probable classes, most probable first."""
        key = ("predictions", compute_photo_key(photo), model)
        predictions = self._cache.get(key, lambda: self._executor.run("predictions", model, photo))
        return predictions[: max(top, 1)]

    def get_ood_note(self, photo: Image.Image, model: str) -> str | None:
        """Return a sentence where the logits show that the photo is unlike the model's training data, else `None`."""
        by_index = sorted(self.predict(photo, model, top=10**6))
        return self.catalog.get(model).ood_note(torch.tensor([[prediction.logit for prediction in by_index]]))

    def render_model_input(self, photo: Image.Image, model: str) -> Image.Image:
        """Return the preprocessed photo, with the normalisation inverted, as a picture."""
        preprocessing = self.catalog.get(model).preprocessing
        key = ("model input", compute_photo_key(photo), model)
        return self._cache.get(key, lambda: preprocessing.denormalise(preprocessing.tensor(photo)))

    def resolve_target(self, photo: Image.Image, model: str, target: ClassName) -> int:
        """Return the index of a class given by index or label; of the first one listed for `None` and `""`."""
        first = self.predict(photo, model, 1)[0].index
        return first if target in (None, "") else self.catalog.get(model).resolve_target(target, torch.empty(1, 0))

    def resolve_against(self, photo: Image.Image, model: str, target: int, against: ClassName) -> int | None:
        """Return the index of the contrast class, given by index, label or as the runner-up; `None` for none."""
        record = self._resolve_classes(photo, model, target, against).against
        return None if record is None else record.index

    def resolve(self, request: ExplanationRequest) -> ExplanationRequest:
        """Return the request with both classes as indices; an `against` among the parameters replaces its own.

        The complement of a single label stays a name, and a method whose map depends on no class needs none.
        """
        parameters = dict(request.parameters)
        against = parameters.pop("against", request.against)
        required = request.method not in METHODS or METHODS[request.method].class_specific
        spec = self._resolve_classes(request.photo, request.model, request.target, against, required=required)
        target, against = (None if side is None else side.record for side in (spec.target, spec.against))
        return replace(request, target=target, against=against, parameters=parameters)

    def _resolve_classes(
        self, photo: Image.Image, model: str, target: ClassName, against: ClassName, *, required: bool = True
    ) -> TargetSpec:
        """Return the classes that two names mean for a photo."""
        network = self.catalog.get(model)
        target, against = (None if name == "" else name for name in (target, against))
        outputs = torch.zeros(1, len(network.labels))
        if network.output_row.is_ranked and (target is None or against == RUNNER_UP):
            by_index = sorted(self.predict(photo, model, top=10**6))
            outputs = torch.tensor([[prediction.logit for prediction in by_index]])
        return TargetSpec.resolve(network, outputs, target, against, required=required)

    def explain_all(self, request: ExplanationRequest) -> dict[str, vizlib.Attribution]:
        """Return the attributions of all one-pass methods, by name, for the classes of the request."""
        return self._analyse_class(self.resolve(request)).attributions

    def explain(self, request: ExplanationRequest) -> vizlib.Attribution:
        """Return the attribution of one method; with default parameters it is read from those of all methods."""
        request = self.resolve(request)
        if not request.parameters:
            attributions = self._analyse_class(request).attributions
            if request.method in attributions:
                return attributions[request.method]
        key = ("explanation", *request.key)
        return self._cache.get(key, lambda: self._executor.run("explanation", request.model, request))

    def find_explanation(self, request: ExplanationRequest) -> vizlib.Attribution | None:
        """Return the attribution of a method of many passes where it is cached, else `None`."""
        return self._cache.find(("explanation", *self.resolve(request).key))

    def find_or_explain(self, request: ExplanationRequest) -> vizlib.Attribution | None:
        """Return the attribution of one method; of a method of many passes only where it is cached, else `None`."""
        slow = request.method in METHODS and METHODS[request.method].cost == MANY_PASSES
        return self.find_explanation(request) if slow else self.explain(request)

    def stream_explanation(self, request: ExplanationRequest) -> Generator[vizlib.ExplanationStep, None, None]:
        """Yield the attribution of a method of many passes after each batch of them; the last one is cached."""
        request = self.resolve(request)
        for step in self._executor.stream("stream", request.model, request):
            if step.done == step.total:
                self._cache.get(("explanation", *request.key), lambda attribution=step.attribution: attribution)
            yield step

    def estimate_seconds(self, request: ExplanationRequest) -> float:
        """Return about how many seconds a method takes here; measured once for a model and its parameters."""
        key = ("seconds", request.model, request.method, repr(sorted(request.parameters.items())))
        return self._cache.get(key, lambda: self._executor.run("seconds", request.model, request))

    def stream_trust(self, model: str, attribution: vizlib.Attribution) -> Generator[TrustStep, None, None]:
        """Yield how far an attribution can be trusted after each batch of passes; the last step is cached."""
        found = self.find_trust(model, attribution)
        if found is not None:
            yield TrustStep(found, 1.0)
            return
        for step in self._executor.stream("trust", model, attribution):
            if step.fraction >= 1:
                self._cache.get(_make_map_key("trust", model, attribution), lambda trust=step.trust: trust)
            yield step

    def stream_trust_all(
        self, model: str, attributions: Mapping[str, vizlib.Attribution]
    ) -> Generator[TrustAllStep, None, None]:
        """Yield how far each of several attributions can be trusted after each batch; those of the last are cached."""
        found = {name: self.find_trust(model, one) for name, one in attributions.items()}
        known = {name: trust for name, trust in found.items() if trust is not None}
        missing = {name: one for name, one in attributions.items() if name not in known}
        if not missing:
            yield TrustAllStep(known, 1.0)
            return
        for step in self._executor.stream("trust_all", model, missing):
            if step.fraction >= 1:
                for name, trust in step.trusts.items():
                    self._cache.get(_make_map_key("trust", model, missing[name]), lambda trust=trust: trust)
            yield TrustAllStep({**known, **step.trusts}, step.fraction)

    def get_perturbed_photos(self, model: str, attribution: vizlib.Attribution) -> PerturbedPhotos:
        """Return the photos whose scores are the curves of `vizlib.trust`."""
        key = _make_map_key("perturbed photos", model, attribution)
        return self._cache.get(key, lambda: self._executor.run("perturbed_photos", model, attribution))

    def find_trust(self, model: str, attribution: vizlib.Attribution) -> vizlib.Trust | None:
        """Return how far an attribution can be trusted where it was measured, else `None`."""
        return self._cache.find(_make_map_key("trust", model, attribution))

    def add_trust(self, model: str, attribution: vizlib.Attribution) -> vizlib.Attribution:
        """Return the attribution, with how far it can be trusted where that was measured."""
        found = self.find_trust(model, attribution)
        return attribution if found is None else attribution.with_trust(found)

    def measure_trust(self, model: str, attribution: vizlib.Attribution) -> vizlib.Trust:
        """Return how far an attribution can be trusted."""
        *_, last = self.stream_trust(model, attribution)
        return last.trust

    def keep_top_fraction(self, model: str, attribution: vizlib.Attribution) -> TopFractionProbabilities:
        """Return the probability of the class on the photo, and with only its pixels of greatest attribution."""
        key = _make_map_key("top fraction", model, attribution)
        return self._cache.get(key, lambda: self._executor.run("top_fraction", model, attribution, TOP_FRACTION))

    def find_top_fraction(self, model: str, attribution: vizlib.Attribution) -> TopFractionProbabilities | None:
        """Return the same where it is cached, else `None`."""
        return self._cache.find(_make_map_key("top fraction", model, attribution))

    def get_attention(self, photo: Image.Image, model: str) -> dict[str, Float[Tensor, "heads token token"]]:
        """Return the attention among all tokens by layer; empty for a network without any."""
        key = ("attention", compute_photo_key(photo), model)
        return self._cache.get(key, lambda: self._executor.run("attention", model, photo))

    def get_activations(self, photo: Image.Image, model: str, layer: str) -> LayerMaps:
        """Return the output of a layer as one map a channel."""
        key = ("activations", compute_photo_key(photo), model, layer)
        return self._cache.get(key, lambda: self._executor.run("activations", model, photo, layer))

    def get_contributions(self, request: ExplanationRequest, layer: str) -> Contributions:
        """Return the contribution of each channel or head of a layer to the class, or to its lead over another.

        The layers that the one-pass methods read come from the backward pass of `explain_all`; among others the result
        holds the channels of the layer, or for attention among all tokens its heads.
        """
        request = self.resolve(request)
        contributions = self._analyse_class(request).contributions
        if layer in contributions.channels:
            return contributions
        if layer in contributions.heads and layer in self.get_attention(request.photo, request.model):
            return contributions
        key = ("contributions", *request.class_key, layer)
        return self._cache.get(key, lambda: self._executor.run("contributions", request.model, request, layer))

    def ablate(self, photo: Image.Image, model: str, units: Sequence[Unit]) -> list[vizlib.Prediction]:
        """Return the predictions with some units ablated: every class, most probable first."""
        channels: dict[str, list[int]] = {}
        heads: dict[str, list[int]] = {}
        for unit in units:
            (heads if unit.head else channels).setdefault(unit.layer, []).append(unit.number)
        key = ("ablation", compute_photo_key(photo), model, tuple(sorted(units)))
        return self._cache.get(key, lambda: self._executor.run("ablation", model, photo, channels, heads))

    def get_word_relevance(self, photo: Image.Image, model: str, target: int) -> vizlib.WordRelevance | None:
        """Return the relevance of each word of a prompt; `None` where the classes are none, or it is not known."""
        if self.catalog.get(model).prompt_source is None:
            return None
        key = ("words", compute_photo_key(photo), model, target)
        try:
            return self._cache.get(key, lambda: self._executor.run("words", model, photo, target))
        except MethodError:  # a text tower without attention that can be recorded
            return None

    def get_gradient(self, photo: Image.Image, model: str, output: str | None, **options: Any) -> vizlib.Gradient:
        """Return the gradient of a layer or of the outputs; the options are those of `vizlib.gradient`."""
        key = ("gradient", compute_photo_key(photo), model, output, repr(sorted(options.items())))
        return self._cache.get(key, lambda: self._executor.run("gradient", model, photo, output, options))

    def get_receptive_fields(self, model: str) -> dict[str, ReceptiveField]:
        """Return the receptive field of each stage of a network without attention; empty where one is not known."""
        network = self.catalog.get(model)

        def trace() -> dict[str, ReceptiveField]:
            fields = {} if network.attention_layers else receptive_fields(network, network.stages)
            return fields if len(fields) == len(network.stages) else {}

        return self._cache.get(("receptive fields", model), trace)

    def get_effective_receptive_field(
        self, photo: Image.Image, model: str, layer: str, cell: tuple[int, int]
    ) -> EffectiveReceptiveField:
        """Return the gradient of a cell (row, column) of a layer with respect to each pixel of this photo."""
        key = ("effective receptive field", compute_photo_key(photo), model, layer, cell)
        return self._cache.get(key, lambda: self._executor.run("effective_receptive_field", model, photo, layer, cell))

    def get_stage_maps(self, photo: Image.Image, model: str) -> dict[str, Float[Tensor, "channels h w"]]:
        """Return the output of every stage whose receptive field is known."""
        layers = list(self.get_receptive_fields(model))
        key = ("stage maps", compute_photo_key(photo), model)
        return self._cache.get(key, lambda: self._executor.run("stage_maps", model, photo, layers))

    def get_kernels(self, model: str) -> Kernels:
        """Return the kernels of the first layer and the similarities of the position embeddings."""
        network = self.catalog.get(model)
        return self._cache.get(("kernels", model), lambda: vizlib.kernels(network))

    def get_lesson(self, photo: Image.Image, key: tuple, compute: Callable[[], Any]) -> Any:
        """Return what a step of the lessons computes on a photo; `key` holds what else it depends on."""
        return self._cache.get(("lesson", compute_photo_key(photo), *key), compute)

    def _analyse_class(self, request: ExplanationRequest) -> ClassAnalysis:
        """Return all that one backward pass gives for the classes of a resolved request."""
        key = ("class", *request.class_key)
        return self._cache.get(key, lambda: self._executor.run("explanations", request.model, request))


def _make_map_key(analysis: str, model: str, attribution: vizlib.Attribution) -> tuple:
    """Return the cache key of an analysis of one map."""
    parameters = repr(sorted(attribution.parameters.items()))
    classes = (attribution.target, attribution.against)
    return (analysis, compute_photo_key(attribution.photo), model, *classes, attribution.method, parameters)
