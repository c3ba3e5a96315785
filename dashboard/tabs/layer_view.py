"""The output of the layer that is selected in the inspector: maps of its channels or heads, and contributions."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from PIL import Image

from dashboard.i18n.translate import translate
from dashboard.services.analysis_service import AnalysisService
from dashboard.state.selection import Selection
from vizlib.core.text import shorten_label


class LayerView(NamedTuple):
    """The output of a layer for one photo, and the contribution of each of its units to the class.

    Attributes:
        maps: Activation of each channel, or attention of each head, at each position.
        has_positions: Whether the maps can be drawn on the photo.
        is_attention: Whether the units are heads of an attention layer.
        contributions: Contribution of each unit to the logit; `None` where it is not known for each unit.
        label: Label of the target class, or of both classes of a contrast.
        logit: Logit of the target class, or difference of both logits of a contrast.
    """

    maps: Float[np.ndarray, "units rows columns"]
    has_positions: bool
    is_attention: bool
    contributions: Float[np.ndarray, " units"] | None
    label: str
    logit: float


def compute_layer_view(service: AnalysisService, photo: Image.Image, selection: Selection, layer: str) -> LayerView:
    """Return the view of a layer for one photo: its channels, or the heads of an attention layer."""
    contributions = service.get_contributions(selection.make_request(photo), layer)
    attention = service.get_attention(photo, selection.model).get(layer)
    tokens = service.catalog.get(selection.model).tokens
    if attention is not None and tokens is not None:
        rows = attention[:, tokens.classifier_tokens[0]] if tokens.classifier_tokens else attention.mean(1)
        maps, has_positions = rows[:, tokens.num_prefix_tokens :].reshape(-1, *tokens.grid).numpy(), True
        values = contributions.heads.get(layer)
    else:
        activations, has_positions = service.get_activations(photo, selection.model, layer)
        maps, values = activations.numpy(), contributions.channels[layer]
    by_unit = values.numpy() if values is not None and len(values) == len(maps) else None
    label = shorten_label(contributions.label)
    against = contributions.against
    if against is not None:
        labels = service.catalog.get(selection.model).labels
        label = translate(
            "inside.over",
            **{"class": label},
            other=shorten_label(labels[against] if isinstance(against, int) else str(against)),
        )
    return LayerView(maps, has_positions, attention is not None, by_unit, label, contributions.logit)


def rank_units(view: LayerView) -> list[int]:
    """Return a layer view's unit numbers by decreasing contribution, or variation where no contribution is known."""
    if view.contributions is not None:
        return np.argsort(-view.contributions, kind="stable").tolist()
    variation = view.maps.std((1, 2)) if view.maps[0].size > 1 else np.abs(view.maps[:, 0, 0])
    return np.argsort(-variation, kind="stable").tolist()
