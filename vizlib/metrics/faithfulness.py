"""How far a map can be trusted: what happens to the answer when the places it calls important are taken away."""

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
    """The probability of a class while the photo vanishes, and the area under it."""

    removed: Float[Tensor, " points"]  # share of the input's pixels taken away, 0 to 1
    probability: Float[Tensor, " points"]  # of the target class, 0 to 1

    @property
    def auc(self) -> float:
        """The area under the curve, 0 to 1; the lower, the earlier the map took away what the answer rests on."""
        return torch.trapezoid(self.probability, self.removed).item()


def deletion(model: Model, attribution: Attribution, *, steps: int = 20, batch_size: int = 32) -> Deletion:
    """Take the pixels of the model's input away, those with the greatest heat first, and watch the class vanish.

    A pixel that is taken away becomes the mean colour of the training data, which is 0 after normalisation. A map
    coarser than the input is spread over it bilinearly. A low area speaks for the map, but compare it with a map that
    knows nothing, such as `centred_gaussian`: objects are mostly in the middle, and a network that sees a photo half
    grey is asked about something it never learned (Hooker et al. 2019).

    Source: Petsiuk, Das, Saenko: RISE, BMVC 2018. Raises: VizlibError for fewer than one step, ModelError.
    """
    if steps < 1:
        raise VizlibError(f"deletion takes the pixels away in at least 1 step, not {steps}")
    image = model.tensor(attribution.photo)
    order = _warmest_first(attribution, image)
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order))  # pixel -> how many go before it
    removed = torch.linspace(0, 1, steps + 1)
    kept = place >= (removed * len(order)).round().unsqueeze(1)  # points × pixels
    masks = kept.view(-1, 1, *image.shape[-2:]).to(image)
    chances = [
        model.logits(image * some).float().softmax(-1)[:, attribution.target].cpu() for some in masks.split(batch_size)
    ]
    return Deletion(removed, torch.cat(chances))


def keep_top_fraction(model: Model, attribution: Attribution, *, fraction: float = 0.2) -> tuple[float, float]:
    """The probability of the class on the whole photo, and where only the warmest `share` of its pixels is left.

    All other pixels become the mean colour of the training data. The nearer the second number is to the first, the more
    of what the answer rests on lies where the map is warm; a photo mostly grey is foreign to the network all the same.

    Raises: VizlibError for a share outside 0 to 1, ModelError.
    """
    if not 0 <= fraction <= 1:
        raise VizlibError(f"the share of the pixels to keep is a number from 0 to 1, not {fraction:g}")
    image = model.tensor(attribution.photo)
    order = _warmest_first(attribution, image)
    mask = torch.zeros(len(order))
    mask[order[: round(fraction * len(order))]] = 1
    pair = torch.cat([image, image * mask.view(1, 1, *image.shape[-2:]).to(image)])
    before, after = model.logits(pair).float().softmax(-1)[:, attribution.target].tolist()
    return before, after


def centred_gaussian(size: tuple[int, int]) -> Float[Tensor, "h w"]:
    """A map that knows nothing but that photographers put things in the middle: 1 there, falling off all around.

    `size` is (height, width). Its width is a quarter of the sides; for `deletion` only the order of its values counts.
    """
    rows, columns = (torch.exp(-(((torch.arange(n) + 0.5) / n - 0.5) ** 2) / (2 * 0.25**2)) for n in size)
    return rows[:, None] * columns[None, :]


def _warmest_first(why: Attribution, image: Float[Tensor, "1 3 h w"]) -> Int[Tensor, " pixels"]:
    """The pixels of the model's input, those with the greatest heat first."""
    heat = F.interpolate(why.heat[None, None].float(), image.shape[-2:], mode="bilinear", align_corners=False)
    return heat.flatten().argsort(descending=True, stable=True)
