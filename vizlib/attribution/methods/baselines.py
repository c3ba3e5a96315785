"""Baselines: inputs without content that an image is compared with."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

from vizlib.attribution.evidence import Evidence
from vizlib.attribution.methods.scoring import make_random_generator
from vizlib.attribution.request import Parameter
from vizlib.core.errors import MethodError, suggest_names

BASELINES = ("mean", "black", "white", "blur", "noise")
BASELINE = Parameter(
    "mean",
    "what covers pixels: the mean colour of the training data, black, white, the photo heavily blurred, or noise",
    BASELINES,
)


def make_baseline(name: str, evidence: Evidence, seed: int = 0) -> Float[Tensor, "1 3 h w"]:
    """Return a baseline, an input without content, in the shape and the normalisation of the image.

    Args:
        name: One of `BASELINES`. `"mean"` is the mean colour of the training data, 0 after normalisation; `"blur"` is
            the image after a Gaussian blur whose standard deviation is a tenth of the longer side.
        evidence: Evidence that holds the image and the preprocessing of the model.
        seed: Seed of the uniform noise of `"noise"`.

    Raises:
        MethodError: For another name.
    """
    if name not in BASELINES:
        raise MethodError(f"there is no baseline {name!r}; {suggest_names(str(name), BASELINES)}")
    image, preprocessing = evidence.run.image.detach(), evidence.model.preprocessing
    if name == "mean":
        return torch.zeros_like(image)
    if name == "blur":
        sigma = max(image.shape[-2:]) / 10
        kernel_size = 2 * round(2 * sigma) + 1
        # An odd size that is not larger than the image, whose borders are reflected.
        height, width = (min(kernel_size, 2 * ((size - 1) // 2) + 1) for size in image.shape[-2:])
        return gaussian_blur(image, [width, height], [sigma, sigma])
    mean, std = (
        torch.tensor(values, dtype=torch.float32, device="cpu").view(1, 3, 1, 1).to(image)
        for values in (preprocessing.mean, preprocessing.std)
    )
    if name == "noise":
        pixels = torch.from_numpy(make_random_generator(seed).random(image.shape)).to(image)
    else:
        pixels = torch.full_like(image, float(name == "white"))
    return (pixels - mean) / std
