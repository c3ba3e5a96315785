"""`vizlib.gradient`: vector-Jacobian products of outputs and layers, beside PyTorch's own, and the dual identity."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import nn

import vizlib
from vizlib import ModelError, TargetError, VizlibError
from vizlib.core.errors import MethodError

SIDE = 112  # pixels of the input, so that double precision takes little time
ARCHITECTURES = {  # name -> a middle layer, an earlier one, and options that keep the network small
    "resnet18": ("layer3", "layer1", {}),
    "vit_tiny_patch16_224": ("blocks.6", "blocks.2", {"depth": 8, "img_size": SIDE}),
    "swin_tiny_patch4_window7_224": (
        "layers.2",
        "layers.0",
        {"depths": (1, 1, 2, 1), "embed_dim": 24, "img_size": SIDE},
    ),
}


@pytest.fixture(scope="module", params=ARCHITECTURES)
def network(request):
    """Return a model in float64 with random weights, a middle layer of it, and an earlier one."""
    middle, early, options = ARCHITECTURES[request.param]
    torch.manual_seed(0)
    module: Any = timm.create_model(request.param, num_classes=5, **options).double().eval()
    preprocessing = {**module.pretrained_cfg, "input_size": (3, SIDE, SIDE)}
    return vizlib.wrap(module, preprocessing=preprocessing, labels=["a", "b", "c", "d", "e"]), middle, early


@pytest.fixture(scope="module")
def photo():
    return vizlib.open_image(np.random.default_rng(0).integers(0, 256, (240, 260, 3), np.uint8))


def run_until(model: vizlib.Model, layer: str):
    """Return the function from an image to the output of a layer, without vizlib."""

    def compute(image: torch.Tensor) -> torch.Tensor:
        outputs: list[torch.Tensor] = []
        hook = model.module.get_submodule(layer).register_forward_hook(lambda *given: outputs.append(given[2]))
        try:
            model.module(image)
        finally:
            hook.remove()
        return outputs[0]

    return compute


def test_it_equals_pytorchs_product_from_logits_layers_units_and_places(network, photo):
    model, middle, early = network
    image = model.tensor(photo).double()
    output = run_until(model, middle)
    shape = output(image).shape
    generator = torch.Generator().manual_seed(1)
    weights = torch.randn(shape, generator=generator, dtype=torch.float64)
    one = torch.zeros(shape, dtype=torch.float64)
    values = output(image)[0]  # the largest one, as a ReLU has no gradient where it is 0
    if len(shape) == 3:
        token, unit = divmod(int(values[1:].argmax()), shape[2])
        at = divmod(token, SIDE // 16)
        one[0, 1 + token, unit] = 1
    elif shape[1] == shape[2]:  # channels last
        place, unit = divmod(int(values.argmax()), shape[3])
        at = divmod(place, shape[2])
        one[0, at[0], at[1], unit] = 1
    else:
        unit, place = divmod(int(values.argmax()), shape[2] * shape[3])
        at = divmod(place, shape[3])
        one[0, unit, at[0], at[1]] = 1
    cases: list[tuple[dict[str, Any], Any, torch.Tensor]] = [
        ({"output": middle, "weights": weights}, output, weights),
        ({"output": middle, "weights": weights[0]}, output, weights),
        ({"output": middle, "unit": unit, "at": at}, output, one),
        ({"output": middle}, output, torch.ones(shape, dtype=torch.float64)),
        ({"weights": {"b": 1, "d": -0.5}}, model.module, torch.tensor([[0, 1, 0, -0.5, 0]], dtype=torch.float64)),
        ({"weights": torch.arange(5.0)}, model.module, torch.arange(5.0, dtype=torch.float64)[None]),
    ]
    for options, function, vector in cases:
        found = vizlib.gradient(model, photo, **options)
        expected: Any = torch.autograd.functional.vjp(function, image, vector)[1]
        scale = expected.abs().max()
        assert torch.allclose(found.gradients["image"] / scale, expected[0] / scale, atol=1e-6), options
        assert torch.allclose(found.weights, vector[0], atol=1e-12)
        assert found.score == pytest.approx((function(image) * vector).sum().item(), rel=1e-6)
        assert found.dual_error is not None
        assert found.dual_error < 1e-6, options
    whole = vizlib.gradient(model, photo, middle, unit=unit, of=[early, "image"])
    assert whole.dual_error is not None
    assert whole.dual_error < 1e-6
    assert set(whole.gradients) == {early, "image"}


def test_it_is_the_weighted_sum_of_single_gradients(network, photo):
    model, middle, early = network
    weights = {"a": 0.5, "c": -2.0, "e": 1.0}
    together = vizlib.gradient(model, photo, weights=weights, of=[early, middle, "image"], check=False)
    single = {name: vizlib.gradient(model, photo, weights={name: 1}, of=[early, middle, "image"]) for name in weights}
    for of, found in together.gradients.items():
        expected = torch.stack([weight * single[name].gradients[of] for name, weight in weights.items()]).sum(0)
        assert torch.allclose(found, expected, atol=1e-6 * float(expected.abs().max()))
    assert together.dual_error is None


def test_a_function_has_its_own_gradient_as_weights(network, photo):
    model, middle, _ = network
    logits = model.module(model.tensor(photo).double())
    found = vizlib.gradient(model, photo, weights=lambda outputs: outputs.softmax(-1)[0, 2])
    p = logits.softmax(-1)[0]
    assert torch.allclose(found.weights, (p[2] * (torch.eye(5)[2] - p)).detach(), atol=1e-9)  # a row of the Jacobian
    assert found.score == pytest.approx(p[2].item())
    squared = vizlib.gradient(model, photo, middle, weights=lambda output: (output**2).sum() / 2)
    run = model.run(photo, layers=[middle])
    assert torch.allclose(squared.weights, run.activations[middle][0].detach(), atol=1e-9)


class Broken(torch.autograd.Function):
    """The square, with a backward pass that is not linear in the gradient, so that no Jacobian has its products."""

    @staticmethod
    def forward(ctx, value):
        ctx.save_for_backward(value)
        return value * value

    @staticmethod
    def backward(ctx, gradient):
        (value,) = ctx.saved_tensors
        return gradient.abs() * value


class BrokenNetwork(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 2)

    def forward(self, image):
        return self.head(Broken.apply(self.convolution(image)).mean((2, 3)))


def test_a_wrong_derivative_is_found_and_noted(photo):
    torch.manual_seed(0)
    preprocessing = {"input_size": (3, 16, 16), "crop_pct": 1.0, "crop_mode": "squash"}
    model = vizlib.wrap(BrokenNetwork().eval(), preprocessing=preprocessing)
    found = vizlib.gradient(model, photo, "convolution", check=True)
    assert found.dual_error == pytest.approx(0, abs=1e-4)
    with_break = vizlib.gradient(model, photo, weights={0: -1.0})
    assert with_break.dual_error is None or with_break.dual_error > 1e-3
    assert any("dual identity" in note for note in with_break.notes)


def test_maps_files_and_facts(photo, tmp_path):
    model = vizlib.load("resnet18-imagenette")
    found = vizlib.gradient(model, photo, "layer4", unit=17, at=(3, 4), of=["layer2", "image"])
    assert found.heat("image", "norm").equal(found.gradients["image"].norm(dim=0))
    assert found.heat("layer2", "sum").shape == (24, 24)
    assert found.overlay().size == photo.size
    assert found.save(tmp_path / "a.png", "layer2").stat().st_size > 1000
    with np.load(found.save(tmp_path / "a.npz")) as arrays:
        assert np.array_equal(arrays["layer2"], found.gradients["layer2"])
        assert arrays["weights"].sum() == arrays["weights"][17, 3, 4] == 1
    facts = json.loads(found.save(tmp_path / "a.json").read_text())
    assert facts["label"] == "layer4, channel 17, row 3, column 4"
    assert facts["gradients"]["layer2"]["shape"] == [128, 24, 24]
    with pytest.raises(VizlibError, match=r"cannot save as '\.gif'; use one of \.png"):
        found.save(tmp_path / "a.gif")
    with pytest.raises(VizlibError, match="no gradient was taken of 'layer1'"):
        found.heat("layer1")
    head = vizlib.gradient(model, photo, of="global_pool")
    with pytest.raises(VizlibError, match="the output of global_pool has no positions"):
        head.heat("global_pool")


def test_wrong_requests_are_one_sentence(photo):
    model = vizlib.load("resnet18-imagenette")
    requests: list[tuple[type[Exception], str, dict[str, Any]]] = [
        (ModelError, "this model has no layer 'layer9'", {"output": "layer9"}),
        (ModelError, "layer4 does not come before layer2", {"output": "layer2", "of": "layer4"}),
        (ModelError, "layer4 has the channels 0 to 511, and no channel 512", {"output": "layer4", "unit": 512}),
        (ModelError, "layer4 has 6 × 6 positions, and none at row and column 6, 0", {"output": "layer4", "at": (6, 0)}),
        (ModelError, "the output of fc has no positions; leave at= out", {"output": "fc", "at": (0, 0)}),
        (TargetError, r"unit= and at= choose a part of a layer", {"unit": 3}),
        (TargetError, r"the weights have the shape \(3,\); expected \(10,\)", {"weights": torch.ones(3)}),
        (TargetError, r"returns \(1, 10\); expected a tensor with one number", {"weights": lambda logits: logits}),
        (TargetError, "no class 'chirch'|chirch", {"weights": {"chirch": 1}}),
        (MethodError, "the score has no gradient", {"weights": lambda logits: logits.detach().sum()}),
        (ModelError, "of= names nothing", {"of": []}),
    ]
    for kind, message, options in requests:
        with pytest.raises(kind, match=message):
            vizlib.gradient(model, photo, **options)


def test_the_network_is_left_unchanged(photo):
    model = vizlib.load("vit_tiny-imagenette")
    before = {name: value.clone() for name, value in model.module.state_dict().items()}
    vizlib.gradient(model, photo, "blocks.5", unit=3, of=["blocks.1", "image"])
    assert all(parameter.grad is None for parameter in model.module.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.module.state_dict().items())
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in model.module.modules())
