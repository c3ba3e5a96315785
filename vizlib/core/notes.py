"""Notes: sentences about a result, kept together with the code and the facts that they are made from."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

TEXTS: Mapping[str, str] = MappingProxyType(
    {  # code -> English text; names in braces stand for facts
        "model.assumed-preprocessing": (
            "{file} does not state how photos are prepared; the default preprocessing of {architecture} is assumed "
            "({height} × {width} pixels, mean {mean}...). Put preprocessing into {sidecar} if the model was trained "
            "with another one."
        ),
        "model.not-finite": "The model's output holds values that are not finite, so no map of it can be trusted.",
        "model.out-of-distribution": (
            "This photo is unlike the photos that the model was calibrated on: its {score} is {value}, and "
            "{coverage} % of {data} reach {threshold}. It may show none of the {classes} classes."
        ),
        "model.training-mode": (
            "The model was in training mode; it was run in evaluation mode and left in training mode."
        ),
    }
)


class Note(str):
    """One English sentence, with what another language needs to say the same.

    A note is its own text, so it is printed, compared and written to JSON as any string.

    Attributes:
        code: Key of the sentence in `TEXTS`, for example `"map.empty"`.
        facts: Text of each name in braces of that sentence.

    >>> note = make_note("model.training-mode")
    >>> note.code, dict(note.facts)
    ('model.training-mode', {})
    """

    code: str
    facts: Mapping[str, str]


def make_note(code: str, **facts: object) -> Note:
    """Return the note of a code, its text filled with facts.

    Args:
        code: Key in `TEXTS`.
        **facts: Value of each name in braces of the text; turned into text with `str`.

    Raises:
        KeyError: For an unknown code or a missing fact.
    """
    texts = {name: str(fact) for name, fact in facts.items()}
    note = Note(TEXTS[code].format_map(texts))
    note.code, note.facts = code, texts  # a plain dictionary, as notes travel to other processes
    return note
