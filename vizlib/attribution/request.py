"""What a caller requests: a method with values for its parameters, a target class and a contrast class.

A request is resolved once, in two steps: `resolve_method` checks method and parameters before the forward pass, and
`MethodCall.for_target` completes them when the logits, and so the classes, are known. Everything that comes later reads
the frozen `Request`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from numbers import Real
from typing import Any

from jaxtyping import Float
from torch import Tensor

from vizlib.attribution.evidence import Evidence, RequiredSignals
from vizlib.attribution.target import TargetSpec
from vizlib.core.errors import MethodError, TargetError, VizlibError, suggest_names
from vizlib.models.model import Model

ParameterValues = Mapping[str, Any]

ONE_PASS = "one pass"  # one forward and one backward pass, shared with every other method of this cost
TWO_PASSES = "a few passes"  # backward passes of its own, from the same forward pass
MANY_PASSES = "many passes"  # many forward passes: seconds to minutes, with progress


def broadcast_targets(selectors: Any, count: int, argument: str) -> list[Any]:
    """Return the requested class of each photo, from a list of selectors or one for all.

    Raises:
        TargetError: For a list of another length; `argument` names it.
    """
    if not isinstance(selectors, (list, tuple)):
        return [selectors] * count
    if len(selectors) != count:
        raise TargetError(
            f"{argument} holds {len(selectors)} classes for {count} photos; give one for each, or one for all"
        )
    return list(selectors)


# --------------------------------------------------------------------------------------------- methods and parameters


@dataclass(frozen=True)
class Parameter:
    """One parameter of a method that is requested: one of a few values, or a number in a range.

    Attributes:
        default: Its value where none is given.
        help: What it does, as half a sentence for menus and the command line.
        choices: Values that a menu lists, or a function of the model that returns them.
        allows_others: Whether other values than the choices are accepted.
        range: Lowest and highest number; only integers are accepted if both are integers.
        find_default: From a model, its default, where it depends on the model.
        resolve_default: For a default that depends on the classes: from whether two are compared, the value that
            stands for it.
    """

    default: Any
    help: str
    choices: Callable[[Model], tuple] | tuple = ()
    allows_others: bool = False
    range: tuple[int, int] | tuple[float, float] | None = None
    find_default: Callable[[Model], Any] | None = None
    resolve_default: Callable[[bool], Any] | None = None

    def default_for(self, model: Model) -> Any:
        """Return the value that the parameter has for a model where none is given."""
        return self.default if self.find_default is None else self.find_default(model)

    def list_choices(self, model: Model) -> tuple:
        """Return the values that a menu lists for a model."""
        return self.choices(model) if callable(self.choices) else self.choices

    @property
    def is_integer(self) -> bool:
        """Whether only integers are accepted."""
        return self.range is not None and all(isinstance(end, int) for end in self.range)

    def convert(self, value: Any) -> Any:
        """Return an accepted value, numbers as Python's own types."""
        if self.range is None or value is self.default:
            return value
        return int(value) if self.is_integer else float(value)

    def expected_instead(self, value: Any, model: Model) -> str | None:
        """Return what is accepted, for an error message, where a value is not; `None` where it is."""
        choices = self.list_choices(model)
        if value is self.default_for(model):
            return None
        if self.range is not None:
            low, high = self.range
            if not _is_number(value) or not low <= value <= high or (self.is_integer and value % 1):
                return f"a {'whole ' * self.is_integer}number from {low} to {high}"
        elif choices and not self.allows_others and value not in choices:
            return ", ".join(map(repr, choices))
        return None

    def resolve(self, value: Any, *, is_contrast: bool) -> Any:
        """Return the value to compute with, once it is known whether two classes are compared."""
        return self.resolve_default(is_contrast) if value is self.default and self.resolve_default else value

    def is_default(self, value: Any, *, is_contrast: bool) -> bool:
        """Whether a value, resolved or not, is what a request without the parameter gives."""
        return value == self.default or value == self.resolve(self.default, is_contrast=is_contrast)


