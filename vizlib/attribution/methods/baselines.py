"""What a photo is compared with: an input that shows nothing."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

from vizlib.attribution.methods.base import Evidence, Knob
from vizlib.attribution.methods.scoring import make_random_generator

BASELINES = ("mean", "black", "white", "blur", "noise")
BASELINE = Knob(
    "mean",
    "what shows nothing: the mean colour of the training data, black, white, the photo heavily blurred, or noise",
    BASELINES,
)


def make_baseline(name: str, evidence: Evidence, seed: int = 0) -> Float[Tensor, "1 3 h w"]:
    """An input of the model's that shows nothing, normalised as the photo is."""
    image, how = evidence.run.image.detach(), evidence.model.preprocessing
    if name == "mean":
        return torch.zeros_like(image)
    if name == "blur":
        sigma = max(image.shape[-2:]) / 10
        side = 2 * round(2 * sigma) + 1
        height, width = (min(side, 2 * ((size - 1) // 2) + 1) for size in image.shape[-2:])  # no larger than the photo
        return gaussian_blur(image, [width, height], [sigma, sigma])
    mean, std = (torch.tensor(values).view(1, 3, 1, 1).to(image) for values in (how.mean, how.std))
    if name == "noise":
        pixels = torch.from_numpy(make_random_generator(seed).random(image.shape)).to(image)
    else:
        pixels = torch.full_like(image, float(name == "white"))
    return (pixels - mean) / std
