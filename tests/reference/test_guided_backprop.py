"""Guided Grad-CAM equals the product of the formulas of its two papers in explicit loops, and captum."""

from __future__ import annotations

import numpy as np
import pytest
import timm
import torch
from captum.attr import GuidedGradCam
from torch import nn

import vizlib

SIZE = (15, 21)
PREPROCESSING = {"input_size": (3, *SIZE), "crop_pct": 1.0, "crop_mode": "squash"}


class GuidedReLU(torch.autograd.Function):
    """ReLU of Springenberg et al. 2015: only positive gradients pass, and only where the input is positive."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx, gradient):
        return gradient.clamp(min=0) * (ctx.saved_tensors[0] > 0)


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 6, 3, stride=2), nn.ReLU(inplace=True))
        self.conv, self.relu = nn.Conv2d(6, 4, 3), nn.ReLU(inplace=True)
        self.head = nn.Linear(4, 5)

    def forward(self, x):
        return self.head(self.relu(self.conv(self.body(x))).square().mean((2, 3)))

    def through(self, x, relu):
        """Return the activations of both layers and the logits, computed with another ReLU."""
        body = relu(self.body[0](x))
        conv = self.conv(body)
        return body, conv, self.head(relu(conv).square().mean((2, 3)))


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(2)
    return vizlib.wrap(Small().double().eval(), preprocessing=PREPROCESSING)


def photo(size=SIZE):
    return np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)


REDUCED = {
    "max": lambda gradient: gradient.abs().amax(0),
    "mean": lambda gradient: gradient.abs().mean(0),
    "norm": lambda gradient: gradient.square().sum(0).sqrt(),
}

SCORES = {
    "logit": ({"target": 2}, lambda logits: logits[2]),
    "probability": ({"target": 2, "score": "probability"}, lambda logits: logits.softmax(-1)[2]),
    "against": ({"target": 2, "against": 0}, lambda logits: logits[2] - logits[0]),
}


def slow_grad_cam(activation, gradient):
    """Selvaraju et al. 2017, equations 1 and 2."""
    channels, rows, columns = activation.shape
    heat = np.zeros((rows, columns))
    for k in range(channels):
        alpha = sum(gradient[k, i, j].item() for i in range(rows) for j in range(columns)) / (rows * columns)
        for i in range(rows):
            for j in range(columns):
                heat[i, j] += alpha * activation[k, i, j].item()
    return np.maximum(heat, 0)


def upsample_slowly(grid, height, width):
    """Upsample bilinearly between the centres of cells; values are constant beyond the outermost centres."""
    rows, columns = grid.shape
    out = np.zeros((height, width))
    for i in range(height):
        y = min(max((i + 0.5) * rows / height - 0.5, 0), rows - 1)
        for j in range(width):
            x = min(max((j + 0.5) * columns / width - 0.5, 0), columns - 1)
            for row, row_weight in ((int(y), 1 - y % 1), (min(int(y) + 1, rows - 1), y % 1)):
                for column, column_weight in ((int(x), 1 - x % 1), (min(int(x) + 1, columns - 1), x % 1)):
                    out[i, j] += row_weight * column_weight * grid[row, column]
    return out


@pytest.mark.parametrize("layer", ["body", "conv"])
@pytest.mark.parametrize("score", SCORES)
def test_guided_grad_cam_equals_guided_backprop_times_upsampled_grad_cam(model, layer, score):
    options, score_of = SCORES[score]
    image = model.tensor(vizlib.open_image(photo())).requires_grad_()
    body, conv, logits = model.module.through(image, torch.relu)
    activation = {"body": body, "conv": conv}[layer]
    (gradient,) = torch.autograd.grad(score_of(logits[0]), activation)  # Grad-CAM uses the unmodified gradient
    cam = slow_grad_cam(activation[0].detach(), gradient[0])
    assert cam.any()
    assert not cam.all()
    _, _, logits = model.module.through(image, GuidedReLU.apply)
    (guided,) = torch.autograd.grad(score_of(logits[0]), image)
    for channels, reduce in REDUCED.items():
        expected = reduce(guided[0]).numpy() * upsample_slowly(cam, *SIZE)
        attribution = vizlib.explain(model, photo(), "guided-grad-cam", layer=layer, channels=channels, **options)
        assert not attribution.signed
        assert np.abs(attribution.heat.numpy() - expected).max() < 1e-6 * expected.max()


@pytest.mark.filterwarnings("ignore:Setting backward hooks on ReLU activations")
@pytest.mark.parametrize("layer", ["layer4", "layer2"])
def test_guided_grad_cam_equals_captum_reduced_over_the_colours(real_network, cheetah, layer):
    """The default of captum is nearest-neighbour upsampling, which leaves the edges of the cells in the map."""
    resnet = real_network("resnet18")
    preprocessing = {**resnet.preprocessing.to_config(), "input_size": (3, 96, 96)}
    resnet = vizlib.wrap(resnet.module, preprocessing=preprocessing, name="resnet18")
    target = resnet.predict(cheetah, top=1)[0].index
    captum_method = GuidedGradCam(resnet.module, resnet.module.get_submodule(layer))
    image = resnet.tensor(cheetah).requires_grad_()
    expected = {
        mode: captum_method.attribute(image, target, interpolate_mode=mode).detach()[0]
        for mode in ("bilinear", "nearest")
    }
    for channels, reduce in REDUCED.items():
        heat = vizlib.explain(resnet, cheetah, "guided-grad-cam", layer=layer, channels=channels).heat
        largest = reduce(expected["bilinear"]).max()
        assert largest > 0
        assert (heat - reduce(expected["bilinear"])).abs().max() < 1e-4 * largest
        assert (heat - reduce(expected["nearest"])).abs().max() > 1e-2 * largest


def test_guided_grad_cam_raises_method_error_for_a_network_without_relu():
    torch.manual_seed(0)
    module = timm.create_model(
        "vit_tiny_patch16_224", img_size=16, patch_size=8, embed_dim=12, depth=2, num_heads=2, num_classes=3
    )
    model = vizlib.wrap(module.eval(), preprocessing={"input_size": (3, 16, 16)})
    assert "guided-grad-cam" not in vizlib.list_methods(model)
    with pytest.raises(vizlib.MethodError, match="it modifies the gradient of ReLU layers, and this model has none"):
        vizlib.explain(model, photo((16, 16)), "guided-grad-cam")
