"""Metrics against slow re-implementations of their papers' formulas, in double precision."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

import vizlib
from vizlib.metrics import measure
from vizlib.metrics.faithfulness import make_squares
from vizlib.metrics.imputation import impute_pixels
from vizlib.metrics.localisation import make_region
from vizlib.models.randomised_copy import iterate_randomised_copies

SIDE = 24


class SmallNetwork(nn.Module):
    """A small convolutional network in double precision."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.block = nn.Conv2d(8, 8, 3, padding=1, stride=2)
        self.head = nn.Linear(8, 5)
        self.double()

    def forward(self, image):
        features = self.block(self.stem(image).tanh()).tanh()
        return 4 * self.head(features.mean((2, 3)))


@pytest.fixture(scope="module")
def model():
    preprocessing = {"input_size": (3, SIDE, SIDE), "crop_pct": 1.0, "crop_mode": "squash"}
    return vizlib.wrap(SmallNetwork().eval(), preprocessing=preprocessing, labels=list("abcde"))


@pytest.fixture(scope="module")
def attribution(model):
    photo = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    return vizlib.explain(model, photo, "input-x-gradient", target="c")


def resize(heat):
    return nn.functional.interpolate(heat[None, None].float(), (SIDE, SIDE), mode="bilinear", align_corners=False)[0, 0]


def score(model, image, target, kind="probability"):
    with torch.no_grad():
        logits = model.module(image)[0]
    return (logits.softmax(0) if kind == "probability" else logits)[target].item()


def measure_exactly(model, attribution, metric, **parameters):
    return measure(model, attribution, metric, random_maps=0, precision="float32", **parameters)


def test_road_equals_the_linear_system_of_the_paper_solved_densely(model, attribution):
    image, heat = model.tensor(attribution.photo), resize(attribution.heat)
    order = heat.flatten().argsort(descending=True, stable=True)
    steps, total = 3, []
    for step in range(1, steps + 1):
        count = round(step / (steps + 1) * order.numel())
        scores = []
        for chosen in (order[-count:], order[:count]):
            removed = torch.zeros(SIDE * SIDE, dtype=torch.bool)
            removed[chosen] = True
            scores.append(score(model, impute_slowly(image, removed.view(SIDE, SIDE)), attribution.target))
        total.append((scores[0] - scores[1]) / 2)
    found = measure_exactly(model, attribution, "road", steps=steps, noise=0.0)
    assert found.value == pytest.approx(np.mean(total), abs=1e-6)
    assert [value for _, value in found.curve] == pytest.approx(total, abs=1e-6)


def impute_slowly(image, removed):
    """Solve x_i = sum_j w_j x_j / sum_j w_j for all removed pixels i, pixel by pixel, with a dense matrix."""
    places = [tuple(place) for place in removed.nonzero().tolist()]
    index = {place: number for number, place in enumerate(places)}
    matrix, constants = np.zeros((len(places), len(places))), np.zeros((len(places), 3))
    for (row, column), number in index.items():
        for dy in (-1, 0, 1):
            for dx in (-1, 0, 1):
                y, x = row + dy, column + dx
                if (dy, dx) == (0, 0) or not (0 <= y < SIDE and 0 <= x < SIDE):
                    continue
                weight = 1 / 12 if dy and dx else 1 / 6
                matrix[number, number] += weight
                if (y, x) in index:
                    matrix[number, index[y, x]] -= weight
                else:
                    constants[number] += weight * image[0, :, y, x].double().numpy()
    solution = np.linalg.solve(matrix, constants)
    result = image.clone()
    for (row, column), number in index.items():
        result[0, :, row, column] = torch.from_numpy(solution[number])
    return result


def test_imputed_pixels_get_noise_of_the_given_size(model, attribution):
    image = model.tensor(attribution.photo)
    removed = torch.ones(SIDE, SIDE, dtype=torch.bool)
    removed[0] = False
    exact, noisy = (impute_pixels(image, removed, noise, 5) for noise in (0.0, 0.3))
    difference = (noisy - exact)[0][:, removed]
    assert difference.std().item() == pytest.approx(0.3, rel=0.1)
    assert torch.equal(noisy[0][:, ~removed], image[0][:, ~removed])


def test_average_drop_and_increase_equal_the_formulas_of_grad_cam_pp(model, attribution):
    image = model.tensor(attribution.photo)
    for heat in (attribution.heat, -attribution.heat, torch.tensor([[1.0, 0.9], [0.8, 0.7]])):
        changed = replace(attribution, heat=heat)
        mask = resize(heat.clamp(min=0)).double()
        mask = mask / mask.max()
        whole, masked = score(model, image, 2), score(model, image * mask, 2)
        drop, rise = (measure_exactly(model, changed, name).value for name in ("average-drop", "increase"))
        assert drop == pytest.approx(max(0.0, whole - masked) / whole, abs=1e-6)
        assert rise == float(masked > whole)


