"""First-layer kernels, and the similarity of a transformer's position embeddings."""

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
    """The kernels of the layer that reads the pixels, and the similarity of position embeddings.

    Attributes:
        layer: Name of the first convolution or patch embedding.
        weights: Its raw weights, on the CPU; the colours are red, green, blue.
        position_similarity: Cosine similarity, -1 to 1, of every pair of position embeddings; `None` for a model
            without learned position embeddings.

    Example:
        >>> import vizlib
        >>> vizlib.kernels(vizlib.load("resnet18-imagenette"))
        <Kernels conv1: 64 of 3 × 7 × 7 weights>
    """

    layer: str
    weights: Float[Tensor, "kernels colours height width"]
    position_similarity: Float[Tensor, "rows columns rows columns"] | None

    def __repr__(self) -> str:
        return f"<Kernels {self._title}>"

    def _repr_html_(self) -> str:
        """Return all kernels as an image for a notebook, on one colour scale where grey is 0."""
        sheet = draw_kernel_grid(self.weights.numpy(), cell=notebook.KERNEL_SIDE_PIXELS, columns=16)
        return notebook.render_image(sheet, self._title)

    @property
    def _title(self) -> str:
        """The layer of the kernels, their number and size, as a title."""
        count, colours, height, width = self.weights.shape
        return f"{self.layer}: {count} of {colours} × {height} × {width} weights"


def kernels(model: Model) -> Kernels:
    """Return the kernels of the first convolution or patch embedding, and the position-embedding similarity.

    `position_similarity[r, c]` is the cosine similarity between the embedding of the patch in row `r`, column `c` and
    that of every other patch.

    Args:
        model: The classifier.

    Raises:
        ModelError: For a network without a convolution that reads three colour channels.

    References:
        Dosovitskiy et al.: An image is worth 16x16 words: transformers for image recognition at scale, ICLR 2021,
        arXiv:2010.11929 (figure 7: position-embedding similarity).

    Example:
        >>> import vizlib
        >>> vizlib.kernels(vizlib.load("vit_tiny-imagenette")).position_similarity.ndim
        4
    """
    module, name = model.module, model.first_convolution
    if name is None:
        raise ModelError(f"{model.name} has no convolution that reads the three colours, so it has no kernels to show")
    weights = module.get_parameter(f"{name}.weight").detach().float().cpu().clone()
    if getattr(model.preprocessing, "channels", "RGB") == "BGR":
        weights = weights.flip(1)
    embedding = model.family.position_embedding(module) if model.family is not None else None
    return Kernels(name, weights, None if embedding is None else _cosine_similarity(*embedding))


def _cosine_similarity(embedding: Float[Tensor, "patches width"], grid: tuple[int, int]) -> Tensor:
    """Return the cosine similarity of each position embedding to all others, as maps."""
    unit = F.normalize(embedding.float().cpu(), dim=-1)
    return (unit @ unit.T).unflatten(1, grid).unflatten(0, grid)  # (patches, patches) -> (rows, columns, rows, columns)
