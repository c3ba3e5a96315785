"""What the outputs of a network mean: one table gives their probabilities, ranking and explained score."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vizlib.capture import OutputTrace
from vizlib.core.errors import ModelError, suggest_names
from vizlib.core.text import Note, make_note
from vizlib.models.run import Prediction

SUM_TOLERANCE = 1e-3  # of the probabilities of exclusive classes, from 1: half precision is no more exact
HEAD_NAMES = ("head", "heads", "fc", "classifier", "last_linear")  # of the module that timm, torchvision, ... end with
PROBLEM_TYPES = {  # `problem_type` of a Hugging Face configuration -> output kind
    "single_label_classification": "softmax",
    "multi_label_classification": "sigmoid",
    "regression": "values",
}


@dataclass(frozen=True)
class OutputKind:
    """One row of the table of output kinds: what the outputs of a network mean.

    Attributes:
        name: Its name.
        meaning: What the outputs are, for messages.
        noun: What one output stands for, for messages and default labels.
        scores: What of an output can be explained: `"logit"`, `"probability"`, or the output itself as `"value"`. The
            first is what gradients explain by default, the last what masked photos are scored by.
        to_probabilities: From outputs "... n" to as many probabilities, 0 to 1; `None` where there are none.
        saturation_note: Code of the note where the gradient of a probability near 1 is nearly zero.
        has_classes: Whether `predict` has something to list: probabilities of classes, or values of a regression.
        target_hint: What `explain` takes as target where no output stands out, for messages.
    """

    name: str
    meaning: str
    noun: str
    scores: tuple[str, ...]
    to_probabilities: Callable[[Tensor], Tensor] | None = None
    saturation_note: str = ""
    has_classes: bool = True
    target_hint: str = ""

    @property
    def is_ranked(self) -> bool:
        """Whether some outputs are more probable than others."""
        return self.to_probabilities is not None

    def has_default(self, count: int) -> bool:
        """Return whether one of `count` outputs is explained by default: the most probable, or the only one."""
        return self.is_ranked or (self.has_classes and count == 1)

    def rank(self, outputs: Float[Tensor, " n"]) -> list[int]:
        """Return the indices of the outputs as their kind lists them: most probable first, else by index.

        Equal outputs are ranked by index. Logits are ranked, not their probabilities, of which many round to 0 or 1.
        """
        if not self.is_ranked:
            return list(range(len(outputs)))
        return outputs.argsort(descending=True, stable=True).tolist()

    def are_exclusive(self, outputs: Float[Tensor, " n"]) -> bool:
        """Return whether exactly one of the outputs' classes is right: softmax, or probabilities that sum to 1."""
        if self.name == "probabilities":
            return len(outputs) > 1 and bool((outputs.float().sum() - 1).abs() <= SUM_TOLERANCE)
        return self.name == "softmax"

    def predict(self, outputs: Float[Tensor, " n"], labels: Sequence[str], top: int) -> list[Prediction]:
        """Return the first `top` outputs of the ranking, with their labels and probabilities.

        Args:
            outputs: The outputs of one photo.
            labels: Label of each.
            top: How many, at least 1; values out of range are clipped.
        """
        outputs = outputs.detach().float().cpu()
        probabilities = None if self.to_probabilities is None else self.to_probabilities(outputs)
        ranking = self.rank(outputs)[: max(top, 1)]
        return [
            Prediction(i, labels[i], None if probabilities is None else probabilities[i].item(), outputs[i].item())
            for i in ranking
        ]

    def add_complement(self, predictions: Sequence[Prediction], complement: str) -> list[Prediction]:
        """Return the prediction of a single label and that of its complement, the more probable first.

        Args:
            predictions: The prediction of the label.
            complement: Name of the complement; its index is -1, as no output is its own.
        """
        (label,) = predictions
        probability = 0.0 if label.probability is None else 1 - label.probability
        opposite = 1 - label.logit if self.scores == ("probability",) else -label.logit
        both = [label, Prediction(-1, complement, probability, opposite)]
        return sorted(both, key=lambda row: row.probability or 0.0, reverse=True)

    def make_labels(self, count: int) -> list[str]:
        """Return labels for outputs that have none: their noun and number."""
        return [f"{self.noun} {i}" for i in range(count)]


def _softmax(outputs: Tensor) -> Tensor:
    """Return the probabilities of outputs of the kind softmax."""
    return outputs.softmax(-1)


def _identity(outputs: Tensor) -> Tensor:
    """Return the probabilities of outputs of the kind probabilities: the outputs themselves."""
    return outputs


