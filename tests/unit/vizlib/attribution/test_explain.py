"""Many photos, contrasts, streams and estimates give what one photo at a time, one class at a time, one call gives."""

from __future__ import annotations

import contextlib
import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import timm
import torch
from timm.models.resnet import BasicBlock, ResNet

import vizlib
from vizlib.attribution.methods.registry import METHODS
from vizlib.attribution.request import MANY_PASSES, ONE_PASS, TWO_PASSES
from vizlib.models.inference.batched_inference import BatchedInference

FEW = {
    "occlusion": {"window": 8, "stride": 6},
    "rise": {"masks": 16},
    "smoothgrad": {"samples": 3},
    "integrated-gradients": {"steps": 3},
    "score-cam": {"layer": None},
    "ablation-cam": {"layer": None},
}


def resnet(size=(32, 48), labels=None):
    torch.manual_seed(0)
    module = ResNet(BasicBlock, [1, 1, 1, 1], num_classes=4)
    with torch.no_grad():
        module.fc.weight.mul_(10)
    return wrapped(module, size, labels)


def vit(size=(16, 24)):
    torch.manual_seed(0)
    module = timm.create_model(
        "vit_tiny_patch16_224", img_size=size, patch_size=8, embed_dim=12, depth=3, num_heads=2, num_classes=4
    )
    with torch.no_grad():
        for block in module.blocks:
            block.attn.qkv.weight.mul_(30)
        module.head.weight.normal_()
    return wrapped(module, size)


def wrapped(module, size, labels=None):
    shown = {"input_size": (3, *size), "crop_pct": 0.9, "interpolation": "bilinear"}
    return vizlib.wrap(module.double().eval(), preprocessing=shown, labels=labels or ["ant", "bee", "cat", "dog"])


@pytest.fixture(scope="module", params=[resnet, vit], ids=["resnet", "vit"])
def model(request):
    return request.param()


