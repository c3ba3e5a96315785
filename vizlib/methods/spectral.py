"""The first singular vector of a layer, by Lanczos' method: a dozen passes over it where an SVD takes hundreds."""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

STEPS = 48  # the most Lanczos takes before the whole spectrum is computed; a layer of ImageNet networks takes 4 to 14
FIRST, LOOK = 4, {"cpu": 2, "cuda": 6}  # the first look at the residual, and steps to the next; a GPU is waited for

Found = tuple[Float[Tensor, " n"], float]  # the first left singular vector and its singular value


def first_component(matrix: Float[Tensor, "channels places"]) -> Float[Tensor, " places"]:
    """Each place's projection on the first right singular vector of places × channels, which is not centred.

    The sign is anybody's. Zeros for a matrix of zeros, NaN for one that holds a value that is not finite. Where the two
    largest singular values are equal to rounding, it is some vector of the space they share.
    """
    wide = len(matrix) <= matrix.shape[1]
    rows = matrix if wide else matrix.T  # the shorter side first: there the vectors are sought
    vector, length = (_lanczos(rows) if len(rows) > STEPS else None) or _whole(rows)
    if 1e-9 < length < 1e9:
        return vector @ rows if wide else vector * length
    size = rows.abs().max()
    if not 0 < size < torch.inf:
        return torch.full_like(matrix[0], 0 if size == 0 else torch.nan)
    return first_component(matrix / size) * size  # squares of such values vanish in single precision, or overflow


def _lanczos(rows: Float[Tensor, "n m"]) -> Found | None:
    """Lanczos' method on rows @ rows.T, each new vector made orthogonal to all before; `None` if it is not through.

    Golub, Van Loan: Matrix Computations, chapter 10.
    """
    basis = rows.new_empty(STEPS, len(rows))
    basis[0] = _start(rows)
    steps = rows.new_empty(2, STEPS)  # the diagonal of rows @ rows.T in this basis, which is tridiagonal, and below it
    tolerance = torch.finfo(rows.dtype).eps ** 0.7  # 1e-5 in single precision, 1e-11 in double
    look = LOOK.get(rows.device.type, max(LOOK.values()))
    for step in range(STEPS):
        known = basis[: step + 1]
        new = rows @ (rows.T @ known[step])
        overlap = known @ new
        new = torch.addmv(new, known.T, overlap, alpha=-1)
        steps[0, step] = overlap[step]
        rest = steps[1, step] = torch.linalg.vector_norm(new)
        if step + 1 >= FIRST and (step + 1) % look == 0:
            diagonal, below = steps[:, : step + 1].tolist()
            # Where nothing is left, all of a space was found, and what comes after is noise.
            size = next((at + 1 for at, one in enumerate(below) if one <= tolerance * diagonal[0]), step + 1)
            if not all(map(math.isfinite, diagonal[:size] + below[:size])):
                return basis[0], math.nan
            small = np.diag(diagonal[:size]) + np.diag(below[: size - 1], -1)
            values, vectors = np.linalg.eigh(small)  # reads what is on and below the diagonal
            if below[size - 1] * abs(vectors[-1, -1]) <= tolerance * values[-1]:  # how far from being an eigenvector
                return torch.from_numpy(vectors[:, -1]).to(rows) @ basis[:size], math.sqrt(values[-1])
        if step + 1 < STEPS:
            torch.div(new, rest, out=basis[step + 1])
    return None


def _start(rows: Float[Tensor, "n m"]) -> Float[Tensor, " n"]:
    """Each row's sum, which is near the answer, and a little of something irregular, lest it be orthogonal to it."""
    sums, irregular = rows.sum(1), torch.arange(1, len(rows) + 1, device=rows.device).sin().to(rows)
    start = sums / sums.norm().clamp(min=torch.finfo(rows.dtype).tiny) + 0.02 * irregular / irregular.norm()
    return start / start.norm()


def _whole(rows: Float[Tensor, "n m"]) -> Found:
    """The same from all of the spectrum, in double precision: always right, and slow."""
    exact = rows.cpu().double()  # not every accelerator knows double precision
    square = exact @ exact.T
    if not square.isfinite().all():
        return rows[:, 0], math.nan
    values, vectors = torch.linalg.eigh(square)
    return vectors[:, -1].to(rows), values[-1].clamp(min=0).sqrt().item()
