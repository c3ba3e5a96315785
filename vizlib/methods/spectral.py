"""The first singular vector of a layer, by Lanczos' method: a few passes over the matrix where an SVD takes hundreds."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

STEPS = 48  # the most Lanczos takes before the whole spectrum is computed; a layer of ImageNet networks takes 3 to 15
LOOK = 3  # steps from one look at the residual to the next


def first_component(matrix: Float[Tensor, "channels places"]) -> Float[Tensor, " places"]:
    """Each place's projection on the first right singular vector of places × channels, which is not centred.

    The sign is anybody's. Zeros for a matrix of zeros, NaN for one that holds a value that is not finite. Where the two
    largest singular values are equal to rounding, it is some vector of the space they share.
    """
    wide = len(matrix) <= matrix.shape[1]
    rows = matrix if wide else matrix.T  # the shorter side first: there the vectors are sought
    size = rows.abs().max()
    if not size.isfinite():
        return torch.full_like(matrix[0], torch.nan)
    if not size:
        return torch.zeros_like(matrix[0])
    scaled = rows / size if not 1e-6 < size < 1e6 else rows  # squares of gradients would vanish in single precision
    found = (_lanczos(scaled) if len(rows) > STEPS else None) or _whole(scaled)
    vector, length = found
    component = vector @ scaled if wide else vector * length
    return component if scaled is rows else component * size


def _lanczos(rows: Float[Tensor, "n m"]) -> tuple[Float[Tensor, " n"], float] | None:
    """The first left singular vector and its singular value; `None` where they were not found to rounding.

    Golub, Van Loan: Matrix Computations, 10.1, on rows @ rows.T, with each new vector made orthogonal to all before.
    """
    basis = rows.new_empty(STEPS, len(rows))
    basis[0] = _start(rows)
    diagonal, beside = [], []
    tolerance = 80 * torch.finfo(rows.dtype).eps  # 1e-5 in single precision
    for step in range(STEPS):
        known = basis[: step + 1]
        new = rows @ (rows.T @ known[-1])
        overlap = known @ new
        new = torch.addmv(new, known.T, overlap, alpha=-1)
        new = torch.addmv(new, known.T, known @ new, alpha=-1)  # once more: rounding left some of it
        diagonal.append(overlap[-1].item())
        rest = new.norm().item()
        if (step + 1) % LOOK == 0 or rest <= tolerance * diagonal[0]:
            values, vectors = np.linalg.eigh(np.diag(diagonal) + np.diag(beside, 1) + np.diag(beside, -1))
            if rest * abs(vectors[-1, -1]) <= tolerance * values[-1]:  # how far it is from being an eigenvector
                return torch.from_numpy(vectors[:, -1]).to(rows) @ known, values[-1] ** 0.5
        beside.append(rest)
        if step + 1 < STEPS:
            basis[step + 1] = new / rest
    return None


def _start(rows: Float[Tensor, "n m"]) -> Float[Tensor, " n"]:
    """Each row's sum, which is near the answer, and a tenth of something irregular, lest it be orthogonal to it."""
    sums, irregular = rows.sum(1), torch.arange(1, len(rows) + 1).sin().to(rows)
    start = sums / sums.norm().clamp(min=torch.finfo(rows.dtype).tiny) + 0.1 * irregular / irregular.norm()
    return start / start.norm()


def _whole(rows: Float[Tensor, "n m"]) -> tuple[Float[Tensor, " n"], float]:
    """The same from all of the spectrum, in double precision: always right, and slow."""
    exact = rows.cpu().double()  # not every accelerator knows double precision
    values, vectors = torch.linalg.eigh(exact @ exact.T)
    return vectors[:, -1].to(rows), values[-1].item() ** 0.5
