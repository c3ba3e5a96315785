"""Metrics beside those of captum, pytorch-grad-cam, torchcam and Quantus, and where they differ."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from functools import partial
from typing import Any

import gradio.media
import numpy as np
import pytest
import torch
from captum.metrics import infidelity, sensitivity_max
from pytorch_grad_cam.metrics.road import NoisyLinearImputer, neighbors_weights
from scipy.sparse import csc_matrix
from scipy.sparse.linalg import spsolve
from torchcam.metrics import ClassificationMetric, DeletionInsertionMetric

import vizlib
from vizlib.metrics import deletion, insertion, measure
from vizlib.metrics.faithfulness import make_squares
from vizlib.metrics.imputation import impute_pixels
from vizlib.models.randomised_copy import iterate_randomised_copies

SINGLE: dict[str, Any] = {"precision": "float32"}


@pytest.fixture(
    scope="module", params=["bundled", *(pytest.param(name, marks=pytest.mark.slow) for name in ("resnet18", "deit"))]
)
def explained(request):
    """Return a model, its Grad-CAM of a photo, the input, and the map in the size of the input."""
    if request.param == "bundled":
        model = vizlib.load("resnet18-imagenette")
    else:
        names = {"resnet18": "resnet18", "deit": "deit_tiny_patch16_224"}
        model = request.getfixturevalue("real_network")(names[request.param])
    attribution = vizlib.explain(model, gradio.media.get_image("tower.jpg"), "grad-cam")
    image = model.tensor(attribution.photo)
    heat = torch.nn.functional.interpolate(
        attribution.heat[None, None], image.shape[-2:], mode="bilinear", align_corners=False
    )
    return model, attribution, image, heat


class FixedMap:
    """What torchcam's metrics take as an extractor, with a given map."""

    def __init__(self, model: torch.nn.Module, heat: torch.Tensor) -> None:
        self.model, self.heat = model, heat

    def __call__(self, *_: Any, **__: Any) -> list[torch.Tensor]:
        return [self.heat]

    def fuse_cams(self, cams: list[torch.Tensor]) -> torch.Tensor:
        return cams[0]

    def _hooks_off(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()


SOFTMAX = partial(torch.softmax, dim=-1)


def test_deletion_and_insertion_equal_torchcam(explained):
    model, attribution, image, heat = explained
    steps = 16  # divides the number of pixels; elsewhere torchcam rounds the size of a step up
    assert image[0, 0].numel() % steps == 0
    metric = DeletionInsertionMetric(FixedMap(model.module, heat[:, 0]), SOFTMAX, steps=steps)
    metric.update(image, attribution.target)
    summary = metric.summary()
    found = {
        "deletion": deletion(model, attribution, steps=steps, **SINGLE).auc,
        "insertion": insertion(model, attribution, steps=steps, baseline="mean", **SINGLE).auc,
    }
    for name, value in found.items():
        (expected,) = (number for key, number in summary.items() if name in key)
        assert value == pytest.approx(expected, abs=1e-3)


def test_average_drop_and_increase_equal_torchcam_of_the_same_mask(explained):
    model, attribution, image, heat = explained
    mask = heat[:, 0].clamp(min=0) / heat.max()
    metric = ClassificationMetric(FixedMap(model.module, mask), SOFTMAX)
    metric.update(image, attribution.target)
    summary = metric.summary()
    assert measure(model, attribution, "average-drop", **SINGLE).value == pytest.approx(summary["avg_drop"], abs=1e-4)
    assert measure(model, attribution, "increase", **SINGLE).value == summary["conf_increase"]
    # Left to itself torchcam rescales a map to the range 0 to 1, so that a map whose lowest value is above 0 differs.


@pytest.mark.parametrize("kind", ["a half", "random pixels", "a frame"])
def test_imputed_pixels_equal_pytorch_grad_cam(explained, kind):
    _, _, image, heat = explained
    removed = {
        "a half": heat[0, 0] > heat.median(),
        "random pixels": torch.rand(heat.shape[-2:], generator=torch.Generator().manual_seed(2)) < 0.6,
        "a frame": torch.ones(heat.shape[-2:], dtype=torch.bool),
    }[kind]
    if kind == "a frame":
        removed[5:-5, 5:-5] = False
    system = NoisyLinearImputer.setup_sparse_system((~removed).float().numpy(), image[0].numpy(), neighbors_weights)
    expected: Any = spsolve(csc_matrix(system[0]), system[1])
    found = impute_pixels(image, removed, 0.0, 0)[0]
    assert np.allclose(found[:, removed].T.numpy(), expected, atol=1e-4)
    assert torch.equal(found[:, ~removed], image[0][:, ~removed])


@pytest.mark.slow
def test_infidelity_equals_captum_for_the_same_squares(explained):
    model, attribution, image, heat = explained
    squares, target = 24, attribution.target
    masks = torch.zeros(squares, *image.shape[1:])
    boxes = make_squares(squares, (image.shape[-2], image.shape[-1]), 0).tolist()
    for mask, (top, left, bottom, right) in zip(masks, boxes, strict=True):
        mask[:, top:bottom, left:right] = 1

    @torch.no_grad()
    def forward(images: torch.Tensor) -> torch.Tensor:
        return torch.cat([model.module(row).softmax(-1)[:, target] for row in images.split(1)])

    # captum has one value for each colour, and sums them; its value is not divided by that of a map of zeros.
    expected = infidelity(
        forward,
        lambda inputs, *_: (masks, inputs * (1 - masks)),
        image,
        heat.expand_as(image) / 3,
        n_perturb_samples=squares,
        normalize=True,
    )
    zero_error = (forward(image) - forward(image * (1 - masks))).double().square().mean()
    found = measure(model, attribution, "infidelity", squares=squares, random_maps=0, **SINGLE).value
    assert found == pytest.approx(expected.item() / zero_error.item(), rel=1e-2)


def unpack(inputs: Any) -> torch.Tensor:
    """Return what captum gives as a tensor, or as a tuple of one."""
    return inputs[0] if isinstance(inputs, tuple) else inputs


def test_max_sensitivity_equals_captum_for_the_same_noise(explained):
    model, attribution, image, _ = explained
    samples, radius = 4, 0.05
    noise = iter(
        radius
        * torch.from_numpy(np.random.Generator(np.random.PCG64([0, i])).uniform(-1, 1, tuple(image.shape))).float()
        for i in range(samples)
    )

    @torch.enable_grad()
    def explain(images: Any) -> torch.Tensor:
        heats = []
        for row in unpack(images):
            row = row[None].clone().requires_grad_()
            (gradient,) = torch.autograd.grad(model.module(row)[0, attribution.target], row)
            heats.append(gradient.abs().amax(1, keepdim=True))
        return torch.cat(heats)

    # One sample a call: with several, the value of captum 0.9 is too large by the square root of their number.
    values = [
        sensitivity_max(
            explain, image, lambda inputs, _: unpack(inputs) + next(noise), radius, n_perturb_samples=1
        ).item()
        for _ in range(samples)
    ]
    saliency = vizlib.explain(model, attribution.photo, "saliency", target=attribution.target)
    found = measure(model, saliency, "max-sensitivity", samples=samples, radius=radius, **SINGLE)
    assert found.value == pytest.approx(max(values), rel=1e-3)


@pytest.mark.slow
def test_sparseness_and_deletion_equal_quantus(explained):
    quantus = pytest.importorskip("quantus", reason="Quantus is not installed: its values are not compared")
    model, attribution, image, heat = explained
    arguments: dict[str, Any] = {"device": "cpu", "softmax": True}
    inputs = model.module, image.numpy(), np.array([attribution.target])
    sparseness = quantus.Sparseness(abs=True, normalise=False, disable_warnings=True)
    changed = replace(attribution, heat=heat[0, 0])
    found = measure(model, changed, "sparseness", random_maps=0).value
    assert found == pytest.approx(sparseness(*inputs, a_batch=heat.numpy(), **arguments)[0], abs=1e-4)
    steps = 16
    flipping = quantus.PixelFlipping(
        features_in_step=heat.numel() // steps, perturb_baseline=0.0, disable_warnings=True, abs=False, normalise=False
    )
    # Quantus removes equal values in another order, so that no two are equal here.
    distinct = heat + heat.max() * 1e-3 * torch.rand(heat.shape, generator=torch.Generator().manual_seed(3))
    (curve,) = flipping(*inputs, a_batch=distinct.numpy(), **arguments)
    ours = deletion(model, replace(attribution, heat=distinct[0, 0]), steps=steps, **SINGLE)
    # It removes the three colours of a pixel one after another, and has no point of the whole photo.
    assert ours.score[1:].tolist() == pytest.approx(list(curve[2::3]), abs=1e-3)


def test_imputed_pixels_equal_quantus(explained):
    """Its ROAD then counts photos that keep their class, where ours has the mean probability of the class."""
    perturb_func = pytest.importorskip("quantus.functions.perturb_func", reason="Quantus is not installed")
    _, _, image, heat = explained
    removed = heat[0, 0] > heat.median()
    indices = np.flatnonzero(removed.numpy())
    expected = perturb_func.noisy_linear_imputation(image[0].numpy().astype(np.float64), indices, noise=0.0)
    found = impute_pixels(image, removed, 0.0, 0)[0]
    assert np.allclose(found.numpy(), expected, atol=1e-4)


@pytest.mark.slow
def test_parameter_randomisation_equals_quantus_for_the_same_random_parameters(explained, monkeypatch):
    """Quantus draws parameters as before training and layer by layer, so it is given our randomised networks."""
    quantus = pytest.importorskip("quantus", reason="Quantus is not installed: its values are not compared")
    from quantus.helpers.model.pytorch_model import PyTorchModel

    model, attribution, image, _ = explained
    levels = list(iterate_randomised_copies(model, cascading=True, seed=0))
    modules = [(level.name or "own parameters", copy.module) for level, copy in levels]
    monkeypatch.setattr(PyTorchModel, "get_random_layer_generator", lambda *_, **__: iter(modules))

    def explain(model: Any, inputs: Any, targets: Any, **_: Any) -> np.ndarray:
        given = torch.as_tensor(inputs).requires_grad_()
        (gradient,) = torch.autograd.grad(model(given)[0, int(targets[0])], given)
        return gradient.abs().amax(1, keepdim=True).numpy()

    metric = quantus.MPRT(
        abs=True, normalise=False, disable_warnings=True, display_progressbar=False, return_average_correlation=False
    )
    scores = metric(
        model.module, image.numpy(), np.array([attribution.target]), explain_func=explain, device="cpu", softmax=False
    )
    saliency = vizlib.explain(model, attribution.photo, "saliency", target=attribution.target)
    found = measure(model, saliency, "parameter-randomisation", **SINGLE)
    assert [value for _, value in found.curve] == pytest.approx([scores[name][0] for name, _ in modules], abs=1e-3)
    assert found.value == pytest.approx(np.mean([abs(scores[name][0]) for name, _ in modules]), abs=1e-3)
