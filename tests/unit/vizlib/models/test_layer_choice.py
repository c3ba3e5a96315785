"""Default layers of networks that no table describes, scores that are cut off from the image, and inner networks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

import vizlib

PHOTO = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
SIZE = {"input_size": (3, 64, 64), "crop_pct": 1.0}
CUT = r"the network cuts the path from the image \(no_grad, detach, integer arithmetic\)"


def wrap(network: nn.Module, **arguments: Any) -> vizlib.Model:
    return vizlib.wrap(network.eval(), preprocessing=SIZE, **arguments)


def bias_free_logit(model: vizlib.Model, head: Any, target: int) -> float:
    return (model.logits(model.tensor(vizlib.open_image(PHOTO)))[0, target] - head.bias[target]).item()


def block(channels: int, outputs: int, stride: int = 2) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, outputs, 3, stride, 1), nn.BatchNorm2d(outputs), nn.ReLU())


class Seeded(nn.Module):
    """A network with weights from a fixed seed."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)


# ------------------------------------------------------------------------------------------------ the right layer


class Reversed(Seeded):
    """Registers its layers in the reverse of the order in which they run."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.last, self.middle, self.first = nn.Linear(8, 3), block(8, 8, 1), block(8, 8), block(3, 8)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.last(self.middle(self.first(images))).mean((2, 3)))


class LateShortcut(Seeded):
    """Registers the shortcut of its last block after everything else."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.body = block(3, 8), block(8, 8, 1)
        self.join, self.head = nn.Identity(), nn.Linear(8, 3)
        self.shortcut = nn.Conv2d(8, 8, 1)

    def forward(self, images: Tensor) -> Tensor:
        features = self.stem(images)
        return self.head(self.join(self.body(features) + self.shortcut(features)).mean((2, 3)))


class Branches(Seeded):
    """Concatenates two branches, and only the stem before them carries everything."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.left, self.right, self.head = block(3, 8), block(8, 4), block(8, 4), nn.Linear(8, 3)

    def forward(self, images: Tensor) -> Tensor:
        features = self.stem(images)
        return self.head(torch.cat([self.left(features), self.right(features)], 1).mean((2, 3)))


class SkipToHead(Seeded):
    """Adds what the classifier reads directly from a pooled early layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.body, self.head = block(3, 8), block(8, 8), nn.Linear(16, 3)

    def forward(self, images: Tensor) -> Tensor:
        features = self.stem(images)
        return self.head(torch.cat([self.body(features).mean((2, 3)), features.mean((2, 3))], 1))


class SharedBlock(Seeded):
    """Runs one block twice, one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.shared, self.join, self.head = block(3, 8), block(8, 8, 1), nn.Identity(), nn.Linear(8, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.join(self.shared(self.shared(self.stem(images)))).mean((2, 3)))


class Ensemble(Seeded):
    """Averages two networks."""

    def __init__(self) -> None:
        super().__init__()
        self.members = nn.ModuleList([Reversed(), LateShortcut()])

    def forward(self, images: Tensor) -> Any:
        return sum(member(images) for member in self.members)


@pytest.mark.parametrize(
    ("network", "layer"),
    [
        (Reversed, "last"),
        (LateShortcut, "join"),
        (Branches, "stem"),
        (SkipToHead, "stem"),
        (SharedBlock, "join"),
    ],
)
def test_the_default_layer_is_the_deepest_that_everything_passes(network, layer):
    model = wrap(network())
    assert model.cam_layer == layer
    attribution = vizlib.explain(model, PHOTO, "grad-cam", target=1)
    assert "bypasses" not in " ".join(attribution.notes)
    if layer in ("last", "join"):  # what follows is linear
        heat = vizlib.explain(model, PHOTO, "hires-cam", target=1, relu=False).heat
        assert heat.sum().item() == pytest.approx(bias_free_logit(model, model.module.head, 1), rel=1e-4)


def test_of_an_ensemble_the_share_of_the_layer_is_stated():
    network = Ensemble()
    model = wrap(network)
    assert model.cam_layer is not None
    (note,) = [
        note
        for note in vizlib.explain(model, PHOTO, "grad-cam").notes
        if getattr(note, "code", "") == "map.partial-layer"
    ]
    image = model.make_random_image().requires_grad_()
    weights = torch.randn(3, generator=torch.Generator().manual_seed(0))
    gradients = [torch.autograd.grad((member(image) * weights).sum(), image)[0].norm() for member in network.members]
    carried = next(i for i, _ in enumerate(network.members) if model.cam_layer.startswith(f"members.{i}."))
    share = (gradients[carried] / sum(gradients)).item()
    assert f"about {share:.0%}".replace("%", " %") in note
    assert model.cam_layer in note


class Views(Seeded):
    """Averages the outputs for a photo and its mirror image, one after the other or stacked in a batch."""

    def __init__(self, stacked: bool) -> None:
        super().__init__()
        self.net, self.stacked = Reversed(), stacked

    def forward(self, images: Tensor) -> Tensor:
        if self.stacked:
            return self.net(torch.cat([images, images.flip(-1)])).unflatten(0, (2, len(images))).mean(0)
        return self.net(images) + self.net(images.flip(-1))


class Siamese(Seeded):
    """Compares a photo with a blank one, through one backbone."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Reversed()

    def forward(self, images: Tensor) -> Tensor:
        return self.net(images) - self.net(torch.zeros_like(images))


@pytest.mark.parametrize("network", [Views(stacked=False), Views(stacked=True), Siamese()])
def test_layers_that_see_several_views_make_no_map(network):
    model = wrap(network)
    with pytest.raises(vizlib.MethodError, match="run several times for one photo"):
        vizlib.explain(model, PHOTO, "grad-cam")
    assert vizlib.explain(model, PHOTO, "saliency").heat.any()


