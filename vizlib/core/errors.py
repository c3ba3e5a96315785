"""Exceptions that vizlib raises for input that the user can correct.

    VizlibError (a ValueError)
    ├── ImageError     the photo cannot be used
    ├── ModelError     the model, checkpoint or layer cannot be found, loaded or run
    ├── TargetError    there is no such class
    └── MethodError    there is no such method or parameter, or it does not fit the model

Each message states what was given, what was expected and which names exist.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class VizlibError(ValueError):
    """Base class: an error that the user can correct, with a message that says how."""


class ImageError(VizlibError):
    """The photo cannot be opened, or cannot be used as the input of a model."""


class ModelError(VizlibError):
    """The model, checkpoint or layer cannot be found, loaded or run."""


class TargetError(VizlibError):
    """The model has no such class."""


class MethodError(VizlibError):
    """There is no such method or parameter, or the method does not fit the model."""


def suggest_names(given: str, names: Iterable[str], *, max_names: int = 8) -> str:
    """Return the end of an error message about an unknown name: similar names if there are any, else those that exist.

    Args:
        given: The unknown name.
        names: All valid names.
        max_names: How many names to list where none is similar.

    >>> suggest_names("grad-cm", ["saliency", "grad-cam"])
    'did you mean grad-cam?'
    >>> suggest_names("q", ["saliency", "grad-cam"])
    'there are saliency, grad-cam'
    """
    names = list(names)
    similar = difflib.get_close_matches(given.lower(), names, n=3, cutoff=0.6)
    containing = [name for name in names if given and given.lower() in name.lower() and name not in similar]
    similar += containing[: 3 - len(similar)]
    if similar:
        return f"did you mean {' or '.join(similar)}?"
    listed = ", ".join(names[:max_names])
    return f"there are {listed}" + (f" and {len(names) - max_names} more" if len(names) > max_names else "")
