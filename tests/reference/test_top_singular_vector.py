"""The projection on the top singular vector by Lanczos' method equals that of NumPy's full decomposition."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vizlib.attribution.methods import top_singular_vector
from vizlib.attribution.methods.top_singular_vector import project_on_top_singular_vector

LARGE = top_singular_vector.MAX_STEPS + 30  # a shorter side of at most MAX_STEPS is decomposed fully


def make_matrix(values, shape, seed=0, along=None):
    """Return a matrix with these singular values; `along` is its first left singular vector if given."""
    random = np.random.default_rng(seed)
    left = random.standard_normal((shape[0], len(values)))
    if along is not None:
        left[:, 0] = along
    left, right = (np.linalg.qr(side)[0] for side in (left, random.standard_normal((shape[1], len(values)))))
    return torch.from_numpy(left * values @ right.T)


def reference_projection(matrix):
    """Return the projection on the top right singular vector by NumPy's SVD."""
    _, values, right = np.linalg.svd(matrix.double().numpy(), full_matrices=False)
    return torch.from_numpy(values[0] * right[0])


def relative_error(projection, expected):
    """Return the largest relative difference, whatever the sign of the vectors."""
    expected = expected * torch.sign((projection.double() * expected).sum())
    return ((projection - expected).abs().max() / expected.abs().max()).item()


@pytest.fixture(autouse=True, params=["cpu", "cuda"])
def device_path(request, monkeypatch):
    """Run each test with the products of the CPU path and of the GPU path."""
    if request.param == "cuda":
        monkeypatch.setattr(top_singular_vector, "_prepare_on_cpu", top_singular_vector._prepare_from_gpu)


@pytest.fixture
def full_decompositions(monkeypatch):
    """Return a list with one entry for each full decomposition."""
    calls, decompose = [], top_singular_vector._decompose_fully
    monkeypatch.setattr(top_singular_vector, "_decompose_fully", lambda rows: calls.append(1) or decompose(rows))
    return calls


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("shape", [(LARGE, 120), (120, LARGE), (7, 200), (200, 7), (5, 1), (1, 5)])
def test_projection_equals_numpy_svd_for_any_shape_and_memory_layout(shape, transposed):
    matrix = torch.from_numpy(np.random.default_rng(0).standard_normal(shape)) + 0.3
    if transposed:
        matrix = matrix.T.contiguous().T
    assert relative_error(project_on_top_singular_vector(matrix), reference_projection(matrix)) < 1e-6
    assert relative_error(project_on_top_singular_vector(matrix.float()), reference_projection(matrix)) < 1e-4


@pytest.mark.parametrize("ratio", [0.0, 0.5, 0.9, 0.98])
def test_lanczos_converges_without_full_decomposition(ratio, full_decompositions):
    values = np.array([1.0, *ratio * 0.97 ** np.arange(50)])
    matrix = make_matrix(values, (LARGE, 150))
    assert relative_error(project_on_top_singular_vector(matrix), reference_projection(matrix)) < 1e-6
    assert not full_decompositions


def test_top_vector_orthogonal_to_the_start_vector_is_computed():
    """The row sums are the start vector; here they are, to rounding, the second singular vector."""
    size = LARGE
    first = np.r_[1.0, -1.0, np.zeros(size - 2)]
    second = np.r_[1.0, 1.0, np.ones(size - 2)] / np.sqrt(size)
    right = np.linalg.qr(np.c_[np.ones(90), np.arange(90) % 2])[0]
    matrix = torch.from_numpy(np.outer(first / np.sqrt(2), right[:, 1]) + 0.9 * np.outer(second, right[:, 0]))
    assert relative_error(project_on_top_singular_vector(matrix), reference_projection(matrix)) < 1e-6
    assert relative_error(project_on_top_singular_vector(matrix.float()), reference_projection(matrix)) < 1e-4


def test_matrix_with_zero_row_sums():
    matrix = torch.from_numpy(np.random.default_rng(1).standard_normal((LARGE, 100)))
    matrix -= matrix.mean(1, keepdim=True)
    assert relative_error(project_on_top_singular_vector(matrix), reference_projection(matrix)) < 1e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_singular_values_give_a_vector_of_their_common_space(dtype):
    matrix = make_matrix(np.array([2.0, 2.0, 1.0, 0.5]), (LARGE, 100)).to(dtype)
    projection = project_on_top_singular_vector(matrix)
    assert projection.norm().item() == pytest.approx(2, rel=1e-5)
    assert (matrix @ projection).norm().item() == pytest.approx(4, rel=1e-5)  # 2 × 2: stretched by the largest value


def test_full_decomposition_is_used_when_lanczos_does_not_converge(full_decompositions):
    values = np.linspace(1, 0.9, LARGE)
    matrix = make_matrix(values, (LARGE, LARGE))
    assert relative_error(project_on_top_singular_vector(matrix), reference_projection(matrix)) < 1e-6
    assert full_decompositions


@pytest.mark.parametrize("rows", [4, LARGE])
@pytest.mark.parametrize("scale", [1e-25, 1e-15, 1e12, 1e25])
def test_values_whose_squares_underflow_or_overflow(scale, rows):
    matrix = (torch.rand(rows, 100, generator=torch.Generator().manual_seed(0)) - 0.2) * scale
    expected = reference_projection(matrix.double() / scale)
    assert relative_error(project_on_top_singular_vector(matrix) / scale, expected) < 1e-4


@pytest.mark.parametrize("rows", [4, LARGE])
def test_zeros_give_zeros_and_non_finite_values_give_nan(rows):
    matrix = torch.zeros(rows, 100)
    assert torch.equal(project_on_top_singular_vector(matrix), torch.zeros(100))
    for value in (torch.nan, torch.inf):
        matrix[2, 3] = value
        assert project_on_top_singular_vector(matrix).isnan().all()


@pytest.mark.parametrize("name", ["resnet50", "deit_tiny_patch16_224"])
def test_layers_of_real_networks_need_no_full_decomposition(name, real_network, cheetah, full_decompositions):
    model = real_network(name)
    stages = [stage for stage in model.stages if stage != "blocks.11"]  # the patches of its output have no gradient
    run = model.run(cheetah, layers=stages)
    gradients = run.gradients(int(run.logits.argmax()), of=[run.activations[stage] for stage in stages])
    for stage, gradient in zip(stages, gradients, strict=True):
        activation = model.spatial_map(run.activations[stage].detach()).flatten(1)
        for matrix in (activation, activation * model.spatial_map(gradient).flatten(1)):
            assert relative_error(project_on_top_singular_vector(matrix), reference_projection(matrix)) < 1e-4
    assert not full_decompositions
