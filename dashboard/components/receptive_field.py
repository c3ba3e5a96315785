"""The photo in the cells of a layer: point at one and see how far it sees, and which channels are strongest there.

`select` tells as its `index` the layer, row and column of the cell whose effective field is asked for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from PIL import Image

from dashboard.components.base import colours, drawn_on, exact, rough
from vizlib.capture.receptive_field_tracer import ReceptiveField
from vizlib.core.geometry import Geometry

STRONGEST = 5  # channels told of each cell


class Cell(NamedTuple):
    """A place of a layer."""

    layer: str
    row: int
    column: int


def fields(
    photo: Image.Image,
    geometry: Geometry,
    maps: Mapping[str, Float[np.ndarray, "channels rows columns"]],
    theory: Mapping[str, ReceptiveField],
    cell: Cell,
    heat: Float[np.ndarray, "h w"],
    size: float,
) -> dict[str, Any]:
    """Everything hovering needs, of every layer; of the one `cell` also its effective field, and the side of that."""
    height, width = geometry.input_size
    layers = []
    for name, activation in maps.items():
        field = theory[name]
        sides = [side if math.isfinite(side) else None for side in field.size]  # JSON knows no infinity
        where = {"size": sides, "jump": list(field.jump), "centre": list(field.centre)}
        layers.append({"name": name, **where, **strongest(activation)})
    return {
        **drawn_on(photo, geometry),
        "input": [height, width],
        "layers": layers,
        "cell": list(cell),
        "effective": {"map": rough(heat), "size": size},
        "palette": colours(False),
    }


def strongest(maps: Float[np.ndarray, "channels rows columns"]) -> dict[str, Any]:
    """The channels that respond most in each cell, and how much: "best rows columns" each."""
    count = min(STRONGEST, len(maps))
    order = np.argsort(-maps, axis=0, kind="stable")[:count]
    return {"channels": exact(order.astype(np.float32)), "values": exact(np.take_along_axis(maps, order, 0))}
