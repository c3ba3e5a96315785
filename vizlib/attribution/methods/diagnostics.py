"""What is wrong with a picture, or worth knowing about it, in plain words."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from vizlib.attribution.methods.base import Evidence, Method, Settings
from vizlib.core.text import format_percent

MOSTLY_SEEN = 0.8  # below this share of the photo a person should be told what is missing
UNSURE = 0.5  # a top class below this probability is a guess


def notes_on(
    heat: Tensor, evidence: Evidence, method: Method, knobs: Settings, target: int, against: int | None
) -> tuple[str, ...]:
    """The notes a result carries besides its run's; the heat lies on the processor."""
    notes = []
    label = evidence.model.labels[target]
    size = np.abs(heat.numpy()).max()
    if not np.isfinite(size):
        notes.append("The map holds values that are not finite, so it cannot be trusted.")
    elif size == 0:
        # Of a transformer's layer only the patches make the map: the class token's gradient may well be there.
        read = {
            n: evidence.layer_gradients.get(n) for n in method.needs(evidence.model, knobs).layers
        }  # others may lie by
        pictures = {n: evidence.model.spatial_map(g) for n, g in read.items() if g is not None}
        zero = [name for name, gradient in pictures.items() if gradient is not None and not gradient.any()]
        if zero:
            notes.append(
                f"The map is empty: the score does not depend on the places in {zero[0]}, "
                "so their gradient is exactly zero; choose an earlier layer."
            )
        else:
            notes.append(f"The map is empty: nothing here speaks for {label}.")
    top, chances = evidence.top, evidence.chances
    if top is None:
        pass  # the run says so already, and nothing can be said of chances
    elif method.of_class and target != top:
        notes.append(
            f"The model's answer is {evidence.model.labels[top]} ({format_percent(chances[top])}); "
            f"{label} is only number {evidence.rank(target)} ({format_percent(chances[target])})."
        )
    elif target == top and chances[top] < UNSURE:
        notes.append(f"The model is unsure: it gives its best guess {format_percent(chances[top])}.")
    if against is not None:
        if not method.of_class:
            notes.append(f"{method.name} knows no class, so there is nothing to set against another.")
        elif against == target:
            notes.append("A class against itself leaves nothing.")
    if knobs.get("score") == "probability" and chances[target] > 0.99:
        notes.append("The softmax is saturated here, so this gradient is nearly zero everywhere; the logit's is not.")
    seen = evidence.run.geometry.visible_fraction
    if seen < MOSTLY_SEEN:
        notes.append(f"The model saw {format_percent(seen)} of the photo; the rest was cropped away and is dimmed.")
    return tuple(notes)
