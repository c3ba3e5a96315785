"""What is explained: a class, the complement of a single one, a weighted sum, or a function of the output."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from vizlib.attribution.evidence import Evidence, Score
from vizlib.attribution.result import ExplainedRecord, FunctionName
from vizlib.core.errors import MethodError, TargetError
from vizlib.core.text import Note, format_number, format_percent, make_note, shorten_label
from vizlib.models.model import Model
from vizlib.models.output_kind import OutputKind
from vizlib.models.run import Run

ClassSelector = int | str | None  # an index, a label, or `None` for the likeliest class
ClassWeights = Mapping[Any, Any] | Tensor | np.ndarray  # weights by label or index, or one for each output
TargetSelector = ClassSelector | ClassWeights | Callable[[Any], Tensor]  # a function takes the output of the network
RUNNER_UP = "runner-up"  # as contrast class: the likeliest class besides the target
UNCERTAIN_PROBABILITY = 0.5  # below this a note states that the model is uncertain, or does not predict a label
SATURATED_PROBABILITY = 0.99  # above this the gradient of a softmax or sigmoid is nearly zero
MAX_NAMED_WEIGHTS = 3  # in the label of a weighted sum


@dataclass(frozen=True)
class ExplainedOutput:
    """One side of an explained score, linear in the outputs or in their probabilities.

    Attributes:
        label: Its name for people.
        weights: Weight of each output by its index; a single class has the weight 1.
        is_complement: Whether it is the complement of the output: the negative logit, or 1 minus the probability.
        is_function: Whether the output is the value of a function of what the network returned.
    """

    label: str
    weights: Mapping[int, float]
    is_complement: bool = False
    is_function: bool = False

    @property
    def index(self) -> int | None:
        """Index of the class, if it is a single class."""
        is_class = not (self.is_complement or self.is_function) and list(self.weights.values()) == [1.0]
        return next(iter(self.weights)) if is_class else None

    @property
    def record(self) -> ExplainedRecord:
        """What an attribution records: index of a class, weights by index, or name of a complement or function."""
        if self.is_function:
            return FunctionName(self.label)
        if self.is_complement:
            return self.label
        return dict(self.weights) if self.index is None else self.index

    def select(self, values: Float[Tensor, "n outputs"], score: str) -> Float[Tensor, " n"]:
        """Return the value of each row.

        Args:
            values: Outputs, or their probabilities.
            score: `"probability"` for probabilities; it decides what a complement is.
        """
        indices = list(self.weights)
        if len(indices) == 1 and self.weights[indices[0]] == 1:
            selected = values[:, indices[0]]
            return selected if not self.is_complement else 1 - selected if score == "probability" else -selected
        weights = torch.tensor(list(self.weights.values()), dtype=values.dtype, device=values.device)
        return values[:, indices] @ weights

    def find_probability(self, probabilities: list[float] | None) -> float | None:
        """Return the probability of a class or of its complement; `None` for all others, and without probabilities."""
        if probabilities is None or self.is_function or len(self.weights) != 1 or set(self.weights.values()) != {1.0}:
            return None
        probability = probabilities[next(iter(self.weights))]
        return 1 - probability if self.is_complement else probability


@dataclass(frozen=True)
class TargetSpec:
    """What is explained, and in a contrast what it is compared with; resolved once, and read by all that comes later.

    Attributes:
        kind: What the outputs mean.
        target: What is explained; `None` for methods whose maps depend on no class, where there is no default.
        against: What it is compared with, in a contrast.
    """

    kind: OutputKind
    target: ExplainedOutput | None
    against: ExplainedOutput | None = None

    @classmethod
    def resolve(
        cls, model: Model, logits: Tensor, target: TargetSelector, against: ClassSelector, *, required: bool = True
    ) -> TargetSpec:
        """Return what selectors mean, given the outputs "1 n" of a photo.

        Args:
            model: The model, with a function of its output bound to it.
            logits: Its outputs.
            target: What to explain; functions are bound to the model before (`Model.with_target`).
            against: Class to compare with.
            required: Whether a target is necessary; without, there may be none.

        Raises:
            TargetError: For a class that the model does not have, or where there is no default.
        """
        kind = model.output_row
        if model.target_function is not None:
            if against is not None:
                raise TargetError(
                    "a function of the output is not compared with a class; subtract within it, or leave against= out"
                )
            return cls(kind, ExplainedOutput(model.target_function.name, {0: 1.0}, is_function=True))
        if target is None and against is None and not required and not kind.has_default(logits.shape[1]):
            return cls(kind, None)
        explained = _resolve_output(model, logits, target)
        if against is None:
            return cls(kind, explained)
        if isinstance(against, str) and against == RUNNER_UP and RUNNER_UP not in model.labels:
            return cls(kind, explained, _find_runner_up(model, logits, explained))
        return cls(kind, explained, _resolve_output(model, logits, against))

    def make_score(self, score: str) -> Score:
        """Return the function of outputs "n classes" that is explained: one value per row.

        Args:
            score: `"logit"` or `"value"` for the outputs as they are, `"probability"` for their probabilities; in a
                contrast it is the difference between the two sides.
        """
        to_probabilities = self.kind.to_probabilities if score == "probability" else None

        def compute_score(logits: Tensor) -> Tensor:
            """Return the explained value of each row of outputs."""
            if self.target is None:  # of a method that reads no score
                return logits.new_zeros(len(logits))
            values = logits if to_probabilities is None else to_probabilities(logits)
            selected = self.target.select(values, score)
            return selected if self.against is None else selected - self.against.select(values, score)

        return compute_score

    def list_notes(self, evidence: Evidence, method: str, score: str, *, class_specific: bool) -> Iterator[Note]:
        """Yield what is worth knowing about the target on this photo.

        Args:
            evidence: Run and score of the photo.
            method: Name of the method.
            score: What of an output is explained, as in `make_score`.
            class_specific: Whether the map depends on the target.
        """
        if self.target is None:
            return
        if class_specific or self.target.index == evidence.top_class:
            yield from self._compare_with_prediction(evidence, self.target)
        if self.against is not None and not class_specific:
            yield make_note("contrast.not-class-specific", method=method)
        elif self.against is not None and self.against == self.target:
            yield make_note("contrast.same-class")
        probability = self.target.find_probability(evidence.probabilities)
        if score == "probability" and probability is not None and probability > SATURATED_PROBABILITY:
            yield make_note(self.kind.saturation_note)

    def _compare_with_prediction(self, evidence: Evidence, target: ExplainedOutput) -> Iterator[Note]:
        """Yield a note where the model does not predict the target, or is uncertain."""
        top, probabilities = evidence.top_class, evidence.probabilities
        probability = target.find_probability(probabilities)
        if top is None or probabilities is None or probability is None:
            return  # no ranking; of outputs that are not finite the run has a note
        if not self.kind.are_exclusive(evidence.logits):
            if probability < UNCERTAIN_PROBABILITY:
                yield make_note("target.not-predicted", label=target.label, share=format_percent(probability))
        elif target.index is not None and (rank := evidence.rank(target.index)) > 1:
            yield make_note(
                "target.not-top",
                best=evidence.model.labels[top],
                share=format_percent(probabilities[top]),
                label=target.label,
                rank=rank,
                other=format_percent(probability),
            )
        elif probability < UNCERTAIN_PROBABILITY:
            yield make_note("target.uncertain", share=format_percent(probability))


def parse_target(text: str | None) -> str | dict[str, Any] | None:
    """Return the target that a text names: a class, or weights of classes from a JSON object.

    Args:
        text: The text of an option or a request.

    Raises:
        TargetError: For an object that is not JSON.
    """
    if text is None or not text.lstrip().startswith("{"):
        return text
    try:
        return json.loads(text)
    except ValueError as error:
        raise TargetError(f'the target {text!r} is not JSON ({error}); give weights as {{"church": 1.0}}') from error


def is_function(target: Any) -> bool:
    """Return whether a target is a function of the output."""
    return callable(target) and not isinstance(target, (str, Tensor, np.ndarray, Mapping))


def bind_function(model: Model, target: Any, name: str | None, run: Run | None) -> tuple[Model, Any]:
    """Return the model to run and the target to resolve: a function is made the only output of the model.

    Raises:
        TargetError: For a name without a function.
        MethodError: For a run that was made without the function.
    """
    if not is_function(target):
        if name is not None:
            raise TargetError("target_name= is the name of a function given as target=, and none is given")
        return model, target
    if run is not None:
        raise MethodError("a run holds no value of a function given as target=; leave run= out")
    return model.with_target(target, name), None


def _resolve_output(model: Model, logits: Tensor, selector: Any) -> ExplainedOutput:
    """Return the output, complement or weighted sum that a selector means."""
    if isinstance(selector, (Tensor, np.ndarray)) and selector.ndim:
        return _weigh_outputs(model, _list_weights(selector, logits.shape[1]))
    if isinstance(selector, Mapping):
        weights: dict[int, Any] = {}
        for key, weight in selector.items():
            index = model.resolve_target(key, logits)
            if index in weights:
                raise TargetError(f"the class {model.labels[index]} (number {index}) has two weights; give one")
            weights[index] = weight
        return _weigh_outputs(model, weights)
    if isinstance(selector, str) and model.complement and selector.strip().lower() == model.complement.lower():
        return ExplainedOutput(model.complement, {0: 1.0}, is_complement=True)
    index = model.resolve_target(selector, logits)
    return ExplainedOutput(model.labels[index], {index: 1.0})


def _list_weights(weights: Tensor | np.ndarray, count: int) -> dict[int, float]:
    """Return the weights by index of a vector with one weight for each output."""
    if weights.ndim != 1 or len(weights) != count:
        raise TargetError(f"the target holds weights of shape {tuple(weights.shape)}; expected {count}, one per class")
    return dict(enumerate(weights.tolist()))


def _weigh_outputs(model: Model, weights: Mapping[int, Any]) -> ExplainedOutput:
    """Return the weighted sum of outputs.

    Raises:
        TargetError: For no weights, or one that is no finite number.
    """
    numbers: dict[int, float] = {}
    for index, weight in weights.items():
        try:
            numbers[index] = float(weight)
        except (TypeError, ValueError):
            numbers[index] = math.nan
        if not math.isfinite(numbers[index]):
            raise TargetError(f"the weight of {model.labels[index]} is {weight!r}; expected a finite number")
    numbers = {index: weight for index, weight in numbers.items() if weight}
    if not numbers:
        raise TargetError("no class has a weight other than 0; give at least one, such as target={'church': 1.0}")
    label = model.labels[next(iter(numbers))] if list(numbers.values()) == [1.0] else _name_sum(model, numbers)
    return ExplainedOutput(label, numbers)


def _name_sum(model: Model, weights: Mapping[int, float]) -> str:
    """Return a weighted sum in words, the largest weights first: `church − 0.5 × tench`."""
    text = ""
    largest = sorted(weights, key=lambda index: -abs(weights[index]))
    for index in largest[:MAX_NAMED_WEIGHTS]:
        factor = "" if abs(weights[index]) == 1 else f"{format_number(abs(weights[index]))} × "
        sign = "−" if weights[index] < 0 else "+" if text else ""
        text += f" {sign} " if text else sign
        text += factor + shorten_label(model.labels[index])
    more = len(weights) - MAX_NAMED_WEIGHTS
    return f"{text} and {more} more" if more > 0 else text


def _find_runner_up(model: Model, logits: Tensor, target: ExplainedOutput) -> ExplainedOutput:
    """Return the likeliest class besides the target.

    Raises:
        TargetError: Where the outputs are not ranked, or there is no other one.
    """
    if model.complement:
        raise TargetError(
            f"{model.name} has one output, so there is no runner-up; against={model.complement!r} compares with its "
            "complement"
        )
    kind = model.output_row
    if not kind.is_ranked:
        raise TargetError(f"{model.name} returns {kind.meaning}, which have no runner-up; name one in against=")
    index = next((candidate for candidate in kind.rank(logits[0]) if candidate not in target.weights), None)
    if index is None:
        raise TargetError(f"there is no class of {model.name} besides the target, so there is no runner-up")
    return ExplainedOutput(model.labels[index], {index: 1.0})