OUTPUT_KINDS = {
    row.name: row
    for row in (
        OutputKind(
            "softmax",
            "logits of exclusive classes",
            "class",
            ("logit", "probability"),
            _softmax,
            saturation_note="score.saturated",
        ),
        OutputKind(
            "sigmoid",
            "logits of independent labels",
            "label",
            ("logit", "probability"),
            torch.sigmoid,
            saturation_note="score.saturated-sigmoid",
        ),
        OutputKind(
            "probabilities",
            "probabilities",
            "class",
            ("probability",),
            _identity,
            saturation_note="score.saturated-output",
        ),
        OutputKind(
            "values",
            "values of a regression",
            "value",
            ("value",),
            target_hint="explain takes the number or label of a value, or a function of the output, as target=",
        ),
        OutputKind(
            "features",
            "features without a classifier",
            "feature",
            ("value",),
            has_classes=False,
            target_hint="explain takes the number of a feature, or a function of the output, as target=",
        ),
        OutputKind(
            "structured",
            "a structured output",
            "output",
            ("value",),
            has_classes=False,
            target_hint="explain takes a function of the output as target=, with one value for each photo",
        ),
    )
}


def get_output_kind(name: str) -> OutputKind:
    """Return an output kind, a row of the table, by its name.

    Raises:
        ModelError: For another name.
    """
    if name not in OUTPUT_KINDS:
        raise ModelError(f"there is no output_kind {name!r}; {suggest_names(str(name), OUTPUT_KINDS)}")
    return OUTPUT_KINDS[name]


def check_output_kind(kind: OutputKind, outputs: Float[Tensor, "1 n"], model: str) -> None:
    """Check that outputs can be of the kind that they are declared to be.

    Args:
        kind: The declared kind.
        outputs: Outputs of a blank input.
        model: Name of the model, for the message.

    Raises:
        ModelError: For a softmax over one output, and for probabilities outside 0 to 1.
    """
    if kind.name == "softmax" and outputs.shape[1] == 1:
        raise ModelError(
            f"{model} has one output, and a softmax over one output is always 1; declare output_kind='sigmoid' for the "
            "logit of one label, or 'values' for a regression"
        )
    if kind.name == "probabilities" and not _are_fractions(outputs):
        low, high = outputs.min().item(), outputs.max().item()
        raise ModelError(
            f"{model} is declared to return probabilities, but returns values from {low:.3g} to {high:.3g} for a blank "
            "input; declare output_kind='softmax' for logits of exclusive classes, 'sigmoid' for independent labels"
        )


def find_output_kind(
    module: nn.Module, outputs: Float[Tensor, "1 n"], trace: OutputTrace
) -> tuple[str, tuple[Note, ...]]:
    """Return the kind of a network's outputs, where nobody declared it, with notes of what was assumed.

    Args:
        module: The network.
        outputs: Its outputs for a blank input.
        trace: The trace of that pass.

    Returns:
        Name of an output kind, and notes.
    """
    problem = getattr(getattr(module, "config", None), "problem_type", None)  # Hugging Face
    if problem in PROBLEM_TYPES and not (problem == "single_label_classification" and outputs.shape[1] == 1):
        return PROBLEM_TYPES[problem], ()
    activation = trace.find_activation(outputs)
    if activation == "log_softmax":
        return "softmax", (make_note("output.log-softmax"),)
    if activation is not None and _are_fractions(outputs):
        return "probabilities", (make_note("output.probabilities"),)
    if _has_identity_head(module, trace.find_identities(outputs)):
        return "features", (make_note("output.features", count=outputs.shape[1]),)
    if outputs.shape[1] == 1:
        return "sigmoid", (make_note("output.one-logit"),)
    if _are_fractions(outputs) and OUTPUT_KINDS["probabilities"].are_exclusive(outputs[0]):
        return "probabilities", (make_note("output.rows-sum-to-1"),)
    return "softmax", ()


def _are_fractions(outputs: Tensor) -> bool:
    """Return whether outputs can be of the kind probabilities: all are from 0 to 1, within a tolerance."""
    return bool(((outputs >= 0) & (outputs <= 1 + SUM_TOLERANCE)).all())


def _has_identity_head(module: nn.Module, final_identities: Iterable[str]) -> bool:
    """Return whether outputs are of the kind features: the network ends where its classifier would be.

    Args:
        module: The network.
        final_identities: Names of the `nn.Identity` modules that return its output.
    """
    if any(name.rpartition(".")[2] in HEAD_NAMES for name in final_identities):
        return True
    get_classifier = getattr(module, "get_classifier", None)  # timm; `num_classes` is stale where a head was replaced
    without_classes = getattr(module, "num_classes", None) == 0
    return without_classes and callable(get_classifier) and type(get_classifier()) is nn.Identity