def resolve_values(
    owner: str,
    parameters: Mapping[str, Parameter],
    model: Model,
    values: ParameterValues,
    error: type[VizlibError],
) -> dict[str, Any]:
    """Return the value of every parameter that is requested of a method or metric, defaults filled in.

    Args:
        owner: Name of the method or metric.
        parameters: Its parameters by name.
        model: The model.
        values: Given values by name.
        error: What is raised.

    Raises:
        VizlibError: As `error`, for a parameter that does not exist, or a value that is not accepted.
    """
    for name, value in values.items():
        if name not in parameters:
            hint = suggest_names(name, parameters) if parameters else "it has none"
            raise error(f"{owner} has no parameter {name!r}; {hint}")
        expected = parameters[name].expected_instead(value, model)
        if expected is not None:
            raise error(f"{owner} takes {expected} for {name}, not {value!r}")
    return {
        name: parameter.convert(values.get(name, parameter.default_for(model)))
        for name, parameter in parameters.items()
    }


def _is_number(value: Any) -> bool:
    """Return whether a requested parameter value is a number; NumPy's numbers are, booleans are not."""
    return isinstance(value, Real) and not isinstance(value, bool)  # NumPy's numbers too


@dataclass(frozen=True, eq=False)
class PartialHeat:
    """The heat map of a request after some of the many passes of its method.

    Attributes:
        heat: Raw values "h w".
        done: How many passes it is made from.
        total: How many there are in all.
        notes: What is worth knowing about the computation.
    """

    heat: Float[Tensor, "h w"]
    done: int
    total: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Method:
    """A method that can be requested: all that menus, command line, documentation and tests state about it.

    Attributes:
        name: Its name.
        paper: Authors, title, venue and year.
        paper_url: Address of the paper: arXiv's, or its DOI.
        equation: The map as a formula in LaTeX, in the symbols of the documentation's page of methods.
        shows: One sentence: what its map shows.
        does_not_show: One sentence: what the map does not show.
        signals: From a model and parameter values, what the method reads of a run.
        unsupported_reason: Why it does not support a model; `None` where it does.
        compute: `(evidence, **parameters)` -> raw heat "h w"; of methods of one or two passes.
        compute_steps: The same for many passes: yields heat maps that converge.
        parameters: Its parameters by name.
        is_signed: From parameter values, whether negative heat means evidence against the class.
        class_specific: Whether the map depends on the target class.
        patch_values: Whether each value belongs to one patch of a transformer.
        cost: `ONE_PASS`, `TWO_PASSES` or `MANY_PASSES`.
        list_layers: For a method that reads one layer: all layers at which one run can show it; else `None`.
        count_passes: From parameter values, about how many passes a method of many makes; `None` where it depends on
            the photo.
    """

    name: str
    paper: str
    paper_url: str
    equation: str
    shows: str
    does_not_show: str
    signals: Callable[[Model, ParameterValues], RequiredSignals]
    unsupported_reason: Callable[[Model], str | None]
    compute: Callable[..., Float[Tensor, "h w"]] | None = None
    compute_steps: Callable[..., Iterator[PartialHeat]] | None = None
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    is_signed: Callable[[ParameterValues], bool] = lambda values: False
    class_specific: bool = True
    patch_values: bool = False
    cost: str = ONE_PASS
    list_layers: Callable[[Evidence], tuple[str, ...]] | None = None
    count_passes: Callable[[ParameterValues], int] | None = None

    def resolve_parameters(self, model: Model, values: ParameterValues) -> dict[str, Any]:
        """Return the value of every parameter, defaults filled in.

        Raises:
            MethodError: For a parameter that the method does not have, or a value that it does not accept.
        """
        return resolve_values(self.name, self.parameters, model, values, MethodError)


