"""The page where a person drops a photo and sees why a model decided what it decided.

`python -m dashboard` starts it; `dashboard.serve(model)` shows a model of yours, from a script or a notebook.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # read by gradio when it is imported, so before any of that

if TYPE_CHECKING:
    from dashboard.app import serve

__all__ = ["serve"]


def __getattr__(name: str) -> Any:
    """Return `serve`, imported when it is first read: the shell commands import this package, but no gradio."""
    if name != "serve":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from dashboard.app import serve

    return serve
