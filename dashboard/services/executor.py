"""Tasks that run a model, in a form that can run on the GPU that a ZeroGPU Space lends for a moment.

There a task runs in another process, a fork of this one: arguments and results are pickled, changes to objects are
lost, and of an error only its type comes back. So models are named, results lie in main memory, and errors are returned
like results. Everywhere else a task is an ordinary call.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

import vizlib
from dashboard.services.forward_cache import ForwardCache
from dashboard.services.metrics import RunMetrics
from dashboard.services.model_catalog import ModelCatalog
from dashboard.services.request import ExplanationRequest
from vizlib import VizlibError
from vizlib.analysis.effective_receptive_field import EffectiveReceptiveField
from vizlib.analysis.effective_receptive_field import effective_receptive_field as compute_effective_receptive_field
from vizlib.analysis.units import Contributions, contributions_from_evidence
from vizlib.attribution.explain import attributions_from, gather_for_all, run_holds
from vizlib.attribution.methods.registry import METHODS
from vizlib.attribution.request import MANY_PASSES
from vizlib.metrics.faithfulness import keep_top_fraction

try:
    import spaces  # pyright: ignore[reportMissingImports] - on every Space with gradio; its GPU does nothing but on ZeroGPU
except ImportError:
    spaces = None

UnitIndices = Mapping[str, Sequence[int]]  # layer -> indices of its channels, or of its heads
BASE_GPU_SECONDS = 10  # for one pass and the transfers; a visitor has a few minutes of a GPU a day
GPU_SECONDS_PER_PASS = 0.02  # more for each of many passes
MAX_GPU_SECONDS = 110
MIN_MANY_PASSES = 250  # counted for every method of many passes, as some depend on the photo
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


@dataclass(frozen=True, eq=False)
class ClassAnalysis:
    """All that one backward pass from the score of a class gives."""

    attributions: dict[str, vizlib.Attribution]  # of every one-pass method, by name
    contributions: Contributions  # at the layers those methods read


def predictions(model: vizlib.Model, photo: Image.Image, *, run: vizlib.Run | None = None) -> list[vizlib.Prediction]:
    """Task of the executor: return every class, most probable first."""
    count = len(model.labels)
    return model.predict(photo, top=count) if run is None else model.rank_classes(run.logits, count)


def explanations(model: vizlib.Model, request: ExplanationRequest, *, run: vizlib.Run | None = None) -> ClassAnalysis:
    """Return the attributions of all one-pass methods and the contributions, from one backward pass."""
    run = vizlib.run_for_all(model, request.photo) if run is None else run
    gathered = gather_for_all(model, run, request.target, request.against)
    units = contributions_from_evidence(gathered.evidence, gathered.spec.target, gathered.spec.against)
    return ClassAnalysis(attributions_from(gathered), units)


def explanation(
    model: vizlib.Model, request: ExplanationRequest, *, run: vizlib.Run | None = None
) -> vizlib.Attribution:
    """Return the attribution of one method with its parameters."""
    many = request.method in METHODS and METHODS[request.method].cost == MANY_PASSES
    if run is not None and (many or not run_holds(model, run, request.method, **request.parameters)):
        run = None
    return vizlib.explain(
        model, request.photo, request.method, request.target, request.against, run=run, **request.parameters
    )


def stream(model: vizlib.Model, request: ExplanationRequest) -> Iterator[vizlib.ExplanationStep]:
    """Yield the attribution of one method of many passes after each batch of them."""
    return vizlib.explain_stream(
        model, request.photo, request.method, request.target, request.against, **request.parameters
    )


def seconds(model: vizlib.Model, request: ExplanationRequest) -> float:
    """Return about how many seconds one method takes."""
    return vizlib.estimate(model, request.method, request.photo, **request.parameters)


def top_fraction(model: vizlib.Model, attribution: vizlib.Attribution, fraction: float) -> TopFractionProbabilities:
    """Return the probability of the class before and after only the pixels of greatest attribution are kept."""
    return TopFractionProbabilities(*keep_top_fraction(model, attribution, fraction=fraction))


def attention(model: vizlib.Model, photo: Image.Image, *, run: vizlib.Run | None = None) -> dict[str, Tensor]:
    """Return the attention among all tokens by layer: (heads, token, token) each; empty for a network without any."""
    if model.tokens is None:
        return {}
    if run is None or not run.attention:
        run = model.run(photo, attention=True, **NO_GRADIENTS)
    shape = (model.tokens.num_tokens, model.tokens.num_tokens)
    weights = {layer: to_cpu(weights[0]) for layer, weights in run.attention.items()}
    return {layer: matrix for layer, matrix in weights.items() if matrix.shape[-2:] == shape}


def activations(model: vizlib.Model, photo: Image.Image, layer: str, *, run: vizlib.Run | None = None) -> LayerMaps:
    """Return the output of a layer as one map a channel."""
    if run is None or layer not in run.activations:
        run = model.run(photo, layers=[layer], **NO_GRADIENTS)
    output = to_cpu(run.activations[layer])
    maps = model.spatial_map(output)
    return LayerMaps(output.reshape(-1, 1, 1), False) if maps is None else LayerMaps(maps, min(maps.shape[1:]) > 1)


def stage_maps(
    model: vizlib.Model, photo: Image.Image, layers: Sequence[str], *, run: vizlib.Run | None = None
) -> dict[str, Tensor]:
    """Return the outputs of several layers as maps (channels, h, w); those without places are left out."""
    if run is None or not set(layers) <= set(run.activations):
        run = model.run(photo, layers=layers, **NO_GRADIENTS)
    maps = {layer: model.spatial_map(to_cpu(run.activations[layer])) for layer in layers}
    return {layer: channels for layer, channels in maps.items() if channels is not None}


def contributions(
    model: vizlib.Model, request: ExplanationRequest, layer: str, *, run: vizlib.Run | None = None
) -> Contributions:
    """Return what each channel or head of a layer contributes to a class, or to its lead over another."""
    heads = layer in model.attention_layers
    if run is not None and (layer not in run.activations or (heads and not run.attention)):
        run = None
    return vizlib.contributions(
        model, request.photo, request.target, request.against, layers=[layer], heads=heads, run=run
    )


def ablation(
    model: vizlib.Model, photo: Image.Image, channels: UnitIndices, heads: UnitIndices
) -> list[vizlib.Prediction]:
    """Return every class, most probable first, with some channels and heads ablated."""
    return vizlib.ablate(model, photo, channels=channels, heads=heads)


def effective_receptive_field(
    model: vizlib.Model, photo: Image.Image, layer: str, cell: tuple[int, int], *, run: vizlib.Run | None = None
) -> EffectiveReceptiveField:
    """Return the gradient of a cell of a layer with respect to each pixel."""
    if run is not None and layer not in run.activations:
        run = None
    return compute_effective_receptive_field(model, photo, layer, cell, run=run)


def to_cpu(tensor: Tensor) -> Tensor:
    """Return the values of a tensor without its graph, in single precision, on the CPU."""
    return tensor.detach().float().cpu()


READS_RUN = (  # tasks that read the cached forward pass of the photo
    predictions,
    explanations,
    explanation,
    attention,
    activations,
    stage_maps,
    contributions,
    effective_receptive_field,
)
TASKS: dict[str, Any] = {task.__name__: task for task in (*READS_RUN, ablation, seconds, top_fraction)}


class ModelExecutor:
    """Runs tasks on the models of a catalog, on a lent GPU where there is one."""

    def __init__(self, catalog: ModelCatalog, metrics: RunMetrics, passes: ForwardCache) -> None:
        self.catalog, self.metrics, self.passes = catalog, metrics, passes
        lend = (lambda task: task) if spaces is None else spaces.GPU(duration=estimate_gpu_seconds)
        self._run_task, self._run_stream = lend(self._execute), lend(self._execute_stream)

    def run(self, task: str, model: str, *args: Any) -> Any:
        """Return the result of one of `TASKS` on a model given by name.

        Raises: VizlibError as the library does.
        """
        with self.metrics.measure_run(*self._metric_labels(task, model, args)):
            self.catalog.get(model)  # loaded here, as the other process would lose it
            return _raise_error(self._run_task(task, model, *args))

    def stream(self, model: str, request: ExplanationRequest) -> Iterator[vizlib.ExplanationStep]:
        """Yield the steps of `stream`. Raises: VizlibError as the library does."""
        with self.metrics.measure_run(*self._metric_labels("stream", model, (request,))):
            self.catalog.get(model)
            for step in self._run_stream("stream", model, request):
                yield _raise_error(step)

    def _metric_labels(self, task: str, model: str, args: tuple) -> tuple[str, str]:
        """Return the labels of counts and logs: the method or else the task, and never a model name that was typed."""
        request = next((arg for arg in args if isinstance(arg, ExplanationRequest)), None)
        by_method = task in ("explanation", "seconds", "stream") and request is not None and request.method in METHODS
        return request.method if by_method and request else task, model if model in self.catalog.names else "other"

    def _execute(self, task: str, model: str, *args: Any) -> Any:
        try:
            network, function = _move_to_lent_gpu(self.catalog.get_loaded(model)), TASKS[task]
            if function not in READS_RUN or _on_zero_gpu():
                return function(network, *args)
            photo = args[0].photo if isinstance(args[0], ExplanationRequest) else args[0]
            return function(network, *args, run=self.passes.find_or_run(network, photo))
        except VizlibError as error:
            return error

    def _execute_stream(self, _: str, model: str, request: ExplanationRequest) -> Iterator[Any]:
        try:
            yield from stream(_move_to_lent_gpu(self.catalog.get_loaded(model)), request)
        except VizlibError as error:
            yield error


def estimate_gpu_seconds(task: str, model: str, *args: Any) -> int:
    """Return about how many seconds a task needs the GPU; for methods of many passes this follows their parameters."""
    passes = 0
    if task in ("explanation", "stream"):
        request: ExplanationRequest = args[0]
        method = METHODS.get(request.method)
        if method is not None and method.cost == MANY_PASSES:
            passes = MIN_MANY_PASSES
            if method.count_passes is not None:
                defaults = {name: parameter.default for name, parameter in method.parameters.items()}
                count = method.count_passes({**defaults, **request.parameters})
                passes = max(passes, count) if isinstance(count, int) else passes  # a wrong value is refused later
    return min(round(BASE_GPU_SECONDS + GPU_SECONDS_PER_PASS * passes), MAX_GPU_SECONDS)


def _raise_error(result: Any) -> Any:
    """Return a result; raise it where it is an error."""
    if isinstance(result, VizlibError):
        raise result
    return result


def _on_zero_gpu() -> bool:
    """Return whether tasks run in another process, whose changes to objects are lost."""
    return bool(os.environ.get("SPACES_ZERO_GPU"))


def _move_to_lent_gpu(model: vizlib.Model) -> vizlib.Model:
    """Return the model, moved to the lent GPU in the process that has it."""
    if _on_zero_gpu() and torch.cuda.is_available():
        model.module.to("cuda")
    return model
