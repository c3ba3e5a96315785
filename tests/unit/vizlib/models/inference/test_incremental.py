"""A window's crop gives what the whole photo gives, at the edges too; where it cannot, it is not tried."""

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
from vizlib.models.inference import incremental_plan as cascade
from vizlib.models.inference.batched_inference import BatchedInference
from vizlib.models.inference.incremental import plan_crops, relative_field
from vizlib.models.inference.incremental_plan import plan_windows


def wrapped(module: nn.Module, side: int | tuple[int, int] = 224) -> vizlib.Model:
    torch.manual_seed(0)
    size = (side, side) if isinstance(side, int) else side
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.normal_()
            part.running_var.uniform_(0.5, 2)
    shown = {"input_size": (3, *size), "crop_pct": 1.0, "crop_mode": "squash"}
    return vizlib.wrap(module.double().eval(), preprocessing=shown)


def photo(model: vizlib.Model) -> torch.Tensor:
    return torch.rand(1, 3, *model.preprocessing.input_size, generator=torch.Generator().manual_seed(1)).double()


NETWORKS = {
    "resnet18": lambda: wrapped(timm.create_model("resnet18", num_classes=5)),
    "resnet50 of torchvision": lambda: wrapped(torchvision.models.resnet50(num_classes=5)),
    "resnet26d, oblong": lambda: wrapped(timm.create_model("resnet26d", num_classes=5), (192, 224)),
    "convnext": lambda: wrapped(timm.create_model("convnext_atto", num_classes=5)),
    "mobilenet": lambda: wrapped(torchvision.models.mobilenet_v2(num_classes=5)),
}
LONG = [
    pytest.param(name, marks=pytest.mark.slow) for name in ("resnet26d, oblong", "resnet50 of torchvision", "convnext")
]


@pytest.mark.parametrize("name", ["resnet18", "mobilenet", *LONG])
@pytest.mark.parametrize(("window", "stride"), [(32, 48), pytest.param(40, 23, marks=pytest.mark.slow)])
def test_a_window_answers_as_the_whole_photo_does(name, window, stride):
    model = NETWORKS[name]()
    image, random = photo(model), torch.Generator().manual_seed(2)
    rows, columns = (compute_window_spans(side, window, stride) for side in image.shape[2:])
    found = plan_windows(model, image, rows, columns)
    assert found is not None
    spans = list(product(rows, columns))
    places = [0, len(columns) - 1, len(columns) + 1, len(spans) - 1]  # three corners, and one inside
    images = image.repeat(len(places), 1, 1, 1)
    for one, place in zip(images, places, strict=True):
        (top, bottom), (left, right) = spans[place]
        one[:, top:bottom, left:right] = torch.rand(3, bottom - top, right - left, generator=random)
    passes = BatchedInference(model)
    answers = found.logits(passes, images, places)
    with torch.no_grad():
        plain = model.module(images)
    assert (answers - plain).abs().max() <= 1e-9 * plain.abs().max()
    shown = []  # the sides of what the network was shown
    handle = model.module.register_forward_pre_hook(lambda _, inputs: shown.append(inputs[0].shape[2:]))
    found.logits(BatchedInference(model, use_folded_copy=False), images[:2], places[:2])
    handle.remove()
    assert shown[-1].numel() < 0.8 * image[0, 0].numel()


@pytest.mark.parametrize("method", ["vit_tiny_patch16_224", "seresnet18", "swin_tiny_patch4_window7_224"])
def test_a_network_whose_places_see_everything_is_shown_whole_photos(method):
    model = wrapped(timm.create_model(method, num_classes=5))
    image = photo(model)
    rows = compute_window_spans(image.shape[2], 32, 16)
    assert plan_windows(model, image, rows, rows) is None


