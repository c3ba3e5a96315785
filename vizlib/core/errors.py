"""What vizlib says when it cannot do what was asked.

    VizlibError (a ValueError)
    ├── ImageError     the photo cannot be used
    ├── ModelError     the model, checkpoint or layer cannot be found, loaded or run
    ├── TargetError    no such class
    └── MethodError    no such method or knob, or it does not fit this model

Each message is for a person: what was given, what was expected, which names exist.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class VizlibError(ValueError):
    """Something a person can put right; the message says how."""


class ImageError(VizlibError):
    """The photo cannot be opened, or is not one a network can look at."""


class ModelError(VizlibError):
    """The model, checkpoint or layer cannot be found, loaded or run."""


class TargetError(VizlibError):
    """There is no such class in this model."""


class MethodError(VizlibError):
    """There is no such method or knob, or the method does not fit this model."""


def suggest_names(given: str, names: Iterable[str], *, max_names: int = 8) -> str:
    """The half sentence that ends a message about an unknown name: near misses if there are any, else what exists.

    >>> suggest_names("grad-cm", ["saliency", "grad-cam"])
    'did you mean grad-cam?'
    >>> suggest_names("q", ["saliency", "grad-cam"])
    'there are saliency, grad-cam'
    """
    names = list(names)
    close = difflib.get_close_matches(given.lower(), names, n=3, cutoff=0.6)
    close += [name for name in names if given and given.lower() in name.lower() and name not in close][: 3 - len(close)]
    if close:
        return f"did you mean {' or '.join(close)}?"
    shown = ", ".join(names[:max_names])
    return f"there are {shown}" + (f" and {len(names) - max_names} more" if len(names) > max_names else "")
