"""What a step of the lessons is: pictures and facts in no language; the words are in the tables of `languages`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from dashboard.components.base import encode_palette, make_data_url, pack_floats
from dashboard.services.analysis_service import AnalysisService
from dashboard.state.selection import Selection
from vizlib import Attribution, Model, list_methods
from vizlib.render.color_scale import compute_limits

DEPTHS = 4  # stages shown side by side


class Asked(NamedTuple):
    """What a step is about."""

    study: AnalysisService
    photo: Image.Image
    selection: Selection

    @property
    def name(self) -> str:
        """The model's name."""
        return self.selection.model

    @property
    def model(self) -> Model:
        """The model itself."""
        return self.study.catalog.get(self.selection.model)

    @property
    def relevance(self) -> bool:
        """Whether there is attention among patches, whose relevance for a class can be told."""
        return "attention-relevance" in list_methods(self.model)

    def explained(self, method: str, target: int | None = None, **knobs: Any) -> Attribution:
        """One method's answer, for the selected class unless told otherwise."""
        target = self.selection.target if target is None else target
        return self.study.explain(self.photo, self.name, target, method, knobs)

    def depths(self) -> list[str]:
        """A few of the stages, shallow to deep, evenly spaced."""
        stages = self.model.stages or tuple(layer.name for layer in self.model.layers[-1:])
        places = np.linspace(0, len(stages) - 1, min(DEPTHS, len(stages))).round().astype(int)
        return [stages[i] for i in places]


@dataclass(frozen=True)
class Picture:
    """A picture as `lesson.js` draws it; its caption is a key of the tables, with facts of its own."""

    value: Mapping[str, Any]
    caption: str
    facts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Lesson:
    """What one step found out on one photo."""

    pictures: Sequence[Picture]
    texts: Sequence[str]  # keys of its paragraphs
    facts: Mapping[str, str]  # what their {names} stand for
    tab: str  # where the same is to be seen at large
    method: str = ""  # and chosen there
    code: str = ""
    other: str = ""  # a model on which there is more to see
    columns: int = 2


def seen(picture: Image.Image) -> dict[str, Any]:
    """What a model sees, as `lesson.js` draws upon it: without loss, as some differences are smaller than JPEG's."""
    return {"photo": make_data_url(picture), "width": 2 * picture.width, "height": 2 * picture.height}


def heat(
    values: np.ndarray,
    caption: str,
    facts: Mapping[str, str] | None = None,
    *,
    signed: bool = False,
    smooth: bool = True,
    bare: bool = False,
    limits: tuple[float, float] | None = None,
    frame: Sequence[float] = (),
    photo: Image.Image | None = None,
) -> Picture:
    """Raw values "h w" over what the model sees, or with `bare` on nothing; `photo` takes the place of what it saw.

    `limits` are the ends of the colours where several pictures share them; a `frame` is a box as shares of the sides.
    """
    value = {
        **({} if photo is None else seen(photo)),
        "map": pack_floats(values),
        "limits": list(limits or compute_limits(values, signed=signed)),
        "signed": signed,
        "smooth": smooth,
        "bare": bare,
        "palette": encode_palette(signed),
        "frame": list(frame),
    }
    return Picture(value, caption, facts or {})


def attributed(answer: Attribution, caption: str, facts: Mapping[str, str], **how: Any) -> Picture:
    """An attribution as `heat` draws it."""
    how = {"signed": answer.signed, "smooth": not answer.patch_values, **how}
    return heat(answer.heat.numpy(), caption, facts, **how)


def still(picture: Image.Image, caption: str, facts: Mapping[str, str]) -> Picture:
    """A picture made here, without loss."""
    return Picture({"picture": make_data_url(picture)}, caption, facts)


def alike(a: np.ndarray, b: np.ndarray) -> float:
    """How alike two maps of one size are: their correlation, -1 to 1; 0 where one is the same everywhere."""
    a, b = (np.asarray(one, dtype=float).ravel() for one in (a, b))
    spread = float(a.std() * b.std())
    return float(((a - a.mean()) * (b - b.mean())).mean() / spread) if spread else 0.0


def liveliest(maps: np.ndarray) -> list[int]:
    """The channels of "channels h w", first those that differ most from place to place."""
    return np.argsort(-maps.std((1, 2)), kind="stable").tolist()


def number(value: float) -> str:
    """A raw value with three digits that count.

    >>> number(0.00212), number(-1.5), number(0.0000164), number(0.0)
    ('0.00212', '−1.50', '0.0000164', '0')
    """
    size = abs(value)
    if size >= 1e4 or 0 < size < 1e-6:
        text = f"{value:.1e}"
    else:
        text = np.format_float_positional(float(f"{value:.3g}"), trim="-") if size < 1e-3 else f"{value:#.3g}"
    return text.rstrip(".").replace("-", "−")


def correlation(value: float) -> str:
    """A correlation with two digits after the point."""
    return f"{value + 0.0:.2f}".replace("-", "−") if abs(value) >= 0.005 else "0.00"


def by(*sizes: int) -> str:
    """Sizes as a person writes them: 14 × 14."""
    return " × ".join(f"{size:,}" for size in sizes)
