"""What a network brings to every photo: its first kernels, and how a transformer's places resemble each other."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from vizlib.core.errors import ModelError
from vizlib.models.model import Model
from vizlib.render import notebook
from vizlib.render.image_grid import draw_kernel_grid


@dataclass(frozen=True, eq=False)
class Kernels:
    """The weights that read the pixels; raw, on the CPU."""

    layer: str
    weights: Float[Tensor, "kernels colours height width"]
    position_similarity: Float[Tensor, "rows columns rows columns"] | None  # cosine, -1..1; None without embeddings

    def __repr__(self) -> str:
        return f"<Kernels {self._title}>"

    def _repr_html_(self) -> str:
        """What a notebook shows of them: all kernels on one scale, where grey is 0."""
        sheet = draw_kernel_grid(self.weights.numpy(), cell=notebook.KERNEL_SIDE_PIXELS, columns=16)
        return notebook.render_image(sheet, self._title)

    @property
    def _title(self) -> str:
        count, colours, height, width = self.weights.shape
        return f"{self.layer}: {count} of {colours} × {height} × {width} weights"


def kernels(model: Model) -> Kernels:
    """The first convolution's kernels, or a transformer's patch embedding, and its position-embedding similarity.

    `position_similarity[r, c]` is the cosine between the embedding of the patch in row `r`, column `c` and every other
    (Dosovitskiy et al. 2021, figure 7).

    Raises: ModelError for a network without a convolution that reads colours.
    """
    module, name = model.module, model.first_convolution
    if name is None:
        raise ModelError(f"{model.name} has no convolution that reads the three colours, so it has no kernels to show")
    weights = module.get_parameter(f"{name}.weight").detach().float().cpu().clone()
    embedding = model.family.position_embedding(module) if model.family is not None else None
    return Kernels(name, weights, None if embedding is None else _similarity(*embedding))


def _similarity(embedding: Float[Tensor, "patches width"], grid: tuple[int, int]) -> Tensor:
    unit = F.normalize(embedding.float().cpu(), dim=-1)
    return (unit @ unit.T).unflatten(1, grid).unflatten(0, grid)  # (patches, patches) -> (rows, columns, rows, columns)
