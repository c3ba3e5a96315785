"""What the page asks of the library, computed once: every tab and every endpoint reads its numbers here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

import vizlib
from dashboard.services.byte_cache import ByteCache, photo_key
from dashboard.services.executor import ModelExecutor
from dashboard.services.forward_cache import ForwardCache
from dashboard.services.metrics import RunMetrics
from dashboard.services.model_catalog import ModelCatalog
from vizlib.analysis.effective_receptive_field import EffectiveReceptiveField
from vizlib.analysis.first_layer_kernels import Kernels
from vizlib.analysis.units import Contributions
from vizlib.attribution.methods.base import MANY_PASSES
from vizlib.attribution.methods.registry import METHODS
from vizlib.attribution.request import RUNNER_UP
from vizlib.capture.receptive_field_tracer import ReceptiveField
from vizlib.models.receptive_field import receptive_fields

TOP_FRACTION = 0.2  # of the pixels are left where only the warmest are kept
CACHE_BYTES = 384_000_000  # bytes of results kept for all visitors together
RUNS = 3  # one such part of it is for the passes they come from


class Unit(NamedTuple):
    """A channel of a layer, or a head of an attention layer."""

    layer: str
    number: int  # from 0
    head: bool

    @property
    def label(self) -> str:
        """What a person reads; heads are counted from 1, as everywhere on the page."""
        return f"{self.layer} · " + (f"head {self.number + 1}" if self.head else f"channel {self.number}")


class AnalysisService:
    """Photos looked at by the models of a catalog. Nothing here belongs to a visitor, so nothing can be mixed up.

    Every method raises VizlibError with one sentence for a wrong model, class, method, knob or layer.
    """

    def __init__(self, catalog: ModelCatalog, budget: int = CACHE_BYTES) -> None:
        self.catalog = catalog
        self._cache = ByteCache(budget - budget // RUNS)
        self.metrics = RunMetrics()
        self._runs = ForwardCache(budget // RUNS)
        self._ask = ModelExecutor(catalog, self.metrics, self._runs)

    @property
    def cache(self) -> ByteCache:
        """The results that are kept."""
        return self._cache

    @property
    def pass_cache(self) -> ByteCache:
        """The passes that are kept."""
        return self._runs.cache

    def predict(self, photo: Image.Image, name: str, top: int = 5) -> list[vizlib.Prediction]:
        """The likeliest classes."""
        every = self._cache.get(("predictions", photo_key(photo), name), lambda: self._ask("predictions", name, photo))
        return every[: max(top, 1)]

    def get_ood_note(self, photo: Image.Image, name: str) -> str | None:
        """A sentence where the answer says that the photo is unlike those the model knows, else `None`."""
        found = sorted(self.predict(photo, name, top=10**6))  # by index, so the logits stand in class order
        return self.catalog.get(name).ood_note(torch.tensor([[one.logit for one in found]]))

    def render_model_input(self, photo: Image.Image, name: str) -> Image.Image:
        """What the model really sees: its input with the normalisation taken back."""
        model = self.catalog.get(name)
        preprocessing = model.preprocessing
        return self._cache.get(
            ("eye", photo_key(photo), name), lambda: preprocessing.denormalise(preprocessing.tensor(photo))
        )

    def resolve_target(self, photo: Image.Image, name: str, target: int | str | None) -> int:
        """The class meant by an index, a label or nothing, which means the likeliest."""
        best = self.predict(photo, name, 1)[0].index
        return best if target in (None, "") else self.catalog.get(name).resolve_target(target, torch.empty(1, 0))

    def resolve_against(self, photo: Image.Image, name: str, target: int, against: int | str | None) -> int | None:
        """The class to set a target against, by an index, a label or as the runner-up; nothing where there is none."""
        if against == RUNNER_UP and RUNNER_UP not in self.catalog.get(name).labels:
            return next(one.index for one in self.predict(photo, name, 2) if one.index != target)
        return None if against in (None, "") else self.resolve_target(photo, name, against)

    def explain_all(
        self, photo: Image.Image, name: str, target: int | str | None, against: int | str | None = None
    ) -> dict[str, vizlib.Attribution]:
        """All one-pass methods, from one forward and one backward pass; with `against` why not that class."""
        target = self.resolve_target(photo, name, target)
        against = self.resolve_against(photo, name, target, against)
        return self._cache.get(
            ("explanations", photo_key(photo), name, target, against),
            lambda: self._ask("explanations", name, photo, target, against),
        )

    def explain(
        self,
        photo: Image.Image,
        name: str,
        target: int | str | None,
        method: str,
        knobs: Mapping[str, Any] | None = None,
        against: int | str | None = None,
    ) -> vizlib.Attribution:
        """One method; with no knob turned it is read off the pass all of them share."""
        target, against, knobs, key = self._asked(photo, name, target, method, knobs, against)
        if not knobs:
            every = self.explain_all(photo, name, target, against)
            if method in every:
                return every[method]
        return self._cache.get(key, lambda: self._ask("explanation", name, photo, target, against, method, knobs))

    def find_explanation(
        self,
        photo: Image.Image,
        name: str,
        target: int | str | None,
        method: str,
        knobs: Mapping[str, Any] | None = None,
        against: int | str | None = None,
    ) -> vizlib.Attribution | None:
        """One method of many passes where it was worked out already, else `None`."""
        return self._cache.find(self._asked(photo, name, target, method, knobs, against)[-1])

    def find_or_explain(
        self,
        photo: Image.Image,
        name: str,
        target: int | str | None,
        method: str,
        knobs: Mapping[str, Any] | None = None,
        against: int | str | None = None,
    ) -> vizlib.Attribution | None:
        """One method's answer; of those of many passes only what was worked out already, else `None`."""
        slow = method in METHODS and METHODS[method].cost == MANY_PASSES
        return (self.find_explanation if slow else self.explain)(photo, name, target, method, knobs, against)

    def stream_explanation(
        self,
        photo: Image.Image,
        name: str,
        target: int | str | None,
        method: str,
        knobs: Mapping[str, Any] | None = None,
        against: int | str | None = None,
    ) -> Iterator[vizlib.ExplanationStep]:
        """One method of many passes, getting better and better; kept once it is complete, not where it was left."""
        target, against, knobs, key = self._asked(photo, name, target, method, knobs, against)
        for step in self._ask.stream(name, photo, target, against, method, knobs):
            if step.done == step.total:
                self._cache.get(key, lambda answer=step.attribution: answer)
            yield step

    def estimate_seconds(self, photo: Image.Image, name: str, method: str, knobs: Mapping[str, Any] | None = None) -> float:
        """About how long one method takes on this machine; measured once for a model and knobs."""
        knobs = dict(knobs or {})
        key = ("seconds", name, method, repr(sorted(knobs.items())))
        return self._cache.get(key, lambda: self._ask("seconds", name, photo, method, knobs))

    def keep_top_fraction(self, photo: Image.Image, answer: vizlib.Attribution, name: str) -> tuple[float, float]:
        """How sure the model is of the class, and how sure of what is left where the map is warmest."""
        return self._cache.get(_kept(photo, answer, name), lambda: self._ask("kept", name, answer, TOP_FRACTION))

    def find_top_fraction(self, photo: Image.Image, answer: vizlib.Attribution, name: str) -> tuple[float, float] | None:
        """The same where it was worked out before, else `None`."""
        return self._cache.find(_kept(photo, answer, name))

    def _asked(
        self,
        photo: Image.Image,
        name: str,
        target: int | str | None,
        method: str,
        knobs: Mapping[str, Any] | None,
        against: int | str | None,
    ) -> tuple[int, int | None, dict[str, Any], tuple]:
        """What one explanation depends on, with the key it is kept under."""
        target, knobs = self.resolve_target(photo, name, target), dict(knobs or {})
        against = self.resolve_against(photo, name, target, knobs.pop("against", against))
        key = ("explanation", photo_key(photo), name, target, against, method, repr(sorted(knobs.items())))
        return target, against, knobs, key

    def get_attention(self, photo: Image.Image, name: str) -> dict[str, Float[Tensor, "heads token token"]]:
        """The attention among all tokens by layer; empty for a network without any."""
        return self._cache.get(("attention", photo_key(photo), name), lambda: self._ask("attention", name, photo))

    def get_activations(self, photo: Image.Image, name: str, layer: str) -> tuple[Float[Tensor, "channels h w"], bool]:
        """A layer's output, one map a channel, and whether the maps lie on the photo.

        An output without places, such as pooled features or logits, is given as maps of a single value.
        """
        key = ("activations", photo_key(photo), name, layer)
        return self._cache.get(key, lambda: self._ask("activations", name, photo, layer))

    def get_contributions(
        self, photo: Image.Image, name: str, target: int, layer: str, against: int | None = None
    ) -> Contributions:
        """What each channel or head of a layer adds to a class, or to its lead over another."""
        key = ("contributions", photo_key(photo), name, target, layer, against)
        return self._cache.get(key, lambda: self._ask("contributions", name, photo, target, against, layer))

    def ablate(self, photo: Image.Image, name: str, off: Sequence[Unit]) -> list[vizlib.Prediction]:
        """What the model would answer with some units switched off; every class, likeliest first."""
        silent: tuple[dict, dict] = {}, {}
        for unit in off:
            silent[unit.head].setdefault(unit.layer, []).append(unit.number)
        key = ("without", photo_key(photo), name, tuple(sorted(off)))
        return self._cache.get(key, lambda: self._ask("without", name, photo, *silent))

    def get_receptive_fields(self, name: str) -> dict[str, ReceptiveField]:
        """How far a place sees in each stage of a network without attention; empty where that is not known."""
        model = self.catalog.get(name)

        def look() -> dict[str, ReceptiveField]:
            known = {} if model.attention_layers else receptive_fields(model, model.stages)
            return known if len(known) == len(model.stages) else {}

        return self._cache.get(("fields", name), look)

    def get_effective_receptive_field(self, photo: Image.Image, name: str, layer: str, cell: tuple[int, int]) -> EffectiveReceptiveField:
        """How strongly a place of a layer depends on each pixel of this photo."""
        key = ("effective field", photo_key(photo), name, layer, cell)
        return self._cache.get(key, lambda: self._ask("field", name, photo, layer, cell))

    def get_stage_maps(self, photo: Image.Image, name: str) -> dict[str, Float[Tensor, "channels h w"]]:
        """The output of every stage whose places see a known part of the photo, from one pass."""
        layers = list(self.get_receptive_fields(name))
        return self._cache.get(("stages", photo_key(photo), name), lambda: self._ask("stages", name, photo, layers))

    def get_kernels(self, name: str) -> Kernels:
        """The first layer's kernels and the position embedding's similarities."""
        model = self.catalog.get(name)
        return self._cache.get(("kernels", name), lambda: vizlib.kernels(model))

    def get_lesson(self, photo: Image.Image, about: tuple, make: Callable[[], Any]) -> Any:
        """What a step of the lessons found out on a photo; `about` is what else it depends on."""
        return self._cache.get(("lesson", photo_key(photo), *about), make)


def _kept(photo: Image.Image, answer: vizlib.Attribution, name: str) -> tuple:
    return ("kept", photo_key(photo), name, answer.target, answer.method, repr(sorted(answer.parameters.items())))
