"""Noisy linear imputation: replace pixels by weighted means of their neighbours (ROAD)."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from vizlib.attribution.methods.scoring import make_random_generator
from vizlib.core.errors import VizlibError

NEIGHBOURS = (  # offset (row, column) and weight, as in the paper
    ((0, 1), 1 / 6),
    ((0, -1), 1 / 6),
    ((1, 0), 1 / 6),
    ((-1, 0), 1 / 6),
    ((1, 1), 1 / 12),
    ((1, -1), 1 / 12),
    ((-1, 1), 1 / 12),
    ((-1, -1), 1 / 12),
)


def impute_pixels(
    image: Float[Tensor, "1 3 h w"], is_removed: Bool[Tensor, "h w"], noise: float, seed: int
) -> Float[Tensor, "1 3 h w"]:
    """Return an image in which removed pixels are weighted means of their neighbours, plus noise.

    Each removed pixel equals the mean of its up to 8 neighbours, direct ones with twice the weight of diagonal ones;
    neighbours that are removed too are unknowns of the same linear system, which is solved exactly.

    Args:
        image: Input of the model.
        is_removed: Which pixels are removed.
        noise: Standard deviation of the Gaussian noise that is added to them.
        seed: Seed of the noise.

    Raises:
        VizlibError: Where SciPy is not installed.

    References:
        Rong, Leemann, Borisov, Kasneci, Kasneci: A consistent and efficient evaluation strategy for attribution
        methods, ICML 2022, section 4, arXiv:2202.00449.
    """
    try:
        from scipy.sparse import csc_matrix
        from scipy.sparse.linalg import splu
    except ImportError:
        raise VizlibError("road solves a linear system with SciPy: pip install 'vizlib[metrics]'") from None
    removed = is_removed.cpu().numpy()
    rows, columns = np.nonzero(removed)
    count = len(rows)
    if not count:
        return image.clone()
    pixels = image[0].detach().double().cpu().numpy()
    if count == removed.size:  # nothing is left to impute from
        known = np.zeros((count, 3))
    else:
        unknown = np.full(removed.shape, -1)
        unknown[rows, columns] = np.arange(count)
        diagonal, constants = np.zeros(count), np.zeros((count, 3))
        entries: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        for (dy, dx), weight in NEIGHBOURS:
            y, x = rows + dy, columns + dx
            inside = np.flatnonzero((y >= 0) & (y < removed.shape[0]) & (x >= 0) & (x < removed.shape[1]))
            diagonal[inside] += weight
            other = unknown[y[inside], x[inside]]
            is_known = other < 0
            from_known = inside[is_known]
            constants[from_known] += weight * pixels[:, y[from_known], x[from_known]].T
            from_unknown = inside[~is_known]
            entries.append((from_unknown, other[~is_known], np.full(len(from_unknown), -weight)))
        entries.append((np.arange(count), np.arange(count), diagonal))
        row, column, value = (np.concatenate(parts) for parts in zip(*entries, strict=True))
        matrix = csc_matrix((value, (row, column)), shape=(count, count))
        known = splu(matrix, permc_spec="MMD_AT_PLUS_A", options={"SymmetricMode": True}).solve(constants)
    known = known + noise * make_random_generator(seed).standard_normal(known.shape)
    result = pixels.copy()
    result[:, rows, columns] = known.T
    return torch.from_numpy(result)[None].to(image)
