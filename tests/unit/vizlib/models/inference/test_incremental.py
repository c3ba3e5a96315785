"""Incremental inference on windows has the logits of full passes; where it cannot, it is not used."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import timm
import torch
import torchvision
from torch import nn

import vizlib
from vizlib.attribution.methods.perturbation import compute_window_spans
from vizlib.capture.receptive_field_tracer import INPUT_FIELD, ReceptiveField
from vizlib.models.inference import incremental_plan
from vizlib.models.inference.batched_inference import BatchedInference
from vizlib.models.inference.incremental import compute_crops, relative_field
from vizlib.models.inference.incremental_plan import plan_windows


def build_model(module: nn.Module, side: int | tuple[int, int] = 224) -> vizlib.Model:
    torch.manual_seed(0)
    size = (side, side) if isinstance(side, int) else side
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            assert part.running_mean is not None
            assert part.running_var is not None
            part.running_mean.normal_()
            part.running_var.uniform_(0.5, 2)
    preprocessing = {"input_size": (3, *size), "crop_pct": 1.0, "crop_mode": "squash"}
    return vizlib.wrap(module.double().eval(), preprocessing=preprocessing)


def make_image(model: vizlib.Model) -> torch.Tensor:
    return torch.rand(1, 3, *model.preprocessing.input_size, generator=torch.Generator().manual_seed(1)).double()


NETWORKS = {
    "resnet18": lambda: build_model(timm.create_model("resnet18", num_classes=5)),
    "resnet50 of torchvision": lambda: build_model(torchvision.models.resnet50(num_classes=5)),
    "resnet26d, oblong": lambda: build_model(timm.create_model("resnet26d", num_classes=5), (192, 224)),
    "convnext": lambda: build_model(timm.create_model("convnext_atto", num_classes=5)),
    "mobilenet": lambda: build_model(torchvision.models.mobilenet_v2(num_classes=5)),
}
SLOW_NETWORKS = [
    pytest.param(name, 40, 23, marks=pytest.mark.slow)
    for name in ("resnet18", "mobilenet", "resnet26d, oblong", "resnet50 of torchvision", "convnext")
]


@pytest.mark.parametrize(("name", "window", "stride"), [("resnet18", 32, 48), *SLOW_NETWORKS])
def test_incremental_logits_equal_those_of_full_inference(name, window, stride):
    model = NETWORKS[name]()
    image, generator = make_image(model), torch.Generator().manual_seed(2)
    rows, columns = (compute_window_spans(side, window, stride) for side in image.shape[2:])
    incremental = plan_windows(model, image, rows, columns)
    assert incremental is not None
    spans = list(product(rows, columns))
    window_indices = [0, len(columns) - 1, len(columns) + 1, len(spans) - 1]  # three corners, and one inside
    images = image.repeat(len(window_indices), 1, 1, 1)
    for changed, window_index in zip(images, window_indices, strict=True):
        (top, bottom), (left, right) = spans[window_index]
        changed[:, top:bottom, left:right] = torch.rand(3, bottom - top, right - left, generator=generator)
    inference = BatchedInference(model)
    logits = incremental.logits(inference, images, window_indices)
    with torch.no_grad():
        expected = model.module(images)
    assert (logits - expected).abs().max() <= 1e-9 * expected.abs().max()
    input_sizes = []
    handle = model.module.register_forward_pre_hook(lambda _, inputs: input_sizes.append(inputs[0].shape[2:]))
    incremental.logits(BatchedInference(model, use_folded_copy=False), images[:2], window_indices[:2])
    handle.remove()
    assert input_sizes[-1].numel() < 0.8 * image[0, 0].numel()


@pytest.mark.parametrize(
    "architecture",
    ["vit_tiny_patch16_224", "seresnet18", pytest.param("swin_tiny_patch4_window7_224", marks=pytest.mark.slow)],
)
def test_plan_windows_returns_none_for_a_network_with_global_receptive_fields(architecture):
    model = build_model(timm.create_model(architecture, num_classes=5))
    image = make_image(model)
    rows = compute_window_spans(image.shape[2], 32, 16)
    assert plan_windows(model, image, rows, rows) is None


class PositionDependentNetwork(nn.Module):
    """A network that is not translation-equivariant: it adds the row number to its input."""

    def __init__(self) -> None:
        super().__init__()
        self.net = timm.create_model("resnet18", num_classes=5)

    def forward(self, images):
        rows = torch.linspace(0, 1, images.shape[2], dtype=images.dtype)[:, None]
        return self.net(images + rows)


@pytest.mark.slow
def test_plan_windows_rejects_a_network_that_depends_on_absolute_positions():
    model = build_model(PositionDependentNetwork())
    rows = compute_window_spans(224, 32, 48)
    assert plan_windows(model, make_image(model), rows, rows) is None
    assert plan_windows(NETWORKS["resnet18"](), make_image(model), rows, rows) is not None


def test_plan_windows_returns_none_where_little_is_saved_or_crops_do_not_align():
    model = NETWORKS["resnet18"]()
    large_windows = compute_window_spans(224, 200, 24)
    assert plan_windows(model, make_image(model), large_windows, large_windows) is None
    misaligned = build_model(timm.create_model("resnet18", num_classes=5), 222)  # not a multiple of the stride
    rows = compute_window_spans(222, 32, 48)
    assert plan_windows(misaligned, make_image(misaligned), rows, rows) is None


def test_compute_crops_covers_the_fields_of_all_positions_that_a_window_changes():
    """Compared with a count position by position."""
    rng = np.random.default_rng(0)
    for _ in range(300):
        jump, side = int(rng.choice([1, 2, 4, 8])), 64
        size, centre = float(rng.integers(1, 40)), float(rng.integers(-2, 8)) / 2
        field = ReceptiveField((size, size), (float(jump), float(jump)), (centre, centre))
        first = int(rng.integers(0, side))
        span = (first, int(rng.integers(first + 1, side + 1)))
        (crop,) = compute_crops(field, 0, [span], side) or []
        fields = [(centre + i * jump - size / 2, centre + i * jump + size / 2) for i in range(side // jump)]
        changed = [i for i, (low, high) in enumerate(fields) if low < span[1] and high > span[0]]
        assert list(range(*crop.output_span)) == changed
        assert crop.input_span[0] % jump == 0
        assert crop.local_span == tuple(position - crop.input_span[0] // jump for position in crop.output_span)
        for i in changed:
            assert crop.input_span[0] <= max(fields[i][0], 0)
            assert crop.input_span[1] >= min(fields[i][1], side)


def test_two_consecutive_crops_cover_what_one_crop_covers():
    """Two stages reach the positions that one stage reaches, and cover their receptive fields."""
    rng = np.random.default_rng(1)
    for _ in range(200):
        fields = [INPUT_FIELD]
        for _ in range(4):  # the recursion over layers
            kernel, stride = int(rng.choice([1, 3, 5])), int(rng.choice([1, 1, 2]))
            size, jump, centre = fields[-1].size[0], fields[-1].jump[0], fields[-1].centre[0]
            size, centre = size + (kernel - 1) * jump, centre + ((kernel - 1) / 2 - kernel // 2) * jump
            fields.append(ReceptiveField((size, size), (jump * stride, jump * stride), (centre, centre)))
        middle, last = fields[2], fields[4]
        first = int(rng.integers(0, 63))
        spans = [(first, int(rng.integers(first + 1, 65)))]
        (direct,) = compute_crops(last, 0, spans, 64) or []
        (first_crop,) = compute_crops(middle, 0, spans, 64) or []
        relative = relative_field(middle, last)
        (second_crop,) = compute_crops(relative, 0, [first_crop.output_span], 64 // int(middle.jump[0])) or []
        # A small window may lie between the fields of a large stride.
        if first_crop.output_span[0] < first_crop.output_span[1]:
            low, high = second_crop.output_span
            assert low <= direct.output_span[0]
            assert high >= direct.output_span[1]
        for position in range(*second_crop.output_span):
            box = relative.box(position, 0)
            # The same pixels, through the positions that depend on them.
            assert middle.box(int(box[0]), 0)[0] == last.box(position, 0)[0]
            assert middle.box(int(box[2]) - 1, 0)[2] == last.box(position, 0)[2]
            assert second_crop.input_span[0] <= max(box[0], 0)
            assert second_crop.input_span[1] >= min(box[2], 64 // middle.jump[0])


@pytest.mark.slow
def test_plan_for_a_resnet50_has_several_stages_and_saves_a_third_of_the_operations():
    model = NETWORKS["resnet50 of torchvision"]()
    image, rows = make_image(model), compute_window_spans(224, 32, 16)
    cut_points = next(incremental_plan._cut_points(model))
    stages = incremental_plan._cheapest_plan(cut_points, image, rows, rows).stages
    assert [stage.layer.split(".")[0] for stage in stages] == ["layer1", *["layer2"] * 4, "layer3"]
    shares = {cut_point.layer: cut_point.flops_share for cut_point in cut_points}
    cost, before, side = 1 - shares[stages[-1].layer], 0.0, 224  # the remaining layers run on whole maps
    for stage in stages:
        cost += (shares[stage.layer] - before) * (stage.rows[0].length / side) ** 2
        before, side = shares[stage.layer], {"layer1": 56, "layer2": 28, "layer3": 14}[stage.layer.split(".")[0]]
    assert 0.5 < cost < 0.67


class BypassingNetwork(nn.Module):
    """A network whose `Sequential` is called part by part, with a bypass around the second: no cut point there."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 4, stride=4)
        self.parts = nn.Sequential(*(nn.Conv2d(8, 8, 3, padding=1) for _ in range(3)), nn.Conv2d(8, 8, 2, stride=2))
        self.rest = nn.Sequential(nn.Conv2d(8, 64, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(64, 5)

    def forward(self, images):
        first = self.parts[0](self.stem(images))
        third = self.parts[2](self.parts[1](first).relu() + first)
        return self.head(self.rest(self.parts[3](third.relu()).relu()))


def test_plan_windows_rejects_a_bypassed_layer_and_falls_back_to_the_stages(monkeypatch):
    model = build_model(BypassingNetwork())
    image, rows = make_image(model), compute_window_spans(224, 32, 48)
    checks, matches = [], incremental_plan._matches_plain_inference

    def record_check(model, stages, *windows):
        checks.append(([stage.layer for stage in stages], matches(model, stages, *windows)))
        return checks[-1][1]

    monkeypatch.setattr(incremental_plan, "_matches_plain_inference", record_check)
    incremental = incremental_plan.plan_windows(model, image, rows, rows)
    (first, first_result), (second, second_result) = checks
    assert "parts.1" in first
    assert not first_result
    assert set(second) <= set(model.stages)
    assert second_result
    assert incremental is not None


@pytest.mark.slow
def test_occlusion_map_is_the_same_with_and_without_incremental_inference(monkeypatch):
    from vizlib.attribution.methods import perturbation

    model = NETWORKS["resnet18"]()
    photo = np.random.default_rng(0).integers(0, 256, (224, 224, 3), dtype=np.uint8)
    incremental = vizlib.explain(model, photo, "occlusion", stride=96)
    monkeypatch.setattr(perturbation, "plan_windows", lambda *_: None)
    full = vizlib.explain(model, photo, "occlusion", stride=96)
    assert (incremental.heat - full.heat).abs().max() <= 1e-6 * full.heat.abs().max()
    assert incremental.notes == full.notes