@pytest.mark.parametrize("baseline", ["mean", "black"])
def test_infidelity_equals_its_definition_with_the_best_scale(model, attribution, baseline):
    image, heat = model.tensor(attribution.photo), resize(attribution.heat).double()
    preprocessing = model.preprocessing
    black = -torch.tensor(preprocessing.mean) / torch.tensor(preprocessing.std)
    sums, drops = [], []
    for top, left, bottom, right in make_squares(30, (SIDE, SIDE), 4).tolist():
        changed = image.clone()
        for y in range(top, bottom):
            for x in range(left, right):
                changed[0, :, y, x] = 0 if baseline == "mean" else black
        sums.append(sum(heat[y, x].item() for y in range(top, bottom) for x in range(left, right)))
        drops.append(score(model, image, 2) - score(model, changed, 2))
    scale = sum(a * b for a, b in zip(sums, drops, strict=True)) / sum(a * a for a in sums)
    expected = sum((scale * a - b) ** 2 for a, b in zip(sums, drops, strict=True)) / sum(b * b for b in drops)
    found = measure_exactly(model, attribution, "infidelity", squares=30, seed=4, baseline=baseline)
    assert found.value == pytest.approx(expected, abs=1e-6)
    assert 0 < expected < 1


def test_completeness_is_zero_for_integrated_gradients_and_equals_its_formula(model, attribution):
    image = model.tensor(attribution.photo)
    difference = score(model, image, 2, "logit") - score(model, torch.zeros_like(image), 2, "logit")
    expected = abs(attribution.heat.double().sum().item() - difference) / abs(difference)
    assert measure_exactly(model, attribution, "completeness").value == pytest.approx(expected, abs=1e-6)
    exact = vizlib.explain(model, attribution.photo, "integrated-gradients", target="c", steps=200)
    assert measure_exactly(model, exact, "completeness").value < 1e-4


def test_max_sensitivity_equals_its_definition(model, attribution):
    image, target, radius = model.tensor(attribution.photo), attribution.target, 0.5

    def explain_slowly(images):
        images = images.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(model.module(images)[0, target], images)
        return (images * gradient).sum(1)[0].detach()

    base, changes = explain_slowly(image), []
    for index in range(7):
        noise = np.random.Generator(np.random.PCG64([9, index])).uniform(-1, 1, tuple(image.shape))
        moved = explain_slowly(image + radius * torch.from_numpy(noise))
        changes.append(((moved - base).norm() / base.norm()).item())
    found = measure_exactly(model, attribution, "max-sensitivity", samples=7, radius=radius, seed=9)
    assert found.value == pytest.approx(max(changes), abs=1e-5)
    assert len(found.random_values) == 20


@pytest.mark.parametrize("order", ["cascading", "independent"])
@pytest.mark.parametrize("sign", ["absolute", "signed"])
def test_parameter_randomisation_equals_explaining_each_random_network(model, attribution, order, sign):
    expected = []
    for level, randomised in iterate_randomised_copies(model, cascading=order == "cascading", seed=6):
        module = copy.deepcopy(model.module)
        module.load_state_dict(randomised.module.state_dict())
        other = vizlib.wrap(module, preprocessing=model.preprocessing, labels=model.labels)
        heats = [attribution.heat, vizlib.explain(other, attribution.photo, "input-x-gradient", target="c").heat]
        first, second = ((heat.abs() if sign == "absolute" else heat).double().flatten() for heat in heats)
        correlation: Any = stats.spearmanr(first, second)
        expected.append((level.name, correlation.statistic))
    found = measure_exactly(model, attribution, "parameter-randomisation", order=order, seed=6, sign=sign)
    assert [name for name, _ in found.curve] == [name for name, _ in expected] == ["head", "block", "stem"]
    assert [value for _, value in found.curve] == pytest.approx([value for _, value in expected], abs=1e-4)
    assert found.value == pytest.approx(np.mean([abs(value) for _, value in expected]), abs=1e-4)
    assert 0 < found.references["shuffled"] < 0.1


def test_efficient_randomisation_equals_the_rise_of_the_histogram_entropy(model, attribution):
    *_, (_, randomised) = iterate_randomised_copies(model, seed=2)
    after = vizlib.explain(
        replace(randomised, measured_by=None), attribution.photo, "input-x-gradient", target="c"
    ).heat
    before, later = (
        stats.entropy(np.histogram(heat.double().numpy(), bins=30)[0]) for heat in (attribution.heat, after)
    )
    found = measure_exactly(model, attribution, "efficient-randomisation", bins=30, seed=2)
    assert found.value == pytest.approx((later - before) / before, abs=1e-6)


def test_sparseness_is_the_gini_index_of_all_pairs(model, attribution):
    values = attribution.heat.double().abs().flatten()[:200]
    changed = replace(attribution, heat=values.view(20, 10).float())
    expected = (values[:, None] - values).abs().sum() / (2 * len(values) ** 2 * values.mean())
    assert measure_exactly(model, changed, "sparseness").value == pytest.approx(expected.item(), abs=1e-6)


