"""The one table of methods: menus, command line, documentation and tests read it."""

from __future__ import annotations

from vizlib.attribution.methods import (
    attention,
    cam,
    gradient,
    gradient_ensembles,
    guided_backprop,
    perturbation,
    perturbation_cam,
)
from vizlib.attribution.request import MethodTable
from vizlib.models.model import Model

METHODS = MethodTable(
    {
        method.name: method
        for method in (
            *gradient.METHODS,
            *guided_backprop.METHODS,
            *cam.METHODS,
            *attention.METHODS,
            *gradient_ensembles.METHODS,
            *perturbation.METHODS,
            *perturbation_cam.METHODS,
        )
    }
)


def list_methods(model: Model | None = None) -> list[str]:
    """Return the names of all methods in the table, or of those that support a model.

    Args:
        model: The model; by default all methods are listed.

    Example:
        >>> import vizlib
        >>> "legrad" in vizlib.list_methods(), "legrad" in vizlib.list_methods(vizlib.load("resnet18-imagenette"))
        (True, False)
    """
    return METHODS.list_supported(model)
