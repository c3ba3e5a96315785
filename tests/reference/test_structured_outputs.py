"""Segmentation and detection: maps of a class over a region and of one box's score equal slow computations."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor, nn

import vizlib
from vizlib import ModelError
from vizlib.attribution.methods.perturbation import make_rise_masks

pytestmark = pytest.mark.slow
PHOTO = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
NO_NORMALISATION = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}


def calibrate(network: nn.Module, images: Tensor) -> None:
    """Set the statistics of every BatchNorm to those of some images; with others, the outputs vanish."""
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.momentum = None
    network.train()
    with torch.no_grad():
        network(images)
    network.eval()


@pytest.fixture(scope="module")
def segmentation():
    torch.manual_seed(0)
    network = torchvision.models.segmentation.deeplabv3_mobilenet_v3_large(
        weights=None, weights_backbone=None, num_classes=4
    )
    calibrate(network, torch.rand(4, 3, 64, 64))
    preprocessing = {"input_size": (3, 64, 64), "crop_pct": 1.0, **NO_NORMALISATION}
    return vizlib.wrap(network.double(), preprocessing=preprocessing, output=lambda output: output["out"])


@pytest.fixture(scope="module")
def detection():
    torch.manual_seed(0)
    network = torchvision.models.detection.fasterrcnn_mobilenet_v3_large_320_fpn(
        weights=None, weights_backbone=None, num_classes=4, box_score_thresh=0.0, min_size=64, max_size=64
    )
    calibrate(network.backbone, torch.rand(4, 3, 64, 64))
    with torch.no_grad():  # as drawn they move every box to the whole image, and the background's probability is 1
        for name in ("rpn.head.bbox_pred", "roi_heads.box_predictor.cls_score", "roi_heads.box_predictor.bbox_pred"):
            network.get_parameter(f"{name}.weight").mul_(0.02)
    network.eval()
    preprocessing = {"input_size": (3, 64, 64), "crop_pct": 1.0, **NO_NORMALISATION}
    return vizlib.wrap(network.double(), preprocessing=preprocessing, output_kind="structured")


def region(maps: Tensor) -> Tensor:
    return maps[:, 2, 16:48, 8:40].mean((1, 2))


def third_box(detections: list[dict[str, Tensor]]) -> Tensor:
    return torch.stack([found["scores"][2] for found in detections])


def test_gradient_of_a_class_over_a_region(segmentation):
    image = segmentation.tensor(vizlib.open_image(PHOTO)).requires_grad_()
    (gradient,) = torch.autograd.grad(segmentation.module(image)["out"][0, 2, 16:48, 8:40].mean(), image)
    attribution = vizlib.explain(segmentation, PHOTO, "saliency", region)
    assert torch.allclose(attribution.heat, gradient[0].abs().amax(0).float(), rtol=1e-5)
    assert attribution.heat.max() > 0
    assert (attribution.target, attribution.probability) == ("region", None)


def test_grad_cam_of_a_class_over_a_region(segmentation):
    kept: dict[str, Tensor] = {}

    def keep(module: nn.Module, inputs: object, output: Tensor) -> None:
        kept["output"] = output

    layer = segmentation.module.get_submodule("backbone.16")
    hook = layer.register_forward_hook(keep)
    out = segmentation.module(segmentation.tensor(vizlib.open_image(PHOTO)))["out"]
    hook.remove()
    (gradient,) = torch.autograd.grad(out[0, 2, 16:48, 8:40].mean(), kept["output"])
    expected = (gradient.mean((2, 3), keepdim=True) * kept["output"].detach()).sum(1)[0]
    heat = vizlib.explain(segmentation, PHOTO, "grad-cam", region, layer="backbone.16", relu=False).heat
    assert torch.allclose(heat, expected.float(), rtol=1e-4, atol=1e-9)


def test_occlusion_and_rise_of_a_class_over_a_region(segmentation):
    image = segmentation.tensor(vizlib.open_image(PHOTO))
    with torch.no_grad():
        full = region(segmentation.module(image)["out"]).item()
        drops = torch.zeros(64, 64)
        for top, left in product((0, 32), repeat=2):
            covered = image.clone()
            covered[0, :, top : top + 32, left : left + 32] = 0
            drops[top : top + 32, left : left + 32] = full - region(segmentation.module(covered)["out"]).item()
        masks = make_rise_masks(torch.arange(16), (64, 64), 4, 0.5, 0).double()
        scores = [region(segmentation.module(image * mask)["out"]).item() for mask in masks]
    heat = vizlib.explain(segmentation, PHOTO, "occlusion", region, window=32, stride=32, baseline="black").heat
    assert torch.allclose(heat, drops, rtol=1e-4, atol=1e-7)
    assert drops.std() > 0
    expected = (torch.tensor(scores).view(-1, 1, 1) * masks).sum(0).float() / (16 * 0.5)
    heat = vizlib.explain(segmentation, PHOTO, "rise", region, masks=16, cells=4, seed=0).heat
    assert torch.allclose(heat, expected, rtol=1e-4, atol=1e-6)


def test_gradient_of_the_score_of_one_box(detection):
    image = detection.tensor(vizlib.open_image(PHOTO)).requires_grad_()
    (gradient,) = torch.autograd.grad(detection.module(image)[0]["scores"][2], image)
    attribution = vizlib.explain(detection, PHOTO, "input-x-gradient", third_box)
    expected = (gradient * image.detach())[0].sum(0).float()
    assert expected.abs().max() > 0
    assert torch.allclose(attribution.heat, expected, rtol=1e-3, atol=1e-3 * expected.abs().max().item())


def test_occlusion_and_smoothgrad_of_the_score_of_one_box(detection):
    image = detection.tensor(vizlib.open_image(PHOTO))
    drops = torch.zeros(64, 64)
    with torch.no_grad():
        full = detection.module(image)[0]["scores"][2].item()
        for top, left in product((0, 32), repeat=2):
            covered = image.clone()
            covered[0, :, top : top + 32, left : left + 32] = 0
            drops[top : top + 32, left : left + 32] = full - detection.module(covered)[0]["scores"][2].item()
    heat = vizlib.explain(detection, PHOTO, "occlusion", third_box, window=32, stride=32, baseline="black").heat
    assert torch.allclose(heat, drops, atol=1e-5)
    smooth = vizlib.explain(detection, PHOTO, "smoothgrad", third_box, samples=2, noise=0.0).heat
    plain = vizlib.explain(detection, PHOTO, "saliency", third_box).heat
    assert torch.allclose(smooth, plain, rtol=1e-3, atol=1e-3 * plain.max().item())


def test_methods_without_a_class_and_predictions(detection):
    assert vizlib.explain(detection, PHOTO, "eigen-cam", layer="backbone.body.16").label == ""
    with pytest.raises(ModelError, match="predicts no classes: it returns a structured output"):
        detection.predict(PHOTO)
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in detection.module.modules())
