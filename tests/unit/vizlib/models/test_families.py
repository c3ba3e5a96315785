"""Rows of the table of model families: tokens, stages, default layers and attention, compared with the networks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchvision
from open_clip.modified_resnet import ModifiedResNet
from open_clip.transformer import VisionTransformer
from timm.models.beit import Beit
from timm.models.eva import Eva
from timm.models.naflexvit import NaFlexVit, NaFlexVitCfg
from timm.models.vision_transformer_relpos import VisionTransformerRelPos
from torch import Tensor, nn

import vizlib
from vizlib.models.families.table import FAMILIES
from vizlib.models.layer_share import measure_layer_share

SIZE = (64, 48)  # 4 × 3 patches
SIDE = 64
CLASSES = 5
TIMM: dict[str, Any] = {
    "img_size": SIZE,
    "patch_size": 16,
    "num_classes": CLASSES,
    "embed_dim": 16,
    "depth": 3,
    "num_heads": 2,
}
TOWER: dict[str, Any] = {
    "image_size": SIZE,
    "patch_size": 16,
    "width": 16,
    "layers": 3,
    "heads": 2,
    "mlp_ratio": 2.0,
    "output_dim": CLASSES,
}


def make_naflex(**options: Any) -> nn.Module:
    shape = {"patch_size": 16, "embed_dim": 16, "depth": 3, "num_heads": 2, "pos_embed_grid_size": (4, 3)}
    return NaFlexVit(NaFlexVitCfg(**shape, **options), num_classes=CLASSES, img_size=SIZE)


def make_transformers(name: str, **options: Any) -> nn.Module:
    library: Any = pytest.importorskip("transformers")
    shape = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32}
    config_name = name.removesuffix("ForImageClassificationWithTeacher").removesuffix("ForImageClassification")
    size = SIDE if name.startswith("Dinov2") else SIZE  # its position embedding is resampled from a square grid
    config = getattr(library, f"{config_name}Config")(
        **shape, image_size=size, patch_size=16, num_labels=CLASSES, **options
    )
    return getattr(library, name)(config)


# Network, name of its family, names of its prefix tokens, default layer and that after the normalisation.
REGISTERS = ("register 1", "register 2")
VITS: dict[str, tuple[Callable[[], nn.Module], str, tuple[str, ...], str, str]] = {
    "EVA": (lambda: Eva(**TIMM, global_pool="avg"), "EVA", ("class",), "blocks.2", "blocks.2"),
    "DINOv3": (
        lambda: Eva(
            **TIMM,
            num_reg_tokens=2,
            use_abs_pos_emb=False,
            use_rot_pos_emb=True,
            rope_type="dinov3",
            use_fc_norm=False,
            global_pool="token",
        ),
        *("EVA", ("class", *REGISTERS), "blocks.1", "blocks.2.norm1"),
    ),
    "BEiT": (
        lambda: Beit(**TIMM, use_abs_pos_emb=False, use_rel_pos_bias=True, init_values=0.5),
        *("BEiT", ("class",), "blocks.2", "blocks.2"),
    ),
    "attention pooling": (
        lambda: timm.create_model("vit_tiny_patch16_224", **TIMM, class_token=False, global_pool="map"),
        *("ViT with attention pooling", (), "blocks.2", "norm"),
    ),
    "relative positions": (
        lambda: VisionTransformerRelPos(**TIMM, fc_norm=False),
        *("ViT with relative positions", (), "blocks.2", "norm"),
    ),
    "relative positions, class token": (
        lambda: VisionTransformerRelPos(**TIMM, class_token=True, global_pool="token"),
        *("ViT with relative positions", ("class",), "blocks.1", "blocks.2.norm1"),
    ),
    "NaFlexViT": (
        lambda: make_naflex(reg_tokens=2, class_token=True, global_pool="token", fc_norm=False),
        *("NaFlexViT", ("class", *REGISTERS), "blocks.1", "blocks.2.norm1"),
    ),
    "NaFlexViT, mean": (
        lambda: make_naflex(class_token=False, global_pool="avg", fc_norm=False),
        *("NaFlexViT", (), "blocks.2", "norm"),
    ),
    "open_clip": (
        lambda: VisionTransformer(**TOWER),
        *("ViT (open_clip)", ("class",), "transformer.resblocks.1", "transformer.resblocks.2.ln_1"),
    ),
    "open_clip, mean": (
        lambda: VisionTransformer(**TOWER, pool_type="avg"),
        *("ViT (open_clip)", ("class",), "transformer.resblocks.2", "ln_post"),
    ),
    "open_clip, attention pooling": (
        lambda: VisionTransformer(**TOWER, attentional_pool=True, attn_pooler_heads=1),
        "ViT with attention pooling (open_clip)",
        *(("class",), "transformer.resblocks.2", "attn_pool.ln_k"),
    ),
    "ViT of transformers": (
        lambda: make_transformers("ViTForImageClassification"),
        *("ViT (transformers)", ("class",), "vit.layers.1", "vit.layers.2.layernorm_before"),
    ),
    "DeiT of transformers": (
        lambda: make_transformers("DeiTForImageClassificationWithTeacher"),
        "ViT (transformers)",
        *(("class", "distillation"), "deit.layers.1", "deit.layers.2.layernorm_before"),
    ),
    "BEiT of transformers": (
        lambda: make_transformers("BeitForImageClassification"),
        *("ViT that reads patches (transformers)", ("class",), "beit.layers.2", "beit.layers.2"),
    ),
    "DINOv2 of transformers": (
        lambda: make_transformers("Dinov2WithRegistersForImageClassification", num_register_tokens=2),
        "ViT that reads patches (transformers)",
        ("class", *REGISTERS),
        *("dinov2_with_registers.encoder.layer.2", "dinov2_with_registers.layernorm"),
    ),
}
# Which of them give each token logits, as LeGrad needs.
WITHOUT_CLASSIFIER = {
    "attention pooling",
    "open_clip, attention pooling",
    "BEiT of transformers",
    "DINOv2 of transformers",
}
PHOTO = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)


def wrap(network: nn.Module, size: tuple[int, int] = SIZE) -> vizlib.Model:
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(std=0.3)
    preprocessing = {"input_size": (3, *size), "crop_pct": 1.0, "crop_mode": "squash"}
    return vizlib.wrap(network.double().eval(), preprocessing=preprocessing, output_kind="softmax")


@pytest.fixture(scope="module", params=VITS)
def model_and_key(request) -> tuple[vizlib.Model, str]:
    """A vision transformer of the table, and its key in `VITS`."""
    return wrap(VITS[request.param][0]()), request.param


def compute_own_maps(module: Any, image: Tensor, num_prefix: int) -> list[Tensor]:
    """Return the maps of each block as the network itself returns them."""
    if hasattr(module, "base_model_prefix"):
        states = module(image, output_hidden_states=True).hidden_states[1:]
        return [state[0, num_prefix:].T.unflatten(1, (4, 3)) for state in states]
    if isinstance(module, VisionTransformer):
        return [maps[0] for maps in module.forward_intermediates(image)["image_intermediates"]]
    return [maps[0] for maps in module.forward_intermediates(image, output_fmt="NCHW", intermediates_only=True)]


def test_each_block_is_the_map_that_the_network_returns(model_and_key):
    model, key = model_and_key
    _, family, names, cam_layer, normalised = VITS[key]
    assert model.family is not None
    assert (model.family.name, model.cam_layer, model.normalised_cam_layer) == (family, cam_layer, normalised)
    assert model.tokens is not None
    assert (model.tokens.names, model.tokens.grid) == (names, (4, 3))
    run = model.run(PHOTO, layers=model.stages)
    with torch.no_grad():
        own = compute_own_maps(model.module, run.image.detach(), len(names))
    assert len(own) == len(model.stages) == 3
    for name, expected in zip(model.stages, own, strict=True):
        found = model.spatial_map(run.activations[name].detach())
        assert found is not None
        torch.testing.assert_close(found, expected)


def test_all_evidence_passes_through_the_default_layer(model_and_key):
    model, _ = model_and_key
    assert model.cam_layer is not None

    def compute_outputs(images: Tensor) -> Tensor:
        return model._compute_logits(model.module, images)

    share = measure_layer_share(model.module, model.make_random_image(), compute_outputs, model.cam_layer)
    assert share == pytest.approx(1, abs=1e-6)
    run = model.run(PHOTO, layers=[model.cam_layer])
    (gradient,) = run.gradients(1, of=[run.activations[model.cam_layer]])
    maps = model.spatial_map(gradient)
    assert maps is not None
    assert (maps.abs().amax(0) > 1e-9).all()


def test_products_do_not_cancel_at_the_layer_of_hires_cam(model_and_key):
    model, _ = model_and_key
    heat = vizlib.explain(model, PHOTO, "hires-cam", target=1, relu=False).heat
    layer = model.normalised_cam_layer
    assert layer is not None
    run = model.run(PHOTO, layers=[layer])
    activation = run.activations[layer]
    (gradient,) = run.gradients(1, of=[activation])
    products = model.spatial_map(activation.detach() * gradient)
    assert products is not None
    assert heat.abs().sum() > 1e-3 * products.abs().sum()


def test_attention_is_among_all_tokens_of_each_block(model_and_key):
    model, _ = model_and_key
    assert model.tokens is not None
    weights = [
        tensor
        for tensor in model.run(PHOTO, attention=True).attention.values()
        if tensor.shape[-2:] == (model.tokens.num_tokens,) * 2
    ]
    assert len(weights) == 3
    for tensor in weights:
        torch.testing.assert_close(tensor.sum(-1), torch.ones_like(tensor.sum(-1)))
    for method in ("raw-attention", "attention-rollout", "attention-relevance"):
        heat = vizlib.explain(model, PHOTO, method, target=1).heat if method.endswith("relevance") else None
        heat = vizlib.explain(model, PHOTO, method).heat if heat is None else heat
        assert heat.shape == (4, 3)
        assert heat.isfinite().all()
        assert heat.any()


def test_classifier_of_tokens_gives_the_logits_for_the_tokens_that_are_read(model_and_key):
    model, key = model_and_key
    assert model.family is not None
    classify = model.family.classify_tokens
    assert (classify is None) == (key in WITHOUT_CLASSIFIER)
    if classify is None or not model.tokens or not model.tokens.classifier_tokens:
        return  # of a mean of patches a normalisation does not commute with the mean
    run = model.run(PHOTO, layers=[model.stages[-1]])
    logits = classify(model.module, run.activations[model.stages[-1]])
    if "DeiT" in key:  # each of the two classifiers reads its own token
        assert logits.shape == (1, 14, CLASSES)
        return
    torch.testing.assert_close(logits[:, 0], run.logits)


def test_recording_does_not_change_the_logits(model_and_key):
    model, _ = model_and_key
    run = model.run(PHOTO, layers=model.stages, attention=True)
    torch.testing.assert_close(run.logits, model.logits(model.tensor(vizlib.open_image(PHOTO))))


@pytest.mark.parametrize("name", ["ViTForImageClassification", "Dinov2ForImageClassification"])
def test_attention_equals_what_transformers_returns(name):
    model = wrap(make_transformers(name))
    run = model.run(PHOTO, attention=True)
    module: Any = model.module
    module.set_attn_implementation("eager")
    expected = module(run.image, output_attentions=True).attentions
    assert len(run.attention) == len(expected)
    for found, weights in zip(run.attention.values(), expected, strict=True):
        torch.testing.assert_close(found, weights)


@pytest.mark.parametrize("name", ["Swin", "Swinv2"])
def test_stages_of_swin_of_transformers_are_those_it_returns(name):
    library: Any = pytest.importorskip("transformers")
    shape = {"image_size": SIDE, "embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "window_size": 4}
    config = getattr(library, f"{name}Config")(**shape, num_labels=CLASSES)
    model = wrap(getattr(library, f"{name}ForImageClassification")(config), (SIDE, SIDE))
    prefix = name.lower()
    layer = f"{prefix}.encoder.layers.1"
    assert model.cam_layer == model.stages[-1] == layer
    assert model.normalised_cam_layer == f"{prefix}.layernorm"
    assert "raw-attention" in vizlib.list_methods(model)  # within its windows
    assert "attention-rollout" not in vizlib.list_methods(model)
    photo = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    run = model.run(photo, layers=[layer])
    module: Any = model.module
    expected = module(run.image, output_hidden_states=True).reshaped_hidden_states[-1][0]
    found = model.spatial_map(run.activations[layer])
    assert found is not None
    torch.testing.assert_close(found, expected)


def test_maxvit_of_torchvision_has_channels_first():
    network = torchvision.models.MaxVit((SIDE, SIDE), 8, 4, [8, 16], [1, 1], 4, 0.0, num_classes=CLASSES)
    model = wrap(network, (SIDE, SIDE))
    assert model.stages == ("blocks.0", "blocks.1")
    photo = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    run = model.run(photo, layers=[*model.stages, "stem.0"])
    for name in (*model.stages, "stem.0"):
        found = model.spatial_map(run.activations[name])
        assert found is not None
        assert found.equal(run.activations[name][0])
    assert vizlib.explain(model, photo, "grad-cam", target=1, relu=False).heat.any()


def test_resnet_of_open_clip_keeps_its_stages():
    model = wrap(ModifiedResNet([1, 1, 1, 1], CLASSES, 4, image_size=SIDE, width=8), (SIDE, SIDE))
    assert model.stages == tuple(f"layer{i}" for i in range(1, 5))
    photo = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    assert vizlib.explain(model, photo, "grad-cam", target=1, relu=False).heat.shape == (2, 2)


def test_names_of_families_are_unique():
    names = [family.name for family in FAMILIES]
    assert len(set(names)) == len(names)
