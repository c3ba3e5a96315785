"""Architectures of timm, torchvision, transformers and open_clip with random weights, and what vizlib does with each.

`python tests/support/architectures.py docs/reference/architectures.md` writes the table of all of them;
`tests/reference/test_architectures.py` runs the same checks.
"""

from __future__ import annotations

import copy
import gc
import importlib
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
import torchvision
from torch import Tensor, nn

import vizlib
from vizlib.capture import alter_output
from vizlib.core.text import format_percent
from vizlib.models.layer_share import COMPLETE_SHARE

NUM_CLASSES = 10
MAX_LOGIT_ERROR = 1e-5  # with what is recorded and without, as a share of the largest logit
MAX_MAP_ERROR = 1e-4  # of a layer's map and the one that the network returns of it, as a share of its largest value
MAX_SUM_ERROR = 1e-4  # of a row of attention weights, whose sum is 1
MAX_LINEAR_ERROR = 1e-5  # of the sum of HiResCAM, and of a linear function, as a share of the logit
WELL_SIZED = 64  # sides of the input that most architectures allow
COLUMNS = ("predict", "saliency", "grad-cam", "sum", "activation", "attention", "relevance")
RIGHT = "yes"
NOT_LINEAR = "–"
IN_WINDOWS = "in windows"

