"""The photo under the cells of a layer, with the receptive field of a cell and its strongest channels.

`select` has the layer, row and column of the clicked cell as its `index`, to compute its effective receptive field.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from PIL import Image

from dashboard.components.data_encoding import encode_bytes, encode_floats, encode_palette, encode_photo_and_box
from vizlib.capture.receptive_field_tracer import ReceptiveField
from vizlib.core.geometry import Geometry

NUM_STRONGEST_CHANNELS = 5  # listed for each cell


class Cell(NamedTuple):
    """A position in the output of a layer."""

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
    """Return the value of the receptive-field component: the photo under the cells of a layer.

    Args:
        photo: The photo.
        geometry: Where on the photo the model's input lies.
        maps: The activations of each layer.
        theory: The theoretical receptive field of each layer.
        cell: The clicked cell.
        heat: The effective receptive field of that cell, on the model's input.
        size: The side of the effective receptive field in pixels.
    """
    height, width = geometry.input_size
    layers = []
    for name, activation in maps.items():
        field = theory[name]
        sides = [side if math.isfinite(side) else None for side in field.size]  # JSON has no infinity
        placement = {"size": sides, "jump": list(field.jump), "centre": list(field.centre)}
        layers.append({"name": name, **placement, **encode_strongest_channels(activation)})
    return {
        **encode_photo_and_box(photo, geometry),
        "input": [height, width],
        "layers": layers,
        "cell": list(cell),
        "effective": {"map": encode_bytes(heat), "size": size},
        "palette": encode_palette(False),
    }


def encode_strongest_channels(maps: Float[np.ndarray, "channels rows columns"]) -> dict[str, Any]:
    """Encode the strongest channels in each cell of a receptive-field view, and their values: "rank rows columns"."""
    count = min(NUM_STRONGEST_CHANNELS, len(maps))
    order = np.argsort(-maps, axis=0, kind="stable")[:count]
    return {
        "channels": encode_floats(order.astype(np.float32)),
        "values": encode_floats(np.take_along_axis(maps, order, 0)),
    }
