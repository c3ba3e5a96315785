"""Occlusion, RISE, Score-CAM and Ablation-CAM equal the formulas of their papers in explicit loops, and peers.

Where another library (peer) computes something else, a test states the difference, and that there is no other.
"""

from __future__ import annotations

import copy
import hashlib
import math
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from captum.attr import Occlusion
from pytorch_grad_cam import AblationCAM, ScoreCAM
from pytorch_grad_cam.ablation_layer import AblationLayer
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn

import vizlib
from vizlib.attribution.methods import perturbation, perturbation_cam, scoring
from vizlib.attribution.methods.perturbation import compute_window_spans, make_rise_masks
from vizlib.attribution.methods.perturbation_cam import make_channel_masks

SIZE = (14, 18)
PREPROCESSING = {"input_size": (3, *SIZE), "crop_pct": 1.0, "crop_mode": "squash"}


class Small(nn.Module):
    """Two convolutions; the output of `body` is not negative, that of `conv` has both signs."""

    def __init__(self, stride=2):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 5, 3, stride, padding=1), nn.ReLU(inplace=True))
        self.conv = nn.Conv2d(5, 4, 3, padding=1)
        self.head = nn.Linear(4, 4)

    def forward(self, x):
        return self.above(self.conv(self.body(x)))

    def above(self, conv):
        return self.head(conv.clamp(min=0).square().mean((2, 3)))


def small(stride=2, dtype=torch.float64):
    torch.manual_seed(1)
    module = Small(stride)
    with torch.no_grad():
        weights: list[Any] = [module.body[0].weight, module.conv.weight, module.head.weight]
        for weight in weights:
            weight.mul_(3)
        module.head.bias.add_(8)  # Ablation-CAM divides by the score
    return vizlib.wrap(module.to(dtype).eval(), preprocessing=PREPROCESSING)


@pytest.fixture(scope="module")
def model():
    return small()


