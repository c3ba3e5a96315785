"""Top singular vector of a matrix by Lanczos' method, which is faster than a full singular value decomposition."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

MAX_STEPS = 48  # steps of Lanczos' method before all singular values are computed; ImageNet networks need 4 to 14
MIN_STEPS = 4  # steps before the residual is checked

Vector = NDArray[np.float64]
MatrixProduct = Callable[[Vector], Vector]
SingularPair = tuple[Vector, float]  # top left singular vector and its singular value


def project_on_top_singular_vector(matrix: Float[Tensor, "channels positions"]) -> Float[Tensor, " positions"]:
    """Return the projection of each position on the top right singular vector of positions by channels.

    The matrix is not centred. The sign of the result is arbitrary. If the two largest singular values are equal to
    rounding, the vector is any one of the space they share.

    Returns:
        One value per position; zeros for a matrix of zeros, NaN for a matrix that holds a value that is not finite.
    """
    is_wide = len(matrix) <= matrix.shape[1]
    rows = matrix if is_wide else matrix.T  # singular vectors are computed on the shorter side
    singular_pair = _run_lanczos(rows) if len(rows) > MAX_STEPS else None
    vector, singular_value = singular_pair or _decompose_fully(rows)
    if 1e-9 < singular_value < 1e9:
        left = torch.from_numpy(vector).to(rows.dtype).to(rows.device)
        return left @ rows if is_wide else left * singular_value
    largest = rows.abs().max()
    if not 0 < largest < torch.inf:
        return torch.full_like(matrix[0], 0 if largest == 0 else torch.nan)
    # Squares of such small or large values underflow or overflow in single precision.
    return project_on_top_singular_vector(matrix / largest) * largest


@np.errstate(all="ignore")  # values that are not finite are returned as such
def _run_lanczos(rows: Float[Tensor, "n m"]) -> SingularPair | None:
    """Return the top singular pair by Lanczos' method with full reorthogonalisation; `None` if it did not converge.

    The method takes a dozen products with `rows @ rows.T`. The vectors are NumPy arrays, because such small operations
    take less time in NumPy than in PyTorch.

    References:
        Golub, Van Loan. Matrix Computations, chapter 10.
    """
    multiply, row_sums = _prepare_on_cpu(rows) if rows.is_cpu else _prepare_from_gpu(rows)
    basis = np.empty((MAX_STEPS, len(rows)))
    basis[0] = _make_start_vector(row_sums)
    diagonal, subdiagonal = np.zeros(MAX_STEPS), np.zeros(MAX_STEPS)  # of rows @ rows.T in this basis: tridiagonal
    tolerance = torch.finfo(rows.dtype).eps ** 0.7  # 1e-5 in single precision, 1e-11 in double
    for step in range(MAX_STEPS):
        previous = basis[: step + 1]
        residual = multiply(previous[step])
        overlaps = previous @ residual
        residual = residual - overlaps @ previous
        diagonal[step], subdiagonal[step] = overlaps[step], math.sqrt(residual @ residual)
        if not math.isfinite(diagonal[step] + subdiagonal[step]):
            return basis[0], math.nan
        # A residual of zero means an invariant subspace: further vectors would be rounding errors.
        if step + 1 >= MIN_STEPS or subdiagonal[step] <= tolerance * diagonal[0]:
            tridiagonal = np.diag(diagonal[: step + 1]) + np.diag(subdiagonal[:step], -1)
            values, vectors = np.linalg.eigh(tridiagonal)  # reads the lower triangle only
            if subdiagonal[step] * abs(vectors[-1, -1]) <= tolerance * values[-1]:  # residual of the eigenvector
                return vectors[:, -1] @ previous, math.sqrt(max(values[-1], 0))
        if step + 1 < MAX_STEPS:
            basis[step + 1] = residual / subdiagonal[step]
    return None


def _prepare_on_cpu(rows: Float[Tensor, "n m"]) -> tuple[MatrixProduct, Vector]:
    """Return Lanczos' product of a vector with `rows @ rows.T`, and the row sums, which approximate the result.

    Two products with `rows` take less time than making the square matrix.
    """
    row_sums = rows.sum(1).double().numpy()
    return (lambda vector: (rows @ (rows.T @ torch.from_numpy(vector).to(rows.dtype))).numpy()), row_sums


def _prepare_from_gpu(rows: Float[Tensor, "n m"]) -> tuple[MatrixProduct, Vector]:
    """Return Lanczos' product for a matrix on a GPU, where the square matrix is cheap and synchronisation is not."""
    square = (rows @ rows.T).cpu().double().numpy()
    return (lambda vector: square @ vector), square.sum(1)


def _make_start_vector(row_sums: Vector) -> Vector:
    """Return Lanczos' start vector: near the result, with an irregular part so that it is not orthogonal to it."""
    irregular = np.sin(np.arange(1, len(row_sums) + 1))
    norm = max(np.linalg.norm(row_sums), np.finfo(np.float64).tiny)
    start = row_sums / norm + 0.02 * irregular / np.linalg.norm(irregular)
    return start / np.linalg.norm(start)


def _decompose_fully(rows: Float[Tensor, "n m"]) -> SingularPair:
    """Return the top singular pair from all eigenvalues of `rows @ rows.T` in double precision: slow, always right."""
    exact = rows.cpu().double()  # some accelerators have no double precision
    square = exact @ exact.T
    if not square.isfinite().all():
        return exact[:, 0].numpy(), math.nan
    values, vectors = torch.linalg.eigh(square)
    return vectors[:, -1].numpy(), values[-1].clamp(min=0).sqrt().item()
