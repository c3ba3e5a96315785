"""What a method is: its row in the table, what it needs to see, and what it is handed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from numbers import Real
from typing import Any

from jaxtyping import Float
from torch import Tensor

from vizlib.attribution.methods.spatial_features import SpatialFeatures, extract_spatial_features
from vizlib.core.errors import MethodError, suggest_names
from vizlib.models.families import TokenLayout
from vizlib.models.model import Model
from vizlib.models.run import Run

Settings = Mapping[str, object]
Score = Callable[[Float[Tensor, "n classes"]], Float[Tensor, " n"]]  # logits -> the number that is explained

ONE_PASS = "one pass"  # one forward and one backward pass, shared with every other method of this cost
TWO_PASSES = "a few passes"  # backward passes of its own, on the same forward pass
MANY_PASSES = "many passes"  # the network runs again and again: seconds to minutes, with progress


@dataclass(frozen=True)
class Knob:
    """One thing about a method that a person can change: one of a few values, or a number in a range."""

    default: object
    help: str
    choices: Callable[[Model], tuple] | tuple = ()  # what a menu offers
    open: bool = False  # whether other values than the choices are allowed
    range: tuple[int, int] | tuple[float, float] | None = None  # lowest and highest; whole numbers if both are

    def offered(self, model: Model) -> tuple:
        """The values a menu shows for this model."""
        return self.choices(model) if callable(self.choices) else self.choices

    @property
    def whole(self) -> bool:
        """Whether only whole numbers are taken."""
        return self.range is not None and all(isinstance(end, int) for end in self.range)

    def plain(self, value: Any) -> Any:
        """A value it takes, a number as Python's own."""
        if self.range is None or value is self.default:
            return value
        return int(value) if self.whole else float(value)

    def refusal(self, value: Any, model: Model) -> str | None:
        """What this knob takes instead, where it does not take a value."""
        offered = self.offered(model)
        if value is self.default:
            return None
        if self.range is not None:
            low, high = self.range
            if not _is_number(value) or not low <= value <= high or (self.whole and value % 1):
                return f"a {'whole ' * self.whole}number from {low} to {high}"
        elif offered and not self.open and value not in offered:
            return ", ".join(map(repr, offered))
        return None


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)  # numpy's are numbers too


@dataclass(frozen=True)
class Needs:
    """What a method reads; the union over several methods is what one forward pass must provide."""

    image_gradient: bool = False
    guided_gradient: bool = False  # at the pixels, by guided backpropagation: a backward pass of its own
    layers: tuple[str, ...] = ()  # activations
    layer_gradients: bool = True  # and the gradients there
    attention: bool = False
    attention_gradients: bool = False
    local_gradients: bool = False  # at each block's attention, of the score the classifier gives that block's tokens

    @property
    def gradients(self) -> bool:
        """Whether it reads any gradient of the pass."""
        layers = bool(self.layers) and self.layer_gradients
        return self.image_gradient or self.guided_gradient or layers or self.attention_gradients or self.local_gradients


@dataclass(frozen=True, eq=False)
class Evidence:
    """One run and the gradients of one target's score, for as many methods as want to read it."""

    model: Model
    run: Run
    score: Score
    image_gradient: Float[Tensor, "1 3 h w"] | None = None
    guided_gradient: Float[Tensor, "1 3 h w"] | None = None
    layer_gradients: Mapping[str, Tensor] = field(default_factory=dict)
    attention_gradients: Mapping[str, Float[Tensor, "windows heads query key"]] = field(default_factory=dict)
    local_gradients: Mapping[str, Float[Tensor, "windows heads query key"]] = field(default_factory=dict)
    _places: dict[str, SpatialFeatures] = field(default_factory=dict, repr=False)

    @cached_property
    def logits(self) -> Float[Tensor, " classes"]:
        """The photo's, on the processor: what is said of them in words is not worth a GPU's time."""
        return self.run.logits[0].detach().cpu()

    @cached_property
    def chances(self) -> list[float]:
        """The softmax probabilities, one a class, in single precision: in half of it many classes tie."""
        return self.logits.float().softmax(-1).tolist()

    @cached_property
    def top(self) -> int | None:
        """The model's answer; `None` where its logits are not all finite."""
        return int(self.logits.argmax()) if self.logits.isfinite().all() else None

    def rank(self, index: int) -> int:
        """Which place a class has among the answers; by the logits, as far classes share the probability 0."""
        return int((self.logits > self.logits[index]).sum()) + 1

    @property
    def tokens(self) -> TokenLayout:
        """What the tokens are; only methods that fit no model without any ask."""
        assert self.model.tokens is not None
        return self.model.tokens

    @property
    def at_pixels(self) -> Float[Tensor, "1 3 h w"]:
        """The gradient at the pixels; only methods that said they need it ask."""
        assert self.image_gradient is not None
        return self.image_gradient

    @property
    def guided_at_pixels(self) -> Float[Tensor, "1 3 h w"]:
        """The gradient at the pixels by guided backpropagation; only methods that said they need it ask."""
        assert self.guided_gradient is not None
        return self.guided_gradient

    def places(self, layer: str) -> SpatialFeatures:
        """What each channel of a layer says in each place, worked out once for all methods that ask.

        Raises: MethodError for a layer without places.
        """
        if layer not in self._places:
            activation = self.run.activations[layer].detach()
            self._places[layer] = extract_spatial_features(
                layer, activation, self.layer_gradients.get(layer), self.model
            )
        return self._places[layer]


@dataclass(frozen=True, eq=False)
class Partial:
    """The map of a method of many passes after some of them."""

    heat: Float[Tensor, "h w"]
    done: int
    total: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Method:
    """One row of the table: everything menus, command line, documentation and tests say of a method."""

    name: str
    paper: str
    means: str  # one plain sentence: what the picture shows
    means_not: str  # and what it does not
    needs: Callable[[Model, Settings], Needs]
    fits: Callable[[Model], str | None]  # why it does not fit a model; None where it does
    heat: Callable[..., Float[Tensor, "h w"]] | None = None  # (evidence, **knobs) -> raw values
    stream: Callable[..., Iterator[Partial]] | None = None  # the same for many passes: maps that get better and better
    knobs: Mapping[str, Knob] = field(default_factory=dict)
    signed: bool = False
    of_class: bool = True  # whether the picture depends on the target
    patches: bool = False  # whether each value belongs to one patch
    cost: str = ONE_PASS
    everywhere: bool = False  # whether it looks at one layer, so that one pass can show it at all of them

    def settings(self, model: Model, knobs: Settings) -> dict[str, object]:
        """The knobs with the defaults filled in.

        Raises: MethodError for a knob this method does not have, or a value it does not take.
        """
        for name, value in knobs.items():
            if name not in self.knobs:
                hint = suggest_names(name, self.knobs) if self.knobs else "it has none"
                raise MethodError(f"{self.name} has no knob {name!r}; {hint}")
            takes = self.knobs[name].refusal(value, model)
            if takes is not None:
                raise MethodError(f"{self.name} takes {takes} for {name}, not {value!r}")
        return {name: knob.plain(knobs.get(name, knob.default)) for name, knob in self.knobs.items()}


SCORE = Knob(
    "logit",
    "what is explained: the class's logit, or its softmax probability, whose gradient fades as the model grows sure",
    ("logit", "probability"),
)


def fits_all(model: Model) -> None:
    """Any network at all."""
    return
