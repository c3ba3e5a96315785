"""Stages of networks of no known family: they are found from the maps that the networks return, or refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import timm
import torch
from timm.models.coat import CoaT
from timm.models.hiera import Hiera
from timm.models.mlp_mixer import MlpMixer
from timm.models.nest import Nest
from timm.models.pvt_v2 import PyramidVisionTransformerV2
from timm.models.twins import Twins
from timm.models.xcit import Xcit
from torch import Tensor, nn

import vizlib

SIDE = 64
CLASSES = 5


def make_maxxvit(**options: Any) -> nn.Module:
    return timm.create_model("test_maxvit", num_classes=CLASSES, img_size=SIDE, **options)


# Network, and axes of its stages.
NETWORKS = {
    "maxvit": (make_maxxvit, "channels first"),
    "mambaout": (lambda: timm.create_model("test_mambaout", num_classes=CLASSES), "channels last"),
    "twins": (
        lambda: Twins(
            img_size=SIDE,
            num_classes=CLASSES,
            embed_dims=(8, 16),
            num_heads=(1, 2),
            mlp_ratios=(2, 2),
            depths=(1, 1),
            sr_ratios=(2, 1),
            wss=None,
        ),
        "tokens",
    ),
    "xcit": (
        lambda: Xcit(img_size=SIDE, patch_size=16, num_classes=CLASSES, embed_dim=16, depth=2, num_heads=2),
        "tokens",
    ),
    "mixer": (
        lambda: MlpMixer(img_size=SIDE, patch_size=16, num_classes=CLASSES, embed_dim=16, num_blocks=2),
        "tokens",
    ),
}


def randomise_constant_weights(network: nn.Module) -> nn.Module:
    """Return a network with random weights, none of them 0, as heads and layer scales are at first."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim < 2 or parameter.abs().max() < 1e-3:
                parameter.normal_(std=0.3)
    return network.eval()


def wrap(network: nn.Module, side: int = SIDE) -> vizlib.Model:
    torch.manual_seed(0)
    preprocessing = {"input_size": (3, side, side), "crop_pct": 1.0}
    return vizlib.wrap(randomise_constant_weights(network), preprocessing=preprocessing)


def make_photo(side: int = SIDE) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)


@pytest.fixture(scope="module", params=NETWORKS)
def model_and_axes(request) -> tuple[vizlib.Model, str]:
    """A model of no known family, and the axes of its stages."""
    build, axes = NETWORKS[request.param]
    return wrap(build()), axes


def test_each_stage_is_a_map_that_the_network_returns(model_and_axes):
    model, axes = model_and_axes
    assert model.family is None
    run = model.run(make_photo(), layers=model.stages)
    module: Any = model.module
    with torch.no_grad():
        expected = module.forward_intermediates(run.image, output_fmt="NCHW", intermediates_only=True)
    expected = [maps for maps in expected if min(maps.shape[2:]) > 1]
    assert len(model.stages) == len(expected)
    for name, maps in zip(model.stages, expected, strict=True):
        output = run.activations[name].detach()
        spatial_map = model.spatial_map(output)
        assert spatial_map is not None
        torch.testing.assert_close(spatial_map, maps[0])
        assert output.shape[model.channel_axis(output)] == len(spatial_map)
    assert (output.ndim, model.channel_axis(output)) == {
        "channels first": (4, 1),
        "channels last": (4, -1),
        "tokens": (3, -1),
    }[axes]


def test_all_evidence_passes_through_the_default_layer(model_and_axes):
    model, _ = model_and_axes
    assert model.cam_layer == model.stages[-1]
    assert model.layer_share(model.cam_layer) == pytest.approx(1, abs=1e-3)
    for method in ("grad-cam", "layer-cam", "eigen-cam"):
        options: dict[str, Any] = {} if method == "eigen-cam" else {"relu": False}
        heat = vizlib.explain(model, make_photo(), method, target=1, **options)
        assert heat.heat.isfinite().all()
        assert heat.heat.any()
        assert not any("of the dependence" in note for note in heat.notes)


def test_products_that_cancel_are_read_after_the_normalisation(model_and_axes):
    """Before a normalisation over channels, activation times gradient sums to 0 at each position."""
    model, _ = model_and_axes
    before = vizlib.explain(model, make_photo(), "hires-cam", target=1, relu=False, layer=model.cam_layer).heat
    magnitude = vizlib.explain(model, make_photo(), "normgrad", target=1, layer=model.cam_layer).heat
    if "hires-cam" not in vizlib.list_methods(model):
        assert before.abs().max() < 1e-3 * magnitude.max()
        with pytest.raises(vizlib.MethodError, match="activation times gradient cancels over the channels of "):
            vizlib.explain(model, make_photo(), "hires-cam", target=1)
        return
    heat = vizlib.explain(model, make_photo(), "hires-cam", target=1, relu=False).heat
    assert heat.abs().max() > 1e-3 * magnitude.max()
    if model.normalised_cam_layer != model.cam_layer:
        assert before.abs().max() < 1e-3 * heat.abs().max()


