"""Reference maps that know nothing about the model: what every metric of an attribution is compared with."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from vizlib.attribution.methods.scoring import make_random_generator

SOBEL = ((-1.0, 0.0, 1.0), (-2.0, 0.0, 2.0), (-1.0, 0.0, 1.0))


def centred_gaussian(size: tuple[int, int]) -> Float[Tensor, "h w"]:
    """Return a reference for the faithfulness of maps: a centred Gaussian, which depends on neither model nor photo.

    Args:
        size: (height, width) of the map.

    Returns:
        Values up to 1 at the centre; the standard deviation is a quarter of each side.

    Example:
        >>> import vizlib
        >>> vizlib.metrics.centred_gaussian((3, 5)).argmax().item()
        7
    """
    positions = [torch.arange(n, dtype=torch.float32, device="cpu") for n in size]
    rows, columns = (torch.exp(-(((p + 0.5) / len(p) - 0.5) ** 2) / (2 * 0.25**2)) for p in positions)
    return rows[:, None] * columns[None, :]


def make_random_maps(count: int, size: tuple[int, int], seed: int = 0) -> Float[Tensor, "count h w"]:
    """Return reference maps of independent, uniformly distributed values.

    Args:
        count: How many maps.
        size: (height, width) of a map.
        seed: Seed; map i is the same however many maps are made.

    Returns:
        Values from 0 to 1.
    """
    maps = [torch.from_numpy(make_random_generator(seed, index).random(size)).float() for index in range(count)]
    return torch.stack(maps) if maps else torch.zeros(0, *size, dtype=torch.float32, device="cpu")


def make_edge_map(image: Float[Tensor, "1 3 h w"], size: tuple[int, int]) -> Float[Tensor, "rows columns"]:
    """Return how strong the edges of a photo are, which depends on the photo but not on the model.

    Args:
        image: Input of the model.
        size: (height, width) of the map.

    Returns:
        Magnitude of the Sobel gradient of the mean colour, averaged over each cell of the map; on the CPU.

    References:
        Adebayo, Gilmer, Muelly, Goodfellow, Hardt, Kim: Sanity checks for saliency maps, NeurIPS 2018, section 5.1,
        arXiv:1810.03292 (maps that resemble an edge detector).
    """
    grey = F.pad(image.detach().float().cpu().mean(1, keepdim=True), (1, 1, 1, 1), mode="replicate")
    kernel = torch.tensor(SOBEL, dtype=torch.float32, device="cpu")
    gradients = F.conv2d(grey, torch.stack([kernel, kernel.T]).unsqueeze(1))
    return F.adaptive_avg_pool2d(gradients.square().sum(1).sqrt(), size)[0]


def make_reference_maps(image: Float[Tensor, "1 3 h w"], size: tuple[int, int]) -> dict[str, Tensor]:
    """Return the reference maps that are not random, by name, in the resolution of an attribution.

    Args:
        image: Input of the model.
        size: (height, width) of the attribution's heat.
    """
    return {"centred-gaussian": centred_gaussian(size), "edges": make_edge_map(image, size)}