def photo(size=SIZE, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def image(model):
    return model.tensor(vizlib.open_image(photo()))


SCORES = {
    "logit": ({"target": 2, "score": "logit"}, lambda logits: logits[2]),
    "probability": ({"target": 1, "score": "probability"}, lambda logits: logits.softmax(-1)[1]),
    "against": ({"target": 2, "against": 0, "score": "logit"}, lambda logits: logits[2] - logits[0]),
}


def assert_close(heat, expected, share=1e-6):
    """Assert that the largest difference is below a share of the largest value."""
    expected = torch.as_tensor(expected)
    assert heat.shape == expected.shape
    assert expected.abs().max() > 1e-6
    assert expected.max() > expected.min()
    assert (heat - expected).abs().max().item() < share * expected.abs().max().item()


def upsample_slowly(grid, height, width):
    """Upsample bilinearly between the centres of cells; values are constant beyond the outermost centres."""
    rows, columns = len(grid), len(grid[0])
    out = np.zeros((height, width))
    for i in range(height):
        y = min(max((i + 0.5) * rows / height - 0.5, 0), rows - 1)
        top, down = int(y), y - int(y)
        for j in range(width):
            x = min(max((j + 0.5) * columns / width - 0.5, 0), columns - 1)
            left, right = int(x), x - int(x)
            below, beside = min(top + 1, rows - 1), min(left + 1, columns - 1)
            upper = (1 - right) * grid[top][left] + right * grid[top][beside]
            lower = (1 - right) * grid[below][left] + right * grid[below][beside]
            out[i, j] = (1 - down) * upper + down * lower
    return out


# ------------------------------------------------------------------------------------------------ occlusion


def slow_blur(image):
    """Blur by a Gaussian whose standard deviation is a tenth of the longer side; borders are reflected."""
    height, width = image.shape[-2:]
    sigma = max(height, width) / 10
    reach = round(2 * sigma)

    def blur_rows(pixels, count):
        weights = {offset: math.exp(-(offset**2) / (2 * sigma**2)) for offset in range(-reach, reach + 1)}
        total, out = sum(weights.values()), torch.zeros_like(pixels)
        for position in range(count):
            for offset, weight in weights.items():
                at = abs(position + offset)
                at = 2 * (count - 1) - at if at >= count else at
                out[..., position] += weight / total * pixels[..., at]
        return out

    across = blur_rows(image, width)
    return blur_rows(across.transpose(-1, -2), height).transpose(-1, -2)


def slow_cover(name, image):
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    if name == "mean":
        return torch.zeros_like(image)
    if name == "blur":
        return slow_blur(image)
    pixels = {"black": np.zeros(image.shape), "white": np.ones(image.shape)}
    if name == "noise":
        pixels["noise"] = np.random.Generator(np.random.PCG64([0, 0])).random(image.shape)
    cover = torch.from_numpy(pixels[name])
    for colour in range(3):
        cover[:, colour] = (cover[:, colour] - mean[colour]) / std[colour]
    return cover


def slow_occlusion(model, image, score, cover, window, stride):
    """Zeiler & Fergus 2014, 4.2: score drop when a square is covered, on average over the squares over each pixel."""
    height, width = image.shape[-2:]
    drop_sums, counts = np.zeros((height, width)), np.zeros((height, width))
    full_score = score(model.module(image)[0]).item()
    top = 0
    while True:
        left = 0
        while True:
            covered = image.clone()
            for i in range(top, min(top + window, height)):
                for j in range(left, min(left + window, width)):
                    covered[0, :, i, j] = cover[0, :, i, j]
            drop = full_score - score(model.module(covered)[0]).item()
            for i in range(top, min(top + window, height)):
                for j in range(left, min(left + window, width)):
                    drop_sums[i, j] += drop
                    counts[i, j] += 1
            if left + window >= width:
                break
            left += stride
        if top + window >= height:
            break
        top += stride
    return drop_sums / np.maximum(counts, 1)


@pytest.mark.parametrize(
    ("window", "stride", "baseline", "score"),
    [
        (5, 3, "mean", "logit"),
        (4, 4, "black", "against"),
        (6, 5, "white", "probability"),
        (3, 7, "noise", "logit"),  # pixels between the squares are never covered
        (20, 1, "blur", "logit"),  # larger than the photo: one square
        (6, 5, "blur", "against"),
    ],
)
def test_occlusion_equals_the_mean_score_drop_of_the_squares_over_each_pixel(
    model, image, window, stride, baseline, score
):
    options, score_of = SCORES[score]
    with torch.no_grad():
        cover = slow_cover(baseline, image)
        expected = slow_occlusion(model, image, score_of, cover, window, stride)
    attribution = vizlib.explain(
        model, photo(), "occlusion", **options, window=window, stride=stride, baseline=baseline
    )
    assert attribution.signed
    if window == 20:
        assert expected.std() < 1e-12  # the same everywhere
        assert abs(attribution.heat.mean().item() - expected.mean()) < 1e-6 * abs(expected.mean())
        assert (attribution.heat == attribution.heat[0, 0]).all()
    else:
        assert_close(attribution.heat, expected)


def test_window_spans_reach_both_edges_without_redundant_windows():
    for size in range(1, 40):
        for window in (1, 3, 8, 50):
            for stride in (1, 3, 9):
                spans = compute_window_spans(size, window, stride)
                assert spans[0][0] == 0
                assert spans[-1][1] == size
                assert [start for start, _ in spans] == [stride * i for i in range(len(spans))]
                assert all(end < size for _, end in spans[:-1]), "a window after one at the edge is redundant"


def with_small_input(model, side=96):
    """Return the model with a smaller input, so that the tests take less time."""
    preprocessing = {**model.preprocessing.to_config(), "input_size": (3, side, side)}
    return vizlib.wrap(model.module, preprocessing=preprocessing, name=model.name)


@pytest.fixture(scope="module")
def resnet(real_network):
    return with_small_input(real_network("resnet18"))


def test_occlusion_equals_captum_with_the_same_squares(resnet, cheetah):
    target = resnet.predict(cheetah, top=1)[0].index
    expected = Occlusion(resnet.module).attribute(
        resnet.tensor(cheetah),
        sliding_window_shapes=(3, 40, 40),
        strides=(3, 24, 24),
        target=target,
        baselines=0,
        perturbations_per_eval=8,
    )
    assert (expected[0, 0] == expected[0, 2]).all()  # all three colours are covered together
    parameters = {"window": 40, "stride": 24, "baseline": "mean", "precision": "float32"}
    assert_close(vizlib.explain(resnet, cheetah, "occlusion", **parameters).heat, expected[0, 0].detach(), 1e-4)


# ------------------------------------------------------------------------------------------------ RISE


def slow_rise_mask(index, size, cells, share, seed):
    """RISE, 3.2: a coarse random grid, upsampled to one cell more than the photo, and a random crop of it."""
    random = np.random.Generator(np.random.PCG64([seed, index]))
    grid = [[float(value < share) for value in row] for row in random.random((cells, cells))]
    height, width = math.ceil(size[0] / cells), math.ceil(size[1] / cells)
    top, left = int(random.integers(0, height)), int(random.integers(0, width))
    large = upsample_slowly(grid, (cells + 1) * height, (cells + 1) * width)
    return large[top : top + size[0], left : left + size[1]]


@pytest.mark.parametrize(("score", "cells", "share", "seed"), [("probability", 4, 0.5, 0), ("against", 3, 0.2, 11)])
def test_rise_equals_the_masks_weighted_by_their_scores(model, image, score, cells, share, seed):
    options, score_of = SCORES[score]
    total, heat = 18, np.zeros(SIZE)
    for index in range(total):
        mask = slow_rise_mask(index, SIZE, cells, share, seed)
        with torch.no_grad():
            value = score_of(model.module(image * torch.from_numpy(mask))[0]).item()
        for i in range(SIZE[0]):
            for j in range(SIZE[1]):
                heat[i, j] += value * mask[i, j]
    expected = heat / (total * share)  # equation 6
    parameters = {"masks": total, "cells": cells, "share": share, "seed": seed}
    assert_close(vizlib.explain(model, photo(), "rise", **options, **parameters).heat, expected)


BATCH_SIZE = "vizlib.models.inference.batched_inference.BatchedInference.batch_size"


@pytest.mark.parametrize("bfloat16", [False, True])
@pytest.mark.parametrize("batch_size", [1, 2, 7])
def test_rise_map_does_not_depend_on_the_batch_size(monkeypatch, batch_size, bfloat16):
    """With bfloat16 the first batch holds the checked masks and one more, and is scored in several passes."""
    model = small(dtype=torch.float32)
    monkeypatch.setattr(scoring, scoring.benefits_from_bfloat16.__name__, lambda _: bfloat16)
    expected = vizlib.explain(model, photo(), "rise", 1, masks=18)
    monkeypatch.setattr(BATCH_SIZE, lambda *_, **__: batch_size)
    partial_results = list(vizlib.explain_stream(model, photo(), "rise", 1, masks=18))
    first_batch = max(batch_size, scoring.NUM_CHECKED_INPUTS + 1) if bfloat16 else batch_size
    assert partial_results[0].done in (first_batch, batch_size)  # the latter where bfloat16 is refused by its check
    assert_close(partial_results[-1].attribution.heat, expected.heat, 1e-2 if bfloat16 else 1e-5)


def test_rise_weights_the_masks_of_each_batch_when_all_batches_are_scored_before_the_first_is_read(model, monkeypatch):
    monkeypatch.setattr(BATCH_SIZE, lambda *_, **__: 5)
    expected = vizlib.explain(model, photo(), "rise", 1, masks=18)
    score_in_batches = perturbation.score_inputs
    monkeypatch.setattr(
        perturbation,
        perturbation.score_inputs.__name__,
        lambda *args, **kwargs: iter(list(score_in_batches(*args, **kwargs))),
    )
    assert torch.equal(vizlib.explain(model, photo(), "rise", 1, masks=18).heat, expected.heat)


def test_rise_mask_depends_only_on_its_index_and_the_seed():
    size = (45, 61)
    masks = make_rise_masks(torch.arange(9), size, 6, 0.4, 3)
    for index in range(9):
        assert np.abs(masks[index].numpy() - slow_rise_mask(index, size, 6, 0.4, 3)).max() < 1e-6
    for parts in (torch.arange(9).split(1), torch.arange(9).split(4), [torch.tensor([8, 0, 5]), torch.tensor([5])]):
        for part in parts:
            for index, mask in zip(part.tolist(), make_rise_masks(part, size, 6, 0.4, 3), strict=True):
                assert torch.equal(mask, masks[index])
    other_masks = make_rise_masks(torch.arange(9), size, 6, 0.4, 4)
    assert not any(torch.equal(a, b) for a, b in zip(masks, other_masks, strict=True))
    assert not any(torch.equal(masks[0], mask) for mask in masks[1:])


def test_rise_masks_of_a_seed_are_the_same_on_every_machine():
    masks = make_rise_masks(torch.arange(40), (64, 96), 7, 0.5, 0)
    rounded = (masks * 1000).round().to(torch.int16)  # the last bit may differ between machines
    bits = np.packbits((masks > 0.5).numpy())
    assert rounded[0, 20, ::12].tolist() == [122, 539, 156, 0, 219, 969, 681, 764]
    assert rounded.sum((1, 2))[:4].tolist() == [2472516, 3829638, 3945171, 3900096]
    assert hashlib.sha256(bits.tobytes()).hexdigest()[:16] == "943cb35e4ef5f93c"


@pytest.mark.parametrize("share", [0.1, 0.5, 0.8])
def test_visible_share_of_rise_masks_equals_the_parameter(share):
    masks = make_rise_masks(torch.arange(300), (28, 28), 7, share, 0)
    assert masks.min() == 0
    assert masks.max() == 1
    error = math.sqrt(share * (1 - share) / (300 * 49))  # standard error of the mean over all cells
    assert abs(masks.mean().item() - share) < 4 * error


# ------------------------------------------------------------------------------------------------ Score-CAM


def activation_of(model, image, layer):
    module = model.module
    with torch.no_grad():
        body = module.body(image)
        return body[0] if layer == "body" else module.conv(body)[0]


def slow_sum(weights, activation, relu):
    rows, columns = activation.shape[1:]
    heat = np.zeros((rows, columns))
    for i in range(rows):
        for j in range(columns):
            value = sum(weight * channel[i, j].item() for weight, channel in zip(weights, activation, strict=True))
            heat[i, j] = max(value, 0.0) if relu else value
    return heat


def slow_score_cam(network, image, activation, score, relu):
    """Wang et al. 2020, equations 4 to 8: mask by each channel, upsampled and scaled; ReLU(sum softmax(score) A)."""
    scores = []
    for channel in activation:
        mask = upsample_slowly(channel.tolist(), *image.shape[-2:])
        mask = (mask - mask.min()) / (mask.max() - mask.min())
        with torch.no_grad():
            scores.append(score(network(image * torch.from_numpy(mask))[0]).item())
    powers = [math.exp(value - max(scores)) for value in scores]
    return slow_sum([power / sum(powers) for power in powers], activation, relu)


@pytest.mark.parametrize("layer", ["body", "conv"])
@pytest.mark.parametrize("score", SCORES)
def test_score_cam_equals_the_equations_of_the_paper(model, image, layer, score):
    options, score_of = SCORES[score]
    activation = activation_of(model, image, layer)
    for relu in (True, False):
        expected = slow_score_cam(model.module, image, activation, score_of, relu)
        attribution = vizlib.explain(model, photo(), "score-cam", **options, layer=layer, relu=relu)
        assert attribution.signed == (not relu)
        if expected.any():
            assert_close(attribution.heat, expected)
        else:
            assert not attribution.heat.any()


def test_constant_channel_has_no_mask_and_no_weight():
    model = small()
    convolution: Any = model.module.get_submodule("body.0")
    with torch.no_grad():
        for channel, bias in ((0, -1.0), (3, 2.0)):  # one is 0, one is constant
            convolution.weight[channel] = 0
            convolution.bias[channel] = bias
    image = model.tensor(vizlib.open_image(photo()))
    activation = activation_of(model, image, "body")
    assert [channel.std() == 0 for channel in activation] == [True, False, False, True, False]
    varying = activation[[1, 2, 4]]
    attribution = vizlib.explain(model, photo(), "score-cam", 2, layer="body")
    expected = slow_score_cam(model.module, image, varying, lambda logits: logits[2], True)
    assert_close(attribution.heat, expected)
    steps = list(vizlib.explain_stream(model, photo(), "ablation-cam", 2, layer="body"))
    assert steps[-1].total == 4  # a channel that is 0 everywhere needs no pass


@pytest.mark.parametrize("method", ["score-cam", "ablation-cam"])
def test_map_is_empty_and_has_a_note_when_no_channel_varies(method):
    model = small()
    convolution: Any = model.module.get_submodule("body.0")
    with torch.no_grad():
        convolution.weight.zero_()
        convolution.bias.fill_(-1)
    attribution = vizlib.explain(model, photo(), method, 2, layer="body")
    assert attribution.heat.shape == (7, 9)
    assert not attribution.heat.any()
    assert any("has the same value at all positions" in note for note in attribution.notes)


def pytorch_grad_cam_result(kind, model, image, target, layer, **options):
    """Return map and weights of a class of pytorch-grad-cam, before the map is upsampled and rescaled."""
    module, captured = copy.deepcopy(model.module), {}

    class Peer(kind):
        def get_cam_image(self, *args, **kwargs):
            captured["map"] = super().get_cam_image(*args, **kwargs)
            return captured["map"]

        def get_cam_weights(self, *args, **kwargs):
            captured["weights"] = super().get_cam_weights(*args, **kwargs)
            return captured["weights"]

    with Peer(model=module, target_layers=[module.get_submodule(layer)], **options) as cam:
        cam.batch_size = options.get("batch_size", 32)
        cam(input_tensor=image, targets=[ClassifierOutputTarget(target)])
    return np.maximum(captured["map"][0], 0), captured["weights"][0]


def align_corners_masks(activation, size):
    """Return the masks of pytorch-grad-cam: `UpsamplingBilinear2d`, which has align_corners=True."""
    large = F.interpolate(activation[None], size, mode="bilinear", align_corners=True)[0]
    low, high = large.amin((1, 2), keepdim=True), large.amax((1, 2), keepdim=True)
    return (large - low) / (high - low + 1e-8)


def scale_before_upsampling_masks(activation, size):
    """Return the masks of torchcam: scaled before upsampling, so that a peak between two pixels is below 1."""
    low, high = activation.amin((1, 2), keepdim=True), activation.amax((1, 2), keepdim=True)
    return F.interpolate(((activation - low) / (high - low + 1e-8))[None], size, mode="bilinear")[0]


def torchcam_score_cam(model, image, target, layer):
    activation = pytest.importorskip("torchcam.methods.activation", reason="torchcam is not installed")
    with activation.ScoreCAM(model.module, layer, batch_size=32, input_shape=tuple(image.shape[1:])) as extractor:
        with torch.no_grad():
            model.module(image)
        return extractor(class_idx=target, normalized=False)[0][0]


@pytest.mark.parametrize("network", ["pytorch-grad-cam", "torchcam"])
def test_score_cam_equals_peers_where_no_upsampling_is_needed(network):
    """A layer as large as the input needs no interpolation, and the three implementations agree."""
    model = small(stride=1, dtype=torch.float32)
    image = model.tensor(vizlib.open_image(photo()))
    assert activation_of(model, image, "body").shape[1:] == SIZE
    if network == "torchcam":
        expected = torchcam_score_cam(model, image, 2, "body")
    else:
        expected = pytorch_grad_cam_result(ScoreCAM, model, image, 2, "body")[0]
    assert_close(vizlib.explain(model, photo(), "score-cam", 2, layer="body", precision="float32").heat, expected, 1e-5)


@pytest.mark.parametrize(
    ("network", "masks"), [("pytorch-grad-cam", align_corners_masks), ("torchcam", scale_before_upsampling_masks)]
)
def test_score_cam_of_a_real_network_equals_peers_with_their_masks(resnet, cheetah, network, masks, monkeypatch):
    image, target = resnet.tensor(cheetah), resnet.predict(cheetah, top=1)[0].index
    if network == "torchcam":
        expected = torchcam_score_cam(resnet, image, target, "layer1")
    else:
        expected = torch.from_numpy(pytorch_grad_cam_result(ScoreCAM, resnet, image, target, "layer1")[0])
    activation = resnet.run(cheetah, layers=["layer1"]).activations["layer1"][0].detach()
    own = make_channel_masks(activation, (96, 96))
    assert own.amax((1, 2)).eq(1).all()  # equation 7: each mask fills 0 to 1
    assert own.amin((1, 2)).eq(0).all()
    assert (masks(activation, (96, 96)) - own).abs().max() > 0.1
    monkeypatch.setattr(perturbation_cam, "make_channel_masks", masks)
    assert_close(vizlib.explain(resnet, cheetah, "score-cam", layer="layer1", precision="float32").heat, expected, 1e-4)


# ------------------------------------------------------------------------------------------------ Ablation-CAM


def slow_ablation_cam(above, activation, score, relu):
    """Desai & Ramaswamy 2020, equations 3 and 4: weight = (y - y without the channel) / y; ReLU(sum weight A)."""
    with torch.no_grad():
        full_score, weights = score(above(activation[None])[0]).item(), []
        for k in range(len(activation)):
            ablated = activation.clone()
            ablated[k] = 0
            weights.append((full_score - score(above(ablated[None])[0]).item()) / full_score)
    return slow_sum(weights, activation, relu), full_score


@pytest.mark.parametrize("layer", ["body", "conv"])
@pytest.mark.parametrize("score", SCORES)
def test_ablation_cam_equals_the_equations_of_the_paper(model, image, layer, score):
    options, score_of = SCORES[score]
    module, activation = model.module, activation_of(model, image, layer)
    above = module.above if layer == "conv" else lambda body: module.above(module.conv(body))
    for relu in (True, False):
        expected, full_score = slow_ablation_cam(above, activation, score_of, relu)
        assert full_score > 0
        assert_close(vizlib.explain(model, photo(), "ablation-cam", **options, layer=layer, relu=relu).heat, expected)


def test_ablation_cam_of_a_negative_score_keeps_the_sign_of_the_drops(image):
    """The paper divides by the score, which reverses the map where it is negative; vizlib by its absolute value."""
    model = small()
    module: Any = model.module
    with torch.no_grad():
        module.head.bias.sub_(16)
    activation = activation_of(model, image, "body")
    expected, full_score = slow_ablation_cam(
        lambda body: module.above(module.conv(body)), activation, lambda logits: logits[2], False
    )
    assert full_score < 0
    assert_close(vizlib.explain(model, photo(), "ablation-cam", 2, layer="body", relu=False).heat, -expected)


@pytest.mark.parametrize("method", ["score-cam", "ablation-cam"])
def test_map_of_a_class_against_itself_is_finite(model, method):
    attribution = vizlib.explain(model, photo(), method, 2, against=2, layer="body")
    assert attribution.heat.isfinite().all()
    assert "The target is compared with itself, so the score is always zero." in attribution.notes
    if method == "ablation-cam":
        assert not attribution.heat.any()


def tiny_vit():
    torch.manual_seed(0)
    module: Any = timm.create_model(
        "vit_tiny_patch16_224", img_size=SIZE_OF_TOKENS, patch_size=8, embed_dim=12, depth=3, num_heads=3, num_classes=4
    )
    nn.init.normal_(module.head.weight)
    nn.init.constant_(module.head.bias, 8)
    return module.double().eval()


SIZE_OF_TOKENS = (16, 24)


@pytest.mark.parametrize("layer", ["blocks.0", "blocks.1"])
def test_channel_of_a_transformer_is_ablated_in_every_token(layer):
    model = vizlib.wrap(tiny_vit(), preprocessing={**PREPROCESSING, "input_size": (3, *SIZE_OF_TOKENS)})
    pixels = photo(SIZE_OF_TOKENS)
    module: Any = model.module
    tokens = model.run(pixels, layers=[layer]).activations[layer].detach()
    remaining_blocks = module.blocks[int(layer[-1]) + 1 :]

    def score(tokens):
        with torch.no_grad():
            return module.forward_head(module.norm(remaining_blocks(tokens)))[0, 1].item()

    grid = tokens[0, 1:].T.unflatten(1, (2, 3))
    full_score, weights = score(tokens), []
    for k in range(12):
        ablated = tokens.clone()
        ablated[..., k] = 0
        weights.append((full_score - score(ablated)) / full_score)
    assert full_score > 0
    expected = slow_sum(weights, grid, False)
    assert_close(vizlib.explain(model, pixels, "ablation-cam", 1, layer=layer, relu=False).heat, expected)
    image = model.tensor(vizlib.open_image(pixels))
    expected = slow_score_cam(module, image, grid, lambda logits: logits[1], False)
    assert_close(vizlib.explain(model, pixels, "score-cam", 1, layer=layer, relu=False).heat, expected)


def test_ablation_cam_equals_pytorch_grad_cam_where_the_layer_ends_in_a_relu(resnet, cheetah):
    image, target = resnet.tensor(cheetah), resnet.predict(cheetah, top=1)[0].index
    assert resnet.run(cheetah).logits[0, target] > 0
    expected, _ = pytorch_grad_cam_result(AblationCAM, resnet, image, target, "layer1", ablation_layer=AblationLayer())
    attribution = vizlib.explain(resnet, cheetah, "ablation-cam", layer="layer1", precision="float32")
    assert_close(attribution.heat, torch.from_numpy(expected), 1e-3)


def test_pytorch_grad_cam_ablates_with_minus_ten_million_where_a_layer_has_negative_values():
    """Its weights are those of a channel of -1e7, in a batch of -2e7, -3e7 ...; vizlib uses 0 as in the paper."""
    model = small(dtype=torch.float32)
    module: Any = model.module
    image = model.tensor(vizlib.open_image(photo()))
    activation = activation_of(model, image, "conv")
    assert activation.min() < 0
    options = {"ablation_layer": AblationLayer(), "batch_size": 1}
    _, weights = pytorch_grad_cam_result(AblationCAM, model, image, 2, "conv", **options)
    with torch.no_grad():
        full_score, peer_weights, paper_weights = module.above(activation[None])[0, 2], [], []
        for k in range(len(activation)):
            for weights_list, value in ((peer_weights, activation.min() - 1e7), (paper_weights, 0)):
                ablated = activation.clone()
                ablated[k] = value
                weights_list.append(((full_score - module.above(ablated[None])[0, 2]) / full_score).item())
    assert np.abs(weights - peer_weights).max() < 1e-5
    # Negative values are set to 0 after `conv`, so that -1e7 and 0 have the same effect here.
    assert np.abs(np.subtract(peer_weights, paper_weights)).max() < 1e-5
    # In a network that uses negative values they differ, and the paper uses 0.
    module.above = lambda conv: module.head(conv.mean((2, 3)))
    _, weights = pytorch_grad_cam_result(AblationCAM, model, image, 2, "conv", **options)
    assert np.abs(weights).min() > 1e4
    _, batched_weights = pytorch_grad_cam_result(AblationCAM, model, image, 2, "conv", **{**options, "batch_size": 4})
    assert np.abs(batched_weights / weights - [1, 2, 3, 4]).max() < 1e-3
    heat = vizlib.explain(model, photo(), "ablation-cam", 2, layer="conv", relu=False, precision="float32").heat
    expected, _ = slow_ablation_cam(module.above, activation, lambda logits: logits[2], False)
    assert_close(heat, expected, 1e-4)