def test_attention_that_is_not_among_all_patches_is_refused(model_and_axes):
    model, _ = model_and_axes
    for method in ("raw-attention", "attention-rollout", "attention-relevance", "legrad"):
        assert method not in vizlib.list_methods(model)
        with pytest.raises(vizlib.MethodError, match="not a transformer vizlib knows"):
            vizlib.explain(model, make_photo(), method)


def test_permuted_tokens_are_no_stage():
    """Hiera keeps its tokens ordered by mask units until the last pooling; only then are they row by row."""
    network = Hiera(img_size=(SIDE, SIDE), num_classes=CLASSES, embed_dim=8, num_heads=1, stages=(1, 1, 1, 1))
    model = wrap(network)
    assert model.stages == ("blocks.3",)
    run = model.run(make_photo(), layers=["blocks.1", "blocks.3"])
    assert model.spatial_map(run.activations["blocks.1"]) is None
    assert model.spatial_map(run.activations["blocks.3"]) is not None
    with pytest.raises(vizlib.MethodError, match=r"which has no spatial positions; use one of blocks\.3"):
        vizlib.explain(model, make_photo(), "grad-cam", layer="blocks.1")


def test_blocks_of_a_map_are_no_map():
    """The blocks of NesT have four axes, photo, block, position and channel, and its scores five."""
    network = Nest(
        img_size=SIDE, num_levels=2, embed_dims=(8, 16), num_heads=(1, 2), depths=(1, 1), num_classes=CLASSES
    )
    model = wrap(network)
    assert model.stages == ("levels.0", "levels.1")
    inside = "levels.1.transformer_encoder.0"
    assert model.spatial_map(model.run(make_photo(), layers=[inside]).activations[inside]) is None


def test_no_layer_that_hardly_anything_passes_through_is_a_default():
    """The parallel blocks of CoaT compute several resolutions; each layer has a small part of the evidence."""
    network = CoaT(
        img_size=SIDE,
        patch_size=4,
        num_classes=CLASSES,
        embed_dims=(16, 16, 16, 16),
        serial_depths=(1, 1, 1, 1),
        parallel_depth=1,
        num_heads=8,
        mlp_ratios=(1, 1, 1, 1),
    )
    model = wrap(network)
    assert model.cam_layer is None
    with pytest.raises(vizlib.MethodError, match="does not pass through any one of its layers with spatial positions"):
        vizlib.explain(model, make_photo(), "grad-cam")
    assert vizlib.explain(model, make_photo(), "saliency").heat.any()


class OneRowOff(PyramidVisionTransformerV2):
    """Returns maps that are not those of its layers."""

    def forward_intermediates(self, *args: Any, **options: Any) -> Any:
        maps: Any = super().forward_intermediates(*args, **options)
        return [stage.roll(1, 2) for stage in maps]


class Failing(PyramidVisionTransformerV2):
    """Cannot return maps of its stages."""

    def forward_intermediates(self, *args: Any, **options: Any) -> Any:
        raise NotImplementedError


@pytest.mark.parametrize("kind", [OneRowOff, Failing])
def test_maps_that_no_layer_outputs_give_no_stages(kind):
    network = kind(num_classes=CLASSES, embed_dims=(8, 16), depths=(1, 1), num_heads=(1, 2), sr_ratios=(2, 1))
    model = wrap(network)
    assert model.attention_layers
    assert model.stages == ()
    with pytest.raises(vizlib.MethodError, match="none of its layers is known to output one map of the photo"):
        vizlib.explain(model, make_photo(), "grad-cam")


def test_stages_of_an_inner_network_are_found():
    inner = make_maxxvit()

    class Tower(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.trunk = inner

        def forward(self, images: Tensor) -> Tensor:
            return self.trunk(images)

    alone = wrap(inner)
    within = vizlib.wrap(Tower().eval(), preprocessing=alone.preprocessing)
    assert within.stages == tuple(f"trunk.{name}" for name in alone.stages)
    heats = [vizlib.explain(model, make_photo(), "grad-cam", target=1).heat for model in (alone, within)]
    torch.testing.assert_close(heats[0], heats[1])


@pytest.mark.slow
def test_measuring_leaves_the_network_as_it_was():
    network = randomise_constant_weights(make_maxxvit()).train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    model = vizlib.wrap(network, preprocessing={"input_size": (3, SIDE, SIDE)})
    assert model.normalised_cam_layer
    assert network.training
    assert all(tensor.equal(before[name]) for name, tensor in network.state_dict().items())
    hooks = [part._forward_hooks or part._forward_pre_hooks for part in network.modules()]
    assert not any(hooks)
