"""What is asked: methods with their knobs, the class that is explained, and the one it is set against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from vizlib.attribution.methods.attention import collect_attention_maps
from vizlib.attribution.methods.base import ONE_PASS, Evidence, Method, Needs, Score, Settings
from vizlib.attribution.methods.registry import METHODS, list_methods, method_for
from vizlib.core.errors import TargetError
from vizlib.models.model import Model

RUNNER_UP = "runner-up"  # against the likeliest class besides the target

Class = int | str | None  # by index or label; None is the likeliest


@dataclass(frozen=True)
class Asked:
    """A method, and where its knobs stand."""

    method: Method
    knobs: dict[str, Any]
    everywhere: bool = False  # whether it is shown at all other layers too

    def needs(self, model: Model) -> Needs:
        """What it reads."""
        own = self.method.needs(model, self.knobs)
        every = model.stages if self.everywhere and own.layers else ()
        return replace(own, layers=tuple(dict.fromkeys((*own.layers, *every))))

    def layers(self, evidence: Evidence) -> tuple[str, ...]:
        """The layers it can be shown at, from what the run holds."""
        return evidence.model.stages if self.needs(evidence.model).layers else tuple(collect_attention_maps(evidence))


@dataclass(frozen=True)
class Question:
    """The class that is explained, and the one it is set against."""

    target: int
    against: int | None

    @classmethod
    def of(cls, model: Model, logits: Tensor, target: Class, against: Class) -> Question:
        """The classes meant. Raises: TargetError."""
        index = model.resolve_target(target, logits)
        if against is None:
            return cls(index, None)
        if isinstance(against, str) and against == RUNNER_UP and RUNNER_UP not in model.labels:
            order = logits[0].argsort(descending=True).tolist()
            return cls(index, next(other for other in order if other != index))
        return cls(index, model.resolve_target(against, logits))

    def score(self, kind: object) -> Score:
        """The number that is explained: of the logits, or of the probabilities; a difference in a contrast."""

        def score(logits: Tensor) -> Tensor:
            values = logits.softmax(-1) if kind == "probability" else logits
            return values[:, self.target] if self.against is None else values[:, self.target] - values[:, self.against]

        return score


def asked_of(model: Model, method: str, knobs: Settings) -> Asked:
    """A method by its name. Raises: MethodError."""
    chosen = method_for(model, method)
    return Asked(chosen, chosen.settings(model, knobs))


def one_pass(model: Model) -> list[Asked]:
    """Every method that one pass can feed, with no knob turned."""
    rows = [METHODS[name] for name in list_methods(model)]
    return [Asked(row, row.settings(model, {}), row.everywhere) for row in rows if row.cost == ONE_PASS]


def union(model: Model, asked: Sequence[Asked]) -> Needs:
    """What all of them read."""
    needs = [one.needs(model) for one in asked]
    return Needs(
        image_gradient=any(need.image_gradient for need in needs),
        guided_gradient=any(need.guided_gradient for need in needs),
        layers=tuple(dict.fromkeys(layer for need in needs for layer in need.layers)),
        layer_gradients=any(need.layers and need.layer_gradients for need in needs),
        attention=any(need.attention for need in needs),
        attention_gradients=any(need.attention_gradients for need in needs),
        local_gradients=any(need.local_gradients for need in needs),
    )


def one_each(given, count: int, what: str) -> list[Class]:
    """One class a photo, from one for all or a list of them."""
    if not isinstance(given, (list, tuple)):
        return [given] * count
    if len(given) != count:
        raise TargetError(f"{what} holds {len(given)} classes for {count} photos; give one for each, or one for all")
    return list(given)


def kind(asked: Sequence[Asked]) -> object:
    """Whether logits or probabilities are explained."""
    return asked[0].knobs.get("score", "logit")
