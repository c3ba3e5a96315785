"""The one table of methods: menus, command line, documentation and tests read it."""

from __future__ import annotations

from vizlib.attribution.methods import (
    attention,
    cam,
    gradient,
    gradient_ensembles,
    guided_backprop,
    patch_similarity,
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
            *patch_similarity.METHODS,
            *gradient_ensembles.METHODS,
            *perturbation.METHODS,
            *perturbation_cam.METHODS,
        )
    }
)


DEFAULT_METHOD = "grad-cam"  # supports every family of networks
DEFAULT_PROMPT_METHOD = "attention-relevance"  # of models whose classes are prompts, where it is supported


def choose_default_method(model: Model) -> str:
    """Return the method that a model is explained with where none is asked for.

    Of models whose classes are prompts it is `attention-relevance`, whose peak is on the named object most often in
    the measurements of the documentation; of all others `grad-cam`.
    """
    is_prompted = model.prompt_source is not None
    fits = is_prompted and METHODS[DEFAULT_PROMPT_METHOD].unsupported_reason(model) is None
    return DEFAULT_PROMPT_METHOD if fits else DEFAULT_METHOD


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
