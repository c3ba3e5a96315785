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

from dashboard.components.base import encode_palette, encode_photo_and_box, pack_bytes, pack_floats
from vizlib.capture.receptive_field_tracer import ReceptiveField
from vizlib.core.geometry import Geometry

NUM_STRONGEST_CHANNELS = 5  # channels told of each cell


class Cell(NamedTuple):
    """A place of a layer."""

    layer: str
    row: int
    column: int


def build_receptive_field(
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
        layers.append({"name": name, **where, **pack_strongest_channels(activation)})
    return {
        **encode_photo_and_box(photo, geometry),
        "input": [height, width],
        "layers": layers,
        "cell": list(cell),
        "effective": {"map": pack_bytes(heat), "size": size},
        "palette": encode_palette(False),
    }


def pack_strongest_channels(maps: Float[np.ndarray, "channels rows columns"]) -> dict[str, Any]:
    """The channels that respond most in each cell, and how much: "best rows columns" each."""
    count = min(NUM_STRONGEST_CHANNELS, len(maps))
    order = np.argsort(-maps, axis=0, kind="stable")[:count]
    return {"channels": pack_floats(order.astype(np.float32)), "values": pack_floats(np.take_along_axis(maps, order, 0))}
