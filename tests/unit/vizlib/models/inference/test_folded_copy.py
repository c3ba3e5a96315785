"""A folded copy has the outputs of the network, and the network is not changed."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import nn

import vizlib
from vizlib.capture import record_pass
from vizlib.models.inference.batched_inference import BatchedInference
from vizlib.models.inference.folded_copy import find_conv_norm_pairs, make_folded_copy

PREPROCESSING = {"input_size": (3, 64, 64), "crop_pct": 1.0, "crop_mode": "squash"}


def randomise_norms(module, seed=0):
    """Return the network in double precision, with batch norms that are not the identity."""
    random = torch.Generator().manual_seed(seed)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            for values, low in (
                (part.weight, 0.5),
                (part.bias, -0.5),
                (part.running_mean, -0.5),
                (part.running_var, 0.5),
            ):
                assert values is not None
                values.data.copy_(torch.rand(values.shape, generator=random) + low)
    return module.double().eval()


def make_images(count=2, side=64):
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def build_resnet() -> Any:
    torch.manual_seed(0)
    return randomise_norms(timm.create_model("resnet18", num_classes=6))


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
def test_folded_copy_has_the_outputs_of_the_network(make, count):
    torch.manual_seed(0)
    module, pixels = randomise_norms(make()), make_images()
    pairs = find_conv_norm_pairs(module, lambda: module(pixels))
    assert count is None or len(pairs) == count
    with torch.no_grad():
        expected, outputs = module(pixels), make_folded_copy(module, pairs)(pixels)
    assert expected.std() > 0
    assert torch.allclose(outputs, expected, rtol=1e-9, atol=1e-9 * expected.abs().max().item())


def test_folding_removes_batch_norms_from_the_copy_only():
    module = build_resnet()
    before = {name: (id(value), value.clone()) for name, value in module.state_dict(keep_vars=True).items()}
    folded = make_folded_copy(module, find_conv_norm_pairs(module, lambda: module(make_images())))
    assert not [part for part in folded.modules() if isinstance(part, nn.BatchNorm2d)]
    assert all(not parameter.requires_grad for parameter in folded.parameters())
    assert not any(part.training for part in folded.modules()), "each pass would make another copy of it"
    assert len([part for part in module.modules() if isinstance(part, nn.BatchNorm2d)]) == 20
    assert all(parameter.requires_grad for parameter in module.parameters())
    after = module.state_dict(keep_vars=True)
    assert all(id(after[name]) == which and torch.equal(after[name], value) for name, (which, value) in before.items())


def test_exact_layers_have_the_outputs_of_the_network():
    module, pixels = build_resnet(), make_images()
    pairs = find_conv_norm_pairs(module, lambda: module(pixels))
    for layer in ("layer1.0.conv1", "layer2.0.bn2", "conv1"):
        outputs = []
        for network in (module, make_folded_copy(module, pairs, exact_layers=[layer])):
            with record_pass(network, [layer]) as recording:
                network(pixels)
            outputs.append(recording.activations[layer])
        assert torch.allclose(*outputs, rtol=1e-9, atol=1e-9)
    folded: Any = make_folded_copy(module, pairs)
    assert not torch.allclose(folded.conv1(pixels), module.conv1(pixels)), "otherwise this test could not fail"


class UnfoldableNetwork(nn.Module):
    """A network whose convolutions, except the last, must not be folded."""

    def __init__(self):
        super().__init__()
        self.shared, self.read_twice, self.hooked, self.foldable = (nn.Conv2d(3, 3, 3, padding=1) for _ in range(4))
        self.norms = nn.ModuleList(nn.BatchNorm2d(3) for _ in range(5))
        self.head = nn.Linear(3, 4)

    def forward(self, x):
        x = self.norms[1](self.shared(self.norms[0](self.shared(x)).relu()))
        once = self.read_twice(x)
        x = self.norms[2](once) + once
        x = self.norms[3](self.hooked(x)).relu()
        return self.head(self.norms[4](self.foldable(x)).relu().mean((2, 3)))


def test_convolutions_used_twice_read_twice_or_hooked_are_not_folded():
    torch.manual_seed(0)
    module, pixels = randomise_norms(UnfoldableNetwork()), make_images()
    pairs = find_conv_norm_pairs(module, lambda: module(pixels))
    assert pairs == {"hooked": "norms.3", "foldable": "norms.4"}
    hook_outputs = []
    handle = module.hooked.register_forward_hook(lambda _module, _inputs, output: hook_outputs.append(output.detach()))
    folded: Any = make_folded_copy(module, pairs)
    assert isinstance(folded.norms[3], nn.BatchNorm2d)
    assert isinstance(folded.norms[4], nn.Identity)
    assert torch.allclose(folded(pixels), module(pixels), rtol=1e-9)
    assert torch.allclose(hook_outputs[0], hook_outputs[1], rtol=1e-9)
    handle.remove()


def test_network_in_training_mode_runs_in_evaluation_mode():
    module = build_resnet()
    expected = BatchedInference(vizlib.wrap(module, preprocessing=PREPROCESSING)).logits(make_images())
    module.train()
    before = module.bn1.running_mean.clone()
    outputs = BatchedInference(vizlib.wrap(module, preprocessing=PREPROCESSING)).logits(make_images())
    assert torch.equal(outputs, expected)
    assert torch.equal(module.bn1.running_mean, before)
    assert module.training


def test_changed_weights_take_effect_in_a_new_batched_inference():
    module = build_resnet()
    model = vizlib.wrap(module, preprocessing=PREPROCESSING)
    first = BatchedInference(model).logits(make_images())
    with torch.no_grad():
        module.layer1[0].conv1.weight.mul_(2)
        module.bn1.running_mean.add_(0.3)
        expected = module(make_images())
    outputs = BatchedInference(model).logits(make_images())
    assert not torch.allclose(outputs, first)
    assert torch.allclose(outputs, expected, rtol=1e-9, atol=1e-9)


def test_folded_copy_that_exceeds_the_budget_is_not_made():
    model = vizlib.wrap(timm.create_model("resnet18").eval(), preprocessing=PREPROCESSING)
    weight_bytes = sum(part.weight.nbytes for part in model.module.modules() if isinstance(part, nn.Conv2d))
    small, large = (
        BatchedInference(model, budget_mb=64),
        BatchedInference(model, budget_mb=1 + weight_bytes * 4 // 10**6),
    )
    pixels = make_images().float()
    assert torch.allclose(small.logits(pixels), large.logits(pixels), atol=1e-4)
    assert small._folded_model().module is model.module
    assert large._folded_model().module is not model.module


def test_casting_linear_weights_once_equals_autocasting():
    torch.manual_seed(0)
    module = timm.create_model("vit_tiny_patch16_224", img_size=64, num_classes=6).eval()
    pixels = make_images().float()
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        expected = module(pixels)
        outputs = make_folded_copy(module, {}, dtype=torch.bfloat16)(pixels)
    assert torch.equal(outputs, expected)
