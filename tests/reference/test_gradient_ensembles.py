"""SmoothGrad and integrated gradients equal the formulas of their papers in explicit loops, and captum."""

from __future__ import annotations

import copy
import re
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import IntegratedGradients, Saliency
from torch import nn

import vizlib

SIZE = (10, 13)
PREPROCESSING = {"input_size": (3, *SIZE), "crop_pct": 1.0, "crop_mode": "squash"}


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 5, 3)
        self.head = nn.Linear(5, 4)

    def forward(self, x):
        return self.head(self.two(self.one(x).relu()).relu().square().mean((2, 3)))


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return vizlib.wrap(Small().double().eval(), preprocessing=PREPROCESSING)


def photo(seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*SIZE, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def image(model):
    return model.tensor(vizlib.open_image(photo()))


SCORES = {
    "logit": ({"target": 2}, lambda logits: logits[2]),
    "probability": ({"target": 1, "score": "probability"}, lambda logits: logits.softmax(-1)[1]),
    "against": ({"target": 2, "against": 0}, lambda logits: logits[2] - logits[0]),
}


def gradient_at(model, point, score):
    """Return the gradient at one input, of shape "3 h w", from a pass of its own."""
    point = point.clone().requires_grad_()
    return torch.autograd.grad(score(model.module(point)[0]), point)[0][0]


def assert_close(heat, expected, share=1e-6):
    assert heat.shape == expected.shape
    assert expected.max() > expected.min()
    assert (heat - expected).abs().max().item() < share * expected.abs().max().item()


def correlation(a, b):
    return torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1].item()


def with_small_input(model, side=96):
    """Return the model with a smaller input, so that the tests take less time."""
    preprocessing = {**model.preprocessing.to_config(), "input_size": (3, side, side)}
    return vizlib.wrap(model.module, preprocessing=preprocessing, name=model.name)


@pytest.fixture(scope="module")
def resnet(real_network):
    return with_small_input(real_network("resnet18"))


# ------------------------------------------------------------------------------------------------ SmoothGrad


def noisy_copies(image, noise, samples, seed):
    """Yield copies of the image with noise that depends only on the seed and the index of the copy."""
    width = noise * (image.max() - image.min()).item()
    for index in range(samples):
        drawn = np.random.Generator(np.random.PCG64([seed, index])).standard_normal(image.shape[1:], np.float32)
        yield image + width * torch.from_numpy(drawn).to(image)


def combine_slowly(form, gradients):
    """Combine gradients as in Smilkov et al. 2017, Hooker et al. 2019 (squares) and Adebayo et al. 2018 (variance)."""
    out = torch.zeros_like(gradients[0])
    for index in np.ndindex(*out.shape):
        values = [gradient[index].item() for gradient in gradients]
        mean = sum(values) / len(values)
        if form == "mean":
            out[index] = mean
        elif form == "squared":
            out[index] = sum(value**2 for value in values) / len(values)
        else:
            out[index] = sum((value - mean) ** 2 for value in values) / len(values)
    return out


REDUCED = {
    "max": lambda gradient: gradient.abs().amax(0),
    "mean": lambda gradient: gradient.abs().mean(0),
    "norm": lambda gradient: gradient.square().sum(0).sqrt(),
}


@pytest.mark.parametrize("form", ["mean", "squared", "variance"])
@pytest.mark.parametrize("score", SCORES)
def test_smoothgrad_combines_the_gradients_at_noisy_copies(model, image, form, score):
    options, score_of = SCORES[score]
    gradients = [gradient_at(model, point, score_of) for point in noisy_copies(image, 0.2, 6, 5)]
    combined = combine_slowly(form, gradients)
    for channels, reduce in REDUCED.items():
        parameters = {"samples": 6, "noise": 0.2, "form": form, "channels": channels, "seed": 5}
        assert_close(vizlib.explain(model, photo(), "smoothgrad", **options, **parameters).heat, reduce(combined))


def test_smoothgrad_without_noise_equals_saliency(model):
    attribution = vizlib.explain(model, photo(), "smoothgrad", 2, noise=0.0, samples=3)
    assert_close(attribution.heat, vizlib.explain(model, photo(), "saliency", 2).heat)
    flat = vizlib.explain(model, photo(), "smoothgrad", 2, noise=0.0, samples=3, form="variance")
    assert flat.heat.max() < 1e-12


def test_smoothgrad_equals_captum_gradients_at_the_same_noisy_copies(resnet, cheetah):
    """In float64, because of ReLUs whose input is 0 up to rounding: only one of the two would pass the gradient."""
    resnet = vizlib.wrap(copy.deepcopy(resnet.module).double(), preprocessing=resnet.preprocessing, name=resnet.name)
    target = resnet.predict(cheetah, top=1)[0].index
    copies = torch.cat(list(noisy_copies(resnet.tensor(cheetah), 0.15, 5, 0)))
    gradients = Saliency(resnet.module).attribute(copies.requires_grad_(), target=target, abs=False).detach()
    expected = {
        "mean": gradients.mean(0),
        "squared": gradients.square().mean(0),
        "variance": gradients.var(0, correction=0),
    }
    for form, gradient in expected.items():
        attribution = vizlib.explain(resnet, cheetah, "smoothgrad", samples=5, form=form)
        assert_close(attribution.heat, REDUCED["max"](gradient))


# ------------------------------------------------------------------------------------------------ integrated gradients


def make_start(image, baseline):
    mean = torch.tensor((0.485, 0.456, 0.406)).double().view(1, 3, 1, 1)
    std = torch.tensor((0.229, 0.224, 0.225)).double().view(1, 3, 1, 1)
    pixels = torch.full_like(image.double(), float(baseline == "white"))
    return torch.zeros_like(image) if baseline == "mean" else ((pixels - mean) / std).to(image)


