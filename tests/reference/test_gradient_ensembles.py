"""SmoothGrad and integrated gradients equal their papers' formulas in slow loops, and captum's gradients."""

from __future__ import annotations

import copy
import re
from itertools import pairwise

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
    """Of one input, in a pass of its own: "3 h w"."""
    point = point.clone().requires_grad_()
    return torch.autograd.grad(score(model.module(point)[0]), point)[0][0]


def assert_close(heat, expected, share=1e-6):
    assert heat.shape == expected.shape
    assert expected.max() > expected.min()
    assert (heat - expected).abs().max().item() < share * expected.abs().max().item()


def alike(a, b):
    return torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1].item()


def shrunk(model, side=96):
    """A convolutional network with its real weights, shown a small photo."""
    shown = {**model.preprocessing.to_config(), "input_size": (3, side, side)}
    return vizlib.wrap(model.module, preprocessing=shown, name=model.name)


@pytest.fixture(scope="module")
def real(real_network):
    return shrunk(real_network("resnet18"))


# ------------------------------------------------------------------------------------------------ SmoothGrad


def noisy(image, noise, samples, seed):
    """The photo with noise that depends on the seed and the number of the sample alone."""
    width = noise * (image.max() - image.min()).item()
    for number in range(samples):
        drawn = np.random.Generator(np.random.PCG64([seed, number])).standard_normal(image.shape[1:], np.float32)
        yield image + width * torch.from_numpy(drawn).to(image)


def slow_form(form, gradients):
    """Smilkov et al. 2017; its squares, and their variance, as in Hooker et al. 2019 and Adebayo et al. 2018."""
    out = torch.zeros_like(gradients[0])
    for place in np.ndindex(*out.shape):
        values = [gradient[place].item() for gradient in gradients]
        mean = sum(values) / len(values)
        if form == "mean":
            out[place] = mean
        elif form == "squared":
            out[place] = sum(value**2 for value in values) / len(values)
        else:
            out[place] = sum((value - mean) ** 2 for value in values) / len(values)
    return out


REDUCED = {
    "max": lambda gradient: gradient.abs().amax(0),
    "mean": lambda gradient: gradient.abs().mean(0),
    "norm": lambda gradient: gradient.square().sum(0).sqrt(),
}


@pytest.mark.parametrize("form", ["mean", "squared", "variance"])
@pytest.mark.parametrize("score", SCORES)
def test_smoothgrad_is_made_of_the_gradients_at_noisy_copies(model, image, form, score):
    options, number = SCORES[score]
    gradients = [gradient_at(model, point, number) for point in noisy(image, 0.2, 6, 5)]
    shown = slow_form(form, gradients)
    for channels, reduce in REDUCED.items():
        knobs = {"samples": 6, "noise": 0.2, "form": form, "channels": channels, "seed": 5}
        assert_close(vizlib.explain(model, photo(), "smoothgrad", **options, **knobs).heat, reduce(shown))


def test_without_noise_smoothgrad_is_the_saliency(model):
    found = vizlib.explain(model, photo(), "smoothgrad", 2, noise=0.0, samples=3)
    assert_close(found.heat, vizlib.explain(model, photo(), "saliency", 2).heat)
    flat = vizlib.explain(model, photo(), "smoothgrad", 2, noise=0.0, samples=3, form="variance")
    assert flat.heat.max() < 1e-12


def test_smoothgrad_equals_captums_gradients_at_the_same_noisy_copies(real, cheetah):
    """In float64: a ReLU whose input is a rounding error from 0 lets the gradient through in only one of them."""
    shown = real.preprocessing
    real = vizlib.wrap(copy.deepcopy(real.module).double(), preprocessing=shown, name=real.name)
    target = real.predict(cheetah, top=1)[0].index
    copies = torch.cat(list(noisy(real.tensor(cheetah), 0.15, 5, 0)))
    slopes = Saliency(real.module).attribute(copies.requires_grad_(), target=target, abs=False).detach()
    expected = {"mean": slopes.mean(0), "squared": slopes.square().mean(0), "variance": slopes.var(0, correction=0)}
    for form, one in expected.items():
        found = vizlib.explain(real, cheetah, "smoothgrad", samples=5, form=form)
        assert_close(found.heat, REDUCED["max"](one))


# ------------------------------------------------------------------------------------------------ integrated gradients


def start_of(image, baseline):
    mean = torch.tensor((0.485, 0.456, 0.406)).double().view(1, 3, 1, 1)
    std = torch.tensor((0.229, 0.224, 0.225)).double().view(1, 3, 1, 1)
    pixels = torch.full_like(image.double(), float(baseline == "white"))
    return torch.zeros_like(image) if baseline == "mean" else ((pixels - mean) / std).to(image)


