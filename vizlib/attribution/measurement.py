"""What metrics say of an attribution: one measurement, and the three parts of `vizlib.trust`.

`vizlib.metrics` makes them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from vizlib.core.text import Note, format_number, format_percent


@dataclass(frozen=True, eq=False)
class Measurement:
    """The value of one metric for one attribution, beside its values for maps that know nothing about the model.

    Attributes:
        metric: Name of the metric; `vizlib.metrics.METRICS` says what it means.
        value: The value; NaN where the metric is not defined, which a note says.
        higher_is_better: Whether a higher value is better.
        random_values: Values of random maps with the resolution of the attribution.
        references: Values of further reference maps by name: `"centred-gaussian"`, `"edges"`.
        parameters: Value of each parameter of the metric.
        curve: The points that the value summarises: a fraction of the pixels or the name of a level, and the number
            there; empty where there are none.
        notes: What is worth knowing about the computation, one sentence each.

    Example:
        >>> from vizlib.attribution.measurement import Measurement
        >>> Measurement("deletion", 0.2, False, random_values=(0.1, 0.3, 0.4, 0.5)).better_than_random
        0.75
    """

    metric: str
    value: float
    higher_is_better: bool
    random_values: tuple[float, ...] = ()
    references: Mapping[str, float] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    curve: tuple[tuple[float | str, float], ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def better_than_random(self) -> float | None:
        """Fraction of the random maps with a worse value, 0 to 1; equal ones count half; `None` without random maps."""
        if not self.random_values or not math.isfinite(self.value):
            return None
        return compute_share_beaten(self.value, self.random_values, higher_is_better=self.higher_is_better)

    def __repr__(self) -> str:
        others = [f"{name} {format_number(value)}" for name, value in self.references.items()]
        if self.random_values:
            others.insert(0, f"random {format_number(sum(self.random_values) / len(self.random_values))}")
        return f"<Measurement {self.metric} {format_number(self.value)}{': ' if others else ''}{', '.join(others)}>"

    def to_dict(self) -> dict[str, Any]:
        """Return all fields, ready for JSON; a value that is not finite is `None`."""
        return {
            "metric": self.metric,
            "value": _make_finite(self.value),
            "higher_is_better": self.higher_is_better,
            "better_than_random": self.better_than_random,
            "random_values": [_make_finite(value) for value in self.random_values],
            "references": {name: _make_finite(value) for name, value in self.references.items()},
            "parameters": dict(self.parameters),
            "curve": [[position, _make_finite(value)] for position, value in self.curve],
            "notes": list(self.notes),
        }


def compute_share_beaten(value: float, others: Sequence[float], *, higher_is_better: bool) -> float:
    """Return the fraction of other measured values that are worse than one, 0 to 1; equal ones count half.

    Args:
        value: The value.
        others: At least one other value.
        higher_is_better: Whether a higher value is better.
    """
    sign = 1 if higher_is_better else -1
    differences = [sign * (value - other) for other in others]
    return sum(1.0 if difference > 0 else 0.5 * (difference == 0) for difference in differences) / len(differences)


@dataclass(frozen=True, eq=False)
class TrustPart:
    """One of the three measurements of `Trust`.

    Attributes:
        share: How good it is, 0 to 1: what a bar shows.
        sentence: What was measured and what it means, one sentence.
        measurements: The measurements that it summarises.
    """

    share: float
    sentence: Note
    measurements: tuple[Measurement, ...]

    @property
    def text(self) -> str:
        """The share in percent; a dash where it is not defined."""
        return format_percent(self.share) if math.isfinite(self.share) else "–"

    def to_dict(self) -> dict[str, Any]:
        """Return all fields, ready for JSON."""
        return {
            "share": _make_finite(self.share),
            "sentence": str(self.sentence),
            "measurements": [measurement.to_dict() for measurement in self.measurements],
        }


TRUST_PARTS = ("faithfulness", "dependence", "stability")


@dataclass(frozen=True, eq=False)
class Trust:
    """How far an attribution can be trusted, measured by `vizlib.trust`; a part that was not measured is `None`.

    Attributes:
        faithfulness: Whether the places that the map marks change the score more than those that random maps mark.
        dependence: Whether the map changes when the parameters of the model are randomised.
        stability: Whether the map stays the same when the photo changes by less than one can see.
        notes: What was not measured, and why; one sentence each.
    """

    faithfulness: TrustPart | None = None
    dependence: TrustPart | None = None
    stability: TrustPart | None = None
    notes: tuple[str, ...] = ()

    @property
    def parts(self) -> dict[str, TrustPart]:
        """The measured parts by name."""
        parts = {name: getattr(self, name) for name in TRUST_PARTS}
        return {name: part for name, part in parts.items() if part is not None}

    @property
    def sentences(self) -> tuple[Note, ...]:
        """The sentence of each measured part."""
        return tuple(part.sentence for part in self.parts.values())

    def __repr__(self) -> str:
        shares = ", ".join(f"{name} {part.share:.2f}" for name, part in self.parts.items())
        return f"<Trust: {shares or 'nothing measured'}>"

    def to_dict(self) -> dict[str, Any]:
        """Return all fields, ready for JSON."""
        return {**{name: part.to_dict() for name, part in self.parts.items()}, "notes": list(self.notes)}


def _make_finite(value: float) -> float | None:
    """Return a measured value for JSON, which has no NaN."""
    return value if math.isfinite(value) else None
