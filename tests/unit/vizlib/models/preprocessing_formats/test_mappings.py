"""Preprocessing as a mapping: the names of several libraries, means from 0 to 255, contradictions and unknown keys."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.models import PretrainedCfg
from torchvision import transforms
from torchvision.transforms import InterpolationMode

from vizlib.core.errors import ModelError
from vizlib.models.preprocessing import TimmPreprocessing
from vizlib.models.preprocessing_formats.mappings import ALIASES, RecordedConfig, read_mapping
from vizlib.models.preprocessing_formats.reader import read_preprocessing

HALF = {"mean": [0.5] * 3, "std": [0.5] * 3}


def photos() -> list[Image.Image]:
    generator = np.random.default_rng(0)
    shapes = [(120, 160), (160, 107), (49, 151), (101, 101)]
    return [Image.fromarray(generator.integers(0, 256, (*shape, 3), dtype=np.uint8)) for shape in shapes]


def crop_rounded_down(photo: Image.Image) -> Image.Image:
    """Crop to 64 × 64 as transformers does, which rounds half a pixel down, where torchvision rounds it to even."""
    left, top = (photo.width - 64) // 2, (photo.height - 64) // 2
    return photo.crop((left, top, left + 64, top + 64))


def assert_equals(given, *steps):
    preprocessing, notes = read_mapping(given)
    expected: Any = transforms.Compose([*steps, transforms.ToTensor(), transforms.Normalize([0.5] * 3, [0.5] * 3)])
    for photo in photos():
        assert torch.allclose(preprocessing.tensor(photo)[0], expected(photo), atol=1e-5)
    assert notes == ()


@pytest.mark.parametrize(
    "given",
    [
        {"input_size": 64, "crop_pct": 1.0, "interpolation": "bilinear"},
        {"img_size": 64, "crop_pct": 1.0, "interpolation": 2},
        {"image_size": [64, 64], "crop_ratio": 1.0, "resample": "bilinear"},
        {"size": (64, 64), "crop_pct": 1.0, "resampling": InterpolationMode.BILINEAR},
        {"input_size": {"height": 64, "width": 64}, "crop_pct": 1, "interpolation": Image.Resampling.BILINEAR},
        {"input_size": (3, 64, 64), "img_size": None, "crop_pct": 1.0, "interpolation": "BILINEAR"},
        {"resize": 64, "crop": 64},
        {"resize_size": [64], "crop_size": [64]},
        {"size": 64, "crop_size": 64},
    ],
)
@pytest.mark.parametrize(("mean", "std"), [("mean", "std"), ("means", "stds"), ("pixel_mean", "pixel_std")])
def test_other_names_mean_the_same(given, mean, std):
    given = {**given, mean: [0.5] * 3, std: 0.5}
    assert_equals(given, transforms.Resize(64), transforms.CenterCrop(64))


@pytest.mark.parametrize(
    ("given", "steps"),
    [
        ({"resize": 70, "crop": 64}, [transforms.Resize(70), transforms.CenterCrop(64)]),
        ({"resize": (70, 80), "crop": (64, 72)}, [transforms.Resize((70, 80)), transforms.CenterCrop((64, 72))]),
        ({"resize": (64, 60)}, [transforms.Resize((64, 60))]),
        (
            {"resize": 70, "crop": 64, "interpolation": "bicubic"},
            [transforms.Resize(70, InterpolationMode.BICUBIC), transforms.CenterCrop(64)],
        ),
        ({"image_mean": 0.5, "image_std": 0.5, "size": 64}, [transforms.Resize((64, 64))]),  # as transformers means it
        ({"size": {"height": 64, "width": 48}, "do_resize": True}, [transforms.Resize((64, 48))]),
        (
            {"do_center_crop": True, "size": {"shortest_edge": 70}, "crop_size": 64, "resample": 3},
            [transforms.Resize(70, InterpolationMode.BICUBIC), crop_rounded_down],
        ),
        (
            {"size": {"shortest_edge": 70}, "crop_size": {"height": 64, "width": 64}},
            [transforms.Resize(70), crop_rounded_down],
        ),
        (
            {"size": 64, "resize_mode": "squash", "mode": "RGB"},  # open_clip
            [transforms.Resize((64, 64), InterpolationMode.BICUBIC)],
        ),
        (
            {"size": 64, "resize_mode": "shortest", "interpolation": "bilinear", "fill_color": 0},
            [transforms.Resize(64), transforms.CenterCrop(64)],
        ),
    ],
)
def test_steps_equal_those_of_torchvision(given, steps):
    given = {**HALF, **given}
    if "image_mean" in given:
        del given["mean"], given["std"]
    assert_equals(given, *steps)


@pytest.mark.parametrize(
    ("mean", "std"),
    [
        ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375]),
        ([103.94, 116.78, 123.68], [1.0, 1.0, 1.0]),
        ([127.5], [127.5]),
        ([0, 0, 0], [255, 255, 255]),
    ],
)
def test_means_from_0_to_255_are_converted_and_noted(mean, std):
    preprocessing, notes = read_mapping({"input_size": 64, "mean": mean, "std": std})
    assert preprocessing.mean == pytest.approx([value / 255 for value in (mean * 3)[:3]])
    assert preprocessing.std == pytest.approx([value / 255 for value in (std * 3)[:3]])
    assert [note.code for note in notes] == ["preprocessing.8-bit-mean"]
    assert f"{mean[0]:g}" in notes[0]


@pytest.mark.parametrize(
    ("mean", "std"),
    [
        ([123.0] * 3, [0.229, 0.224, 0.225]),
        ([0.485, 0.456, 0.406], [58.0] * 3),
        ([300.0] * 3, [58.0] * 3),
        ([123.0] * 3, None),
        (None, [58.0] * 3),
    ],
)
def test_means_of_mixed_ranges_are_refused(mean, std):
    with pytest.raises(ModelError, match="expected both for pixel values from 0 to 1, or both for 0 to 255"):
        read_mapping({"input_size": 64, "mean": mean, "std": std})


@pytest.mark.parametrize(
    ("given", "keys"),
    [
        ({"input_size": 64}, "mean and std"),
        ({"img_size": 64, "mean": 0.5}, "std"),
        ({"resize": 64, "crop": 64}, "mean and std"),
    ],
)
def test_missing_mean_is_that_of_imagenet_and_noted(given, keys):
    preprocessing, notes = read_mapping(given)
    assert preprocessing.std == (0.229, 0.224, 0.225)
    assert [note.code for note in notes] == ["preprocessing.assumed-mean"]
    assert f"does not state {keys}" in notes[0]
    assert "ImageNet" in notes[0]


def test_missing_values_are_those_that_the_network_records():
    recorded = RecordedConfig(
        "vit", {"input_size": (3, 32, 32), "mean": (0.1,) * 3, "std": (0.2,) * 3, "crop_pct": 0.5}
    )
    preprocessing, (note,) = read_mapping({"img_size": 64, "std": 0.3}, recorded)
    assert preprocessing == TimmPreprocessing((64, 64), "bicubic", 0.5, "center", (0.1,) * 3, (0.3,) * 3)
    assert "does not state mean; the values of vit" in note


def test_every_config_of_timm_is_read():
    for name in timm.list_models():
        config = timm.get_pretrained_cfg(name)
        if config is not None and config.input_size[0] == 3:
            read = read_preprocessing({**config.to_dict(), "input_size": config.input_size})
            assert read == (TimmPreprocessing.from_config(config.to_dict()), ()), name


def test_files_that_hold_the_description():
    expected = TimmPreprocessing((64, 64), "bicubic", 1.0, "center", (0.5,) * 3, (0.5,) * 3)
    config = {"input_size": [3, 64, 64], "crop_pct": 1.0, **HALF}
    for given in ({"architecture": "resnet18", "pretrained_cfg": config}, {"data_config": config}):
        assert read_mapping(given) == (expected, ())
    open_clip = {"model_cfg": {}, "preprocess_cfg": {"size": 64, **HALF, "interpolation": "bicubic", "fill_color": 0}}
    assert read_mapping(open_clip)[0] == expected


@dataclass
class PreprocessCfg:
    """open_clip's, whose default mean is not ImageNet's."""

    size: int = 64
    mode: str = "RGB"
    mean: tuple[float, ...] = (0.48145466, 0.4578275, 0.40821073)
    std: tuple[float, ...] = (0.26862954, 0.26130258, 0.27577711)
    interpolation: str = "bicubic"
    resize_mode: str = "shortest"
    fill_color: int = 0


def test_dataclasses_are_read_by_their_fields():
    expected = TimmPreprocessing((64, 64), "bicubic", 1.0, "center", PreprocessCfg.mean, PreprocessCfg.std)
    assert read_preprocessing(PreprocessCfg()) == (expected, ())
    assert read_mapping({"size": 64, "resize_mode": "shortest"}) == (expected, ())  # open_clip's defaults
    timm_config = PretrainedCfg(input_size=(3, 64, 64), crop_pct=1.0, mean=(0.5,) * 3, std=(0.5,) * 3)
    assert read_preprocessing(timm_config).preprocessing.input_size == (64, 64)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"inputsize": 64}, "unknown key 'inputsize'; did you mean input_size"),
        ({"zoom": 2}, "unknown key 'zoom'; there are input_size, img_size, .*fill_color"),
        ({"input_size": 64, "img_size": 96}, "input_size=64 and img_size=96, which mean the same; give one"),
        ({"mean": [0.5] * 3, "image_mean": [0.4] * 3}, "which mean the same"),
        ({"size": 70, "resize": 80, "crop": 64}, "leave size out"),
        ({"resize": 70, "crop_pct": 0.9}, "resize and crop_pct, which both say"),
        ({"resize": 70}, "depends on the photo"),
        ({"input_size": [1, 64, 64]}, "input_size is \\[1, 64, 64\\], expected \\[3"),
        ({"in_chans": 1}, "in_chans=1, but only 3"),
        ({"to_rgb": False}, "to_rgb=False, but only True"),
        ({"input_size": "64"}, "input_size is '64', expected an integer"),
        ({"mean": "half"}, "mean is 'half', expected one number or one for each"),
        ({"interpolation": "cubic"}, "interpolation is 'cubic', expected one of nearest"),
        ({"interpolation": 17}, "interpolation is 17, expected one of 0 \\(nearest\\)"),
        ({"crop_mode": "middle"}, "crop_mode is 'middle'"),
        ({"size": 64, "resize_mode": "fit"}, "resize_mode is 'fit', expected one of shortest"),
        ({"do_resize": True, "image_mean": 0.5}, "states no size"),
        ({"size": {"height": 64, "width": 64}, "do_rescale": True}, "states no image_mean or image_std"),
        ({"size": {"shortest_edge": 64}, "crop_pct": 0.9, **HALF}, "crop_pct has a meaning only with image_processor"),
        ({"size": {"height": 64, "width": 64}, "colour": "blue", **HALF}, "colour='blue', whose effect is not known"),
    ],
)
def test_what_cannot_be_understood_is_refused_by_name(given, message):
    with pytest.raises(ModelError, match=message) as caught:
        read_mapping(given)
    assert "\n" not in str(caught.value)


def test_no_name_has_two_meanings():
    names = [name for names in ALIASES.values() for name in names]
    assert len(names) == len(set(names))