def slow_integral(model, image, start, edges, score):
    """Sundararajan et al. 2017, equation 1, as a sum: the gradient at the midpoint of each step, times its length."""
    total = torch.zeros_like(image[0])
    for low, high in pairwise(edges):
        total += (high - low) * gradient_at(model, start + (low + high) / 2 * (image - start), score)
    return ((image - start)[0] * total).sum(0)


def parse_sum_note(notes):
    """Return the sum of the map, the score difference and the gap in percent from the note on completeness."""
    (note,) = [note for note in notes if "sums to" in note]
    number = r"(-?\d+\.\d+)"
    match = re.fullmatch(
        rf"The map sums to {number}; the score difference to the baseline is {number}: a gap of {number}%\.", note
    )
    assert match, note
    return [float(value) for value in match.groups()]


@pytest.mark.parametrize(("score", "baseline"), [("logit", "black"), ("probability", "mean"), ("against", "white")])
@pytest.mark.parametrize("steps", [2, 7])
def test_integrated_gradients_equals_the_midpoint_sum_over_growing_steps(model, image, score, baseline, steps):
    options, score_of = SCORES[score]
    start = make_start(image, baseline)
    expected = slow_integral(model, image, start, [(i / steps) ** 1.6 for i in range(steps + 1)], score_of)
    attribution = vizlib.explain(model, photo(), "integrated-gradients", **options, baseline=baseline, steps=steps)
    assert attribution.signed
    assert_close(attribution.heat, expected)
    with torch.no_grad():
        difference = (score_of(model.module(image)[0]) - score_of(model.module(start)[0])).item()
    total = expected.sum().item()
    facts = [total, difference, 100 * (total - difference) / abs(difference)]
    assert np.abs(np.subtract(parse_sum_note(attribution.notes), facts)).max() < 0.051


def test_integrated_gradients_with_many_steps_equals_the_integral_and_sums_to_the_score_difference(model, image):
    start = make_start(image, "black")
    expected = slow_integral(model, image, start, [i / 2000 for i in range(2001)], lambda logits: logits[2])
    many = vizlib.explain(model, photo(), "integrated-gradients", 2, steps=400)
    assert_close(many.heat, expected, 5e-3)
    assert abs(parse_sum_note(many.notes)[2]) < 0.5
    usual = vizlib.explain(model, photo(), "integrated-gradients", 2)
    assert usual.parameters["steps"] == 40
    assert_close(usual.heat, expected, 0.05)
    assert abs(parse_sum_note(usual.notes)[2]) < 5


def test_integrated_gradients_correlates_with_captum_with_more_steps(resnet, cheetah):
    image, target = resnet.tensor(cheetah), resnet.predict(cheetah, top=1)[0].index
    expected = IntegratedGradients(resnet.module).attribute(
        image, make_start(image, "black"), target=target, n_steps=100, internal_batch_size=20
    )
    attribution = vizlib.explain(resnet, cheetah, "integrated-gradients", precision="float32")
    assert correlation(attribution.heat, expected.sum(1)[0].detach().float()) > 0.99


def test_no_gap_is_reported_when_the_score_difference_is_zero(model):
    attribution = vizlib.explain(model, photo(), "integrated-gradients", 2, against=2, steps=3)
    assert not attribution.heat.any()
    assert "The map sums to 0.000; the score difference to the baseline is 0.000." in attribution.notes


# ------------------------------------------------------------------------------------------------ both


@pytest.mark.parametrize("method", ["smoothgrad", "integrated-gradients"])
def test_result_does_not_depend_on_the_batch_size(model, method, monkeypatch):
    parameters: dict[str, Any] = {{"smoothgrad": "samples", "integrated-gradients": "steps"}[method]: 7}
    single_batch = vizlib.explain(model, photo(), method, 2, **parameters)
    for size, expected in ((1, [*range(1, 8)]), (3, [3, 5, 7])):
        monkeypatch.setattr(
            "vizlib.models.inference.batched_inference.BatchedInference.batch_size", lambda *_, size=size, **__: size
        )
        steps = list(vizlib.explain_stream(model, photo(), method, 2, **parameters))
        assert [step.done for step in steps] == expected
        assert_close(steps[-1].attribution.heat, single_batch.heat)
        assert steps[-1].attribution.notes == single_batch.notes


@pytest.mark.parametrize("method", ["smoothgrad", "integrated-gradients"])
def test_fast_precision_reports_the_correlation_of_one_gradient(method):
    torch.manual_seed(0)
    model = vizlib.wrap(Small().eval(), preprocessing=PREPROCESSING)
    exact = vizlib.explain(model, photo(), method, 2)
    assert not any("bfloat16" in note for note in exact.notes)
    fast = vizlib.explain(model, photo(), method, 2, precision="fast")
    (note,) = [note for note in fast.notes if "bfloat16" in note]
    match = re.search(r"the correlation of one gradient with single precision is (\d\.\d{3})", note)
    assert match
    assert 0.9 < float(match[1]) <= 1
    assert not torch.equal(fast.heat, exact.heat)
    assert correlation(fast.heat, exact.heat) > 0.95


def test_seed_determines_the_noise(model):
    one, same, other = (vizlib.explain(model, photo(), "smoothgrad", 2, samples=2, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(one.heat, same.heat)
    assert not torch.allclose(one.heat, other.heat)
    start, same, other = (
        vizlib.explain(model, photo(), "integrated-gradients", 2, steps=2, baseline="noise", seed=seed)
        for seed in (3, 3, 4)
    )
    assert torch.equal(start.heat, same.heat)
    assert not torch.allclose(start.heat, other.heat)
