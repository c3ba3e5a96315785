"""Notes: sentences about a result, kept together with the code and the facts that they are made from."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

TEXTS: Mapping[str, str] = MappingProxyType(
    {  # code -> English text; names in braces stand for facts
        "gradient.bfloat16": (
            "Computed in bfloat16; the correlation of one gradient with single precision is {correlation}."
        ),
        "image.alpha": "Its transparent parts were composited on white.",
        "image.animation": "Only frame {frame} of this animation is used.",
        "image.cmyk": (
            "Its printing colours (CMYK) were converted without a colour profile, so they may be slightly off."
        ),
        "image.damaged": "{file} is damaged or incomplete: it starts as an image but cannot be decoded",
        "image.empty": "{file} is empty, expected a photo as {formats}",
        "image.heic": "{file} is a HEIC photo, which cannot be read here, expected a photo as {formats}",
        "image.incomplete": "{file} is damaged or incomplete: it {started}cannot be decoded to its end",
        "image.not-finite": "{file} holds NaN or infinite values, expected finite numbers",
        "image.not-image": "{file} is not an image, expected a photo as {formats}",
        "image.pdf": "{file} is a PDF, not an image, expected a photo as {formats}",
        "image.scaled": "Its {kind} values from {low} (now black) to {high} (now white) were scaled to 8 bits.",
        "image.svg": "{file} is an SVG drawing, not a photo, expected a photo as {formats}",
        "image.text": "{file} is text, not an image, expected a photo as {formats}",
        "image.too-large": ("{file} is {size} pixels, {megapixels} megapixels, expected at most {limit} megapixels"),
        "image.too-long": "{file} is {size} pixels, expected a photo at most {limit} times as long as it is wide",
        "image.too-many-pixels": "{file} has more than {limit} megapixels, the most allowed",
        "image.too-small": "{file} is {size} pixels, expected at least {limit} on each side",
        "image.unit-floats": "Its float values were taken as 0 (black) to 1 (white).",
        "image.video": (
            "{file} is a video or a photo of a kind that cannot be read here, expected a photo as {formats}"
        ),
        "image.web-page": "{file} is a web page, not an image, expected a photo as {formats}",
        "integrated-gradients.sum": "The map sums to {sum}; the score difference to the baseline is {difference}.",
        "integrated-gradients.sum-with-gap": (
            "The map sums to {sum}; the score difference to the baseline is {difference}: a gap of {gap}."
        ),
        "map.constant-channels": (
            "Every channel of this layer has the same value at all positions; choose an earlier layer."
        ),
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
