"""`explain` and its variants: lists of photos, contrasts, streams and estimates agree with single explanations."""

from __future__ import annotations

import contextlib
import json
import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import timm
import torch
from timm.models.resnet import BasicBlock, ResNet

import vizlib
from vizlib.attribution.methods.registry import METHODS
from vizlib.attribution.request import MANY_PASSES, ONE_PASS, TWO_PASSES
from vizlib.models.inference.batched_inference import BatchedInference

FEW_PASSES = {
    "occlusion": {"window": 8, "stride": 6},
    "rise": {"masks": 16},
    "smoothgrad": {"samples": 3},
    "integrated-gradients": {"steps": 3},
    "score-cam": {"layer": None},
    "ablation-cam": {"layer": None},
}


def make_resnet(size=(32, 48), labels=None):
    torch.manual_seed(0)
    block: Any = BasicBlock  # the annotation of timm is an instance of it
    module: Any = ResNet(block, (1, 1, 1, 1), num_classes=4, channels=(8, 16, 32, 64))
    with torch.no_grad():
        module.fc.weight.mul_(10)
    return wrap_small(module, size, labels)


def make_vit(size=(16, 24)):
    torch.manual_seed(0)
    module: Any = timm.create_model(
        "vit_tiny_patch16_224", img_size=size, patch_size=8, embed_dim=12, depth=3, num_heads=2, num_classes=4
    )
    with torch.no_grad():
        for block in module.blocks:
            block.attn.qkv.weight.mul_(30)
        module.head.weight.normal_()
    return wrap_small(module, size)


def wrap_small(module, size, labels=None):
    preprocessing = {"input_size": (3, *size), "crop_pct": 0.9, "interpolation": "bilinear"}
    return vizlib.wrap(
        module.double().eval(), preprocessing=preprocessing, labels=labels or ["ant", "bee", "cat", "dog"]
    )


@pytest.fixture(scope="module", params=[make_resnet, make_vit], ids=["resnet", "vit"])
def model(request):
    return request.param()


