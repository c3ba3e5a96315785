"""How many outputs a network has and what they mean, found on a blank input; and the scores that suit them."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from vizlib.core.text import Note, make_note
from vizlib.models.model import Model
from vizlib.models.ood import OodScore
from vizlib.models.output_kind import OutputKind, check_output_kind, find_output_kind, get_output_kind
from vizlib.models.raw_output import are_rows, check_rows, describe_output


class DetectedOutputs(NamedTuple):
    """The outputs of a network.

    Attributes:
        kind: What they mean.
        count: How many there are; 0 if they are no row of numbers for each photo.
        notes: What was assumed.
    """

    kind: OutputKind
    count: int
    notes: tuple[Note, ...] = ()


def detect_outputs(model: Model, declared: str | None) -> DetectedOutputs:
    """Return the outputs of a model without labels, from one pass over a blank input.

    Args:
        model: The model.
        declared: Name of an output kind; `None` to find it.

    Raises:
        ModelError: If the network fails, for an unknown output kind, or if the outputs cannot be what is declared.
    """
    kind = None if declared is None else get_output_kind(declared)
    output, trace = model.trace_blank_pass()
    if kind is not None and kind.name == "structured":
        return DetectedOutputs(kind, 0)
    if kind is None and model.output is not None and not are_rows(output, 1):
        note = make_note("output.structured", output=describe_output(output))
        return DetectedOutputs(get_output_kind("structured"), 0, (note,))
    check_rows(output, 1, (), model.name)
    if kind is not None:
        check_output_kind(kind, output, model.name)
        return DetectedOutputs(kind, output.shape[1])
    name, notes = find_output_kind(model.module, output, trace)
    return DetectedOutputs(get_output_kind(name), output.shape[1], notes)


def attach_ood_score(model: Model, ood_score: OodScore | None) -> Model:
    """Return a model with an out-of-distribution score; with a note instead, where its outputs have no such score."""
    if ood_score is None or ood_score.applies_to(model.output_kind):
        return replace(model, ood_score=ood_score)
    score, meaning = ood_score.score.replace("-", " "), model.output_row.meaning
    note = make_note("model.ood-not-applicable", score=score, meaning=meaning)
    return replace(model, notes=(*model.notes, note))
