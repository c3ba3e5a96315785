"""The first convolution, through which many gradients are propagated together."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

import vizlib
from vizlib.models.inference.first_convolution import find_first_convolution

PREPROCESSING = {"input_size": (3, 32, 32), "crop_pct": 1.0, "crop_mode": "squash"}


class ReadsPixelsTwice(nn.Module):
    """The pixels are also read outside the convolution."""

    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 3, 3, padding=1), nn.Linear(3, 4)

    def forward(self, x):
        return self.head((self.conv(x).relu() + x).square().mean((2, 3)))


class ChangesPixels(ReadsPixelsTwice):
    """The convolution receives transformed pixels."""

    def forward(self, x):
        return self.head(self.conv(x.square()).relu().mean((2, 3)))


def build_model(module):
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
def test_backward_returns_the_gradient_at_the_pixels(name, options, layer):
    torch.manual_seed(0)
    model = build_model(timm.create_model(name, num_classes=5, **options))
    convolution = find_first_convolution(model)
    assert convolution.layer == layer
    image, logits, recording = model.forward(torch.rand(2, 3, 32, 32, dtype=torch.float64), [layer])
    at_pixels, at_output = torch.autograd.grad(logits[:, 1].sum(), [image, recording.activations[layer]])
    assert torch.allclose(convolution.forward(image.detach()), recording.activations[layer], rtol=1e-9)
    assert at_pixels.any()
    assert torch.allclose(convolution.backward(at_output), at_pixels, rtol=1e-9, atol=1e-12)
    assert convolution.backward(at_output.sum(0, keepdim=True)).sub(at_pixels.sum(0)).abs().max() < 1e-9


@pytest.mark.parametrize("network", [ReadsPixelsTwice, ChangesPixels])
def test_network_that_reads_the_pixels_elsewhere_has_no_first_convolution(network):
    torch.manual_seed(0)
    model = build_model(network())
    convolution, images = find_first_convolution(model), torch.rand(1, 3, 32, 32)
    assert convolution.layer is None
    assert convolution.forward(images) is images
    assert convolution.backward(images) is images


@pytest.mark.parametrize("method", ["integrated-gradients", "smoothgrad"])
def test_without_a_first_convolution_gradients_are_averaged_at_the_pixels(method):
    torch.manual_seed(0)
    model, photo = build_model(ReadsPixelsTwice()), torch.randint(0, 256, (32, 32, 3), dtype=torch.uint8).numpy()
    image = model.tensor(vizlib.open_image(photo))
    if method == "smoothgrad":
        heat = vizlib.explain(model, photo, method, 1, noise=0.0, samples=3).heat
        input_on_graph = image.clone().requires_grad_()
        expected = torch.autograd.grad(model.module(input_on_graph)[0, 1], input_on_graph)[0][0].abs().amax(0)
    else:
        heat = vizlib.explain(model, photo, method, 1, steps=200, baseline="mean").heat
        inputs = (image * (torch.arange(2000).double().add(0.5) / 2000).view(-1, 1, 1, 1)).requires_grad_()
        gradients = torch.autograd.grad(model.module(inputs)[:, 1].sum(), inputs)[0].mean(0)
        expected = (image[0] * gradients).sum(0)
    assert (heat - expected).abs().max() < 1e-3 * expected.abs().max()
