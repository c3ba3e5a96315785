"""A quick twin answers what the network answers, in fewer operations, and the network does not notice."""

from __future__ import annotations

import pytest
import timm
import torch
import torchvision
from torch import nn

import vizlib
from vizlib.capture import record_pass
from vizlib.models.inference.batched_inference import BatchedInference
from vizlib.models.inference.folded_copy import find_conv_norm_pairs, make_folded_copy

SHOWN = {"input_size": (3, 64, 64), "crop_pct": 1.0, "crop_mode": "squash"}


def lively(module, seed=0):
    """In double precision, and with normalisations that do something."""
    random = torch.Generator().manual_seed(seed)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            for values, low in (
                (part.weight, 0.5),
                (part.bias, -0.5),
                (part.running_mean, -0.5),
                (part.running_var, 0.5),
            ):
                values.data.copy_(torch.rand(values.shape, generator=random) + low)
    return module.double().eval()


def images(count=2, side=64):
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def resnet():
    torch.manual_seed(0)
    return lively(timm.create_model("resnet18", num_classes=6))


@pytest.mark.parametrize(
    ("make", "count"),
    [
        (lambda: timm.create_model("resnet18", num_classes=6), 20),  # every convolution of it
        (lambda: timm.create_model("resnet26d", num_classes=6), 31),
        (lambda: torchvision.models.resnet18(num_classes=6), 20),
        (lambda: torchvision.models.regnet_y_400mf(num_classes=6), None),
        (lambda: timm.create_model("efficientnet_b0", num_classes=6), 0),  # its normalisations are timm's own
        (lambda: torchvision.models.densenet121(num_classes=6), None),
        (lambda: timm.create_model("vit_tiny_patch16_224", img_size=64, num_classes=6), 0),
    ],
)
def test_a_quick_twin_answers_as_the_network_does(make, count):
    torch.manual_seed(0)
    module, pixels = lively(make()), images()
    pairs = find_conv_norm_pairs(module, lambda: module(pixels))
    assert count is None or len(pairs) == count
    with torch.no_grad():
        expected, found = module(pixels), make_folded_copy(module, pairs)(pixels)
    assert expected.std() > 0
    assert torch.allclose(found, expected, rtol=1e-9, atol=1e-9 * expected.abs().max().item())


def test_a_folded_normalisation_is_gone_and_the_network_keeps_its_own():
    module = resnet()
    before = {name: (id(value), value.clone()) for name, value in module.state_dict(keep_vars=True).items()}
    twin = make_folded_copy(module, find_conv_norm_pairs(module, lambda: module(images())))
    assert not [part for part in twin.modules() if isinstance(part, nn.BatchNorm2d)]
    assert all(not parameter.requires_grad for parameter in twin.parameters())
    assert not any(part.training for part in twin.modules()), "each pass would make another twin of it"
    assert len([part for part in module.modules() if isinstance(part, nn.BatchNorm2d)]) == 20
    assert all(parameter.requires_grad for parameter in module.parameters())
    after = module.state_dict(keep_vars=True)
    assert all(id(after[name]) == which and torch.equal(after[name], value) for name, (which, value) in before.items())


def test_a_kept_layer_gives_what_it_gives_in_the_network():
    module, pixels = resnet(), images()
    pairs = find_conv_norm_pairs(module, lambda: module(pixels))
    for kept in ("layer1.0.conv1", "layer2.0.bn2", "conv1"):
        seen = []
        for network in (module, make_folded_copy(module, pairs, exact_layers=[kept])):
            with record_pass(network, [kept]) as recording:
                network(pixels)
            seen.append(recording.activations[kept])
        assert torch.allclose(*seen, rtol=1e-9, atol=1e-9)
    twin = make_folded_copy(module, pairs)
    assert not torch.allclose(twin.conv1(pixels), module.conv1(pixels)), "this test could not fail"


class Odd(nn.Module):
    """Each convolution has a reason why it must not be folded, but the last."""

    def __init__(self):
        super().__init__()
        self.shared, self.read_twice, self.heard, self.plain = (nn.Conv2d(3, 3, 3, padding=1) for _ in range(4))
        self.norms = nn.ModuleList(nn.BatchNorm2d(3) for _ in range(5))
        self.head = nn.Linear(3, 4)

    def forward(self, x):
        x = self.norms[1](self.shared(self.norms[0](self.shared(x)).relu()))
        once = self.read_twice(x)
        x = self.norms[2](once) + once
        x = self.norms[3](self.heard(x)).relu()
        return self.head(self.norms[4](self.plain(x)).relu().mean((2, 3)))


def test_what_is_used_twice_read_twice_or_listened_to_is_not_folded():
    torch.manual_seed(0)
    module, pixels = lively(Odd()), images()
    pairs = find_conv_norm_pairs(module, lambda: module(pixels))
    assert pairs == {"heard": "norms.3", "plain": "norms.4"}
    heard = []
    handle = module.heard.register_forward_hook(lambda _module, _inputs, output: heard.append(output.detach()))
    twin = make_folded_copy(module, pairs)
    assert isinstance(twin.norms[3], nn.BatchNorm2d)
    assert isinstance(twin.norms[4], nn.Identity)
    assert torch.allclose(twin(pixels), module(pixels), rtol=1e-9)
    assert torch.allclose(heard[0], heard[1], rtol=1e-9)
    handle.remove()


def test_a_network_in_training_mode_is_asked_as_in_evaluation():
    module = resnet()
    expected = BatchedInference(vizlib.wrap(module, preprocessing=SHOWN)).logits(images())
    module.train()
    before = module.bn1.running_mean.clone()
    found = BatchedInference(vizlib.wrap(module, preprocessing=SHOWN)).logits(images())
    assert torch.equal(found, expected)
    assert torch.equal(module.bn1.running_mean, before)
    assert module.training


def test_weights_that_change_between_two_calls_count_as_they_are():
    module = resnet()
    model = vizlib.wrap(module, preprocessing=SHOWN)
    first = BatchedInference(model).logits(images())
    with torch.no_grad():
        module.layer1[0].conv1.weight.mul_(2)
        module.bn1.running_mean.add_(0.3)
        expected = module(images())
    found = BatchedInference(model).logits(images())
    assert not torch.allclose(found, first)
    assert torch.allclose(found, expected, rtol=1e-9, atol=1e-9)


def test_a_twin_too_heavy_for_the_budget_is_not_made():
    model = vizlib.wrap(timm.create_model("resnet18").eval(), preprocessing=SHOWN)
    weight = sum(part.weight.nbytes for part in model.module.modules() if isinstance(part, nn.Conv2d))
    small, large = BatchedInference(model, budget_mb=64), BatchedInference(model, budget_mb=1 + weight * 4 // 10**6)
    pixels = images().float()
    assert torch.allclose(small.logits(pixels), large.logits(pixels), atol=1e-4)
    assert small._quick().module is model.module
    assert large._quick().module is not model.module


def test_linear_weights_are_cast_once_and_the_answer_is_autocasts():
    torch.manual_seed(0)
    module = timm.create_model("vit_tiny_patch16_224", img_size=64, num_classes=6).eval()
    pixels = images().float()
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        expected = module(pixels)
        found = make_folded_copy(module, {}, dtype=torch.bfloat16)(pixels)
    assert torch.equal(found, expected)