BOXES = [(3.0, 2.0, 9.6, 14.0), (11.0, 5.0, 20.0, 8.4)]


def is_in_boxes(row, column):
    return any(x0 <= column + 0.5 < x1 and y0 <= row + 0.5 < y1 for x0, y0, x1, y1 in BOXES)


@pytest.mark.parametrize("tolerance", [0, 3])
def test_localisation_equals_loops_over_the_pixels(model, attribution, tolerance):
    heat = np.clip(attribution.project_to_photo(), 0, None)
    inside = [(y, x) for y in range(SIDE) for x in range(SIDE) if is_in_boxes(y, x)]
    energy = sum(heat[place] for place in inside) / heat.sum()
    marked = [(y, x) for y in range(SIDE) for x in range(SIDE) if heat[y, x] >= 0.3 * heat.max()]
    overlap = len(set(marked) & set(inside)) / len(set(marked) | set(inside))
    y, x = np.unravel_index(heat.argmax(), heat.shape)
    near = min(math.hypot(row - y, column - x) for row, column in inside) <= tolerance
    mask = np.array([[is_in_boxes(row, column) for column in range(SIDE)] for row in range(SIDE)])
    for region in ({"boxes": BOXES}, {"mask": mask}):
        assert measure_exactly(model, attribution, "energy-pointing-game", **region).value == pytest.approx(energy)
        assert measure_exactly(model, attribution, "iou", threshold=0.3, **region).value == pytest.approx(overlap)
        found = measure_exactly(model, attribution, "pointing-game", tolerance=tolerance, **region)
        assert found.value == float(near)
    assert np.array_equal(make_region(attribution, BOXES), make_region(attribution, mask=mask))


# ------------------------------------------------------------------------- networks whose reasons are known


class KnownReasons(nn.Module):
    """The logit of class 1 is the mean brightness of known regions, or of one colour."""

    def __init__(self, weights) -> None:
        super().__init__()
        self.weights = nn.Parameter(weights)

    def forward(self, image):
        value = (image * self.weights).sum((1, 2, 3)) / self.weights.abs().sum()
        return torch.stack([-4 * value, 4 * value], 1)


def make_weights(kind):
    weights = torch.zeros(1, 3, 32, 32)
    if kind in ("one region", "two regions"):
        weights[:, :, 4:14, 4:14] = 1
    if kind == "two regions":
        weights[:, :, 18:28, 16:30] = 1
    if kind == "a colour":
        weights[:, 0] = 1
    return weights


@pytest.fixture(scope="module", params=["one region", "two regions", "a colour"])
def known(request):
    weights = make_weights(request.param)
    preprocessing = {"input_size": (3, 32, 32), "crop_pct": 1.0, "mean": (0.0,) * 3, "std": (1.0,) * 3}
    model = vizlib.wrap(KnownReasons(weights).eval(), preprocessing=preprocessing, labels=["dark", "bright"])
    pixels = np.random.default_rng(1).integers(90, 130, (32, 32, 3))
    if request.param == "a colour":
        pixels[10:20, 12:26, 0] += 110  # where the colour is strong
    else:
        pixels += (100 * weights[0].permute(1, 2, 0).numpy()).astype(int)
    attribution = vizlib.explain(model, pixels.astype(np.uint8), "input-x-gradient", target="bright")
    return model, attribution


@pytest.mark.parametrize("metric", ["deletion", "insertion", "road", "infidelity", "average-drop", "completeness"])
def test_the_true_map_is_better_than_every_reference(known, metric):
    model, attribution = known
    parameters: dict[str, Any] = {"baseline": "mean"} if metric == "insertion" else {}
    found = measure(model, attribution, metric, precision="float32", **parameters)
    assert found.better_than_random == 1.0, found
    sign = 1 if found.higher_is_better else -1
    assert all(sign * found.value >= sign * other for other in found.references.values()), found


def test_random_maps_are_at_chance(known):
    model, attribution = known
    for metric in ("deletion", "insertion", "infidelity"):
        shares = []
        for seed in range(12):
            heat = torch.rand(32, 32, generator=torch.Generator().manual_seed(seed))
            found = measure(model, replace(attribution, heat=heat), metric, seed=seed, precision="float32")
            shares.append(found.better_than_random)
        assert 0.25 < np.mean(shares) < 0.75, (metric, shares)


def test_randomisation_finds_a_method_that_ignores_the_class(model, attribution):
    found = measure_exactly(model, attribution, "parameter-randomisation")
    assert abs(found.curve[-1][1]) < 0.5
    eigen = vizlib.explain(model, attribution.photo, "eigen-cam", layer="block", target="c")
    ignored = measure_exactly(model, eigen, "parameter-randomisation", order="independent")
    assert dict(ignored.curve)["head"] == pytest.approx(1.0)  # with other weights in the classifier, the same map