# File of timm -> its smallest classifiers, one of each kind.
TIMM = {
    "beit": "beit_base_patch16_224",
    "byoanet": "halonet_h1 eca_botnext26ts_256 lambda_resnet26t haloregnetz_b botnet26t_256 sehalonet33ts",
    "byobnet": "test_byobnet mobileone_s1 gernet_s repvgg_a0 regnetz_b16 resnext26ts resnet50_clip",
    "cait": "cait_xxs24_224 cait_xxs24_384",
    "coat": "coat_tiny coat_lite_tiny",
    "convit": "convit_tiny convit_small",
    "convmixer": "convmixer_768_32 convmixer_1024_20_ks9_p14",
    "convnext": "test_convnext convnextv2_atto",
    "cpubone": "cpubone_nano cpubone_t0",
    "crossvit": "crossvit_tiny_240 crossvit_9_240",
    "csatv2": "csatv2 csatv2_21m",
    "cspnet": "cs3darknet_focus_s darknet17 cspresnext50 sedarknet21 cspresnet50 cspdarknet53",
    "cspnext": "cspnext_tiny cspnext_s",
    "davit": "davit_tiny davit_small",
    "deit": "deit_tiny_patch16_224 deit_tiny_distilled_patch16_224",
    "densenet": "densenet121 densenetblur121d",
    "dla": "dla46x_c dla46_c",
    "dpn": "dpn48b dpn68",
    "edgenext": "edgenext_xx_small edgenext_x_small",
    "efficientformer": "efficientformer_l1 efficientformer_l3",
    "efficientformer_v2": "efficientformerv2_s0 efficientformerv2_s1",
    "efficientnet": "test_efficientnet mobilenetv2_035 mnasnet_small tinynet_e semnasnet_050 mobilenet_edgetpu_100",
    "efficientvim": "efficientvim_m1 efficientvim_m1_dist",
    "efficientvit_mit": "efficientvit_b0 efficientvit_l1",
    "efficientvit_msra": "efficientvit_m0 efficientvit_m1",
    "eva": "eva02_tiny_patch14_336 vit_small_patch16_dinov3 vit_pe_core_tiny_patch16_384",
    "fasternet": "fasternet_t0 fasternet_t1",
    "fastvit": "fastvit_t8 fastvit_t12",
    "focalnet": "focalnet_tiny_srf focalnet_tiny_lrf",
    "gcvit": "gcvit_xxtiny gcvit_xtiny",
    "ghostnet": "ghostnet_050 ghostnetv3_050",
    "hardcorenas": "hardcorenas_b hardcorenas_a",
    "hgnet": "hgnetv2_b0 hgnet_tiny",
    "hiera": "hiera_tiny_224 hiera_small_abswin_256",
    "hieradet_sam2": "hieradet_small",
    "hrnet": "hrnet_w18_small hrnet_w18_small_v2",
    "iformer": "iformer_t iformer_s",
    "inception_next": "inception_next_atto inception_next_tiny",
    "inception_resnet_v2": "inception_resnet_v2",
    "inception_v3": "inception_v3",
    "inception_v4": "inception_v4",
    "lcnetv2": "lcnetv2_small lcnetv2_base",
    "levit": "levit_128s levit_256d",
    "lowformer": "lowformer_b0 lowformer_b1",
    "mambaout": "test_mambaout mambaout_femto",
    "maxxvit": "test_coatnet test_maxvit coatnext_nano_rw_224 maxxvit_rmlp_nano_rw_256 maxxvitv2_nano_rw_256",
    "metaformer": "poolformerv2_s12 poolformer_s12 caformer_s18 convformer_s18",
    "mlp_mixer": "gmlp_ti16_224 gmixer_12_224 resmlp_12_224 mixer_s16_224",
    "mobilenetv3": "mobilenetv3_small_050 lcnet_035 tf_mobilenetv3_small_075 fbnetv3_b",
    "mobilenetv5": "mobilenetv5_base",
    "mobilevit": "mobilevit_xxs mobilevitv2_050",
    "mvitv2": "mvitv2_tiny mvitv2_small",
    "naflexvit": "naflexvit_base_patch16_parfac_gap",
    "nasnet": "nasnetalarge",
    "nest": "nest_tiny nest_tiny_jx",
    "nextvit": "nextvit_small nextvit_base",
    "nfnet": "test_nfnet nf_regnet_b0 eca_nfnet_l0",
    "pit": "pit_ti_224 pit_ti_distilled_224",
    "pnasnet": "pnasnet5large",
    "pvt_v2": "pvt_v2_b0 pvt_v2_b1",
    "rdnet": "rdnet_tiny",
    "regnet": "regnetx_002 regnety_002 regnetz_005 regnetv_040",
    "repghost": "repghostnet_050 repghostnet_058",
    "repvit": "repvit_m1 repvit_m0_9",
    "res2net": "res2next50 res2net50_14w_8s",
    "resnest": "resnest14d resnest26d",
    "resnet": "test_resnet resnetblur18 seresnet18 ecaresnext26t_32x4d ecaresnet26t seresnext26t_32x4d",
    "resnetv2": "resnetv2_18 resnetv2_18d",
    "rexnet": "rexnet_100 rexnetr_100",
    "selecsls": "selecsls42 selecsls60",
    "senet": "legacy_seresnet18 legacy_seresnext26_32x4d",
    "sequencer": "sequencer2d_s sequencer2d_m",
    "shvit": "shvit_s1 shvit_s2",
    "sknet": "skresnet18 skresnext50_32x4d",
    "starnet": "starnet_s050 starnet_s100",
    "swiftformer": "swiftformer_xs swiftformer_s",
    "swin_transformer": "swin_tiny_patch4_window7_224 swin_s3_tiny_224",
    "swin_transformer_v2": "swinv2_tiny_window16_256 swinv2_tiny_window8_256",
    "swin_transformer_v2_cr": "swinv2_cr_tiny_224 swinv2_cr_tiny_384",
    "tiny_vit": "tiny_vit_5m_224 tiny_vit_11m_224",
    "tnt": "tnt_s_legacy_patch16_224 tnt_s_patch16_224",
    "tresnet": "tresnet_m tresnet_v2_l",
    "twins": "twins_svt_small twins_pcpvt_small",
    "vgg": "vgg11",
    "visformer": "visformer_tiny visformer_small",
    "vision_transformer": "test_vit test_vit2 vit_tiny_patch16_224 vit_pwee_patch16_reg1_gap_256 flexivit_small",
    "vision_transformer_hybrid": "vit_tiny_r_s16_p8_224 vit_tiny_r_s16_p8_384",
    "vision_transformer_relpos": "test_vit_relpos vit_srelpos_small_patch16_224",
    "vision_transformer_sam": "samvit_base_patch16_224",
    "vitamin": "vitamin_small_224",
    "volo": "volo_d1_224 volo_d1_384",
    "vovnet": "ese_vovnet19b_slim_dw vovnet39a eca_vovnet39b",
    "xception": "legacy_xception",
    "xception_aligned": "xception41p xception41",
    "xcit": "xcit_nano_12_p8_224 xcit_nano_12_p8_384",
}
TORCHVISION = (
    "alexnet convnext_tiny densenet121 densenet161 efficientnet_b0 efficientnet_v2_s googlenet inception_v3 maxvit_t "
    "mnasnet0_5 mnasnet1_0 mobilenet_v2 mobilenet_v3_small mobilenet_v3_large regnet_x_400mf regnet_y_400mf resnet18 "
    "resnet50 resnext50_32x4d shufflenet_v2_x0_5 shufflenet_v2_x1_0 squeezenet1_0 squeezenet1_1 swin_t swin_v2_t "
    "vgg11 vgg11_bn vit_b_16 vit_b_32 wide_resnet50_2"
)
_VIT = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "image_size": 64,
    "patch_size": 16,
}
_SWIN = {"image_size": 64, "embed_dim": 16, "depths": [1, 2], "num_heads": [1, 2], "window_size": 4}
_STAGES = {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]}
# Class of transformers without `ForImageClassification` -> its configuration, and the side of its input.
TRANSFORMERS: dict[str, tuple[dict[str, Any], int]] = {
    "ViT": (_VIT, 64),
    "ViTMSN": (_VIT, 64),
    "DeiT": (_VIT, 64),
    "Beit": (_VIT, 64),
    "Data2VecVision": (_VIT, 64),
    "Dinov2": (_VIT, 64),
    "Dinov2WithRegisters": (_VIT, 64),
    "Swin": (_SWIN, 64),
    "Swinv2": (_SWIN, 64),
    "ConvNext": (_STAGES, 96),
    "ConvNextV2": (_STAGES, 96),
    "ResNet": ({"embedding_size": 8, **_STAGES}, 96),
    "RegNet": ({"embedding_size": 8, **_STAGES, "groups_width": 8}, 96),
    "Bit": ({"embedding_size": 32, "hidden_sizes": [128, 128, 256, 256], "depths": [1, 1, 1, 1]}, 96),
    "EfficientNet": ({}, 96),
    "MobileNetV1": ({}, 96),
    "MobileNetV2": ({}, 96),
    "PoolFormer": ({}, 96),
    "FocalNet": ({}, 96),
    "Cvt": ({}, 96),
    "Segformer": ({}, 96),
    "MobileViT": ({}, 256),
    "SwiftFormer": ({}, 224),
    "Pvt": ({"image_size": 64}, 64),
    "PvtV2": ({"image_size": 64}, 64),
    "Levit": ({}, 224),
    "Hiera": ({}, 224),
}
_TOWER = {
    "image_size": 64,
    "patch_size": 16,
    "width": 32,
    "layers": 3,
    "heads": 2,
    "mlp_ratio": 2.0,
    "output_dim": NUM_CLASSES,
}


