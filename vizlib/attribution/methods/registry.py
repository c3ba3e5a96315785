"""The one table of methods: menus, command line, documentation and tests read it."""

from __future__ import annotations

from collections.abc import Mapping

from vizlib.attribution.methods import attention, cam, gradient, perturbation
from vizlib.attribution.methods import gradient_ensembles as averages
from vizlib.attribution.methods import guided_backprop as guided
from vizlib.attribution.methods.base import Method
from vizlib.core.errors import MethodError, did_you_mean
from vizlib.models.model import Model

METHODS: Mapping[str, Method] = {
    method.name: method
    for method in (
        *gradient.METHODS,
        *guided.METHODS,
        *cam.METHODS,
        *attention.METHODS,
        *averages.METHODS,
        *perturbation.METHODS,
    )
}


def list_methods(model: Model | None = None) -> list[str]:
    """The names of all methods, or of those that fit a model."""
    return [name for name, method in METHODS.items() if model is None or method.fits(model) is None]


def method_for(model: Model, name: str) -> Method:
    """The row of a method that fits this model.

    Raises: MethodError for an unknown name, or for a method that does not fit, saying why.
    """
    if name not in METHODS:
        raise MethodError(f"there is no method {name!r}; {did_you_mean(str(name), METHODS)}")
    reason = METHODS[name].fits(model)
    if reason is not None:
        raise MethodError(f"{name} does not fit {model.name}: {reason}; these do: {', '.join(list_methods(model))}")
    return METHODS[name]
