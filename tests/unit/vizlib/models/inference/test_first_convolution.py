"""The stem: the first convolution, where many gradients can leave the network together."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

import vizlib
from vizlib.models.inference.first_convolution import find_first_convolution

PREPROCESSING = {"input_size": (3, 32, 32), "crop_pct": 1.0, "crop_mode": "squash"}


class Twice(nn.Module):
    """The pixels are read a second time, behind the convolution's back."""

    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 3, 3, padding=1), nn.Linear(3, 4)

    def forward(self, x):
        return self.head((self.conv(x).relu() + x).square().mean((2, 3)))


class Prepared(Twice):
    """The convolution sees the pixels changed."""

    def forward(self, x):
        return self.head(self.conv(x.square()).relu().mean((2, 3)))


def wrapped(module):
    return vizlib.wrap(module.double().eval(), preprocessing=PREPROCESSING)


@pytest.mark.parametrize(
    ("name", "options", "layer"),
    [
        ("resnet18", {}, "conv1"),
        ("resnet18d", {}, "conv1.0"),
        ("resnetv2_50x1_bit", {}, "stem.conv"),
        ("vit_tiny_patch16_224", {"img_size": 32}, "patch_embed.proj"),
        ("swin_tiny_patch4_window7_224", {"img_size": 32, "window_size": 4}, "patch_embed.proj"),
    ],
)
def test_a_gradient_carried_from_the_stem_is_the_gradient_at_the_pixels(name, options, layer):
    torch.manual_seed(0)
    model = wrapped(timm.create_model(name, num_classes=5, **options))
    stem = find_first_convolution(model)
    assert stem.layer == layer
    image, logits, seen = model.forward(torch.rand(2, 3, 32, 32, dtype=torch.float64), [layer])
    at_pixels, at_stem = torch.autograd.grad(logits[:, 1].sum(), [image, seen.activations[layer]])
    assert torch.allclose(stem.forward(image.detach()), seen.activations[layer], rtol=1e-9)
    assert at_pixels.any()
    assert torch.allclose(stem.backward(at_stem), at_pixels, rtol=1e-9, atol=1e-12)
    assert stem.backward(at_stem.sum(0, keepdim=True)).sub(at_pixels.sum(0)).abs().max() < 1e-9


@pytest.mark.parametrize("network", [Twice, Prepared])
def test_a_network_that_reads_its_pixels_otherwise_has_no_stem(network):
    torch.manual_seed(0)
    model = wrapped(network())
    stem, anything = find_first_convolution(model), torch.rand(1, 3, 32, 32)
    assert stem.layer is None
    assert stem.forward(anything) is anything
    assert stem.backward(anything) is anything


@pytest.mark.parametrize("method", ["integrated-gradients", "smoothgrad"])
def test_without_a_stem_the_gradients_are_averaged_at_the_pixels(method):
    torch.manual_seed(0)
    model, photo = wrapped(Twice()), torch.randint(0, 256, (32, 32, 3), dtype=torch.uint8).numpy()
    image = model.tensor(vizlib.open_image(photo))
    if method == "smoothgrad":
        found = vizlib.explain(model, photo, method, 1, noise=0.0, samples=3).heat
        point = image.clone().requires_grad_()
        expected = torch.autograd.grad(model.module(point)[0, 1], point)[0][0].abs().amax(0)
    else:
        found = vizlib.explain(model, photo, method, 1, steps=200, baseline="mean").heat
        points = (image * (torch.arange(2000).double().add(0.5) / 2000).view(-1, 1, 1, 1)).requires_grad_()
        slopes = torch.autograd.grad(model.module(points)[:, 1].sum(), points)[0].mean(0)
        expected = (image[0] * slopes).sum(0)
    assert (found - expected).abs().max() < 1e-3 * expected.abs().max()
