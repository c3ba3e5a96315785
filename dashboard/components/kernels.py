"""The kernels that read the pixels, each a button; `select` tells the number of the one that was clicked as `index`."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float

from dashboard.components.base import make_data_url
from vizlib.render.image_grid import draw_kernel_grid

MAX_KERNELS = 256  # a large transformer has 1,024 of them


def build_kernel_grid(weights: Float[np.ndarray, "n c h w"], chosen: int, *, label: str, caption: str) -> dict[str, Any]:
    """The kernels on one scale, as one picture a column wide that the page cuts up."""
    shown = weights[:MAX_KERNELS]
    return {
        "picture": make_data_url(draw_kernel_grid(shown, cell=16, columns=1)),
        "count": len(shown),
        "chosen": chosen,
        "label": label,
        "caption": caption,
    }
