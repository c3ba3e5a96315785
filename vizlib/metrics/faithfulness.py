"""Faithfulness metrics: how the probability of a class changes when pixels are removed in the order of a map."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from vizlib.attribution.result import Attribution
from vizlib.core.errors import VizlibError
from vizlib.models.model import Model


@dataclass(frozen=True, eq=False)
class Deletion:
    """The deletion curve of a map: the probability of the class as pixels are removed, highest heat first.

    Attributes:
        removed: Fraction of the input's pixels that are removed, from 0 to 1.
        probability: Probability of the target class at that point, from 0 to 1.

    References:
        Petsiuk, Das, Saenko: RISE: randomized input sampling for explanation of black-box models, BMVC 2018,
        arXiv:1806.07421.

    Example:
        >>> import torch, vizlib
        >>> vizlib.Deletion(torch.tensor([0.0, 0.5, 1.0]), torch.tensor([1.0, 0.5, 0.0])).auc
        0.5
    """

    removed: Float[Tensor, " points"]
    probability: Float[Tensor, " points"]

    @property
    def auc(self) -> float:
        """Area under the curve, from 0 to 1; the lower, the earlier the map removed what the prediction depends on."""
        return torch.trapezoid(self.probability, self.removed).item()


def deletion(model: Model, attribution: Attribution, *, steps: int = 20, batch_size: int = 32) -> Deletion:
    """Return the deletion curve of a map: remove the pixels with the highest heat first, measure the probability.

    A removed pixel becomes the mean colour of the training data, which is 0 after normalisation. A map coarser than the
    input is interpolated bilinearly. Compare the area with that of a map that contains no information about the model,
    such as `centred_gaussian`: objects are mostly in the middle of photos. Photos with removed pixels are outside the
    training distribution (Hooker et al. 2019).

    Args:
        model: The classifier that the map explains.
        attribution: The map, with its photo and target.
        steps: Number of equal parts in which the pixels are removed.
        batch_size: Number of photos per forward pass.

    Returns:
        The curve at `steps` + 1 points.

    Raises:
        VizlibError: For fewer than one step, or a map that does not explain a class.
        ModelError: If the model cannot be run, or its outputs have no probabilities.

    References:
        Petsiuk, Das, Saenko: RISE: randomized input sampling for explanation of black-box models, BMVC 2018,
        arXiv:1806.07421.
        Hooker, Erhan, Kindermans, Kim: A benchmark for interpretability methods in deep neural networks, NeurIPS 2019,
        arXiv:1806.10758.

    Example:
        >>> import numpy as np, vizlib
        >>> model = vizlib.load("resnet18-imagenette")
        >>> photo = np.random.default_rng(0).integers(0, 256, (160, 160, 3), np.uint8)
        >>> curve = vizlib.metrics.deletion(model, vizlib.explain(model, photo, "grad-cam"), steps=4)
        >>> curve.removed.tolist()
        [0.0, 0.25, 0.5, 0.75, 1.0]
        >>> 0 <= curve.auc <= 1
        True
    """
    if steps < 1:
        raise VizlibError(f"deletion removes the pixels in at least 1 step, not {steps}")
    target, image = _get_class(attribution), model.tensor(attribution.photo)
    order = _sort_pixels(attribution, image)
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order), device="cpu")  # pixel -> number of pixels removed before it
    removed = torch.linspace(0, 1, steps + 1, dtype=torch.float32, device="cpu")
    is_kept = rank >= (removed * len(order)).round().unsqueeze(1)  # points × pixels
    masks = is_kept.view(-1, 1, *image.shape[-2:]).to(image)
    probabilities = [
        model.compute_probabilities(model.logits(image * batch))[:, target].cpu() for batch in masks.split(batch_size)
    ]
    return Deletion(removed, torch.cat(probabilities))


def keep_top_fraction(model: Model, attribution: Attribution, *, fraction: float = 0.2) -> tuple[float, float]:
    """Return the probability of the class on the photo, and on the photo reduced to the pixels with the highest heat.

    All other pixels become the mean colour of the training data. The nearer the second number is to the first, the more
    of the evidence lies where the map is high; such a photo is outside the training distribution, however.

    Args:
        model: The classifier that the map explains.
        attribution: The map, with its photo and target.
        fraction: Fraction of the input's pixels to keep, from 0 to 1.

    Returns:
        Two probabilities from 0 to 1: of the whole photo, and of the reduced one.

    Raises:
        VizlibError: For a fraction outside 0 to 1, or a map that does not explain a class.
        ModelError: If the model cannot be run, or its outputs have no probabilities.

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
    target, image = _get_class(attribution), model.tensor(attribution.photo)
    order = _sort_pixels(attribution, image)
    mask = torch.zeros(len(order), dtype=torch.float32, device="cpu")
    mask[order[: round(fraction * len(order))]] = 1
    images = torch.cat([image, image * mask.view(1, 1, *image.shape[-2:]).to(image)])
    whole, reduced = model.compute_probabilities(model.logits(images))[:, target].tolist()
    return whole, reduced


def centred_gaussian(size: tuple[int, int]) -> Float[Tensor, "h w"]:
    """Return a reference for the faithfulness of maps: a centred Gaussian, which depends on neither model nor photo.

    Args:
        size: (height, width) of the map.

    Returns:
        Values up to 1 at the centre; the standard deviation is a quarter of each side. For `deletion` only the order of
        the values counts.

    Example:
        >>> import vizlib
        >>> vizlib.metrics.centred_gaussian((3, 5)).argmax().item()
        7
    """
    positions = [torch.arange(n, dtype=torch.float32, device="cpu") for n in size]
    rows, columns = (torch.exp(-(((p + 0.5) / len(p) - 0.5) ** 2) / (2 * 0.25**2)) for p in positions)
    return rows[:, None] * columns[None, :]


def _get_class(attribution: Attribution) -> int:
    """Return the class whose probability shows how faithful a map is.

    Raises:
        VizlibError: If the map explains something else.
    """
    if not isinstance(attribution.target, int):
        explained = f"explains {attribution.label}" if attribution.label else "depends on no class"
        raise VizlibError(f"the measure needs the probability of a class, and this map {explained}")
    return attribution.target


def _sort_pixels(attribution: Attribution, image: Float[Tensor, "1 3 h w"]) -> Int[Tensor, " pixels"]:
    """Return the order in which a faithfulness metric removes the input's pixels, as indices, highest heat first."""
    heat = F.interpolate(attribution.heat[None, None].float(), image.shape[-2:], mode="bilinear", align_corners=False)
    return heat.flatten().argsort(descending=True, stable=True)