def make_photo(size=(40, 50), seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


PHOTOS = [make_photo((40, 50), 0), make_photo((90, 33), 1), make_photo((20, 64), 2)]
NOT_A_PHOTO = b"not a photo"


@contextlib.contextmanager
def count_inputs(model):
    """Yield a list of the batch sizes of the forward passes inside the block."""
    batch_sizes = []
    handle = model.module.register_forward_hook(lambda _part, inputs, _output: batch_sizes.append(len(inputs[0])))
    try:
        yield batch_sizes
    finally:
        handle.remove()


@pytest.fixture
def batches_of_two(monkeypatch):
    monkeypatch.setattr("vizlib.models.inference.batched_inference.BatchedInference.batch_size", lambda *_, **__: 2)


def few_pass_parameters(model):
    """Return a function from a method to parameters with which it makes few passes."""
    cams = {"layer": model.stages[0]} if model.family.name == "ResNet" else {}
    return lambda method: cams if method in ("score-cam", "ablation-cam") else FEW_PASSES.get(method, {})


def assert_equal_attributions(one, other):
    assert one.heat.shape == other.heat.shape
    assert torch.allclose(one.heat, other.heat, rtol=1e-5, atol=1e-6 * other.heat.abs().max().item()), one.method
    assert one.photo.tobytes() == other.photo.tobytes()
    for field in (
        "target",
        "label",
        "method",
        "parameters",
        "against",
        "signed",
        "geometry",
        "model",
        "notes",
        "patch_values",
    ):
        if field != "notes" or one.method != "integrated-gradients":  # the gap in its note may be rounded differently
            assert getattr(one, field) == getattr(other, field), field
    assert math.isclose(one.probability, other.probability, rel_tol=1e-5)
    assert list(one.by_layer) == list(other.by_layer)
    for layer in one.by_layer:
        assert_equal_attributions(one.by_layer[layer], other.by_layer[layer])


# ------------------------------------------------------------------------------------------------ many photos


@pytest.mark.slow
def test_explain_of_a_list_equals_each_photo_alone(model, batches_of_two):
    parameters = few_pass_parameters(model)
    for method in vizlib.list_methods(model):
        if METHODS[method].cost == MANY_PASSES and method not in ("occlusion", "smoothgrad"):
            continue  # their passes are made photo by photo, all in the same way
        together = vizlib.explain(model, PHOTOS, method, 2, **parameters(method))
        assert len(together) == 3
        for attribution, photo in zip(together, PHOTOS, strict=True):
            assert_equal_attributions(attribution, vizlib.explain(model, photo, method, 2, **parameters(method)))


def test_explain_all_of_a_list_equals_each_photo_alone(model, batches_of_two):
    together = vizlib.explain_all(model, PHOTOS, against="runner-up")
    assert len(together) == 3
    for attributions, photo in zip(together, PHOTOS, strict=True):
        expected = vizlib.explain_all(model, photo, against="runner-up")
        assert list(attributions) == list(expected)
        for method in attributions:
            assert_equal_attributions(attributions[method], expected[method])


def test_each_photo_can_have_its_own_target_and_contrast_class(model, batches_of_two):
    method = "input-x-gradient"
    targets, contrasts = [3, "bee", None], [None, 0, "runner-up"]
    for selectors in (targets, tuple(targets)):
        together = vizlib.explain(model, PHOTOS, method, target=selectors, against=contrasts)
        for attribution, photo, target, against in zip(together, PHOTOS, targets, contrasts, strict=True):
            alone = vizlib.explain(model, photo, method, target=target, against=against)
            assert_equal_attributions(attribution, alone)
    assert [attribution.target for attribution in together][:2] == [3, 1]
    assert [attribution.against is not None for attribution in together] == [False, True, True]
    every_method = vizlib.explain_all(model, PHOTOS, target=targets, against=contrasts)
    for attribution, attributions in zip(together, every_method, strict=True):
        assert_equal_attributions(attribution, attributions[method])


@pytest.mark.parametrize("function", [vizlib.explain, vizlib.explain_all])
def test_wrong_number_of_targets_is_refused_before_any_pass(model, function):
    with count_inputs(model) as batch_sizes:
        for count in (0, 2, 4):
            with pytest.raises(vizlib.TargetError, match=f"target holds {count} classes for 3 photos"):
                function(model, PHOTOS, target=[1] * count)
            with pytest.raises(vizlib.TargetError, match=f"against holds {count} classes for 3 photos"):
                function(model, PHOTOS, target=1, against=[2] * count)
    assert not batch_sizes


@pytest.mark.parametrize("function", [vizlib.explain, vizlib.explain_all])
def test_unusable_photo_is_refused_before_any_pass(model, function):
    with count_inputs(model) as batch_sizes, pytest.raises(vizlib.ImageError):
        function(model, [*PHOTOS, NOT_A_PHOTO])
    assert not batch_sizes


@pytest.mark.parametrize("function", [vizlib.explain, vizlib.explain_all])
def test_empty_list_gives_empty_list(model, function):
    assert function(model, []) == []
    assert function(model, (), target=[]) == []


@pytest.mark.parametrize("function", [vizlib.explain, vizlib.explain_all])
def test_run_with_a_list_of_photos_is_refused(model, function):
    run = vizlib.run_for_all(model, PHOTOS[0])
    with pytest.raises(vizlib.MethodError, match="a run is of one photo"):
        function(model, PHOTOS, run=run)


def test_photos_of_a_list_share_one_batch(model):
    vizlib.explain(model, PHOTOS, "saliency")  # measures the cost of a pass, once
    with count_inputs(model) as batch_sizes:
        vizlib.explain_all(model, PHOTOS)
    assert batch_sizes == [3]


# ------------------------------------------------------------------------------------------------ one pass for all


def test_explain_all_makes_one_forward_pass_and_none_with_a_run(model):
    with count_inputs(model) as batch_sizes:
        vizlib.explain_all(model, PHOTOS[0], 2)
    assert batch_sizes == [1]
    run = vizlib.run_for_all(model, PHOTOS[0])
    with count_inputs(model) as batch_sizes:
        vizlib.explain_all(model, target=3, run=run)
    assert not batch_sizes


def test_by_layer_equals_explain_at_each_layer(model):
    attributions = vizlib.explain_all(model, PHOTOS[0], 2)
    with_layers = [name for name, attribution in attributions.items() if attribution.by_layer]
    assert "grad-cam" in with_layers
    assert ("raw-attention" in with_layers) == bool(model.attention_layers)
    for method in with_layers:
        layers = model.attention_layers if method == "raw-attention" else model.stages
        assert list(attributions[method].by_layer) == list(layers)
        for layer, attribution in attributions[method].by_layer.items():
            alone = vizlib.explain(model, PHOTOS[0], method, 2, layer=layer)
            assert attribution.parameters["layer"] == layer
            assert_equal_attributions(attribution, alone)
    heats = [attribution.heat for attribution in attributions["grad-cam"].by_layer.values()]
    assert len({heat.shape for heat in heats}) > 1 or not torch.equal(heats[0], heats[1])


@pytest.mark.parametrize("against", [None, 0])
def test_the_gpu_branch_gives_equal_attributions(model, monkeypatch, against):
    expected = vizlib.explain_all(model, PHOTOS[0], 2, against)
    run = vizlib.run_for_all(model, PHOTOS[0])
    monkeypatch.setattr(torch.Tensor, "is_cpu", property(lambda _: False))
    attributions = vizlib.explain_all(model, target=2, against=against, run=run)
    assert list(attributions) == list(expected)
    for method, attribution in attributions.items():
        assert_equal_attributions(attribution, expected[method])
        for one in (attribution, *attribution.by_layer.values()):
            assert one.heat.untyped_storage().nbytes() == one.heat.nbytes  # memory of its own, not a shared copy


# ------------------------------------------------------------------------------------------------ contrasts


LINEAR_METHODS = {
    "input-x-gradient": {},
    "grad-cam": {"relu": False},
    "hires-cam": {"relu": False},
    "occlusion": FEW_PASSES["occlusion"],
    "integrated-gradients": FEW_PASSES["integrated-gradients"],
    "rise": FEW_PASSES["rise"],
}


@pytest.mark.parametrize("method", LINEAR_METHODS)
def test_contrast_of_a_linear_method_is_the_difference_of_two_maps(model, method):
    parameters = LINEAR_METHODS[method]
    alone = [vizlib.explain(model, PHOTOS[0], method, target, **parameters).heat for target in (2, 1)]
    contrast = vizlib.explain(model, PHOTOS[0], method, 2, against=1, **parameters)
    expected = alone[0] - alone[1]
    assert expected.abs().max() > 1e-6
    assert (contrast.heat - expected).abs().max() < 1e-5 * max(heat.abs().max() for heat in alone)
    swapped = vizlib.explain(model, PHOTOS[0], method, 1, against=2, **parameters)
    assert torch.allclose(swapped.heat, -contrast.heat, rtol=1e-4, atol=1e-6 * contrast.heat.abs().max().item())


def test_runner_up_is_the_likeliest_class_besides_the_target(model):
    ranked = [prediction.index for prediction in model.predict(PHOTOS[0], top=4)]
    for target, runner_up in (
        (None, ranked[1]),
        (ranked[0], ranked[1]),
        (ranked[1], ranked[0]),
        (ranked[3], ranked[0]),
    ):
        contrast = vizlib.explain(model, PHOTOS[0], "input-x-gradient", target, against="runner-up")
        assert contrast.against == runner_up
        expected = vizlib.explain(model, PHOTOS[0], "input-x-gradient", target, against=runner_up)
        assert_equal_attributions(contrast, expected)


def test_a_class_labelled_runner_up_takes_precedence():
    model = make_resnet(labels=["ant", "bee", "runner-up", "dog"])
    ranked = [prediction.index for prediction in model.predict(PHOTOS[0], top=4)]
    target = next(index for index in ranked if index != 2)
    second = next(index for index in ranked if index != target)
    if second == 2:
        module: Any = model.module
        with torch.no_grad():
            module.fc.bias[2] -= 100
    contrast = vizlib.explain(model, PHOTOS[0], "input-x-gradient", target, against="runner-up")
    assert contrast.against == 2


CAMS_WITH_RELU = ["grad-cam", "score-cam", "ablation-cam"]


@pytest.mark.parametrize("method", CAMS_WITH_RELU)
def test_relu_defaults_to_off_in_a_contrast(method):
    model = make_resnet()
    for options, relu in [
        ({}, True),
        ({"against": 1}, False),
        ({"against": "runner-up"}, False),
        ({"against": 1, "relu": True}, True),
        ({"relu": False}, False),
        ({"against": 1, "relu": None}, False),
    ]:
        attribution = vizlib.explain(model, PHOTOS[0], method, 2, layer="layer1", **options)
        assert attribution.parameters["relu"] is relu, options
        assert attribution.signed is not relu
        assert attribution.heat.min() >= 0 or not relu
    signed = vizlib.explain(model, PHOTOS[0], method, 2, against=1, layer="layer1", relu=False)
    clipped = vizlib.explain(model, PHOTOS[0], method, 2, against=1, layer="layer1", relu=True)
    assert torch.equal(signed.heat.clamp(min=0), clipped.heat)


# ------------------------------------------------------------------------------------------------ streams


def test_stream_converges_to_explain(model, batches_of_two):
    parameters = few_pass_parameters(model)
    iterative = [name for name in vizlib.list_methods(model) if METHODS[name].cost == MANY_PASSES]
    assert set(iterative) >= {"occlusion", "rise", "smoothgrad", "integrated-gradients", "score-cam", "ablation-cam"}
    for method in iterative:
        steps = list(vizlib.explain_stream(model, PHOTOS[0], method, 2, against=1, **parameters(method)))
        total = steps[0].total
        assert len(steps) == math.ceil(total / 2) > 1
        assert [step.done for step in steps] == [*range(2, total, 2), total]
        assert {step.total for step in steps} == {total}
        assert steps[-1].fraction == 1
        for step in steps:
            assert step.attribution.heat.isfinite().all(), method
        attribution = vizlib.explain(model, PHOTOS[0], method, 2, against=1, **parameters(method))
        assert torch.equal(steps[-1].attribution.heat, attribution.heat), method
        assert_equal_attributions(steps[-1].attribution, attribution)
        assert not torch.equal(steps[0].attribution.heat, attribution.heat), method


def test_a_method_of_one_or_two_passes_has_a_single_step(model):
    for method in vizlib.list_methods(model):
        if METHODS[method].cost in (ONE_PASS, TWO_PASSES):
            (step,) = vizlib.explain_stream(model, PHOTOS[0], method, 2)
            assert (step.done, step.total) == (1, 1)
            assert_equal_attributions(step.attribution, vizlib.explain(model, PHOTOS[0], method, 2))


@pytest.mark.parametrize("method", ["occlusion", "rise", "smoothgrad"])
def test_stream_computes_nothing_between_steps_or_after_close(model, method, batches_of_two):
    parameters = FEW_PASSES[method] | ({"samples": 20} if method == "smoothgrad" else {})
    with count_inputs(model) as batch_sizes:
        steps = vizlib.explain_stream(model, PHOTOS[0], method, **parameters)
        assert sum(batch_sizes) == 1  # the forward pass of the photo
        for count in (1, 2, 3):
            step = next(steps)
            assert step.done == 2 * count
            assert sum(batch_sizes) == 1 + 2 * count
        steps.close()
        assert step.done < step.total
        assert sum(batch_sizes) == 7
        assert next(steps, None) is None
        assert sum(batch_sizes) == 7
    hooks = sum(len(part._forward_hooks) + len(part._forward_pre_hooks) for part in model.module.modules())
    assert hooks == 0


# ------------------------------------------------------------------------------------------------ estimates


def test_estimate_is_positive_for_every_cost(model):
    costs = {}
    for method in vizlib.list_methods(model):
        costs.setdefault(METHODS[method].cost, method)
    assert set(costs) == {ONE_PASS, TWO_PASSES, MANY_PASSES}
    for method in costs.values():
        for photo in (None, PHOTOS[0]):
            assert 0 < vizlib.estimate(model, method, photo, **FEW_PASSES.get(method, {})) < 60


def test_estimate_extrapolates_the_first_batches_to_all_passes(model, monkeypatch, batches_of_two):
    with count_inputs(model) as batch_sizes:
        # A clock that advances by a second per input of the network.
        clock = SimpleNamespace(perf_counter=lambda: float(sum(batch_sizes)))
        monkeypatch.setattr("vizlib.attribution.explain.time", clock)
        assert vizlib.estimate(model, "rise", PHOTOS[0], masks=100) == pytest.approx(1 + 100)
        assert sum(batch_sizes) == 1 + 2 + 2
        batch_sizes.clear()
        assert vizlib.estimate(model, "saliency", PHOTOS[0]) == 1


def test_invalid_parameter_is_refused_before_any_pass(model):
    invalid: list[dict[str, Any]] = [{"maks": 100}, {"masks": 3}, {"share": "half"}, {"score": "loss"}]
    with count_inputs(model) as batch_sizes:
        for function in (
            vizlib.estimate,
            lambda model, method, **parameters: vizlib.explain(model, PHOTOS[0], method, **parameters),
        ):
            for parameters in invalid:
                with pytest.raises(vizlib.MethodError):
                    function(model, "rise", **parameters)
        with pytest.raises(vizlib.MethodError):
            vizlib.explain_stream(model, PHOTOS[0], "rise", masks=3)  # raises at once, not at the first step
        with pytest.raises(vizlib.MethodError):
            vizlib.explain(model, PHOTOS, "rise", masks=3)
    assert not batch_sizes


# ------------------------------------------------------------------------------------------------ parameters


PARAMETERS_WITH_RANGE = [
    (method, name) for method, row in METHODS.items() for name, parameter in row.parameters.items() if parameter.range
]


@pytest.mark.parametrize(("method", "name"), PARAMETERS_WITH_RANGE)
def test_number_out_of_range_is_refused_in_one_sentence_with_the_range(method, name):
    model, row = make_resnet(), METHODS[method]
    limits = row.parameters[name].range
    assert limits is not None
    low, high = limits
    is_integer = isinstance(low, int)
    invalid = [low - 1, high + 1, 10**400, str(low), None, [low], True, False, math.nan, math.inf, 1j]
    for value in [*invalid, low + 0.5] if is_integer else invalid:
        with pytest.raises(vizlib.MethodError) as caught:
            row.resolve_parameters(model, {name: value})
        kind = "whole number" if is_integer else "number"
        assert f"{method} takes a {kind} from {low} to {high} for {name}, not" in str(caught.value), value
        assert "\n" not in str(caught.value)
    for value in (low, high, np.int64(low) if is_integer else np.float32(high)):
        assert row.resolve_parameters(model, {name: value})[name] == value


def test_default_of_every_parameter_is_accepted(model):
    for method in vizlib.list_methods(model):
        row = METHODS[method]
        for name, parameter in row.parameters.items():
            assert row.resolve_parameters(model, {name: parameter.default}) == row.resolve_parameters(model, {})
            if parameter.range is None and parameter.list_choices(model) and not parameter.allows_others:
                with pytest.raises(vizlib.MethodError, match=f"for {name}, not 'nonsense'"):
                    row.resolve_parameters(model, {name: "nonsense"})


def test_numpy_numbers_are_converted_and_can_be_saved(tmp_path):
    model = make_resnet()
    numpy_values = {"samples": np.int64(2), "noise": np.float32(0.25), "seed": 3.0, "budget_mb": np.float64(100)}
    attribution = vizlib.explain(model, PHOTOS[0], "smoothgrad", 2, **numpy_values)
    expected = vizlib.explain(model, PHOTOS[0], "smoothgrad", 2, samples=2, noise=0.25, seed=3, budget_mb=100)
    assert_equal_attributions(attribution, expected)
    about = json.loads(attribution.save(tmp_path / "attribution.json").read_text())
    assert about["parameters"]["samples"] == 2
    assert {type(attribution.parameters[name]) for name in ("samples", "seed", "budget_mb")} == {int}


@pytest.mark.slow
def test_run_keeps_its_graph_only_for_methods_that_read_gradients(model, monkeypatch):
    runs, run = [], vizlib.Model.run
    monkeypatch.setattr(vizlib.Model, "run", lambda *args, **kwargs: runs.append(run(*args, **kwargs)) or runs[-1])
    for method in vizlib.list_methods(model):
        runs.clear()
        vizlib.explain(model, make_photo(), method, **FEW_PASSES.get(method, {}))
        reads_gradients = method not in {*FEW_PASSES, "eigen-cam", "raw-attention", "attention-rollout"}
        assert [one.logits.requires_grad for one in runs] == [reads_gradients], method


def test_list_of_photos_is_split_by_the_memory_of_the_network_itself(model, monkeypatch):
    """The shared passes run on the network itself, not on its folded copy."""
    sizes, forward = [], vizlib.Model.forward

    def record_size(*args, **kwargs):
        sizes.append(len(args[1]))
        return forward(*args, **kwargs)

    monkeypatch.setattr(vizlib.Model, "forward", record_size)
    monkeypatch.setattr(BatchedInference, "batch_size", lambda inference, **_: 1 if inference._folded_copy_bytes else 2)
    vizlib.explain(model, [make_photo(), make_photo(seed=1)], "saliency")
    assert sizes == [2]


class Linear(torch.nn.Module):
    """A network of one parameter and no submodule."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0)))

    def forward(self, images):
        return torch.einsum("nchw,kchw->nk", images, self.weight)


def test_network_without_submodules_has_the_methods_that_need_no_layer():
    model = vizlib.wrap(Linear().eval(), preprocessing={"input_size": (3, 32, 32)})
    photo = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    methods = vizlib.list_methods(model)
    assert {"saliency", "input-x-gradient", "occlusion", "rise"} <= set(methods)
    maps = {name: vizlib.explain(model, photo, name, target=1, **FEW_PASSES.get(name, {})) for name in methods}
    assert maps["input-x-gradient"].heat.sum() == pytest.approx(maps["saliency"].score, rel=1e-4)