class Placed(nn.Module):
    """A network that knows where it looks: its first stage adds the row to what it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.net = timm.create_model("resnet18", num_classes=5)

    def forward(self, images):
        rows = torch.linspace(0, 1, images.shape[2], dtype=images.dtype)[:, None]
        return self.net(images + rows)


def test_a_network_that_knows_where_it_looks_is_found_out():
    model = wrapped(Placed())
    rows = compute_window_spans(224, 32, 48)
    assert plan_windows(model, photo(model), rows, rows) is None
    assert plan_windows(NETWORKS["resnet18"](), photo(model), rows, rows) is not None


def test_where_little_is_saved_or_nothing_aligns_whole_photos_are_shown():
    model = NETWORKS["resnet18"]()
    everywhere = compute_window_spans(224, 200, 24)
    assert plan_windows(model, photo(model), everywhere, everywhere) is None
    odd = wrapped(timm.create_model("resnet18", num_classes=5), 222)  # no multiple of what a place stands for
    rows = compute_window_spans(222, 32, 48)
    assert plan_windows(odd, photo(odd), rows, rows) is None


def test_a_crop_shows_all_that_the_places_see_which_the_window_reaches():
    """Counted place by place and pixel by pixel."""
    random = np.random.default_rng(0)
    for _ in range(300):
        jump, side = int(random.choice([1, 2, 4, 8])), 64
        size, centre = float(random.integers(1, 40)), float(random.integers(-2, 8)) / 2
        field = ReceptiveField((size, size), (float(jump),) * 2, (centre, centre))
        first = int(random.integers(0, side))
        span = (first, int(random.integers(first + 1, side + 1)))
        (axis,) = plan_crops(field, 0, [span], side) or []
        seen = [(centre + i * jump - size / 2, centre + i * jump + size / 2) for i in range(side // jump)]
        reached = [i for i, (low, high) in enumerate(seen) if low < span[1] and high > span[0]]
        assert list(range(*axis.output_span)) == reached
        assert axis.input_span[0] % jump == 0
        assert axis.local_span == tuple(place - axis.input_span[0] // jump for place in axis.output_span)
        for i in reached:
            assert axis.input_span[0] <= max(seen[i][0], 0)
            assert axis.input_span[1] >= min(seen[i][1], side)


def test_a_crop_of_a_crops_output_shows_as_much_as_one_of_the_photo():
    """Two steps reach the places that one step reaches, and each of them what its places see, counted one by one."""
    random = np.random.default_rng(1)
    for _ in range(200):
        fields = [INPUT_FIELD]
        for _ in range(4):  # the textbook's recursion over layers
            kernel, stride = int(random.choice([1, 3, 5])), int(random.choice([1, 1, 2]))
            size, jump, centre = fields[-1].size[0], fields[-1].jump[0], fields[-1].centre[0]
            size, centre = size + (kernel - 1) * jump, centre + ((kernel - 1) / 2 - kernel // 2) * jump
            fields.append(ReceptiveField((size,) * 2, (jump * stride,) * 2, (centre,) * 2))
        middle, last = fields[2], fields[4]
        first = int(random.integers(0, 63))
        spans = [(first, int(random.integers(first + 1, 65)))]
        (direct,) = plan_crops(last, 0, spans, 64) or []
        (one,) = plan_crops(middle, 0, spans, 64) or []
        between = relative_field(middle, last)
        (two,) = plan_crops(between, 0, [one.output_span], 64 // int(middle.jump[0])) or []
        if (
            one.output_span[0] < one.output_span[1]
        ):  # a small window may lie between what the places of a large step see
            low, high = two.output_span
            assert low <= direct.output_span[0]
            assert high >= direct.output_span[1]
        for place in range(*two.output_span):
            box = between.box(place, 0)
            assert (
                middle.box(int(box[0]), 0)[0] == last.box(place, 0)[0]
            )  # the same pixels, by the places that see them
            assert middle.box(int(box[2]) - 1, 0)[2] == last.box(place, 0)[2]
            assert two.input_span[0] <= max(box[0], 0)
            assert two.input_span[1] >= min(box[2], 64 // middle.jump[0])


def test_a_resnet_takes_several_steps_and_saves_a_third_of_all_operations():
    model = NETWORKS["resnet50 of torchvision"]()
    image, rows = photo(model), compute_window_spans(224, 32, 16)
    cuts = next(cascade._cut_points(model))
    steps = cascade._cheapest_plan(cuts, image, rows, rows).stages
    assert [step.layer.split(".")[0] for step in steps] == ["layer1", *["layer2"] * 4, "layer3"]
    shares = {cut.layer: cut.flops_share for cut in cuts}
    spent, before, side = 1 - shares[steps[-1].layer], 0.0, 224  # what follows runs on whole maps
    for step in steps:
        spent += (shares[step.layer] - before) * (step.rows[0].length / side) ** 2
        before, side = shares[step.layer], {"layer1": 56, "layer2": 28, "layer3": 14}[step.layer.split(".")[0]]
    assert 0.5 < spent < 0.67


class Bypassing(nn.Module):
    """A `Sequential` whose parts are called one by one, and the second is bypassed: it is none to cut at."""

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


def test_a_part_that_is_bypassed_is_found_out_and_the_stages_are_left(monkeypatch):
    model = wrapped(Bypassing())
    image, rows = photo(model), compute_window_spans(224, 32, 48)
    tried, alike = [], cascade._matches_plain_inference

    def told(model, steps, *others):
        tried.append(([step.layer for step in steps], alike(model, steps, *others)))
        return tried[-1][1]

    monkeypatch.setattr(cascade, "_matches_plain_inference", told)
    found = cascade.plan_windows(model, image, rows, rows)
    (first, refused), (second, taken) = tried
    assert "parts.1" in first
    assert not refused
    assert set(second) <= set(model.stages)
    assert taken
    assert found is not None


@pytest.mark.slow
def test_occlusion_is_the_same_map_with_and_without_crops(monkeypatch):
    from vizlib.attribution.methods import perturbation

    model = NETWORKS["resnet18"]()
    shown = np.random.default_rng(0).integers(0, 256, (224, 224, 3), dtype=np.uint8)
    quick = vizlib.explain(model, shown, "occlusion", stride=96)
    monkeypatch.setattr(perturbation, "plan_windows", lambda *_: None)
    plain = vizlib.explain(model, shown, "occlusion", stride=96)
    assert (quick.heat - plain.heat).abs().max() <= 1e-6 * plain.heat.abs().max()
    assert quick.notes == plain.notes
