"""Probability of a class when only the pixels with the highest heat are kept."""

from __future__ import annotations

import torch

from vizlib.attribution.result import Attribution
from vizlib.core.errors import VizlibError
from vizlib.metrics.perturbation_curves import rank_pixels
from vizlib.metrics.scored_photo import check_model, resize_maps, resolve_explained
from vizlib.models.model import Model


def keep_top_fraction(model: Model, attribution: Attribution, *, fraction: float = 0.2) -> tuple[float, float]:
    """Return the probability of the class on the photo, and on the photo reduced to the pixels with the highest heat.

    All other pixels become the mean colour of the training data. The nearer the second number is to the first, the more
    of the evidence lies where the map is high; such a photo is outside the training distribution, however.

    Args:
        model: The model that the map explains.
        attribution: The map, with its photo and target.
        fraction: Fraction of the input's pixels to keep, from 0 to 1.

    Returns:
        Two scores, of the whole photo and of the reduced one: of a class probabilities from 0 to 1.

    Raises:
        VizlibError: For a fraction outside 0 to 1, or a map that explains no score of the model.
        ModelError: If the model cannot be run.

    Example:
        >>> import numpy as np, vizlib
        >>> model = vizlib.load("resnet18-imagenette")
        >>> photo = np.random.default_rng(0).integers(0, 256, (160, 160, 3), np.uint8)
        >>> whole, reduced = vizlib.metrics.keep_top_fraction(model, vizlib.explain(model, photo), fraction=1.0)
        >>> abs(whole - reduced) < 1e-4
        True
    """
    if not 0 <= fraction <= 1:
        raise VizlibError(f"the fraction of the pixels to keep is a number from 0 to 1, not {fraction:g}")
    check_model(model, attribution)
    image = model.tensor(attribution.photo)
    ranks = rank_pixels(resize_maps(attribution.heat[None], (image.shape[-2], image.shape[-1])))
    is_kept = (ranks < round(fraction * ranks.shape[1])).view(1, 1, *image.shape[-2:]).to(image.device)
    logits = model.logits(torch.cat([image, torch.where(is_kept, image, 0)]))
    score = resolve_explained(model, logits[:1], attribution).make_score(model.output_row.scores[-1])
    whole, reduced = score(logits).tolist()
    return whole, reduced
