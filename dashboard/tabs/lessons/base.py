"""The result of a lesson step: pictures, facts and keys of texts; `dashboard.i18n` has the texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from dashboard.components.data_encoding import encode_data_url, encode_floats, encode_palette
from dashboard.services.analysis_service import AnalysisService
from dashboard.services.explanation_request import ExplanationRequest
from dashboard.state.selection import Selection
from vizlib import Attribution, Model, ModelError, Prediction, list_methods
from vizlib.render.color_scale import compute_limits

MAX_STAGES = 4  # displayed side by side


class LessonContext(NamedTuple):
    """The model, photo and classes that a step explains."""

    service: AnalysisService
    photo: Image.Image
    selection: Selection

    @property
    def model_name(self) -> str:
        """Name of the model."""
        return self.selection.model

    @property
    def model(self) -> Model:
        """The model."""
        return self.service.catalog.get(self.selection.model)

    @property
    def has_attention_relevance(self) -> bool:
        """Whether attention relevance can be computed for the model."""
        return "attention-relevance" in list_methods(self.model)

    def explain(self, method: str, target: int | None = None, **parameters: Any) -> Attribution:
        """Return the attribution of one method, by default for the selected class."""
        target = self.selection.target if target is None else target
        return self.service.explain(ExplanationRequest(self.photo, self.model_name, target, None, method, parameters))

    def sample_stages(self) -> list[str]:
        """Return the names of at most `MAX_STAGES` stages, evenly spaced from shallow to deep."""
        stages = self.model.stages or tuple(layer.name for layer in self.model.layers[-1:])
        indices = np.linspace(0, len(stages) - 1, min(MAX_STAGES, len(stages))).round().astype(int)
        return [stages[i] for i in indices]


@dataclass(frozen=True)
class Picture:
    """A picture of a step.

    Attributes:
        value: What `lesson.js` draws.
        caption_key: Key of the caption, without the prefix `learn.`.
        facts: Text of each name in braces of the caption.
    """

    value: Mapping[str, Any]
    caption_key: str
    facts: Mapping[str, str] = field(default_factory=dict)


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
    """

    pictures: Sequence[Picture]
    text_keys: Sequence[str]
    facts: Mapping[str, str]
    tab: str
    method: str = ""
    code: str = ""
    other_model: str = ""
    columns: int = 2


def encode_model_input(image: Image.Image) -> dict[str, Any]:
    """Return a model input as the background of maps: lossless PNG, as some differences are smaller than JPEG's."""
    return {"photo": encode_data_url(image), "width": 2 * image.width, "height": 2 * image.height}


def build_map(
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
    """Return a picture of raw values over the model input.

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
        **({} if photo is None else encode_model_input(photo)),
        "map": encode_floats(values),
        "limits": list(limits or compute_limits(values, signed=signed)),
        "signed": signed,
        "smooth": smooth,
        "bare": bare,
        "palette": encode_palette(signed),
        "frame": list(frame),
    }
    return Picture(value, caption_key, facts or {})


def build_attribution_map(
    attribution: Attribution, caption_key: str, facts: Mapping[str, str], **options: Any
) -> Picture:
    """Return a picture of an attribution; `options` are those of `build_map`."""
    options = {"signed": attribution.signed, "smooth": not attribution.patch_values, **options}
    return build_map(attribution.heat.numpy(), caption_key, facts, **options)


def build_image(image: Image.Image, caption_key: str, facts: Mapping[str, str]) -> Picture:
    """Return a picture of an image, encoded without loss."""
    return Picture({"picture": encode_data_url(image)}, caption_key, facts)


def correlate_maps(a: np.ndarray, b: np.ndarray) -> float:
    """Return the Pearson correlation of two maps of the same size, -1 to 1; 0 where one map is constant."""
    a, b = (np.asarray(values, dtype=float).ravel() for values in (a, b))
    spread = float(a.std() * b.std())
    return float(((a - a.mean()) * (b - b.mean())).mean() / spread) if spread else 0.0


def rank_channels_by_variation(maps: np.ndarray) -> list[int]:
    """Return the indices of the channels of "channels h w" by decreasing standard deviation over the positions."""
    return np.argsort(-maps.std((1, 2)), kind="stable").tolist()


def get_probability(prediction: Prediction) -> float:
    """Return the probability of a prediction.

    Raises:
        ModelError: If the model predicts values instead of classes; the lessons about classes are not shown for it.
    """
    if prediction.probability is None:
        raise ModelError(f"this step needs the probability of a class, and {prediction.label} is a value")
    return prediction.probability


def format_number(value: float) -> str:
    """Return a raw value with three significant digits.

    >>> format_number(0.00212), format_number(-1.5), format_number(0.0000164), format_number(0.0)
    ('0.00212', '−1.50', '0.0000164', '0')
    """
    size = abs(value)
    if size >= 1e4 or 0 < size < 1e-6:
        text = f"{value:.1e}"
    else:
        text = np.format_float_positional(float(f"{value:.3g}"), trim="-") if size < 1e-3 else f"{value:#.3g}"
    return text.rstrip(".").replace("-", "−")


def format_correlation(value: float) -> str:
    """Return a correlation with two decimals."""
    return f"{value + 0.0:.2f}".replace("-", "−") if abs(value) >= 0.005 else "0.00"


def format_size(*sizes: int) -> str:
    """Return sizes separated by multiplication signs: 14 × 14."""
    return " × ".join(f"{size:,}" for size in sizes)
