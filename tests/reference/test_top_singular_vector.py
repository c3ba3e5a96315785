"""The first singular vector, found in a few steps, is the one numpy's full decomposition finds."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vizlib.attribution.methods import top_singular_vector as spectral
from vizlib.attribution.methods.top_singular_vector import project_on_top_singular_vector

LARGE = spectral.MAX_STEPS + 30  # on the shorter side, or the whole spectrum is computed at once


def planted(values, shape, seed=0, along=None):
    """A matrix with these singular values, random vectors, and if given `along` as the first left one."""
    random = np.random.default_rng(seed)
    left = random.standard_normal((shape[0], len(values)))
    if along is not None:
        left[:, 0] = along
    left, right = (np.linalg.qr(side)[0] for side in (left, random.standard_normal((shape[1], len(values)))))
    return torch.from_numpy(left * values @ right.T)


def by_numpy(matrix):
    _, values, right = np.linalg.svd(matrix.double().numpy(), full_matrices=False)
    return torch.from_numpy(values[0] * right[0])


def gap(found, expected):
    expected = expected * torch.sign((found.double() * expected).sum())
    return ((found - expected).abs().max() / expected.abs().max()).item()


@pytest.fixture(autouse=True, params=["cpu", "cuda"])
def way(request, monkeypatch):
    """As on a processor, and as what lies on a GPU is searched."""
    if request.param == "cuda":
        monkeypatch.setattr(spectral, "_prepare_on_cpu", spectral._prepare_from_gpu)


@pytest.fixture
def whole(monkeypatch):
    """How often the whole spectrum was computed."""
    calls, slow = [], spectral._decompose_fully
    monkeypatch.setattr(spectral, "_decompose_fully", lambda rows: calls.append(1) or slow(rows))
    return calls


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("shape", [(LARGE, 120), (120, LARGE), (7, 200), (200, 7), (5, 1), (1, 5)])
def test_it_equals_numpys_on_any_shape_and_in_any_layout(shape, transposed):
    matrix = torch.from_numpy(np.random.default_rng(0).standard_normal(shape)) + 0.3
    if transposed:
        matrix = matrix.T.contiguous().T
    assert gap(project_on_top_singular_vector(matrix), by_numpy(matrix)) < 1e-6
    assert gap(project_on_top_singular_vector(matrix.float()), by_numpy(matrix)) < 1e-4


@pytest.mark.parametrize("second", [0.0, 0.5, 0.9, 0.98])
def test_a_planted_vector_is_found_without_the_whole_spectrum(second, whole):
    values = np.array([1.0, *second * 0.97 ** np.arange(50)])
    matrix = planted(values, (LARGE, 150))
    assert gap(project_on_top_singular_vector(matrix), by_numpy(matrix)) < 1e-6
    assert not whole


def test_a_vector_at_right_angles_to_the_rows_sums_is_found():
    """The sums are where the search begins; here they are, to rounding, the second vector."""
    size = LARGE
    first = np.r_[1.0, -1.0, np.zeros(size - 2)]
    second = np.r_[1.0, 1.0, np.ones(size - 2)] / np.sqrt(size)
    right = np.linalg.qr(np.c_[np.ones(90), np.arange(90) % 2])[0]
    matrix = torch.from_numpy(np.outer(first / np.sqrt(2), right[:, 1]) + 0.9 * np.outer(second, right[:, 0]))
    assert gap(project_on_top_singular_vector(matrix), by_numpy(matrix)) < 1e-6
    assert gap(project_on_top_singular_vector(matrix.float()), by_numpy(matrix)) < 1e-4


def test_a_matrix_whose_rows_sum_to_zero_is_no_exception():
    matrix = torch.from_numpy(np.random.default_rng(1).standard_normal((LARGE, 100)))
    matrix -= matrix.mean(1, keepdim=True)
    assert gap(project_on_top_singular_vector(matrix), by_numpy(matrix)) < 1e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_singular_values_give_some_vector_of_the_space_they_share(dtype):
    matrix = planted(np.array([2.0, 2.0, 1.0, 0.5]), (LARGE, 100)).to(dtype)
    found = project_on_top_singular_vector(matrix)
    assert found.norm().item() == pytest.approx(2, rel=1e-5)
    assert (matrix @ found).norm().item() == pytest.approx(4, rel=1e-5)  # 2 × 2: it is stretched as far as can be


def test_where_a_few_steps_do_not_suffice_the_whole_spectrum_answers(whole):
    values = np.linspace(1, 0.9, LARGE)
    matrix = planted(values, (LARGE, LARGE))
    assert gap(project_on_top_singular_vector(matrix), by_numpy(matrix)) < 1e-6
    assert whole


@pytest.mark.parametrize("rows", [4, LARGE])
@pytest.mark.parametrize("scale", [1e-25, 1e-15, 1e12, 1e25])
def test_values_whose_squares_vanish_or_overflow_are_no_exception(scale, rows):
    matrix = (torch.rand(rows, 100, generator=torch.Generator().manual_seed(0)) - 0.2) * scale
    expected = by_numpy(matrix.double() / scale)
    assert gap(project_on_top_singular_vector(matrix) / scale, expected) < 1e-4


@pytest.mark.parametrize("rows", [4, LARGE])
def test_nothing_stays_nothing_and_what_is_not_finite_is_said(rows):
    matrix = torch.zeros(rows, 100)
    assert torch.equal(project_on_top_singular_vector(matrix), torch.zeros(100))
    for wrong in (torch.nan, torch.inf):
        matrix[2, 3] = wrong
        assert project_on_top_singular_vector(matrix).isnan().all()


@pytest.mark.parametrize("name", ["resnet50", "deit_tiny_patch16_224"])
def test_a_real_networks_layers_never_need_the_whole_spectrum(name, real_network, cheetah, whole):
    model = real_network(name)
    stages = [stage for stage in model.stages if stage != "blocks.11"]  # its patches have no gradient
    run = model.run(cheetah, layers=stages)
    gradients = run.gradients(int(run.logits.argmax()), of=[run.activations[stage] for stage in stages])
    for stage, gradient in zip(stages, gradients, strict=True):
        activation = model.spatial_map(run.activations[stage].detach()).flatten(1)
        for matrix in (activation, activation * model.spatial_map(gradient).flatten(1)):
            assert gap(project_on_top_singular_vector(matrix), by_numpy(matrix)) < 1e-4
    assert not whole