def slow_integral(model, image, start, edges, score):
    """Sundararajan et al. 2017, equation 1, as a sum: the gradient in the middle of each piece, times its length."""
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
def test_integrated_gradients_is_the_sum_over_pieces_that_grow_along_the_way(model, image, score, baseline, steps):
    options, number = SCORES[score]
    start = start_of(image, baseline)
    expected = slow_integral(model, image, start, [(i / steps) ** 1.6 for i in range(steps + 1)], number)
    found = vizlib.explain(model, photo(), "integrated-gradients", **options, baseline=baseline, steps=steps)
    assert found.signed
    assert_close(found.heat, expected)
    with torch.no_grad():
        rise = (number(model.module(image)[0]) - number(model.module(start)[0])).item()
    total = expected.sum().item()
    assert (
        np.abs(np.subtract(parse_sum_note(found.notes), [total, rise, 100 * (total - rise) / abs(rise)])).max() < 0.051
    )


def test_with_many_steps_it_is_the_integral_and_its_sum_the_rise_of_the_score(model, image):
    start = start_of(image, "black")
    expected = slow_integral(model, image, start, [i / 2000 for i in range(2001)], lambda logits: logits[2])
    many = vizlib.explain(model, photo(), "integrated-gradients", 2, steps=400)
    assert_close(many.heat, expected, 5e-3)
    assert abs(parse_sum_note(many.notes)[2]) < 0.5
    usual = vizlib.explain(model, photo(), "integrated-gradients", 2)
    assert usual.parameters["steps"] == 40
    assert_close(usual.heat, expected, 0.05)
    assert abs(parse_sum_note(usual.notes)[2]) < 5


def test_integrated_gradients_agrees_with_captums_finer_integral(real, cheetah):
    image, target = real.tensor(cheetah), real.predict(cheetah, top=1)[0].index
    expected = IntegratedGradients(real.module).attribute(
        image, start_of(image, "black"), target=target, n_steps=100, internal_batch_size=20
    )
    found = vizlib.explain(real, cheetah, "integrated-gradients", precision="float32")
    assert alike(found.heat, expected.sum(1)[0].detach().float()) > 0.99


def test_where_the_score_did_not_rise_no_share_of_nothing_is_parse_sum_note(model):
    found = vizlib.explain(model, photo(), "integrated-gradients", 2, against=2, steps=3)
    assert not found.heat.any()
    assert "The map sums to 0.000; the score difference to the baseline is 0.000." in found.notes


# ------------------------------------------------------------------------------------------------ both


@pytest.mark.parametrize("method", ["smoothgrad", "integrated-gradients"])
def test_how_many_inputs_a_batch_holds_changes_nothing(model, method, monkeypatch):
    knob = {"smoothgrad": "samples", "integrated-gradients": "steps"}[method]
    whole = vizlib.explain(model, photo(), method, 2, **{knob: 7})
    for size, expected in ((1, [*range(1, 8)]), (3, [3, 5, 7])):
        monkeypatch.setattr(
            "vizlib.models.inference.batched_inference.BatchedInference.batch_size", lambda *_, size=size, **__: size
        )
        steps = list(vizlib.explain_stream(model, photo(), method, 2, **{knob: 7}))
        assert [step.done for step in steps] == expected
        assert_close(steps[-1].attribution.heat, whole.heat)
        assert steps[-1].attribution.notes == whole.notes


@pytest.mark.parametrize("method", ["smoothgrad", "integrated-gradients"])
def test_fast_says_how_near_its_first_gradient_is_to_single_precision(method):
    torch.manual_seed(0)
    model = vizlib.wrap(Small().eval(), preprocessing=PREPROCESSING)
    exact = vizlib.explain(model, photo(), method, 2)
    assert not any("bfloat16" in note for note in exact.notes)
    fast = vizlib.explain(model, photo(), method, 2, precision="fast")
    (note,) = [note for note in fast.notes if "bfloat16" in note]
    found = re.search(r"the correlation of one gradient with single precision is (\d\.\d{3})", note)
    assert found
    assert 0.9 < float(found[1]) <= 1
    assert not torch.equal(fast.heat, exact.heat)
    assert alike(fast.heat, exact.heat) > 0.95


def test_another_seed_draws_other_noise_and_the_same_seed_the_same(model):
    one, same, other = (vizlib.explain(model, photo(), "smoothgrad", 2, samples=2, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(one.heat, same.heat)
    assert not torch.allclose(one.heat, other.heat)
    start, same, other = (
        vizlib.explain(model, photo(), "integrated-gradients", 2, steps=2, baseline="noise", seed=seed)
        for seed in (3, 3, 4)
    )
    assert torch.equal(start.heat, same.heat)
    assert not torch.allclose(start.heat, other.heat)