# -------------------------------------------------------------------------------------------------- cut is not zero


class Frozen(Seeded):
    """Runs its backbone without a graph."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.backbone, self.head = how, block(3, 8), nn.Linear(8, 3)

    def forward(self, images: Tensor) -> Tensor:
        if self.how == "inference_mode":
            with torch.inference_mode():
                features = self.backbone(images)
            return self.head(features.clone().mean((2, 3)))
        if self.how == "rounded":
            return self.head((self.backbone(images) * 100).int().float().mean((2, 3)))
        if self.how == "data":
            return self.head(self.backbone(images).data.mean((2, 3)))
        if self.how == "numpy":
            return self.head(torch.from_numpy(self.backbone(images).detach().numpy()).mean((2, 3)))
        if self.how == "argmax":
            return F.one_hot(self.head(self.backbone(images).mean((2, 3))).argmax(1), 3).float()
        return self.head(self.backbone(images.detach()).mean((2, 3)))


@pytest.mark.parametrize("how", ["inference_mode", "rounded", "data", "numpy", "argmax", "input"])
@pytest.mark.parametrize("method", ["saliency", "guided-backprop", "smoothgrad", "integrated-gradients"])
def test_a_score_that_is_cut_off_is_told_as_that(how, method):
    model = wrap(Frozen(how), output_kind="softmax")
    with pytest.raises(vizlib.MethodError, match=CUT):
        vizlib.explain(model, PHOTO, method, target=1)


def test_methods_without_a_gradient_work_where_it_is_cut():
    model = wrap(Frozen("data"))
    assert vizlib.explain(model, PHOTO, "occlusion", target=1, window=32, stride=32).heat.any()
    assert vizlib.explain(model, PHOTO, "rise", target=1, masks=16).heat.any()
    assert vizlib.explain(model, PHOTO, "eigen-cam").heat.any()


def test_a_gradient_that_is_zero_is_not_told_as_cut():
    network = Frozen("input")
    network.how = "none"
    vars(network)["forward"] = lambda images: network.head(network.backbone(images).mean((2, 3)) * 0)
    notes = vizlib.explain(wrap(network), PHOTO, "saliency").notes
    assert [code for note in notes if (code := getattr(note, "code", "")).startswith("map.")] == ["map.empty"]


# --------------------------------------------------------------------------------------------------- inner networks


def make_vit(**arguments: Any) -> Any:
    torch.manual_seed(0)
    return timm.create_model("vit_tiny_patch16_224", img_size=64, depth=2, num_classes=3, **arguments).eval()


class Wrapper(nn.Module):
    """Normalises the image, runs a network and scales its outputs."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images * 2 + 0.5)


class OwnHead(nn.Module):
    """A backbone with a classifier of one's own."""

    def __init__(self, network: nn.Module, width: int) -> None:
        super().__init__()
        self.body, self.classifier = network, nn.Linear(width, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.body(images))


class Turned(Wrapper):
    """Shows the network inside another picture."""

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images.flip(-1))


@pytest.mark.parametrize("prefix", ["network", "network.network"])
def test_a_wrapped_vit_has_the_maps_of_the_vit(prefix):
    vit = make_vit()
    wrapped = Wrapper(vit)
    plain = vizlib.wrap(vit, preprocessing={**SIZE, "mean": (0.25,) * 3, "std": (0.5,) * 3})
    model = vizlib.wrap(
        wrapped if prefix == "network" else nn.Sequential(wrapped).eval(),
        preprocessing={**SIZE, "mean": (0.5,) * 3, "std": (1,) * 3},  # the wrapper does the rest
    )
    names = vizlib.list_methods(model)
    assert names == vizlib.list_methods(plain)
    for method in ("grad-cam", "hires-cam", "attention-rollout", "attention-relevance", "legrad", "raw-attention"):
        heat = vizlib.explain(model, PHOTO, method, target=1).heat
        expected = vizlib.explain(plain, PHOTO, method, target=1).heat
        torch.testing.assert_close(heat, expected, rtol=1e-3, atol=1e-6)
    assert model.cam_layer is not None
    assert model.cam_layer.endswith("network.blocks.0")


def test_a_head_of_ones_own_takes_the_place_of_the_inner_classifier():
    model = wrap(OwnHead(make_vit(global_pool="avg").requires_grad_(True), 3))
    assert model.family is not None
    assert "legrad" not in vizlib.list_methods(model)
    assert {"grad-cam", "attention-relevance"} <= set(vizlib.list_methods(model))


def test_a_resnet_inside_keeps_its_stages():
    torch.manual_seed(0)
    resnet = torchvision.models.resnet18(num_classes=5)
    model = wrap(OwnHead(resnet, 5))
    assert model.stages == tuple(f"body.layer{i}" for i in range(1, 5))
    assert model.first_convolution == "body.conv1"
    assert vizlib.kernels(model).layer == "body.conv1"


@pytest.mark.parametrize(
    "network",
    [
        Turned(make_vit()),
        nn.Sequential(nn.Upsample(scale_factor=0.5), timm.create_model("resnet10t", num_classes=3)),
        nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), timm.create_model("resnet10t", num_classes=3)),
    ],
    ids=["turned", "resized", "filtered"],
)
def test_an_inner_network_that_sees_another_picture_brings_no_family(network):
    assert wrap(network).family is None


def test_an_inner_network_that_is_a_part_of_the_evidence_brings_no_family():
    torch.manual_seed(0)
    vit = make_vit()

    class WithShortcut(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.vit, self.direct = vit, nn.Linear(3, 3)

        def forward(self, images: Tensor) -> Tensor:
            return self.vit(images) + self.direct(images.mean((2, 3)))

    assert wrap(WithShortcut()).family is None
