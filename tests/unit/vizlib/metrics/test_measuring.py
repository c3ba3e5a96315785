"""`measure` and `trust`: reference maps, streams, notes and errors."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import vizlib
from vizlib import VizlibError
from vizlib.metrics import METRICS, estimate_seconds, measure, measure_stream, trust, trust_all, trust_stream
from vizlib.metrics.perturbation_curves import Perturbation, list_perturbed_photos
from vizlib.metrics.reference_maps import make_edge_map, make_random_maps

QUICK: dict[str, dict[str, Any]] = {
    "deletion": {"steps": 3},
    "insertion": {"steps": 3},
    "road": {"steps": 2},
    "infidelity": {"squares": 8},
    "max-sensitivity": {"samples": 3},
}


class Network(nn.Module):
    def __init__(self, outputs: int = 4) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.convolution = nn.Conv2d(3, 6, 3, padding=1)
        self.head = nn.Linear(6, outputs)

    def forward(self, image):
        return self.head(self.convolution(image).relu().mean((2, 3)))


def make_model(outputs: int = 4, **options) -> vizlib.Model:
    preprocessing = {"input_size": (3, 16, 16), "crop_pct": 1.0, "crop_mode": "squash"}
    return vizlib.wrap(Network(outputs).eval(), preprocessing=preprocessing, **options)


@pytest.fixture
def photo():
    return vizlib.open_image(np.random.default_rng(0).integers(0, 256, (20, 16, 3), dtype=np.uint8))


@pytest.fixture
def model():
    return make_model()


@pytest.fixture
def attribution(model, photo):
    return vizlib.explain(model, photo, "input-x-gradient", target=1)


def region_of(metric: str) -> dict:
    return {"boxes": [(2, 2, 9, 9)]} if METRICS[metric].needs_region else {}


@pytest.mark.parametrize("metric", METRICS)
def test_every_metric_is_streamed_to_the_value_of_measure_and_written_as_json(model, attribution, metric):
    options = {"random_maps": 3, **QUICK.get(metric, {}), **region_of(metric)}
    measurement = measure(model, attribution, metric, **options)
    *_, last = measure_stream(model, attribution, metric, **options)
    assert last.done == last.total
    assert last.measurement.value == pytest.approx(measurement.value, nan_ok=False)
    found = json.loads(json.dumps(measurement.to_dict(), allow_nan=False))
    assert found["metric"] == metric
    assert found["parameters"] == {**found["parameters"], **QUICK.get(metric, {})}
    low, high = METRICS[metric].range
    assert low is None or measurement.value >= low - 1e-9
    assert high is None or measurement.value <= high + 1e-9
    assert METRICS[metric].measures_method or len(measurement.random_values) == 3
    assert estimate_seconds(model, attribution, metric, **options) > 0


OUTPUTS = {
    "one logit": (1, {"labels": ["llama"]}, {"target": "not llama"}),
    "independent labels": (4, {"output_kind": "sigmoid"}, {"target": 2}),
    "regression": (4, {"output_kind": "values"}, {"target": 2}),
    "a contrast": (4, {}, {"target": 1, "against": "runner-up"}),
    "a weighted sum": (4, {}, {"target": {0: 1.0, 3: -0.5}}),
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_every_kind_of_output_is_measured(photo, name):
    outputs, options, target = OUTPUTS[name]
    model = make_model(outputs, **options)
    attribution = vizlib.explain(model, photo, "saliency", **target)
    curve = vizlib.metrics.deletion(model, attribution, steps=4)
    image = model.tensor(photo)
    with torch.no_grad():
        values = [model.module(pixels)[0] for pixels in (image, torch.zeros_like(image))]
    expected = {
        "one logit": lambda v: 1 - v.sigmoid()[0],
        "independent labels": lambda v: v.sigmoid()[2],
        "regression": lambda v: v[2],
        "a contrast": lambda v: v.softmax(0)[1] - v.softmax(0)[attribution.against],
        "a weighted sum": lambda v: v.softmax(0)[0] - 0.5 * v.softmax(0)[3],
    }[name]
    assert curve.score[[0, -1]].tolist() == pytest.approx([expected(value).item() for value in values], abs=1e-6)
    assert trust(model, attribution, random_maps=2).parts.keys() == {"faithfulness", "dependence", "stability"}


def test_a_function_of_the_output_is_measured_with_the_model_that_holds_it(model, photo):
    def energy(logits):
        return logits.logsumexp(1)

    attribution = vizlib.explain(model, photo, "saliency", target=energy)
    bound = model.with_target(energy)
    curve = vizlib.metrics.deletion(bound, attribution, steps=2)
    with torch.no_grad():
        assert curve.score[0].item() == pytest.approx(energy(model.module(model.tensor(photo)))[0].item(), abs=1e-6)
    with pytest.raises(
        VizlibError, match=r"explains the function 'energy' of the output: give the model that holds it"
    ):
        measure(model, attribution)
    other = vizlib.explain(model, photo, "saliency", target=1)
    with pytest.raises(VizlibError, match="the model holds the function 'energy', which this map does not explain"):
        measure(bound, other)


def test_wrong_requests_are_one_sentence(model, attribution, photo):
    requests = {
        "there is no metric 'delete'": {"metric": "delete"},
        "deletion has no parameter 'stepz'": {"stepz": 3},
        "deletion takes a whole number from 1 to 1000 for steps, not 0": {"steps": 0},
        "random_maps is a whole number from 0 to 10000, not -1": {"random_maps": -1},
        r"give the object's boxes=": {"metric": "iou"},
        r"the mask has shape \(3, 3\); expected that of the photo, \(20, 16\)": {
            "metric": "iou",
            "mask": np.ones((3, 3)),
        },
        r"the box \(5, 5, 5, 9\) has no area": {"metric": "iou", "boxes": [(5, 5, 5, 9)]},
        "a box is .left, top, right, bottom. in pixels of the photo, not 7": {"metric": "iou", "boxes": [7]},
        "deletion reads no boxes or mask": {"boxes": [(1, 1, 2, 2)]},
    }
    for message, options in requests.items():
        with pytest.raises(VizlibError, match=message):
            measure(model, attribution, **options)
    with pytest.raises(VizlibError, match=f"this map explains {model.name}, and the given model is another"):
        measure(replace(model, name="another"), attribution)
    larger = vizlib.wrap(model.module, preprocessing={"input_size": (3, 24, 24)}, name=model.name)
    with pytest.raises(VizlibError, match="another preprocessing"):
        measure(larger, attribution)
    features = make_model(output_kind="features")
    with pytest.raises(VizlibError, match="depends on no class"):
        measure(features, vizlib.explain(features, photo, "eigen-cam", layer="convolution"))
    with pytest.raises(VizlibError, match="there is no baseline 'grey'"):
        vizlib.metrics.deletion(model, attribution, baseline="grey")
    with pytest.raises(VizlibError, match="the precision is 'auto' or 'float32', not 'half'"):
        trust(model, attribution, precision="half")
    with pytest.raises(VizlibError, match="parts= names nothing to measure"):
        trust(model, attribution, parts=[])
    with pytest.raises(VizlibError, match="there is no part 'faith' of trust"):
        trust(model, attribution, parts=["faith"])
    with pytest.raises(VizlibError, match="at least 1 random map, not 0"):
        trust(model, attribution, random_maps=0)


def test_objects_outside_the_input_are_noted(photo):
    preprocessing = {"input_size": (3, 16, 16), "crop_pct": 0.5, "crop_mode": "center"}
    model = vizlib.wrap(Network().eval(), preprocessing=preprocessing)
    attribution = vizlib.explain(model, photo, "saliency", target=1)
    for metric in ("iou", "pointing-game", "energy-pointing-game"):
        found = measure(model, attribution, metric, boxes=[(0, 0, 2, 2)])
        assert math.isnan(found.value)
        assert found.better_than_random is None
        assert [getattr(note, "code", None) for note in found.notes] == ["metric.object-not-seen"]


@pytest.mark.parametrize("heat", [torch.zeros(4, 4), torch.ones(4, 4), torch.full((4, 4), math.nan)])
def test_maps_without_order_have_no_value_but_a_note(model, attribution, heat):
    changed = replace(attribution, heat=heat)
    for metric in METRICS:
        found = measure(model, changed, metric, random_maps=2, **QUICK.get(metric, {}), **region_of(metric))
        assert math.isnan(found.value), metric
        assert [getattr(note, "code", None) for note in found.notes] == ["metric.constant-map"]
    result = trust(model, changed)
    assert (result.parts, len(result.notes)) == ({}, 1)


def test_maps_that_depend_on_no_class_are_measured_where_no_score_is_read(photo):
    model = make_model(output_kind="features")
    attribution = vizlib.explain(model, photo, "eigen-cam", layer="convolution")
    for metric in ("sparseness", "iou", "max-sensitivity", "parameter-randomisation"):
        assert math.isfinite(measure(model, attribution, metric, **region_of(metric)).value)


def test_a_network_that_hides_a_part_from_its_copies_is_refused(photo):
    class Hidden(Network):
        def __init__(self) -> None:
            super().__init__()
            self.own = SimpleNamespace(head=self.head)

        def forward(self, image):
            return self.own.head(self.convolution(image).relu().mean((2, 3)))

    model = vizlib.wrap(Hidden().eval(), preprocessing={"input_size": (3, 16, 16)})
    attribution = vizlib.explain(model, photo, "saliency", target=1)
    with pytest.raises(vizlib.ModelError, match="runs a Linear that its copy in evaluation mode does not hold"):
        measure(model, attribution, "parameter-randomisation")


def test_random_maps_do_not_depend_on_how_many_are_made():
    assert torch.equal(make_random_maps(3, (4, 5), seed=7), make_random_maps(9, (4, 5), seed=7)[:3])
    assert not torch.equal(make_random_maps(1, (4, 5), seed=7), make_random_maps(1, (4, 5), seed=8))


def test_the_edge_map_is_high_at_an_edge():
    image = torch.zeros(1, 3, 16, 16)
    image[..., 9:] = 1
    edges = make_edge_map(image, (4, 4))
    assert edges.argmax(1).tolist() == [2] * 4
    assert edges[:, [0, 3]].abs().max() == 0


def test_measuring_stops_between_batches(model, attribution, monkeypatch):
    counts = []
    original = type(model).logits

    def count(self, images, *rest):
        counts.append(len(images))
        return original(self, images, *rest)

    monkeypatch.setattr(type(model), "logits", count)
    monkeypatch.setattr("vizlib.models.inference.batched_inference.MAX_BATCH_SIZE", 4)
    steps = measure_stream(model, attribution, "deletion", steps=10, random_maps=5, precision="float32")
    first = next(steps)
    computed = sum(counts)
    steps.close()
    assert first.done <= computed < first.total == 2 + 8 * 9
    *_, last = measure_stream(model, attribution, "deletion", steps=10, random_maps=5, precision="float32")
    assert last.done == last.total


# ------------------------------------------------------------------------------------------------ trust


def test_trust_measures_what_measure_does(model, attribution):
    result = trust(model, attribution, random_maps=5, precision="float32")
    assert result.faithfulness is not None
    deletion, insertion = result.faithfulness.measurements
    for part in (deletion, insertion):
        alone = measure(model, attribution, part.metric, steps=10, random_maps=5, precision="float32")
        assert part.value == pytest.approx(alone.value, abs=1e-6)
        assert part.random_values == pytest.approx(alone.random_values, abs=1e-6)
        assert part.references == pytest.approx(alone.references, abs=1e-6)
        assert part.parameters == alone.parameters
    lead = insertion.value - deletion.value
    others = [b - a for a, b in zip(deletion.random_values, insertion.random_values, strict=True)]
    assert result.faithfulness.share == sum(other < lead for other in others) / 5
    assert result.dependence is not None
    assert result.dependence.share == pytest.approx(
        min(max(1 - measure(model, attribution, "parameter-randomisation").value, 0), 1), abs=1e-6
    )
    assert result.stability is not None
    sensitivity = measure(model, attribution, "max-sensitivity")
    assert result.stability.share == pytest.approx(1 - sensitivity.value / np.mean(sensitivity.random_values), abs=1e-5)


def test_trust_is_streamed_part_by_part(model, attribution):
    steps = list(trust_stream(model, attribution, random_maps=3))
    fractions = [step.fraction for step in steps]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    assert list(steps[0].trust.parts) == ["stability"]
    assert list(steps[-1].trust.parts) == ["faithfulness", "dependence", "stability"]
    only = trust(model, attribution, parts=["stability"])
    assert list(only.parts) == ["stability"]


def test_methods_of_many_passes_are_measured_where_that_is_cheap(model, photo):
    attribution = vizlib.explain(model, photo, "rise", target=1, masks=16)
    result = trust(model, attribution, random_maps=2)
    assert list(result.parts) == ["faithfulness"]
    assert [getattr(note, "code", None) for note in result.notes] == ["trust.many-passes"]
    asked = trust(model, attribution, random_maps=2, parts=["stability", "dependence"])
    assert (list(asked.parts), asked.notes) == (["dependence", "stability"], ())


def test_trust_travels_with_the_attribution(model, attribution, tmp_path):
    result = trust(model, attribution, random_maps=2)
    assert "trust" not in attribution.to_dict()
    found = json.loads(attribution.with_trust(result).save(tmp_path / "why.json").read_text())["trust"]
    assert found["stability"]["share"] == result.parts["stability"].share
    assert [row["metric"] for row in found["faithfulness"]["measurements"]] == ["deletion", "insertion"]
    with np.load(attribution.with_trust(result).save(tmp_path / "why.npz")) as arrays:
        assert json.loads(str(arrays["about"]))["trust"] == found


def test_a_map_that_ignores_the_parameters_is_said_to(model, photo):
    eigen = vizlib.explain(model, photo, "eigen-cam", layer="convolution", target=1)
    result = trust(model, eigen, random_maps=2)
    assert result.dependence is not None
    assert dict(result.dependence.measurements[0].curve)["head"] == pytest.approx(1.0)


def test_trust_leaves_the_network_unchanged(model, attribution):
    before = {key: value.clone() for key, value in model.module.state_dict().items()}
    hooks = sum(len(part._forward_hooks) for part in model.module.modules())
    trust(model, attribution, random_maps=2)
    assert all(torch.equal(before[key], value) for key, value in model.module.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.module.parameters())
    assert sum(len(part._forward_hooks) for part in model.module.modules()) == hooks


def test_several_maps_are_trusted_as_one_by_one(model, photo):
    """Of two resolutions and two kinds of score."""
    maps = {
        "saliency": vizlib.explain(model, photo, "saliency"),
        "of the probability": vizlib.explain(model, photo, "saliency", score="probability"),
        "grad-cam": vizlib.explain(model, photo, "grad-cam", layer="convolution"),
        "rise": vizlib.explain(model, photo, "rise", masks=20),
    }
    maps["constant"] = replace(maps["grad-cam"], heat=torch.zeros_like(maps["grad-cam"].heat))
    together = trust_all(model, maps, random_maps=3, precision="float32")
    assert list(together) == list(maps)
    for name, attribution in maps.items():
        alone = trust(model, attribution, random_maps=3, precision="float32")
        assert together[name].notes == alone.notes
        assert together[name].parts.keys() == alone.parts.keys()
        for part, found in together[name].parts.items():
            assert found.share == pytest.approx(alone.parts[part].share, abs=1e-5), (name, part)
            for one, other in zip(found.measurements, alone.parts[part].measurements, strict=True):
                assert one.value == pytest.approx(other.value, abs=1e-5)
                assert one.references == pytest.approx(dict(other.references), abs=1e-5)
    other_class = vizlib.explain(model, photo, "saliency", target=(maps["saliency"].target + 1) % 4)
    with pytest.raises(VizlibError, match="other explains another photo or class than saliency"):
        trust_all(model, {"saliency": maps["saliency"], "other": other_class})
    assert trust_all(model, {}) == {}


def test_perturbed_photos_are_what_the_curves_score(model, photo):
    attribution = vizlib.explain(model, photo, "saliency")
    for perturbation, curve in (
        (Perturbation(False, "black"), vizlib.metrics.deletion(model, attribution, steps=4, baseline="black")),
        (Perturbation(True, "blur"), vizlib.metrics.insertion(model, attribution, steps=4)),
    ):
        pictures = list_perturbed_photos(model, attribution, perturbation, 4)
        scores = [model.predict(picture, top=4) for picture in pictures]
        found = [next(row.probability for row in rows if row.index == attribution.target) for rows in scores]
        assert found == pytest.approx(curve.score.tolist(), abs=0.02)  # pixels of pictures are whole numbers
