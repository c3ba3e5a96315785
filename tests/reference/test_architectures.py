"""Sweep over architectures: each is explained rightly, or refused with one sentence.

By default a sample runs; with `ALL_ARCHITECTURES=1` in the environment all of docs/reference/architectures.md, which
`python tests/support/architectures.py docs/reference/architectures.md` writes.
"""

from __future__ import annotations

import os
import re

import pytest
import timm
from architectures import (
    COLUMNS,
    IN_WINDOWS,
    NOT_LINEAR,
    RIGHT,
    TIMM,
    TRANSFORMERS,
    check_architecture,
    list_architectures,
)
from timm.models._registry import _model_to_module

SAMPLE = {
    "timm": (
        "test_vit test_resnet test_byobnet resnet50_clip test_convnext test_efficientnet test_coatnet test_maxvit "
        "test_mambaout test_vit_relpos vit_small_patch16_dinov3 eva02_tiny_patch14_336 cait_xxs24_224 coat_lite_tiny "
        "convit_tiny crossvit_tiny_240 edgenext_xx_small efficientvit_b0 gmlp_ti16_224 hiera_tiny_224 levit_128s "
        "mobilevit_xxs pvt_v2_b0 swin_tiny_patch4_window7_224 tiny_vit_5m_224 twins_pcpvt_small xcit_nano_12_p8_224 "
        "vit_tiny_r_s16_p8_224"
    ),
    "torchvision": "resnet18 mobilenet_v3_small squeezenet1_1 swin_t",
    "transformers": "ViT DeiT Beit Dinov2 Swin ConvNext ResNet Segformer",
    "open_clip": "VisionTransformer ModifiedResNet",
}
# The only sentences with which a method may refuse one of these architectures.
REFUSALS = (
    r"(raw-attention|attention-relevance) does not support .*not a transformer vizlib knows",
    r"hires-cam does not support .*activation times gradient cancels over the channels",
    r"(grad-cam|hires-cam) does not support .*(one of its layers with spatial positions|one map of the photo)",
)
# Files of timm without a classifier.
WITHOUT_CLASSIFIER = {"deepseek_vit", "gemma4_vit", "qwen3_vit"}
RUN_ALL = os.environ.get("ALL_ARCHITECTURES") == "1"
ARCHITECTURES = [
    architecture
    for architecture in list_architectures()
    if RUN_ALL or architecture.name in SAMPLE[architecture.library].split()
]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=lambda item: f"{item.library}-{item.name}")
def test_architecture_is_explained_or_refused(architecture):
    row = check_architecture(architecture)
    assert not row.failures
    assert set(row.cells) == set(COLUMNS)
    assert row.cells["predict"] == row.cells["saliency"] == RIGHT
    for column in COLUMNS[2:]:
        text = row.cells[column]
        assert (
            text in (RIGHT, NOT_LINEAR, IN_WINDOWS)
            or text.endswith("%")
            or any(re.match(pattern, text) for pattern in REFUSALS)
        ), text


def test_each_file_of_timm_with_classifiers_is_in_the_table():
    files = {_model_to_module[name] for name in timm.list_models()}
    assert files - WITHOUT_CLASSIFIER == set(TIMM)
    names = [name for line in TIMM.values() for name in line.split()]
    assert set(names) <= set(timm.list_models())
    assert len(names) + len(TRANSFORMERS) > 200


def test_every_name_of_the_sample_is_in_the_table():
    known = {(architecture.library, architecture.name) for architecture in list_architectures()}
    assert {(library, name) for library, names in SAMPLE.items() for name in names.split()} <= known
