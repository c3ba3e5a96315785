"""What a method is: its row in the table, what it needs to see, and what it is handed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor

from vizlib.errors import MethodError, did_you_mean
from vizlib.families import Tokens
from vizlib.model import Model
from vizlib.results import Run

Settings = Mapping[str, object]


@dataclass(frozen=True)
class Knob:
    """One thing about a method that a person can change."""

    default: object
    help: str
    choices: Callable[[Model], tuple] | tuple = ()  # what a menu offers
    open: bool = False  # whether other values than the choices are allowed

    def offered(self, model: Model) -> tuple:
        """The values a menu shows for this model."""
        return self.choices(model) if callable(self.choices) else self.choices


@dataclass(frozen=True)
class Needs:
    """What a method reads; the union over several methods is what one pass must provide."""

    image_gradient: bool = False
    layers: tuple[str, ...] = ()  # activations and their gradients
    attention: bool = False
    attention_gradients: bool = False
    rule: str | None = None  # another backward rule, so a backward pass of its own


@dataclass(frozen=True, eq=False)
class Evidence:
    """One run and the gradients of one target's score, for as many methods as want to read it."""

    model: Model
    run: Run
    image_gradient: Float[Tensor, "1 3 h w"] | None = None
    layer_gradients: Mapping[str, Tensor] = field(default_factory=dict)
    attention_gradients: Mapping[str, Float[Tensor, "windows heads query key"]] = field(default_factory=dict)

    @property
    def tokens(self) -> Tokens:
        """What the tokens are; only methods that fit no model without any ask."""
        assert self.model.tokens is not None
        return self.model.tokens

    @property
    def at_pixels(self) -> Float[Tensor, "1 3 h w"]:
        """The gradient at the pixels; only methods that said they need it ask."""
        assert self.image_gradient is not None
        return self.image_gradient


@dataclass(frozen=True)
class Method:
    """One row of the table: everything menus, command line, documentation and tests say of a method."""

    name: str
    paper: str
    means: str  # one plain sentence: what the picture shows
    means_not: str  # and what it does not
    needs: Callable[[Model, Settings], Needs]
    heat: Callable[..., Float[Tensor, "h w"]]  # (evidence, **knobs) -> raw values
    fits: Callable[[Model], str | None]  # why it does not fit a model; None where it does
    knobs: Mapping[str, Knob] = field(default_factory=dict)
    signed: bool = False
    of_class: bool = True  # whether the picture depends on the target
    patches: bool = False  # whether each value belongs to one patch
    passes: int = 1  # backward passes it needs when nothing is shared

    def settings(self, model: Model, knobs: Settings) -> dict[str, object]:
        """The knobs with the defaults filled in.

        Raises: MethodError for a knob this method does not have, or a value it does not take.
        """
        for name, value in knobs.items():
            if name not in self.knobs:
                hint = did_you_mean(name, self.knobs) if self.knobs else "it has none"
                raise MethodError(f"{self.name} has no knob {name!r}; {hint}")
            knob = self.knobs[name]
            offered = knob.offered(model)
            if offered and not knob.open and value not in offered:
                raise MethodError(f"{self.name} takes {', '.join(map(repr, offered))} for {name}, not {value!r}")
        return {name: knobs.get(name, knob.default) for name, knob in self.knobs.items()}


SCORE = Knob(
    "logit",
    "what is explained: the class's logit, or its softmax probability, whose gradient fades as the model grows sure",
    ("logit", "probability"),
)


def fits_all(model: Model) -> None:
    """Any network at all."""
    return
