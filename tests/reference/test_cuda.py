"""On a GPU every method gives the map it gives on the processor, where other tests hold it to its paper's formula."""

from __future__ import annotations

import copy
import itertools

import numpy as np
import pytest
import timm
import torch

import vizlib
from vizlib.metrics.faithfulness import deletion

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
def both(request):
    """One network of double precision and lively weights, on the processor and on the GPU."""
    torch.manual_seed(0)
    module = NETWORKS[request.param]().double().eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.2)
    shown = {"input_size": (3, 64, 64), "crop_pct": 1.0, "crop_mode": "center"}
    return tuple(
        vizlib.wrap(copy.deepcopy(module).to(device), preprocessing=shown, name=device) for device in ("cpu", "cuda")
    )


def assert_alike(here: vizlib.Attribution, there: vizlib.Attribution) -> None:
    """The same class, notes and map, to a millionth of the map's largest value; it came back from the GPU."""
    assert there.heat.device.type == "cpu"
    assert (there.target, there.notes) == (here.target, here.notes)
    assert (there.heat - here.heat).abs().max() <= 1e-6 * here.heat.abs().max(), here.method


def test_the_answers_are_the_same(both):
    here, there = (model.predict(photo()) for model in both)
    assert [one.index for one in here] == [one.index for one in there]
    assert [one.probability for one in here] == pytest.approx([one.probability for one in there], rel=1e-6)


def test_one_pass_gives_the_same_maps_of_every_method_and_layer(both):
    here, there = (vizlib.explain_all(model, [photo(0), photo(1)], against="runner-up") for model in both)
    for ours, theirs in zip(here, there, strict=True):
        assert ours.keys() == theirs.keys()
        for name in ours:
            assert_alike(ours[name], theirs[name])
            assert ours[name].by_layer.keys() == theirs[name].by_layer.keys()
            for layer, one in ours[name].by_layer.items():
                assert_alike(one, theirs[name].by_layer[layer])


@pytest.mark.parametrize("method", vizlib.list_methods())
def test_every_method_gives_the_same_map(both, method, few_passes):
    if method not in vizlib.list_methods(both[0]):
        pytest.skip(f"{method} does not fit this network")
    assert_alike(*(vizlib.explain(model, photo(), method, **few_passes(method)) for model in both))


def test_a_map_that_gets_better_is_the_same_after_every_step_of_one_size(both):
    here, there = (
        {step.done: step.attribution for step in vizlib.explain_stream(model, photo(), "rise", masks=64)}
        for model in both
    )
    shared = here.keys() & there.keys()
    assert max(here) == max(there) in shared
    for done in shared:
        assert_alike(here[done], there[done])


def test_what_is_hidden_first_is_the_same(both):
    here, there = (deletion(model, vizlib.explain(model, photo(), "grad-cam")) for model in both)
    assert there.auc == pytest.approx(here.auc, rel=1e-6)


def test_a_kept_run_answers_other_classes_and_the_network_is_left_as_it_was(both):
    _, model = both
    before = {name: value.clone() for name, value in model.module.state_dict().items()}
    run = vizlib.run_for_all(model, photo())
    for target, again in itertools.product(range(2), repeat=2):
        found = vizlib.explain_all(model, target=target, run=run)
        fresh = vizlib.explain_all(model, photo(), target=again)
        if target == again:
            for name, one in found.items():
                assert_alike(fresh[name], one)
    assert all(torch.equal(value, before[name]) for name, value in model.module.state_dict().items())
    assert not any(module._forward_hooks or module._backward_hooks for module in model.module.modules())
