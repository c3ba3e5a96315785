"""Every method gives the same map on a GPU as on the processor, where other tests compare it with its paper."""

from __future__ import annotations

import copy
import itertools

import numpy as np
import pytest
import timm
import torch

import vizlib
from vizlib.metrics import deletion

if not torch.cuda.is_available():
    pytest.skip("no CUDA device: maps on a GPU are not compared", allow_module_level=True)

NETWORKS = {
    "resnet": lambda: timm.create_model("test_resnet", num_classes=6),
    "vit": lambda: timm.create_model("test_vit", img_size=64, num_classes=6),
    "swin": lambda: timm.models.SwinTransformer(
        64, patch_size=4, embed_dim=6, num_heads=(1, 2, 2), window_size=4, num_classes=6, depths=(2, 2)
    ),
}


def photo(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (64, 80, 3), dtype=np.uint8)


@pytest.fixture(scope="module", params=NETWORKS)
def models(request):
    """The same network in double precision with perturbed weights, on the processor and on the GPU."""
    torch.manual_seed(0)
    module = NETWORKS[request.param]().double().eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.2)
    preprocessing = {"input_size": (3, 64, 64), "crop_pct": 1.0, "crop_mode": "center"}
    return tuple(
        vizlib.wrap(copy.deepcopy(module).to(device), preprocessing=preprocessing, name=device)
        for device in ("cpu", "cuda")
    )


def assert_same(on_cpu: vizlib.Attribution, on_gpu: vizlib.Attribution) -> None:
    """Assert the same class, notes and map, to 1e-6 of its largest value, and that the map is on the processor."""
    assert on_gpu.heat.device.type == "cpu"
    assert (on_gpu.target, on_gpu.notes) == (on_cpu.target, on_cpu.notes)
    assert (on_gpu.heat - on_cpu.heat).abs().max() <= 1e-6 * on_cpu.heat.abs().max(), on_cpu.method


def test_predictions_are_the_same(models):
    on_cpu, on_gpu = (model.predict(photo()) for model in models)
    assert [prediction.index for prediction in on_cpu] == [prediction.index for prediction in on_gpu]
    probabilities = [prediction.probability for prediction in on_gpu]
    assert [prediction.probability for prediction in on_cpu] == pytest.approx(probabilities, rel=1e-6)


def test_explain_all_gives_the_same_maps_for_every_method_and_layer(models):
    on_cpu, on_gpu = (vizlib.explain_all(model, [photo(0), photo(1)], against="runner-up") for model in models)
    for cpu_attributions, gpu_attributions in zip(on_cpu, on_gpu, strict=True):
        assert cpu_attributions.keys() == gpu_attributions.keys()
        for name in cpu_attributions:
            assert_same(cpu_attributions[name], gpu_attributions[name])
            assert cpu_attributions[name].by_layer.keys() == gpu_attributions[name].by_layer.keys()
            for layer, attribution in cpu_attributions[name].by_layer.items():
                assert_same(attribution, gpu_attributions[name].by_layer[layer])


@pytest.mark.parametrize("method", vizlib.list_methods())
def test_every_method_gives_the_same_map(models, method, few_passes):
    if method not in vizlib.list_methods(models[0]):
        pytest.skip(f"{method} does not fit this network")
    assert_same(*(vizlib.explain(model, photo(), method, **few_passes(method)) for model in models))


def test_streamed_maps_are_the_same_after_equal_numbers_of_passes(models):
    on_cpu, on_gpu = (
        {step.done: step.attribution for step in vizlib.explain_stream(model, photo(), "rise", masks=64)}
        for model in models
    )
    common_steps = on_cpu.keys() & on_gpu.keys()
    assert max(on_cpu) == max(on_gpu) in common_steps
    for done in common_steps:
        assert_same(on_cpu[done], on_gpu[done])


def test_deletion_is_the_same(models):
    on_cpu, on_gpu = (deletion(model, vizlib.explain(model, photo(), "grad-cam")) for model in models)
    assert on_gpu.auc == pytest.approx(on_cpu.auc, rel=1e-6)


def test_run_explains_other_classes_and_the_model_is_not_modified(models):
    _, model = models
    state_before = {name: value.clone() for name, value in model.module.state_dict().items()}
    run = vizlib.run_for_all(model, photo())
    for target, other_target in itertools.product(range(2), repeat=2):
        attributions = vizlib.explain_all(model, target=target, run=run)
        from_photo = vizlib.explain_all(model, photo(), target=other_target)
        if target == other_target:
            for name, attribution in attributions.items():
                assert_same(from_photo[name], attribution)
    assert all(torch.equal(value, state_before[name]) for name, value in model.module.state_dict().items())
    assert not any(module._forward_hooks or module._backward_hooks for module in model.module.modules())
