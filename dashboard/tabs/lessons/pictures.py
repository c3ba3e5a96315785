"""The result of a lesson: its pictures, facts and keys of texts; `dashboard.i18n` has the texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from dashboard.components.data_encoding import encode_bytes, encode_data_url, encode_floats, encode_palette
from vizlib import Attribution
from vizlib.render.color_scale import compute_limits


@dataclass(frozen=True)
class Picture:
    """A picture of a step.

    Attributes:
        value: What `lesson.js` draws.
        caption_key: Key of the caption, without the prefix `learn.`.
        facts: Text of each name in braces of the caption.
        frame_facts: The same for each frame, where the picture has one map for each position of the lesson's slider.
    """

    value: Mapping[str, Any]
    caption_key: str
    facts: Mapping[str, str] = field(default_factory=dict)
    frame_facts: Sequence[Mapping[str, str]] = ()


@dataclass(frozen=True)
class Lesson:
    """The result of one step on one photo.

    Attributes:
        pictures: The pictures, in reading order.
        text_keys: Keys of the paragraphs, without the prefix `learn.`.
        facts: Text of each name in braces of the paragraphs.
        tab: Id of the tab with the full view of the same subject.
        method: Method that the button to that tab selects; empty for none.
        code: Plain PyTorch code of the same computation; empty for none.
        other_model: Name of a model that shows more of the subject; empty for none.
        columns: Number of pictures in a row.
        frames: Name of each position of the slider that changes the maps; none without a slider.
        weight_keys: Key of the name of each weight that has a slider, without the prefix `learn.`.
        matrices: Matrices by name, whose rows are weighted and summed.
    """

    pictures: Sequence[Picture]
    text_keys: Sequence[str]
    facts: Mapping[str, str]
    tab: str
    method: str = ""
    code: str = ""
    other_model: str = ""
    columns: int = 2
    frames: Sequence[str] = ()
    weight_keys: Sequence[str] = ()
    matrices: Mapping[str, Sequence[Sequence[float]]] = field(default_factory=dict)


def encode_lesson_input(image: Image.Image) -> dict[str, Any]:
    """Encode a model input as the background of a lesson's pictures: losslessly, as some differences are small."""
    return {"photo": encode_data_url(image), "width": 2 * image.width, "height": 2 * image.height}


def build_map_picture(
    values: np.ndarray,
    caption_key: str,
    facts: Mapping[str, str] | None = None,
    *,
    signed: bool = False,
    smooth: bool = True,
    bare: bool = False,
    limits: tuple[float, float] | None = None,
    frame: Sequence[float] = (),
    photo: Image.Image | None = None,
) -> Picture:
    """Return a picture of a lesson: raw values over the model input.

    Args:
        values: Raw values "h w".
        caption_key: Key of the caption.
        facts: Facts of the caption.
        signed: Whether to use a diverging colour map.
        smooth: Whether to interpolate between the values.
        bare: Draw the map without the model input below it.
        limits: Values at the ends of the colour map, where several pictures share them; by default from `values`.
        frame: Box to outline: top, left, bottom, right as fractions of the sides.
        photo: Image to draw instead of the model input.
    """
    value = {
        **({} if photo is None else encode_lesson_input(photo)),
        "map": encode_floats(values),
        "limits": list(limits or compute_limits(values, signed=signed)),
        "signed": signed,
        "smooth": smooth,
        "bare": bare,
        "palette": encode_palette(signed),
        "frame": list(frame),
    }
    return Picture(value, caption_key, facts or {})


def build_frames_picture(
    maps: np.ndarray, caption_key: str, frame_facts: Sequence[Mapping[str, str]], *, signed: bool, smooth: bool
) -> Picture:
    """Return a picture of a lesson with one map over the model input for each position of a slider.

    Args:
        maps: Raw values "frames h w"; each frame has a colour scale of its own.
        caption_key: Key of the caption.
        frame_facts: Facts of the caption in each frame.
        signed: Whether to use a diverging colour map.
        smooth: Whether to interpolate between the values.
    """
    value = {
        "map": encode_bytes(maps),
        "limits": list(compute_limits(maps[0], signed=signed)),
        "frameLimits": [list(compute_limits(values, signed=signed)) for values in maps],
        "signed": signed,
        "smooth": smooth,
        "bare": False,
        "palette": encode_palette(signed),
        "frame": [],
    }
    return Picture(value, caption_key, frame_facts[0], frame_facts)


def build_weighted_picture(rows: np.ndarray, caption_key: str, facts: Mapping[str, str]) -> Picture:
    """Return a picture of a lesson: the sum of signed maps over the model input, weighted by the lesson's weights.

    Args:
        rows: Raw values "weights h w".
        caption_key: Key of the caption.
        facts: Facts of the caption.
    """
    high = max(compute_limits(values, signed=True)[1] for values in rows)
    value = {
        "map": encode_floats(rows),
        "limits": [-2 * high, 2 * high],  # the weights go from -2 to 2
        "signed": True,
        "smooth": True,
        "bare": False,
        "palette": encode_palette(True),
        "frame": [],
        "isWeighted": True,
    }
    return Picture(value, caption_key, facts)


def build_attribution_picture(
    attribution: Attribution, caption_key: str, facts: Mapping[str, str], **options: Any
) -> Picture:
    """Return a picture of a lesson: the map of an attribution; `options` are those of `build_map_picture`."""
    options = {"signed": attribution.signed, "smooth": not attribution.patch_values, **options}
    return build_map_picture(attribution.heat.numpy(), caption_key, facts, **options)


def build_image_picture(image: Image.Image, caption_key: str, facts: Mapping[str, str]) -> Picture:
    """Return a picture of a lesson: an image, encoded without loss."""
    return Picture({"picture": encode_data_url(image)}, caption_key, facts)