@dataclass(frozen=True)
class Architecture:
    """One row of the table: an architecture, and the sizes of input to try, the first that it allows is used.

    Attributes:
        library: Library of the architecture.
        name: Its name there.
        build: Returns the network with random weights for a side of the input.
        sides: Sides of the input, the preferred first.
    """

    library: str
    name: str
    build: Callable[[int], nn.Module]
    sides: tuple[int, ...]


@dataclass
class Row:
    """What was found of one architecture: what each column of the table says.

    Attributes:
        architecture: The architecture.
        side: Side of the input that was used.
        layer: Default layer of class activation maps and its grid, as text.
        cells: Column -> "yes", a percentage, or the sentence that says why it is not supported.
        failures: What is wrong: an exception that is no `VizlibError`, or a value that is not right.
    """

    architecture: Architecture
    side: int = 0
    layer: str = ""
    cells: dict[str, str] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)


# ------------------------------------------------------------------------------------------------------ architectures


def list_architectures() -> Iterator[Architecture]:
    """Yield all architectures of the table."""
    for names in TIMM.values():
        for name in names.split():
            yield _make_timm(name)
    for name in TORCHVISION.split():
        sides = (224,) if name.startswith("vit") or name == "maxvit_t" else (96, 224, 299)
        yield Architecture("torchvision", name, _make_torchvision_builder(name), sides)
    for name, (config, side) in TRANSFORMERS.items():
        yield Architecture("transformers", name, _make_transformers_builder(name, config), (side,))
    yield from _list_open_clip()


