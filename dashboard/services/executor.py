"""What a model is asked, in a form that can run on the GPU that a ZeroGPU Space lends for a moment.

There a question runs in another process, a fork of this one: what goes there and comes back is pickled, what it changes
is lost, and of an error only its kind comes back. So models are named, answers lie in main memory, and errors are
handed back like answers. Everywhere else a question is an ordinary call.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

import vizlib
from dashboard.services.forward_cache import ForwardCache
from dashboard.services.metrics import RunMetrics
from dashboard.services.model_catalog import ModelCatalog
from vizlib import VizlibError
from vizlib.analysis.effective_receptive_field import EffectiveReceptiveField, effective_receptive_field
from vizlib.analysis.units import Contributions
from vizlib.attribution.methods.base import MANY_PASSES
from vizlib.attribution.methods.registry import METHODS
from vizlib.metrics import faithfulness as metrics

try:
    import spaces  # pyright: ignore[reportMissingImports] - on every Space with gradio; its GPU does nothing but on ZeroGPU
except ImportError:
    spaces = None

Units = Mapping[str, Sequence[int]]  # layer -> numbers of its channels, or of its heads
BASE_GPU_SECONDS = 10  # of a GPU for one pass, with the way there; a visitor has but a few minutes a day
GPU_SECONDS_PER_PASS = 0.02  # more for each of many passes
MAX_GPU_SECONDS = 110
NO_GRADIENTS: dict[str, Any] = {"rules": False, "graph": False}  # of a pass that is only looked at


def predictions(model: vizlib.Model, photo: Image.Image) -> list[vizlib.Prediction]:
    """Every class, likeliest first."""
    return model.predict(photo, top=len(model.labels))


def explanations(
    model: vizlib.Model, photo: Image.Image, target: int, against: int | None, run: vizlib.Run | None = None
) -> dict[str, vizlib.Attribution]:
    """All one-pass methods; with a `run` of the photo, from one backward pass."""
    return vizlib.explain_all(model, photo, target=target, against=against, run=run)


def explanation(
    model: vizlib.Model, photo: Image.Image, target: int, against: int | None, method: str, knobs: Mapping[str, Any]
) -> vizlib.Attribution:
    """One method with its knobs."""
    return vizlib.explain(model, photo, method=method, target=target, against=against, **knobs)


def steps(
    model: vizlib.Model, photo: Image.Image, target: int, against: int | None, method: str, knobs: Mapping[str, Any]
) -> Iterator[vizlib.ExplanationStep]:
    """One method of many passes, getting better and better."""
    return vizlib.explain_stream(model, photo, method, target, against, **knobs)


def seconds(model: vizlib.Model, photo: Image.Image, method: str, knobs: Mapping[str, Any]) -> float:
    """About how long one method takes."""
    return vizlib.estimate(model, method, photo, **knobs)


def kept(model: vizlib.Model, answer: vizlib.Attribution, share: float) -> tuple[float, float]:
    """How sure the model is of the class, and how sure of what is left where the map is warmest."""
    return metrics.keep_top_fraction(model, answer, fraction=share)


def attention(model: vizlib.Model, photo: Image.Image) -> dict[str, Tensor]:
    """The attention among all tokens by layer: (heads, token, token) each; empty for a network without any."""
    if model.tokens is None:
        return {}
    count, run = model.tokens.num_tokens, model.run(photo, attention=True, **NO_GRADIENTS)
    found = {layer: weights[0].detach().float().cpu() for layer, weights in run.attention.items()}
    return {layer: weights for layer, weights in found.items() if weights.shape[-2:] == (count, count)}


def activations(model: vizlib.Model, photo: Image.Image, layer: str) -> tuple[Tensor, bool]:
    """A layer's output as maps (channels, h, w), and whether they lie on the photo."""
    output = model.run(photo, layers=[layer], **NO_GRADIENTS).activations[layer].detach().float().cpu()
    maps = model.spatial_map(output)
    return (output.reshape(-1, 1, 1), False) if maps is None else (maps, min(maps.shape[1:]) > 1)


def stages(model: vizlib.Model, photo: Image.Image, layers: Sequence[str]) -> dict[str, Tensor]:
    """The output of several layers as maps (channels, h, w), from one pass; those without places are left out."""
    run = model.run(photo, layers=layers, **NO_GRADIENTS)
    pictures = {layer: model.spatial_map(run.activations[layer].detach().float().cpu()) for layer in layers}
    return {layer: maps for layer, maps in pictures.items() if maps is not None}