class MethodTable(dict[str, Method]):
    """The methods that can be requested, by name."""

    def list_supported(self, model: Model | None = None) -> list[str]:
        """Return the names of all methods, or of those that support a model."""
        return [name for name, row in self.items() if model is None or row.unsupported_reason(model) is None]

    def resolve_method(self, model: Model, name: str, values: ParameterValues) -> MethodCall:
        """Return the requested method by its name, with values for its parameters.

        Raises:
            MethodError: For an unknown method or parameter, a value that is not accepted, or a method that does not
                support the model, with the reason.
        """
        if name not in self:
            raise MethodError(f"there is no method {name!r}; {suggest_names(str(name), self)}")
        method = self[name]
        reason = method.unsupported_reason(model)
        if reason is not None:
            supported = ", ".join(self.list_supported(model))
            raise MethodError(f"{name} does not support {model.name}: {reason}; these do: {supported}")
        return MethodCall.make(method, model, method.resolve_parameters(model, values))

    def list_single_pass_calls(self, model: Model) -> list[MethodCall]:
        """Return a call, with default parameters, of every method that one forward and one backward pass can feed."""
        rows = [self[name] for name in self.list_supported(model)]
        return [
            MethodCall.make(row, model, row.resolve_parameters(model, {}), at_all_layers=row.list_layers is not None)
            for row in rows
            if row.cost == ONE_PASS
        ]


# -------------------------------------------------------------------------------------------------------- the request


@dataclass(frozen=True, eq=False)
class MethodCall:
    """The part of a request that is known before the classes are: a method with a value for each parameter.

    Attributes:
        method: The method.
        values: Its parameters by name.
        layers: The layers that its map is made from.
        signals: All that it reads of a run.
        at_all_layers: Whether it is also shown at every other layer that it can be shown at.
    """

    method: Method
    values: ParameterValues
    layers: tuple[str, ...]
    signals: RequiredSignals
    at_all_layers: bool = False

    @classmethod
    def make(cls, method: Method, model: Model, values: ParameterValues, *, at_all_layers: bool = False) -> MethodCall:
        """Return the call of a method whose parameters are resolved."""
        signals = method.signals(model, values)
        stages = RequiredSignals(layers=model.stages if at_all_layers and signals.layers else ())
        return cls(method, values, signals.layers, signals | stages, at_all_layers)

    @property
    def score_kind(self) -> str:
        """Whether `"logit"` or `"probability"` is explained."""
        return str(self.values.get("score", "logit"))

    def for_target(self, target: TargetSpec) -> Request:
        """Return the request for these classes, with the parameters that depend on them."""
        parameters = self.method.parameters
        values = {
            name: parameters[name].resolve(value, is_contrast=target.against is not None)
            for name, value in self.values.items()
        }
        return Request(replace(self, values=values), target)


@dataclass(frozen=True, eq=False)
class Request:
    """All that one attribution is made from besides the photo and the model: method, parameters and classes."""

    call: MethodCall
    target: TargetSpec

    @property
    def is_signed(self) -> bool:
        """Whether negative heat means evidence against the class."""
        return self.call.method.is_signed(self.call.values)

    @property
    def map_key(self) -> tuple:
        """What two requests for one photo and class have in common if they give the same map.

        A layer may be named, or be the default.
        """
        return self.call.method.name, self.call.layers or self.call.values.get("layer")

    def list_other_layers(self, evidence: Evidence) -> list[Request]:
        """Return the request at each layer that the method can be shown at, if it is to be shown at all of them."""
        method, model = self.call.method, evidence.model
        if not self.call.at_all_layers or method.list_layers is None:
            return []
        values = [{**self.call.values, "layer": layer} for layer in method.list_layers(evidence)]
        return [Request(MethodCall.make(method, model, value), self.target) for value in values]


def combine_signals(calls: Sequence[MethodCall]) -> RequiredSignals:
    """Return what all the requested calls read together."""
    combined = RequiredSignals()
    for call in calls:
        combined |= call.signals
    return combined


# ------------------------------------------------------------------------------------------- shared by several methods

SCORE_PARAMETER = Parameter(
    "logit",
    "what is explained: the logit of the class, or its probability, whose gradient vanishes as it approaches 1; "
    "without logits, what the network returns",
    lambda m: m.output_row.scores,
    find_default=lambda m: m.output_row.scores[0],
)


def supports_every_model(model: Model) -> None:
    """Return no reason to refuse a request: the method supports any network."""
