"""The kernels of the first layer as buttons; `select` has the number of the clicked kernel as its `index`."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float

from dashboard.components.data_encoding import encode_data_url
from vizlib.render.image_grid import draw_kernel_grid

MAX_KERNELS = 256  # shown; a large transformer has 1,024


def build_kernel_grid(
    weights: Float[np.ndarray, "n c h w"], chosen: int, *, label: str, caption: str
) -> dict[str, Any]:
    """Return the value of the grid of first-layer kernels: one image on one colour scale, with one kernel per row."""
    shown = weights[:MAX_KERNELS]
    return {
        "picture": encode_data_url(draw_kernel_grid(shown, cell=16, columns=1)),
        "count": len(shown),
        "chosen": chosen,
        "label": label,
        "caption": caption,
    }