def _make_timm(name: str) -> Architecture:
    """Return an architecture of timm, at a small input where it allows one."""
    config: Any = timm.get_pretrained_cfg(name)
    own = config.input_size[-1]
    small = 56 if "patch14" in name else WELL_SIZED if config.fixed_input_size else 96

    def build(side: int) -> nn.Module:
        options: dict[str, Any] = {"img_size": side} if config.fixed_input_size and side != own else {}
        return timm.create_model(name, pretrained=False, num_classes=NUM_CLASSES, **options)

    return Architecture("timm", name, build, (small, own))


def _make_torchvision_builder(name: str) -> Callable[[int], nn.Module]:
    """Return the function that builds an architecture of torchvision."""
    options = {"aux_logits": False, "init_weights": False} if name in ("googlenet", "inception_v3") else {}
    return lambda side: torchvision.models.get_model(name, num_classes=NUM_CLASSES, **options)


def _make_transformers_builder(name: str, config: dict[str, Any]) -> Callable[[int], nn.Module]:
    """Return the function that builds an architecture of transformers."""

    def build(side: int) -> nn.Module:
        library = importlib.import_module("transformers")
        made = getattr(library, f"{name}Config")(num_labels=NUM_CLASSES, **config)
        return getattr(library, f"{name}ForImageClassification")(made)

    return build


def _list_open_clip() -> Iterator[Architecture]:
    """Yield the architectures of open_clip's image towers, whose embedding takes the place of the classes."""

    def build_tower(options: dict[str, Any]) -> Callable[[int], nn.Module]:
        transformer: Any = importlib.import_module("open_clip.transformer")
        return lambda side: transformer.VisionTransformer(**_TOWER, **options)

    def build_resnet(side: int) -> nn.Module:
        resnet: Any = importlib.import_module("open_clip.modified_resnet")
        return resnet.ModifiedResNet([1, 1, 1, 1], NUM_CLASSES, 4, image_size=side, width=16)

    def build_timm(name: str) -> Callable[[int], nn.Module]:
        tower: Any = importlib.import_module("open_clip.timm_model")
        return lambda side: tower.TimmModel(name, NUM_CLASSES, image_size=side, pool="avg", proj="linear")

    for name, options in {
        "VisionTransformer": {},
        "VisionTransformer, mean of patches": {"pool_type": "avg"},
        "VisionTransformer, attention pooling": {"attentional_pool": True, "attn_pooler_heads": 2},
    }.items():
        yield Architecture("open_clip", name, build_tower(options), (64,))
    yield Architecture("open_clip", "ModifiedResNet", build_resnet, (64,))
    for name in ("test_vit", "test_convnext", "test_coatnet"):
        yield Architecture("open_clip", f"TimmModel {name}", build_timm(name), (160,))


def build_network(architecture: Architecture) -> tuple[nn.Module, int]:
    """Return an architecture with random weights, none of them nearly 0, and the side of its input.

    Raises:
        Exception: Whatever the architecture raises at the last of its sides.
    """
    for side in architecture.sides:
        torch.manual_seed(0)
        try:
            module = architecture.build(side).eval()
            for parameter in module.parameters():
                if parameter.abs().max() < 1e-3:  # heads and layer scales that start at 0 hide what comes before them
                    nn.init.normal_(parameter, std=0.1)
            calibrate_statistics(module, side)
            with torch.no_grad():
                module(torch.zeros(1, 3, side, side))
        except Exception:
            if side == architecture.sides[-1]:
                raise
        else:
            return module, side
    raise ValueError("no side of the input is given")