def photo(size=(40, 50), seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


PHOTOS = [photo((40, 50), 0), photo((90, 33), 1), photo((20, 64), 2)]
WRONG = b"this is no photo"


@contextlib.contextmanager
def inputs_to(model):
    """How many inputs the network is shown, pass by pass."""
    seen = []
    handle = model.module.register_forward_hook(lambda _part, inputs, _output: seen.append(len(inputs[0])))
    try:
        yield seen
    finally:
        handle.remove()


@pytest.fixture
def batches_of_two(monkeypatch):
    monkeypatch.setattr("vizlib.models.inference.batched_inference.BatchedInference.batch_size", lambda *_, **__: 2)


def quick(model):
    """Knobs by which a method makes few passes on a small network."""
    cams = {"layer": model.stages[0]} if model.family.name == "ResNet" else {}
    return lambda method: cams if method in ("score-cam", "ablation-cam") else FEW.get(method, {})


def assert_same(one, other):
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
        if field != "notes" or one.method != "integrated-gradients":  # its gap may round otherwise
            assert getattr(one, field) == getattr(other, field), field
    assert math.isclose(one.probability, other.probability, rel_tol=1e-5)
    assert list(one.by_layer) == list(other.by_layer)
    for layer in one.by_layer:
        assert_same(one.by_layer[layer], other.by_layer[layer])


# ------------------------------------------------------------------------------------------------ many photos


def test_a_list_of_photos_gives_what_each_gives_alone(model, batches_of_two):
    parameters = quick(model)
    for method in vizlib.list_methods(model):
        if METHODS[method].cost == MANY_PASSES and method not in ("occlusion", "smoothgrad"):
            continue  # they make their passes photo by photo, all in the same way
        together = vizlib.explain(model, PHOTOS, method, 2, **parameters(method))
        assert len(together) == 3
        for one, alone in zip(together, PHOTOS, strict=True):
            assert_same(one, vizlib.explain(model, alone, method, 2, **parameters(method)))


def test_explain_all_of_a_list_gives_what_each_photo_gives_alone(model, batches_of_two):
    together = vizlib.explain_all(model, PHOTOS, against="runner-up")
    assert len(together) == 3
    for answers, alone in zip(together, PHOTOS, strict=True):
        expected = vizlib.explain_all(model, alone, against="runner-up")
        assert list(answers) == list(expected)
        for method in answers:
            assert_same(answers[method], expected[method])


def test_each_photo_may_have_a_target_and_a_rival_of_its_own(model, batches_of_two):
    method = "input-x-gradient"
    targets, rivals = [3, "bee", None], [None, 0, "runner-up"]
    for given in (targets, tuple(targets)):
        together = vizlib.explain(model, PHOTOS, method, target=given, against=rivals)
        for one, *asked in zip(together, PHOTOS, targets, rivals, strict=True):
            assert_same(one, vizlib.explain(model, asked[0], method, target=asked[1], against=asked[2]))
    assert [one.target for one in together][:2] == [3, 1]
    assert [one.against is not None for one in together] == [False, True, True]
    everything = vizlib.explain_all(model, PHOTOS, target=targets, against=rivals)
    for one, answers in zip(together, everything, strict=True):
        assert_same(one, answers[method])


@pytest.mark.parametrize("ask", [vizlib.explain, vizlib.explain_all])
def test_a_list_of_another_length_than_the_photos_is_told_before_anything_is_computed(model, ask):
    with inputs_to(model) as seen:
        for count in (0, 2, 4):
            with pytest.raises(vizlib.TargetError, match=f"target holds {count} classes for 3 photos"):
                ask(model, PHOTOS, target=[1] * count)
            with pytest.raises(vizlib.TargetError, match=f"against holds {count} classes for 3 photos"):
                ask(model, PHOTOS, target=1, against=[2] * count)
    assert not seen


@pytest.mark.parametrize("ask", [vizlib.explain, vizlib.explain_all])
def test_a_wrong_photo_is_told_before_anything_is_computed(model, ask):
    with inputs_to(model) as seen, pytest.raises(vizlib.ImageError):
        ask(model, [*PHOTOS, WRONG])
    assert not seen


@pytest.mark.parametrize("ask", [vizlib.explain, vizlib.explain_all])
def test_no_photos_give_no_answers(model, ask):
    assert ask(model, []) == []
    assert ask(model, (), target=[]) == []


@pytest.mark.parametrize("ask", [vizlib.explain, vizlib.explain_all])
def test_a_run_is_of_one_photo_and_does_not_go_with_a_list(model, ask):
    run = vizlib.run_for_all(model, PHOTOS[0])
    with pytest.raises(vizlib.MethodError, match="a run is of one photo"):
        ask(model, PHOTOS, run=run)


def test_the_shared_passes_of_a_list_are_made_together(model):
    vizlib.explain(model, PHOTOS, "saliency")  # what a pass costs is measured once
    with inputs_to(model) as seen:
        vizlib.explain_all(model, PHOTOS)
    assert seen == [3]


# ------------------------------------------------------------------------------------------------ one pass for all


def test_explain_all_makes_one_forward_pass_and_none_with_a_run(model):
    with inputs_to(model) as seen:
        vizlib.explain_all(model, PHOTOS[0], 2)
    assert seen == [1]
    run = vizlib.run_for_all(model, PHOTOS[0])
    with inputs_to(model) as seen:
        vizlib.explain_all(model, target=3, run=run)
    assert not seen


def test_by_layer_is_what_the_method_gives_at_each_layer(model):
    everything = vizlib.explain_all(model, PHOTOS[0], 2)
    shown = [name for name, answer in everything.items() if answer.by_layer]
    assert "grad-cam" in shown
    assert ("raw-attention" in shown) == bool(model.attention_layers)
    for method in shown:
        layers = model.attention_layers if method == "raw-attention" else model.stages
        assert list(everything[method].by_layer) == list(layers)
        for layer, one in everything[method].by_layer.items():
            alone = vizlib.explain(model, PHOTOS[0], method, 2, layer=layer)
            assert one.parameters["layer"] == layer
            assert_same(one, alone)
    heats = [one.heat for one in everything["grad-cam"].by_layer.values()]
    assert len({heat.shape for heat in heats}) > 1 or not torch.equal(heats[0], heats[1])


@pytest.mark.parametrize("against", [None, 0])
def test_what_is_done_otherwise_on_a_gpu_gives_the_same(model, monkeypatch, against):
    usual = vizlib.explain_all(model, PHOTOS[0], 2, against)
    run = vizlib.run_for_all(model, PHOTOS[0])
    monkeypatch.setattr(torch.Tensor, "is_cpu", property(lambda _: False))
    found = vizlib.explain_all(model, target=2, against=against, run=run)
    assert list(found) == list(usual)
    for method, one in found.items():
        assert_same(one, usual[method])
        for own in (one, *one.by_layer.values()):
            assert own.heat.untyped_storage().nbytes() == own.heat.nbytes  # not a part of what all of them share


# ------------------------------------------------------------------------------------------------ contrasts


LINEAR = {
    "input-x-gradient": {},
    "grad-cam": {"relu": False},
    "hires-cam": {"relu": False},
    "occlusion": FEW["occlusion"],
    "integrated-gradients": FEW["integrated-gradients"],
    "rise": FEW["rise"],
}


@pytest.mark.parametrize("method", LINEAR)
def test_a_contrast_is_the_difference_of_two_maps_where_a_method_is_linear(model, method):
    parameters = LINEAR[method]
    alone = [vizlib.explain(model, PHOTOS[0], method, target, **parameters).heat for target in (2, 1)]
    found = vizlib.explain(model, PHOTOS[0], method, 2, against=1, **parameters)
    expected = alone[0] - alone[1]
    assert expected.abs().max() > 1e-6
    assert (found.heat - expected).abs().max() < 1e-5 * max(one.abs().max() for one in alone)
    swapped = vizlib.explain(model, PHOTOS[0], method, 1, against=2, **parameters)
    assert torch.allclose(swapped.heat, -found.heat, rtol=1e-4, atol=1e-6 * found.heat.abs().max().item())


def test_the_runner_up_is_the_likeliest_class_besides_the_target(model):
    order = [one.index for one in model.predict(PHOTOS[0], top=4)]
    for target, rival in ((None, order[1]), (order[0], order[1]), (order[1], order[0]), (order[3], order[0])):
        found = vizlib.explain(model, PHOTOS[0], "input-x-gradient", target, against="runner-up")
        assert found.against == rival
        assert_same(found, vizlib.explain(model, PHOTOS[0], "input-x-gradient", target, against=rival))


def test_a_class_that_is_called_runner_up_is_meant():
    model = resnet(labels=["ant", "bee", "runner-up", "dog"])
    order = [one.index for one in model.predict(PHOTOS[0], top=4)]
    target = next(index for index in order if index != 2)
    second = next(index for index in order if index != target)
    if second == 2:
        with torch.no_grad():
            model.module.fc.bias[2] -= 100
    found = vizlib.explain(model, PHOTOS[0], "input-x-gradient", target, against="runner-up")
    assert found.against == 2


CAMS = ["grad-cam", "score-cam", "ablation-cam"]


@pytest.mark.parametrize("method", CAMS)
def test_a_contrast_keeps_what_speaks_for_the_rival_unless_told_otherwise(method):
    model = resnet()
    for options, relu in [
        ({}, True),
        ({"against": 1}, False),
        ({"against": "runner-up"}, False),
        ({"against": 1, "relu": True}, True),
        ({"relu": False}, False),
        ({"against": 1, "relu": None}, False),
    ]:
        found = vizlib.explain(model, PHOTOS[0], method, 2, layer="layer1", **options)
        assert found.parameters["relu"] is relu, options
        assert found.signed is not relu
        assert found.heat.min() >= 0 or not relu
    whole = vizlib.explain(model, PHOTOS[0], method, 2, against=1, layer="layer1", relu=False)
    cut = vizlib.explain(model, PHOTOS[0], method, 2, against=1, layer="layer1", relu=True)
    assert torch.equal(whole.heat.clamp(min=0), cut.heat)


# ------------------------------------------------------------------------------------------------ streams


def test_a_stream_rises_step_by_step_to_what_explain_answers(model, batches_of_two):
    parameters = quick(model)
    many = [name for name in vizlib.list_methods(model) if METHODS[name].cost == MANY_PASSES]
    assert set(many) >= {"occlusion", "rise", "smoothgrad", "integrated-gradients", "score-cam", "ablation-cam"}
    for method in many:
        steps = list(vizlib.explain_stream(model, PHOTOS[0], method, 2, against=1, **parameters(method)))
        total = steps[0].total
        assert len(steps) == math.ceil(total / 2) > 1
        assert [step.done for step in steps] == [*range(2, total, 2), total]
        assert {step.total for step in steps} == {total}
        assert steps[-1].fraction == 1
        for step in steps:
            assert step.attribution.heat.isfinite().all(), method
        answer = vizlib.explain(model, PHOTOS[0], method, 2, against=1, **parameters(method))
        assert torch.equal(steps[-1].attribution.heat, answer.heat), method
        assert_same(steps[-1].attribution, answer)
        assert not torch.equal(steps[0].attribution.heat, answer.heat), method


def test_a_method_of_one_or_two_passes_has_a_single_step(model):
    for method in vizlib.list_methods(model):
        if METHODS[method].cost in (ONE_PASS, TWO_PASSES):
            (step,) = vizlib.explain_stream(model, PHOTOS[0], method, 2)
            assert (step.done, step.total) == (1, 1)
            assert_same(step.attribution, vizlib.explain(model, PHOTOS[0], method, 2))


@pytest.mark.parametrize("method", ["occlusion", "rise", "smoothgrad"])
def test_nothing_runs_between_two_steps_nor_after_the_last_that_was_asked_for(model, method, batches_of_two):
    parameters = FEW[method] | ({"samples": 20} if method == "smoothgrad" else {})
    with inputs_to(model) as seen:
        steps = vizlib.explain_stream(model, PHOTOS[0], method, **parameters)
        assert sum(seen) == 1  # the photo itself
        for count in (1, 2, 3):
            step = next(steps)
            assert step.done == 2 * count
            assert sum(seen) == 1 + 2 * count
        steps.close()
        assert step.done < step.total
        assert sum(seen) == 7
        assert next(steps, None) is None
        assert sum(seen) == 7
    hooks = sum(len(part._forward_hooks) + len(part._forward_pre_hooks) for part in model.module.modules())
    assert hooks == 0


# ------------------------------------------------------------------------------------------------ estimates


def test_an_estimate_is_a_positive_time_for_every_kind_of_method(model):
    costs = {}
    for method in vizlib.list_methods(model):
        costs.setdefault(METHODS[method].cost, method)
    assert set(costs) == {ONE_PASS, TWO_PASSES, MANY_PASSES}
    for method in costs.values():
        for given in (None, PHOTOS[0]):
            assert 0 < vizlib.estimate(model, method, given, **FEW.get(method, {})) < 60


def test_an_estimate_is_the_time_of_all_passes_from_that_of_the_first(model, monkeypatch, batches_of_two):
    """By a clock that ticks once for each input the network is shown."""
    with inputs_to(model) as seen:
        clock = SimpleNamespace(perf_counter=lambda: float(sum(seen)))
        monkeypatch.setattr("vizlib.attribution.explain.time", clock)
        assert vizlib.estimate(model, "rise", PHOTOS[0], masks=100) == pytest.approx(1 + 100)
        assert sum(seen) == 1 + 2 + 2
        seen.clear()
        assert vizlib.estimate(model, "saliency", PHOTOS[0]) == 1


def test_a_wrong_knob_is_told_before_any_pass(model):
    with inputs_to(model) as seen:
        for ask in (
            vizlib.estimate,
            lambda model, method, **parameters: vizlib.explain(model, PHOTOS[0], method, **parameters),
        ):
            for parameters in ({"maks": 100}, {"masks": 3}, {"share": "half"}, {"score": "loss"}):
                with pytest.raises(vizlib.MethodError):
                    ask(model, "rise", **parameters)
        with pytest.raises(vizlib.MethodError):
            vizlib.explain_stream(model, PHOTOS[0], "rise", masks=3)  # at once, not at the first step
        with pytest.raises(vizlib.MethodError):
            vizlib.explain(model, PHOTOS, "rise", masks=3)
    assert not seen


# ------------------------------------------------------------------------------------------------ parameters


RANGED = [
    (method, name) for method, row in METHODS.items() for name, parameter in row.parameters.items() if parameter.range
]


@pytest.mark.parametrize(("method", "name"), RANGED)
def test_a_number_that_a_knob_does_not_take_is_one_sentence_that_names_its_range(method, name):
    model, row = resnet(), METHODS[method]
    low, high = row.parameters[name].range
    whole = isinstance(low, int)
    wrong = [low - 1, high + 1, 10**400, str(low), None, [low], True, False, math.nan, math.inf, 1j]
    for value in [*wrong, low + 0.5] if whole else wrong:
        with pytest.raises(vizlib.MethodError) as caught:
            row.resolve_parameters(model, {name: value})
        kind = "whole number" if whole else "number"
        assert f"{method} takes a {kind} from {low} to {high} for {name}, not" in str(caught.value), value
        assert "\n" not in str(caught.value)
    for value in (low, high, np.int64(low) if whole else np.float32(high)):
        assert row.resolve_parameters(model, {name: value})[name] == value


def test_a_parameters_own_default_is_always_taken(model):
    for method in vizlib.list_methods(model):
        row = METHODS[method]
        for name, parameter in row.parameters.items():
            assert row.resolve_parameters(model, {name: parameter.default}) == row.resolve_parameters(model, {})
            if parameter.range is None and parameter.list_choices(model) and not parameter.allows_others:
                with pytest.raises(vizlib.MethodError, match=f"for {name}, not 'nonsense'"):
                    row.resolve_parameters(model, {name: "nonsense"})


def test_numpys_numbers_are_numbers_and_the_answer_can_be_written_down(tmp_path):
    model = resnet()
    asked = {"samples": np.int64(2), "noise": np.float32(0.25), "seed": 3.0, "budget_mb": np.float64(100)}
    found = vizlib.explain(model, PHOTOS[0], "smoothgrad", 2, **asked)
    plain = vizlib.explain(model, PHOTOS[0], "smoothgrad", 2, samples=2, noise=0.25, seed=3, budget_mb=100)
    assert_same(found, plain)
    about = json.loads(found.save(tmp_path / "found.json").read_text())
    assert about["parameters"]["samples"] == 2
    assert {type(found.parameters[name]) for name in ("samples", "seed", "budget_mb")} == {int}


def test_a_pass_keeps_its_graph_only_for_methods_that_ask_it(model, monkeypatch):
    runs, run = [], vizlib.Model.run
    monkeypatch.setattr(vizlib.Model, "run", lambda *args, **how: runs.append(run(*args, **how)) or runs[-1])
    for method in vizlib.list_methods(model):
        runs.clear()
        vizlib.explain(model, photo(), method, **FEW.get(method, {}))
        asks = method not in {*FEW, "eigen-cam", "raw-attention", "attention-rollout"}
        assert [one.logits.requires_grad for one in runs] == [asks], method


def test_a_list_of_photos_is_split_by_what_the_network_itself_needs(model, monkeypatch):
    """Not by what a quicker twin of it would: the shared passes run on the network."""
    sizes, see = [], vizlib.Model.forward
    monkeypatch.setattr(vizlib.Model, "forward", lambda *args, **how: sizes.append(len(args[1])) or see(*args, **how))
    monkeypatch.setattr(BatchedInference, "batch_size", lambda inference, **_: 1 if inference._folded_copy_bytes else 2)
    vizlib.explain(model, [photo(), photo(seed=1)], "saliency")
    assert sizes == [2]
