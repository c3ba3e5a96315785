"""The first singular vector of a layer, by Lanczos' method: a dozen passes over it where an SVD takes hundreds."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

MAX_STEPS = (
    48  # the most Lanczos takes before the whole spectrum is computed; a layer of ImageNet networks takes 4 to 14
)
MIN_STEPS = 4  # steps before the residual is looked at

Vector = NDArray[np.float64]
MatrixProduct = Callable[[Vector], Vector]
SingularPair = tuple[Vector, float]  # the first left singular vector and its singular value


def project_on_top_singular_vector(matrix: Float[Tensor, "channels places"]) -> Float[Tensor, " places"]:
    """Each place's projection on the first right singular vector of places × channels, which is not centred.

    The sign is anybody's. Zeros for a matrix of zeros, NaN for one that holds a value that is not finite. Where the two
    largest singular values are equal to rounding, it is some vector of the space they share.
    """
    wide = len(matrix) <= matrix.shape[1]
    rows = matrix if wide else matrix.T  # the shorter side first: there the vectors are sought
    found, length = (_run_lanczos(rows) if len(rows) > MAX_STEPS else None) or _decompose_fully(rows)
    if 1e-9 < length < 1e9:
        vector = torch.from_numpy(found).to(rows.dtype).to(rows.device)
        return vector @ rows if wide else vector * length
    size = rows.abs().max()
    if not 0 < size < torch.inf:
        return torch.full_like(matrix[0], 0 if size == 0 else torch.nan)
    return (
        project_on_top_singular_vector(matrix / size) * size
    )  # squares of such values vanish in single precision, or overflow


@np.errstate(all="ignore")  # what is not finite is seen where it comes out
def _run_lanczos(rows: Float[Tensor, "n m"]) -> SingularPair | None:
    """Lanczos' method on rows @ rows.T, each new vector made orthogonal to all before; `None` if it is not through.

    Its vectors are numpy's, to whom such small operations cost less than to PyTorch.
    Golub, Van Loan: Matrix Computations, chapter 10.
    """
    square, sums = _prepare_on_cpu(rows) if rows.is_cpu else _prepare_from_gpu(rows)
    basis = np.empty((MAX_STEPS, len(rows)))
    basis[0] = _make_start_vector(sums)
    diagonal, below = np.zeros(MAX_STEPS), np.zeros(MAX_STEPS)  # of rows @ rows.T in this basis, which is tridiagonal
    tolerance = torch.finfo(rows.dtype).eps ** 0.7  # 1e-5 in single precision, 1e-11 in double
    for step in range(MAX_STEPS):
        known = basis[: step + 1]
        new = square(known[step])
        overlap = known @ new
        new = new - overlap @ known
        diagonal[step], below[step] = overlap[step], math.sqrt(new @ new)
        if not math.isfinite(diagonal[step] + below[step]):
            return basis[0], math.nan
        # Where nothing is left, all of a space was found, and what came after would be noise.
        if step + 1 >= MIN_STEPS or below[step] <= tolerance * diagonal[0]:
            small = np.diag(diagonal[: step + 1]) + np.diag(below[:step], -1)
            values, vectors = np.linalg.eigh(small)  # reads what is on and below the diagonal
            if below[step] * abs(vectors[-1, -1]) <= tolerance * values[-1]:  # how far from being an eigenvector
                return vectors[:, -1] @ known, math.sqrt(max(values[-1], 0))
        if step + 1 < MAX_STEPS:
            basis[step + 1] = new / below[step]
    return None


def _prepare_on_cpu(rows: Float[Tensor, "n m"]) -> tuple[MatrixProduct, Vector]:
    """rows @ rows.T times a vector, in two passes over the rows, as their square would take more; and where to begin.

    Each row's sum is near the answer.
    """
    sums = rows.sum(1).double().numpy()
    return (lambda vector: (rows @ (rows.T @ torch.from_numpy(vector).to(rows.dtype))).numpy()), sums


def _prepare_from_gpu(rows: Float[Tensor, "n m"]) -> tuple[MatrixProduct, Vector]:
    """The same from a GPU, which has the square at once, while each step there would have to be waited for."""
    square = (rows @ rows.T).cpu().double().numpy()
    return (lambda vector: square @ vector), square.sum(1)


def _make_start_vector(sums: Vector) -> Vector:
    """A vector near the answer, and a little of something irregular, lest it be orthogonal to it."""
    irregular = np.sin(np.arange(1, len(sums) + 1))
    size = max(np.linalg.norm(sums), np.finfo(np.float64).tiny)
    start = sums / size + 0.02 * irregular / np.linalg.norm(irregular)
    return start / np.linalg.norm(start)


def _decompose_fully(rows: Float[Tensor, "n m"]) -> SingularPair:
    """The same from all of the spectrum, in double precision: always right, and slow."""
    exact = rows.cpu().double()  # not every accelerator knows double precision
    square = exact @ exact.T
    if not square.isfinite().all():
        return exact[:, 0].numpy(), math.nan
    values, vectors = torch.linalg.eigh(square)
    return vectors[:, -1].numpy(), values[-1].clamp(min=0).sqrt().item()
