"""What a metric is: one row of the table, and how a request for it is resolved."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jaxtyping import Float
from torch import Tensor

from vizlib.attribution.request import Parameter, ParameterValues, resolve_values
from vizlib.core.errors import VizlibError
from vizlib.metrics.scored_photo import SIGNS
from vizlib.models.model import Model

Heats = Float[Tensor, "maps rows columns"]  # that of the attribution, and reference maps in its resolution


@dataclass(frozen=True, eq=False)
class MetricValues:
    """The values of a metric after some of its passes.

    Attributes:
        values: Value of each map; NaN where it is not computed yet.
        done: How many passes are done.
        total: How many there are.
        references: Reference values that the metric itself makes, by name.
        random_values: Values of random maps that the metric itself makes.
        curve: Points that the value of the first map summarises.
        notes: What is worth knowing about the computation.
    """

    values: Float[Tensor, " maps"]
    done: int = 1
    total: int = 1
    references: Mapping[str, float] = field(default_factory=dict)
    random_values: Sequence[float] = ()
    curve: Sequence[tuple[float | str, float]] = ()
    notes: tuple[str, ...] = ()


# From a photo, the maps (that of the attribution first) and parameters to values, batch by batch.
ComputeValues = Callable[..., Iterator[MetricValues]]


@dataclass(frozen=True)
class Metric:
    """One metric of attributions: all that menus, command line, documentation and tests state about it.

    Attributes:
        name: Its name.
        paper: Authors, title, venue and year.
        paper_url: Address of the paper: arXiv's, or its DOI.
        equation: The value as a formula in LaTeX.
        means: One sentence: what a good value means.
        does_not_mean: One sentence: what a good value does not mean.
        range: Lowest and highest possible value; `None` where there is no bound.
        higher_is_better: Whether a higher value is better.
        compute: `(photo, heats, **parameters)` -> values after each batch of passes.
        parameters: Its parameters by name.
        measures_method: Whether it runs the method of the attribution on changed models or photos, and so measures the
            method and not any given map; such a metric makes its reference values itself.
        needs_region: Whether it compares the map with boxes or a mask of the object.
        needs_score: Whether it reads the score of what is explained.
        find_score: From the attribution's parameters, what of an output is scored; by default the probability.
    """

    name: str
    paper: str
    paper_url: str
    equation: str
    means: str
    does_not_mean: str
    range: tuple[float | None, float | None]
    higher_is_better: bool
    compute: ComputeValues
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    measures_method: bool = False
    needs_region: bool = False
    needs_score: bool = True
    find_score: Callable[[Mapping[str, Any]], str | None] = lambda parameters: None

    def resolve_parameters(self, model: Model, values: ParameterValues) -> dict[str, Any]:
        """Return the value of every parameter, defaults filled in.

        Args:
            model: The model.
            values: Given values by name.

        Raises:
            VizlibError: For a parameter that the metric does not have, or a value that it does not accept.
        """
        return resolve_values(self.name, self.parameters, model, values, VizlibError)


def make_sign_parameter(default: str) -> Parameter:
    """Return the parameter that says which values of a signed map a metric reads.

    Args:
        default: `"positive"`, `"signed"` or `"absolute"`.
    """
    return Parameter(default, "what is read of a signed map: its positive part, all of it, or absolute values", SIGNS)


MASK_SIGN = Parameter("positive", "what is read of a signed map: its positive part, or absolute values", SIGNS[::2])