def calibrate_statistics(module: nn.Module, side: int) -> None:
    """Set the statistics of each batch normalisation to those of random images, as training would.

    Without them the values of a deep network with random weights vanish or overflow.
    """
    norms = [part for part in module.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.momentum = 1.0
        norm.train()
    if norms:
        with torch.no_grad():
            module(torch.randn(2, 3, side, side))
    module.eval()


# ------------------------------------------------------------------------------------------------------------- checks


def check_architecture(architecture: Architecture) -> Row:
    """Return the row of one architecture: what is right, what is refused, and what is wrong."""
    row = Row(architecture)
    module, row.side = build_network(architecture)
    photo = np.random.default_rng(0).integers(0, 256, (row.side, row.side, 3), dtype=np.uint8)
    preprocessing = {"input_size": (3, row.side, row.side), "crop_pct": 1.0}
    model = vizlib.wrap(module, preprocessing=preprocessing, output_kind="softmax", name=architecture.name)
    if model.cam_layer is not None:
        shape = model.spatial_map(model.run(photo, layers=[model.cam_layer]).activations[model.cam_layer])
        row.layer = model.cam_layer if shape is None else f"{model.cam_layer} ({shape.shape[1]} × {shape.shape[2]})"
    checks: dict[str, Callable[[vizlib.Model, np.ndarray], str]] = {
        "predict": _check_prediction,
        "saliency": lambda model, photo: _check_heat(model, photo, "saliency"),
        "grad-cam": _check_grad_cam,
        "sum": _check_hires_cam_sum,
        "activation": _check_activation,
        "attention": _check_attention,
        "relevance": lambda model, photo: _check_heat(model, photo, "attention-relevance"),
    }
    for column, check in checks.items():
        _fill_cell(row, column, check, model, photo)
    return row


def _fill_cell(row: Row, column: str, check: Callable[..., str], model: vizlib.Model, photo: np.ndarray) -> None:
    """Write what a check finds into a row: its text, the sentence of what is not supported, or what is wrong."""
    try:
        row.cells[column] = check(model, photo)
    except vizlib.VizlibError as error:
        row.cells[column] = str(error)
        if "\n" in str(error):
            row.failures.append(f"{column}: the message has several lines: {error}")
    except Exception as error:
        row.cells[column] = "wrong"
        row.failures.append(f"{column}: {type(error).__name__}: {error}")


def _check_prediction(model: vizlib.Model, photo: np.ndarray) -> str:
    """Check that predictions are finite and in order."""
    values = [prediction.probability or 0.0 for prediction in model.predict(photo)]
    assert np.isfinite(values).all()
    assert values == sorted(values, reverse=True)
    return RIGHT


def _check_heat(model: vizlib.Model, photo: np.ndarray, method: str, **options: Any) -> str:
    """Check that an explanation is finite and not 0 everywhere."""
    heat = vizlib.explain(model, photo, method, target=1, **options).heat
    assert heat.isfinite().all(), "not finite"
    assert heat.any(), "0 everywhere"
    return RIGHT


def _check_grad_cam(model: vizlib.Model, photo: np.ndarray) -> str:
    """Check Grad-CAM at the default layer, and return the share of the evidence that passes through that layer."""
    text = _check_heat(model, photo, "grad-cam", relu=False)
    assert model.cam_layer is not None
    share = model.layer_share(model.cam_layer)
    return text if share is None or share >= COMPLETE_SHARE else format_percent(share)


def _check_hires_cam_sum(model: vizlib.Model, photo: np.ndarray) -> str:
    """Check that HiResCAM sums to the logit without bias, where the network is linear in the default layer's output.

    The logit without bias is the difference of the logits with the layer's output and with zeros at its positions;
    class and register tokens, which are no part of the map, are kept. A network that is not linear in the positions
    does not give a weighted mean of both for a fraction of their values. All is computed in double precision.
    """
    module = copy.deepcopy(model.module).double()
    model = vizlib.wrap(module, preprocessing=model.preprocessing, output_kind="softmax", name=model.name)
    prefix_count = 0 if model.tokens is None else model.tokens.num_prefix_tokens
    heat = vizlib.explain(model, photo, "hires-cam", target=1, relu=False).heat
    layer = model.normalised_cam_layer
    assert layer is not None

    def scale_positions(output: Tensor, factor: float) -> Tensor:
        if output.ndim != 3:
            return factor * output
        return torch.cat([output[:, :prefix_count], factor * output[:, prefix_count:]], 1)

    def compute_logit(factor: float) -> float:
        with alter_output(model.module, layer, lambda output: scale_positions(output, factor)):
            return model.logits(model.tensor(vizlib.open_image(photo)))[0, 1].item()

    zero, full = compute_logit(0.0), compute_logit(1.0)
    allowed = MAX_LINEAR_ERROR * max(abs(zero), abs(full))
    if any(abs(compute_logit(part) - zero - part * (full - zero)) > allowed for part in (0.25, 0.5)):
        return NOT_LINEAR
    difference = heat.double().sum().item() - (full - zero)
    assert abs(difference) <= allowed, f"HiResCAM sums to {heat.sum():.6g}, not {full - zero:.6g}"
    return RIGHT


def _check_activation(model: vizlib.Model, photo: np.ndarray) -> str:
    """Check that the layers' outputs are maps, and that recording them and the attention changes no logit."""
    if not model.stages:
        vizlib.explain(model, photo, "grad-cam")  # raises the sentence
    expected = model.logits(model.tensor(vizlib.open_image(photo)))
    run = model.run(photo, layers=model.stages, attention=True)
    error = (run.logits - expected).abs().max() / expected.abs().max()
    assert error <= MAX_LOGIT_ERROR, f"recording changes the logits by {error:.1e}"
    maps = {name: model.spatial_map(run.activations[name].detach()) for name in model.stages}
    assert all(found is not None and found.isfinite().all() for found in maps.values()), "a stage has no map"
    own = compute_own_maps(model.module, run.image.detach())
    has_layout = model.family is not None or model._found_stages is not None
    if own and has_layout and model.cam_layer is not None:
        found = maps[model.cam_layer]
        assert found is not None
        assert any(_is_same_map(found, expected) for expected in own), "its map is none that the network returns"
    return RIGHT


def compute_own_maps(module: Any, image: Tensor) -> list[Tensor]:
    """Return the maps "channels rows columns" that a network of timm returns of its stages; empty for others."""
    if not type(module).__module__.startswith("timm."):
        return []
    with torch.no_grad():
        return [maps[0] for maps in module.forward_intermediates(image, output_fmt="NCHW", intermediates_only=True)]


def _is_same_map(found: Tensor, expected: Tensor) -> bool:
    """Return whether two maps have the same shape and values."""
    if found.shape != expected.shape:
        return False
    return bool((found - expected).abs().max() <= MAX_MAP_ERROR * expected.abs().max())


def _check_attention(model: vizlib.Model, photo: np.ndarray) -> str:
    """Check that raw attention is finite, and that each row of the weights among all tokens sums to 1.

    Within windows there is no rollout; each query's weights sum to 1 unless its window has padding.
    """
    _check_heat(model, photo, "raw-attention")
    if model.attention_windows:
        tensors = model.run(photo, attention=True).attention
        assert tensors.keys() == model.attention_windows.keys(), "an attention layer has no known windows"
        assert all((tensor.sum(-1) - 1).abs().max() <= MAX_SUM_ERROR for tensor in tensors.values())
        return IN_WINDOWS
    _check_heat(model, photo, "attention-rollout")
    assert model.tokens is not None
    count = model.tokens.num_tokens
    weights = [
        tensor.detach()
        for tensor in model.run(photo, attention=True).attention.values()
        if tensor.shape[-2:] == (count, count)
    ]
    is_pooling = model.tokens is not None and "mean" in model.tokens.names  # of a ResNet, whose stages have none
    expected = 1 if is_pooling else len(model.stages)
    assert len(weights) == expected, f"{len(weights)} of {expected} blocks have attention"
    assert all((tensor.sum(-1) - 1).abs().max() <= MAX_SUM_ERROR for tensor in weights), "a row does not sum to 1"
    return RIGHT


# -------------------------------------------------------------------------------------------------------------- table


def format_table(rows: list[Row]) -> str:
    """Return the table of all rows as Markdown, with the sentences of what is not supported below it."""
    sentences: list[str] = []
    lines = [
        "# Supported architectures",
        "",
        f"What vizlib does with {len(rows)} architectures, each with random weights and a small input. The table is "
        "written by `python tests/support/architectures.py docs/reference/architectures.md`.",
        "",
        "- **layer**: the default layer of class activation maps, and its rows and columns at this input.",
        "- **predict**, **saliency**: the predictions and the gradient at the image are finite, the gradient not 0.",
        "- **grad-cam**: the map is finite and not 0. A percentage is the share of the evidence that passes through "
        "the layer, where no single layer has all of it; the explanation then says so in a note.",
        "- **sum**: HiResCAM at its default layer sums to the logit without bias; – where the rest of the network is "
        "not linear in that layer's output, as after attention or before a normalisation of the pooled features.",
        "- **activation**: every stage has a map, recording changes no logit by more than 1e-5 of the largest, and the "
        "map of the default layer is the one that timm's own `forward_intermediates` returns, where there is one.",
        "- **attention**: raw attention and rollout; every block has attention among all tokens whose rows sum to 1. "
        "In windows: raw attention within the windows of one layer, placed on the photo, without rollout.",
        "- **relevance**: attention relevance (Chefer et al.) is finite and not 0.",
        "",
        "A number in brackets is the sentence, below the table, with which the method says that it does not support "
        "the model. Without attention among all patches there is nothing to show as attention between patches.",
        "",
        f"| library | architecture | input | layer | {' | '.join(COLUMNS)} |",
        f"|{'---|' * (len(COLUMNS) + 4)}",
    ]
    for row in rows:
        cells = [_format_cell(row, column, sentences) for column in COLUMNS]
        name, layer = row.architecture.name, f"`{row.layer}`" if row.layer else "–"
        lines.append(f"| {row.architecture.library} | {name} | {row.side} | {layer} | {' | '.join(cells)} |")
    lines += ["", *(f"{index}. {sentence}" for index, sentence in enumerate(sentences, 1)), ""]
    return "\n".join(lines)


def _format_cell(row: Row, column: str, sentences: list[str]) -> str:
    """Return the text of one cell of the table; a sentence is added to the list once and named by its number."""
    text = row.cells[column]
    if text in (RIGHT, NOT_LINEAR, IN_WINDOWS, "wrong") or text.endswith("%"):
        return text
    sentence = text.partition("; these do: ")[0]  # names of the methods that support the model follow
    sentence = re.sub(r"does not support [^:]*:", "does not support the model:", sentence)
    if sentence not in sentences:
        sentences.append(sentence)
    return f"({sentences.index(sentence) + 1})"


def main() -> int:
    """Write the table to the path given as argument, and print what is wrong; returns the number of failures."""
    path, wanted = Path(sys.argv[1]), set(sys.argv[2:])
    warnings.simplefilter("ignore")
    rows = []
    for architecture in list_architectures():
        if wanted and architecture.name not in wanted:
            continue
        try:
            row = check_architecture(architecture)
        except Exception as error:
            print(f"{architecture.name}: cannot be built: {type(error).__name__}: {error}", flush=True)
            continue
        rows.append(row)
        print(architecture.library, architecture.name, row.side, row.layer, row.cells, row.failures, flush=True)
        gc.collect()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(format_table(rows), encoding="utf-8")
    failures = [f"{row.architecture.name}: {failure}" for row in rows for failure in row.failures]
    print(*failures, sep="\n")
    return len(failures)


if __name__ == "__main__":
    raise SystemExit(bool(main()))