def contributions(
    model: vizlib.Model, photo: Image.Image, target: int, against: int | None, layer: str
) -> Contributions:
    """What each channel or head of a layer adds to a class, or to its lead over another."""
    return vizlib.contributions(model, photo, target, against, layers=[layer], heads=layer in model.attention_layers)


def without(model: vizlib.Model, photo: Image.Image, channels: Units, heads: Units) -> list[vizlib.Prediction]:
    """Every class, likeliest first, with some channels and heads switched off."""
    return vizlib.ablate(model, photo, channels=channels, heads=heads)


def field(model: vizlib.Model, photo: Image.Image, layer: str, cell: tuple[int, int]) -> EffectiveReceptiveField:
    """How strongly a place of a layer depends on each pixel."""
    return effective_receptive_field(model, photo, layer, cell)


ONE_PASS = (predictions, explanations, attention, activations, stages, contributions, without, field)
QUESTIONS = {answer.__name__: answer for answer in (*ONE_PASS, explanation, seconds, kept)}


class ModelExecutor:
    """Asks the models of a catalog, on a GPU where one is lent: `ask(question, model name, ...)`."""

    def __init__(self, catalog: ModelCatalog, meter: RunMetrics, runs: ForwardCache) -> None:
        self.catalog, self.meter, self.runs = catalog, meter, runs
        lend = (lambda task: task) if spaces is None else spaces.GPU(duration=estimate_gpu_seconds)
        self._answered, self._streamed = lend(self._answer), lend(self._stream)

    def __call__(self, question: str, name: str, *about: Any) -> Any:
        """The answer to one of `QUESTIONS`. Raises: VizlibError as the library does."""
        with self.meter.measure_run(*self._called(question, name, about)):
            self.catalog.get(name)  # loaded here, as the other process would forget it
            return _raised(self._answered(question, name, *about))

    def stream(self, name: str, *about: Any) -> Iterator[vizlib.ExplanationStep]:
        """The answers of `steps`. Raises: VizlibError as the library does."""
        with self.meter.measure_run(*self._called("steps", name, about)):
            self.catalog.get(name)
            for step in self._streamed("steps", name, *about):
                yield _raised(step)

    def _called(self, question: str, name: str, about: tuple) -> tuple[str, str]:
        """What counts and logs call it: by the method if there is one, and never a name that a person typed."""
        method = next((one for one in about if isinstance(one, str) and one in METHODS), question)
        return method, name if name in self.catalog.names else "other"

    def _answer(self, question: str, name: str, *about: Any) -> Any:
        try:
            model = _move_to_lent_gpu(self.catalog.get_loaded(name))
            if question == "explanations" and not _on_zero_gpu():
                about = (*about, self.runs.get_run(model, about[0]))
            return QUESTIONS[question](model, *about)
        except VizlibError as error:
            return error

    def _stream(self, _: str, name: str, *about: Any) -> Iterator[Any]:
        try:
            yield from steps(_move_to_lent_gpu(self.catalog.get_loaded(name)), *about)
        except VizlibError as error:
            yield error


def estimate_gpu_seconds(question: str, name: str, *about: Any) -> int:
    """For about how many seconds a question needs the GPU: what asks many times is counted by its knobs."""
    passes = 0
    if question in ("explanation", "steps"):
        method, knobs = about[-2:]
        if method in METHODS and METHODS[method].cost == MANY_PASSES:
            defaults: dict[str, Any] = {key: knob.default for key, knob in METHODS[method].knobs.items()}
            numbers = [{**defaults, **knobs}.get(key) for key in ("masks", "samples", "steps")]
            passes = max([250, *(number for number in numbers if isinstance(number, int))])
    return min(round(BASE_GPU_SECONDS + GPU_SECONDS_PER_PASS * passes), MAX_GPU_SECONDS)


def _raised(answer: Any) -> Any:
    if isinstance(answer, VizlibError):
        raise answer
    return answer


def _on_zero_gpu() -> bool:
    """Whether questions run in another process, which forgets all it has done."""
    return bool(os.environ.get("SPACES_ZERO_GPU"))


def _move_to_lent_gpu(model: vizlib.Model) -> vizlib.Model:
    """The model, on the lent GPU if this is the process that has it."""
    if _on_zero_gpu() and torch.cuda.is_available():
        model.module.to("cuda")
    return model
