"""Gradients at the pixels equal captum on real networks, and an explicit backward pass on a small one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import timm
import torch
from captum.attr import GuidedBackprop, InputXGradient, Saliency
from peer_maps import assert_same_map
from torch import nn

import vizlib
from vizlib.attribution.methods.registry import METHODS
from vizlib.attribution.request import ONE_PASS

NETWORKS = ("resnet18", "resnet50", "deit_tiny_patch16_224")


@pytest.fixture(scope="module", params=NETWORKS)
def network(request, real_network):
    """A network with real ImageNet weights."""
    return real_network(request.param)


REDUCED = {
    "max": lambda gradient: gradient.abs().amax(1)[0],
    "mean": lambda gradient: gradient.abs().mean(1)[0],
    "norm": lambda gradient: gradient.square().sum(1).sqrt()[0],
}


TARGETS = [None, 281]  # the predicted class, and a class that is not in the photo


@pytest.mark.parametrize("target", TARGETS)
def test_saliency_equals_captum_reduced_the_same_way(network, cheetah, target):
    image = network.tensor(cheetah)
    index = network.predict(cheetah, top=1)[0].index if target is None else target
    expected = Saliency(network.module).attribute(image.clone().requires_grad_(), target=index)
    signed = Saliency(network.module).attribute(image.clone().requires_grad_(), target=index, abs=False)
    for channels, reduce in REDUCED.items():
        attribution = vizlib.explain(network, cheetah, "saliency", target, channels=channels)
        assert attribution.target == index
        assert_same_map(attribution.heat, reduce(expected).detach())
        assert_same_map(attribution.heat, reduce(signed).detach())


@pytest.mark.parametrize("target", TARGETS)
def test_input_x_gradient_equals_captum_summed_over_colours(network, cheetah, target):
    index = network.predict(cheetah, top=1)[0].index if target is None else target
    expected = InputXGradient(network.module).attribute(network.tensor(cheetah).requires_grad_(), target=index)
    attribution = vizlib.explain(network, cheetah, "input-x-gradient", target)
    assert attribution.signed
    assert_same_map(attribution.heat, expected.sum(1)[0].detach())


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.filterwarnings("ignore:Setting backward hooks on ReLU activations")
def test_guided_backprop_equals_captum(network, cheetah, target):
    if "guided-backprop" not in vizlib.list_methods(network):
        assert not any(isinstance(part, nn.ReLU) for part in network.module.modules())
        with pytest.raises(vizlib.MethodError, match="this model has none"):
            vizlib.explain(network, cheetah, "guided-backprop")
        return
    index = network.predict(cheetah, top=1)[0].index if target is None else target
    captum_method = GuidedBackprop(network.module)
    expected = captum_method.attribute(network.tensor(cheetah).requires_grad_(), target=index).detach()
    for channels, reduce in REDUCED.items():
        attribution = vizlib.explain(network, cheetah, "guided-backprop", target, channels=channels)
        assert_same_map(attribution.heat, reduce(expected))
    plain = vizlib.explain(network, cheetah, "saliency", target)
    assert (attribution.heat - plain.heat).abs().max() > 0.1 * plain.heat.max()  # a different map


# ------------------------------------------------------------------------------------------------ by hand


class Small(nn.Module):
    """Two convolutions with ReLUs and a linear layer over all positions."""

    def __init__(self, inplace=True):
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 3, 3)
        self.relu, self.also = nn.ReLU(inplace=inplace), nn.ReLU(inplace=inplace)
        self.head = nn.Linear(3 * 8 * 8, 4)

    def forward(self, x):
        return self.head(self.also(self.two(self.relu(self.one(x)))).flatten(1))


@pytest.fixture(params=[False, True], ids=["in place", "not in place"])
def small(request):
    torch.manual_seed(0)
    module = Small(inplace=not request.param).double().eval()
    return vizlib.wrap(module, preprocessing={"input_size": (3, 12, 12), "crop_pct": 1.0})


def photo():
    return np.random.default_rng(0).integers(0, 256, (12, 12, 3), dtype=np.uint8)


def convolve_slowly(x, weight, bias):
    out = np.zeros((weight.shape[0], x.shape[1] - 2, x.shape[2] - 2))
    for o in range(out.shape[0]):
        for i in range(out.shape[1]):
            for j in range(out.shape[2]):
                out[o, i, j] = (weight[o] * x[:, i : i + 3, j : j + 3]).sum() + bias[o]
    return out


def backpropagate_convolution(gradient, weight):
    """Return the gradient at the input of a 3 x 3 convolution."""
    out = np.zeros((weight.shape[1], gradient.shape[1] + 2, gradient.shape[2] + 2))
    for o in range(gradient.shape[0]):
        for i in range(gradient.shape[1]):
            for j in range(gradient.shape[2]):
                out[:, i : i + 3, j : j + 3] += gradient[o, i, j] * weight[o]
    return out


def reference_gradient(model, weights_of_classes, *, guided=False):
    """Return input, logits and the gradient of a weighted sum of logits at the pixels, by NumPy and the chain rule."""
    module = model.module
    x = model.tensor(vizlib.open_image(photo()))[0].numpy()
    parameters = {name: value.detach().numpy() for name, value in module.named_parameters()}
    first = convolve_slowly(x, parameters["one.weight"], parameters["one.bias"])
    second = convolve_slowly(np.maximum(first, 0), parameters["two.weight"], parameters["two.bias"])
    logits = parameters["head.weight"] @ np.maximum(second, 0).ravel() + parameters["head.bias"]
    gradient = (np.asarray(weights_of_classes) @ parameters["head.weight"]).reshape(second.shape)
    for pre_activation, weight in ((second, parameters["two.weight"]), (first, parameters["one.weight"])):
        if guided:
            gradient = np.maximum(gradient, 0)  # Springenberg et al.: negative gradients are set to 0
        gradient = backpropagate_convolution(gradient * (pre_activation > 0), weight)
    return x, logits, gradient


def one_hot(index):
    return np.eye(4)[index]


def assert_close(heat, expected):
    assert np.abs(expected).max() > 1e-4
    assert np.abs(heat.numpy() - expected).max() < 1e-6 * max(1, np.abs(expected).max())


SLOW_REDUCED = {
    "max": lambda gradient: np.abs(gradient).max(0),
    "mean": lambda gradient: np.abs(gradient).mean(0),
    "norm": lambda gradient: np.sqrt((gradient**2).sum(0)),
}


@pytest.mark.parametrize("channels", SLOW_REDUCED)
@pytest.mark.parametrize("target", range(4))
def test_gradients_equal_an_explicit_chain_rule(small, target, channels):
    reduce = SLOW_REDUCED[channels]
    x, _, gradient = reference_gradient(small, one_hot(target))
    attribution = vizlib.explain(small, photo(), "saliency", target, channels=channels)
    assert_close(attribution.heat, reduce(gradient))
    if channels == "max":
        assert_close(vizlib.explain(small, photo(), "input-x-gradient", target).heat, (x * gradient).sum(0))
    _, _, guided = reference_gradient(small, one_hot(target), guided=True)
    assert np.abs(guided - gradient).max() > 0.01 * np.abs(gradient).max()
    assert_close(vizlib.explain(small, photo(), "guided-backprop", target, channels=channels).heat, reduce(guided))


def test_saliency_equals_a_finite_difference_of_the_logit(small):
    run = small.run(photo())
    heat = vizlib.explain(small, photo(), "saliency", 1).heat
    step = 1e-6
    with torch.no_grad():
        for row, column in [(0, 0), (5, 7), (11, 3)]:
            differences = []
            for colour in range(3):
                changed = run.image.detach().clone()
                changed[0, colour, row, column] += step
                differences.append((small.module(changed) - run.logits)[0, 1].item() / step)
            assert abs(max(map(abs, differences)) - heat[row, column].item()) < 1e-5


@pytest.mark.parametrize("method", ["saliency", "input-x-gradient", "guided-backprop"])
def test_against_explains_the_difference_of_two_logits(small, method):
    x, _, gradient = reference_gradient(small, one_hot(2) - one_hot(0), guided=method == "guided-backprop")
    expected = (x * gradient).sum(0) if method == "input-x-gradient" else np.abs(gradient).max(0)
    attribution = vizlib.explain(small, photo(), method, target=2, against=0)
    assert attribution.against == 0
    assert_close(attribution.heat, expected)
    if method == "input-x-gradient":  # linear in the score, so the difference of two maps
        single = [vizlib.explain(small, photo(), method, target=target).heat for target in (2, 0)]
        assert_close(attribution.heat, (single[0] - single[1]).numpy())


@pytest.mark.parametrize("method", ["saliency", "input-x-gradient", "guided-backprop"])
def test_score_can_be_the_softmax_probability(small, method):
    _, logits, _ = reference_gradient(small, one_hot(1))
    probabilities = np.exp(logits - logits.max())
    probabilities /= probabilities.sum()
    logit_gradient = probabilities[1] * (one_hot(1) - probabilities)  # d softmax_1 / d logit_j
    x, _, gradient = reference_gradient(small, logit_gradient, guided=method == "guided-backprop")
    expected = (x * gradient).sum(0) if method == "input-x-gradient" else np.abs(gradient).max(0)
    attribution = vizlib.explain(small, photo(), method, target=1, score="probability")
    assert_close(attribution.heat, expected)
    assert abs(attribution.probability - probabilities[1]) < 1e-6
    contrast = probabilities[1] * (one_hot(1) - probabilities) - probabilities[3] * (one_hot(3) - probabilities)
    x, _, gradient = reference_gradient(small, contrast, guided=method == "guided-backprop")
    expected = (x * gradient).sum(0) if method == "input-x-gradient" else np.abs(gradient).max(0)
    assert_close(vizlib.explain(small, photo(), method, 1, against=3, score="probability").heat, expected)


def test_run_gradients_accept_class_weights_or_a_function_of_the_logits(small):
    run = small.run(photo())
    weights = np.array([0.3, -1.0, 0.0, 2.0])
    _, logits, gradient = reference_gradient(small, weights)
    assert np.allclose(run.gradients(torch.tensor(weights), of=[run.image])[0][0].numpy(), gradient, atol=1e-10)
    _, _, gradient = reference_gradient(small, 2 * logits)
    assert np.allclose(run.gradients(lambda out: out.square(), of=[run.image])[0][0].numpy(), gradient, atol=1e-10)


def test_guided_rule_applies_to_functional_relu():
    class Functional(Small):
        def forward(self, x):
            x = torch.relu(self.one(x))
            return self.head(nn.functional.relu(self.two(x)).flatten(1))

    torch.manual_seed(0)
    model = vizlib.wrap(Functional().double().eval(), preprocessing={"input_size": (3, 12, 12), "crop_pct": 1.0})
    _, _, guided = reference_gradient(model, one_hot(3), guided=True)
    assert_close(vizlib.explain(model, photo(), "guided-backprop", 3).heat, np.abs(guided).max(0))


@pytest.mark.slow
def test_explain_all_equals_each_method_alone():
    torch.manual_seed(0)
    for name in ("resnet18", "vit_tiny_patch16_224"):
        size: dict[str, Any] = {"img_size": 64} if "vit" in name else {}
        module = timm.create_model(name, num_classes=7, **size).eval()
        model = vizlib.wrap(module.double(), preprocessing={"input_size": (3, 64, 64), "crop_pct": 1.0})
        photo_array = np.random.default_rng(1).integers(0, 256, (64, 80, 3), dtype=np.uint8)
        all_attributions = vizlib.explain_all(model, photo_array, target=2, against=4)
        assert set(all_attributions) == {name for name in vizlib.list_methods(model) if METHODS[name].cost == ONE_PASS}
        run = vizlib.run_for_all(model, photo_array)
        from_run = vizlib.explain_all(model, target=2, against=4, run=run)
        vizlib.explain_all(model, target=3, run=run)  # explaining another class does not change the run
        for method, attribution in all_attributions.items():
            single = vizlib.explain(model, photo_array, method, target=2, against=4)
            assert torch.allclose(attribution.heat, single.heat, rtol=1e-5, atol=1e-9), method
            assert torch.equal(attribution.heat, from_run[method].heat), method
            assert attribution.parameters == single.parameters
            assert attribution.notes == single.notes
