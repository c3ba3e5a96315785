"""The Attention tab of networks without a patch grid: windowed attention, other tokens, convolutions."""

from __future__ import annotations

from functools import partial

import pytest
import timm
import torchvision

import vizlib
from dashboard.services.analysis_service import AnalysisService
from dashboard.services.model_catalog import ModelCatalog
from dashboard.sidebar.prediction_panel import build_prediction_panel
from dashboard.tabs import attention, inspect, receptive_field

SMALL = {"embed_dim": 24, "depths": (1, 1), "num_heads": (2, 2)}
NETWORKS = {
    "swin": partial(timm.create_model, "swin_tiny_patch4_window7_224", **SMALL),
    "swin 2": partial(timm.create_model, "swinv2_tiny_window8_256", **SMALL),
    "swin of torchvision": partial(
        torchvision.models.SwinTransformer, [4, 4], 24, [1, 1], [2, 2], [7, 7], num_classes=1000
    ),
    "pyramid": partial(timm.create_model, "pvt_v2_b0"),
    "linear attention": partial(timm.create_model, "efficientvit_b0"),
    "resnet": partial(timm.create_model, "resnet10t"),
}


@pytest.fixture(scope="module")
def service() -> AnalysisService:
    def load(name: str) -> vizlib.Model:
        config = None if name != "swin of torchvision" else vizlib.load("resnet18-imagenette").preprocessing
        return vizlib.wrap(NETWORKS[name]().eval(), name=name, preprocessing=config)

    return AnalysisService(ModelCatalog([], extra={name: partial(load, name) for name in NETWORKS}))


def compute_caption(service: AnalysisService, photo, name: str) -> str:
    selection = build_prediction_panel(service, photo, name)[0]
    value, caption = attention.compute_content(service, photo, selection)
    assert value == {}
    return caption


@pytest.mark.parametrize(("name", "window"), [("swin", 7), ("swin 2", 8), ("swin of torchvision", 7)])
def test_windowed_attention_is_explained_with_the_window_size(service, cheetah, name, window):
    caption = compute_caption(service, cheetah, name)
    assert f"{name} computes attention within windows" in caption
    assert f"the {window * window} positions of its own window of {window} × {window}" in caption
    assert "convolution" not in caption
    weights_by_layer = service.catalog.get(name).run(cheetah, attention=True).attention
    assert {tuple(weights.shape[-2:]) for weights in weights_by_layer.values()} == {(window * window,) * 2}


@pytest.mark.slow
def test_other_attention_is_not_described_as_a_convolutional_network(service, cheetah):
    assert "its tokens do not form one known grid of patches" in compute_caption(service, cheetah, "pyramid")
    assert "No layer of linear attention computes softmax attention" in compute_caption(
        service, cheetah, "linear attention"
    )


@pytest.mark.slow
def test_only_convolutional_networks_have_receptive_fields_in_the_attention_tab(service, cheetah):
    assert "resnet is a convolutional network" in compute_caption(service, cheetah, "resnet")
    for name in NETWORKS:
        selection = build_prediction_panel(service, cheetah, name)[0]
        assert bool(receptive_field.compute_content(service, cheetah, selection)[0]) == (
            "is a convolutional network" in compute_caption(service, cheetah, name)
        )


def test_a_windowed_transformer_has_an_inside_tab(service, cheetah):
    selection = build_prediction_panel(service, cheetah, "swin")[0]
    _, tree, *_, sheet, _, _, _ = inspect.compute_content(service, cheetah, selection, None)
    assert {row["role"] for row in tree["rows"]} >= {"1 block", "block", "attention"}
    assert sheet["items"]
