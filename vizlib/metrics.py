"""How far a map can be trusted: what happens to the answer when the places it calls important are taken away."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from vizlib.errors import VizlibError
from vizlib.model import Model
from vizlib.results import Attribution


@dataclass(frozen=True, eq=False)
class Deletion:
    """The probability of a class while the photo vanishes, and the area under it."""

    removed: Float[Tensor, " points"]  # share of the input's pixels taken away, 0 to 1
    probability: Float[Tensor, " points"]  # of the target class, 0 to 1

    @property
    def auc(self) -> float:
        """The area under the curve, 0 to 1; the lower, the earlier the map took away what the answer rests on."""
        return torch.trapezoid(self.probability, self.removed).item()


def deletion(model: Model, why: Attribution, *, steps: int = 20, batch: int = 32) -> Deletion:
    """Take the pixels of the model's input away, those with the greatest heat first, and watch the class vanish.

    A pixel that is taken away becomes the mean colour of the training data, which is 0 after normalisation. A map
    coarser than the input is spread over it bilinearly. A low area speaks for the map, but compare it with a map that
    knows nothing, such as `centred_gaussian`: objects are mostly in the middle, and a network that sees a photo half
    grey is asked about something it never learned (Hooker et al. 2019).

    Source: Petsiuk, Das, Saenko: RISE, BMVC 2018. Raises: VizlibError for fewer than one step, ModelError.
    """
    if steps < 1:
        raise VizlibError(f"deletion takes the pixels away in at least 1 step, not {steps}")
    image = model.tensor(why.photo)
    heat = F.interpolate(why.heat[None, None].float(), image.shape[-2:], mode="bilinear", align_corners=False)
    order = heat.flatten().argsort(descending=True, stable=True)
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order))  # pixel -> how many go before it
    removed = torch.linspace(0, 1, steps + 1)
    kept = place >= (removed * len(order)).round().unsqueeze(1)  # points × pixels
    masks = kept.view(-1, 1, *image.shape[-2:]).to(image)
    chances = [model.logits(image * some).float().softmax(-1)[:, why.target].cpu() for some in masks.split(batch)]
    return Deletion(removed, torch.cat(chances))


def centred_gaussian(size: tuple[int, int]) -> Float[Tensor, "h w"]:
    """A map that knows nothing but that photographers put things in the middle: 1 there, falling off all around.

    `size` is (height, width). Its width is a quarter of the sides; for `deletion` only the order of its values counts.
    """
    rows, columns = (torch.exp(-(((torch.arange(n) + 0.5) / n - 0.5) ** 2) / (2 * 0.25**2)) for n in size)
    return rows[:, None] * columns[None, :]
