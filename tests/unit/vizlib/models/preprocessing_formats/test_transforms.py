"""Transforms of torchvision, timm and open_clip: the tensor equals theirs, the geometry fits, the rest is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from timm.data import transforms as timm_transforms
from timm.data.transforms_factory import create_transform
from torch import nn
from torchvision import transforms
from torchvision.transforms import InterpolationMode, v2

from vizlib.core.errors import ImageError, ModelError
from vizlib.models.preprocessing import TimmPreprocessing
from vizlib.models.preprocessing_formats.reader import read_preprocessing

NORMALIZE = transforms.Normalize([0.1, 0.2, 0.3], [0.4, 0.5, 0.6])
SHAPES = [(120, 160), (160, 107), (49, 151), (151, 49), (101, 101), (40, 30)]  # height, width

PIPELINES: dict[str, Any] = {
    "resize and crop": transforms.Compose(
        [transforms.Resize(64), transforms.CenterCrop(56), transforms.ToTensor(), NORMALIZE]
    ),
    "a list": [transforms.Resize(64), transforms.CenterCrop(56), transforms.ToTensor(), NORMALIZE],
    "nested": transforms.Compose(
        [transforms.Compose([transforms.Resize(64), transforms.CenterCrop(56)]), transforms.ToTensor(), NORMALIZE]
    ),
    "crop that is not square": transforms.Compose(
        [transforms.Resize(64), transforms.CenterCrop((48, 63)), transforms.ToTensor(), NORMALIZE]
    ),
    "crop larger than the photo": transforms.Compose(
        [transforms.Resize(50), transforms.CenterCrop((65, 60)), transforms.ToTensor(), NORMALIZE]
    ),
    "squash": transforms.Compose([transforms.Resize((50, 45)), transforms.ToTensor(), NORMALIZE]),
    "squash and crop": transforms.Compose(
        [transforms.Resize((50, 45)), transforms.CenterCrop((41, 40)), transforms.ToTensor(), NORMALIZE]
    ),
    "largest longer edge": transforms.Compose(
        [transforms.Resize(50, max_size=70), transforms.CenterCrop(64), transforms.ToTensor(), NORMALIZE]
    ),
    "tensor first": transforms.Compose(
        [transforms.ToTensor(), transforms.Resize(50), transforms.CenterCrop(45), NORMALIZE]
    ),
    "without antialias": transforms.Compose(
        [transforms.ToTensor(), transforms.Resize(50, antialias=False), transforms.CenterCrop(45), NORMALIZE]
    ),
    "8-bit tensor of version 1": transforms.Compose(
        [
            transforms.PILToTensor(),
            transforms.Resize(50, InterpolationMode.BICUBIC),
            transforms.CenterCrop(45),
            transforms.ConvertImageDtype(torch.float),
            NORMALIZE,
        ]
    ),
    "8-bit tensor of version 2": v2.Compose(
        [
            v2.ToImage(),
            v2.Resize(50, InterpolationMode.BICUBIC),
            v2.CenterCrop((45, 46)),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize([0.5], [0.2]),
        ]
    ),
    "values from 0 to 255": v2.Compose(
        [
            v2.ToImage(),
            v2.Resize((50, 60)),
            v2.ToDtype(torch.float32),
            v2.Normalize([123.0, 116.0, 103.0], [58.0, 57.0, 57.5]),
        ]
    ),
    "not normalised": v2.Compose([v2.Resize((50, 60)), v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]),
    "normalised twice": transforms.Compose([transforms.Resize((50, 45)), transforms.ToTensor(), NORMALIZE, NORMALIZE]),
    "crop before resize": transforms.Compose(
        [transforms.CenterCrop(66), transforms.Resize((50, 45)), transforms.ToTensor(), NORMALIZE]
    ),
    "modules in sequence": nn.Sequential(
        v2.RGB(), v2.Resize(50), v2.CenterCrop(45), v2.ToImage(), v2.ToDtype(torch.float32, scale=True), NORMALIZE
    ),
    "preset of weights": torchvision.models.ResNet50_Weights.IMAGENET1K_V2.transforms(crop_size=56, resize_size=58),
    "timm": create_transform((3, 56, 56), crop_pct=0.9),
    "timm, padded": create_transform((3, 56, 56), crop_pct=0.9, crop_mode="border", mean=(0.1, 0.2, 0.3)),
    "timm, not square": create_transform((3, 56, 48), crop_pct=1.0),
    "timm's own ToTensor": transforms.Compose(
        [
            transforms.Resize((50, 45)),
            timm_transforms.ToTensor(),
            transforms.Normalize([123.0, 116.0, 103.0], [58.0, 57.0, 57.0]),
        ]
    ),
}


def noise(height: int, width: int) -> Image.Image:
    generator = np.random.default_rng(height * 1000 + width)
    return Image.fromarray(generator.integers(0, 256, (height, width, 3), dtype=np.uint8))


def apply(pipeline: Any, photo: Image.Image) -> torch.Tensor:
    for transform in pipeline if isinstance(pipeline, list) else [pipeline]:
        photo = transform(photo)
    assert isinstance(photo, torch.Tensor)
    return photo.unsqueeze(0)


def assert_equals_pipeline(pipeline: Any) -> None:
    preprocessing = read_preprocessing(pipeline).preprocessing
    for shape in SHAPES:
        expected, actual = apply(pipeline, noise(*shape)), preprocessing.tensor(noise(*shape))
        assert actual.shape[-2:] == preprocessing.input_size
        assert torch.allclose(actual, expected, atol=1e-5, rtol=0), shape


@pytest.mark.parametrize("name", PIPELINES)
def test_tensor_equals_that_of_the_transforms(name):
    assert_equals_pipeline(PIPELINES[name])


@pytest.mark.slow
@pytest.mark.parametrize("fill_color", [0, 30])
@pytest.mark.parametrize("size", [48, (48, 60)])
@pytest.mark.parametrize("resize_mode", ["shortest", "longest", "squash"])
def test_tensor_equals_that_of_open_clip(resize_mode, size, fill_color):
    open_clip = pytest.importorskip("open_clip")
    assert_equals_pipeline(
        open_clip.image_transform(size, is_train=False, resize_mode=resize_mode, fill_color=fill_color)
    )


@pytest.mark.parametrize(
    "name", [name for name in PIPELINES if name != "without antialias"]
)  # which samples single pixels
@pytest.mark.parametrize("shape", SHAPES[:4])
def test_geometry_predicts_where_a_dot_of_the_photo_appears(name, shape):
    pipeline = PIPELINES[name]
    height, width = shape
    geometry = read_preprocessing(pipeline).preprocessing.geometry(noise(*shape))
    y0, x0, y1, x1 = geometry.visible_box
    row, column = int(y0 + 0.45 * (y1 - y0)), int(x0 + 0.55 * (x1 - x0))
    blank = np.full((height, width, 3), 90, dtype=np.uint8)
    photo = blank.copy()
    photo[row - 3 : row + 4, column - 3 : column + 4] = 140
    response = (apply(pipeline, Image.fromarray(photo)) - apply(pipeline, Image.fromarray(blank)))[0].mean(0)
    rows, columns = (torch.arange(side) + 0.5 for side in response.shape)
    centre = (response.sum(1) @ rows / response.sum()).item(), (response.sum(0) @ columns / response.sum()).item()
    assert centre == pytest.approx(geometry.to_input(row + 0.5, column + 0.5), abs=0.15)


def test_padding_is_outside_the_photo():
    geometry = read_preprocessing(PIPELINES["crop larger than the photo"]).preprocessing.geometry(noise(40, 30))
    assert geometry.visible_fraction == pytest.approx(65 / 66, abs=0.01)  # 66 rows are cut to 65
    assert geometry.to_photo(0.0, 4.9)[1] < 0 <= geometry.to_photo(0.0, 5.0)[1]  # 50 columns in 60


def test_what_timm_can_express_becomes_its_preprocessing():
    read = read_preprocessing(create_transform((3, 56, 56), crop_pct=0.875, interpolation="bicubic")).preprocessing
    assert read == TimmPreprocessing.from_config({"input_size": [3, 56, 56], "crop_pct": 0.875})


def test_denormalise_inverts_the_tensor():
    preprocessing = read_preprocessing(PIPELINES["8-bit tensor of version 2"]).preprocessing
    photo = noise(50, 51)  # is not resized
    shown = preprocessing.denormalise(preprocessing.tensor(photo))
    np.testing.assert_array_equal(np.asarray(shown), np.asarray(photo)[2:47, 2:48])


@pytest.mark.parametrize(
    "name", ["8-bit tensor of version 1", "8-bit tensor of version 2", "tensor first", "timm, padded"]
)
def test_settings_of_the_caller_change_nothing(name):
    photo = noise(60, 90)
    expected = read_preprocessing(PIPELINES[name]).preprocessing.tensor(photo)
    with torch.device("meta"):
        assert torch.equal(read_preprocessing(PIPELINES[name]).preprocessing.tensor(photo), expected)
    torch.set_default_dtype(torch.float64)
    try:
        tensor = read_preprocessing(PIPELINES[name]).preprocessing.tensor(photo)
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.allclose(tensor.float(), expected, atol=1e-6)


def compose(*parts: Any) -> Any:
    return transforms.Compose([transforms.Resize((8, 8)), *parts])


class Sharpen:
    """A transform of nobody's library."""

    def __call__(self, photo):
        return photo


class FlippedResize(transforms.Resize):
    """A subclass of torchvision's that does something else."""

    def forward(self, img: Any) -> Any:
        resized: Any = super().forward(img)
        return resized.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


@pytest.mark.parametrize(
    ("pipeline", "message"),
    [
        (compose(transforms.Lambda(lambda photo: photo), transforms.ToTensor()), "Lambda, whose effect is not known"),
        (compose(lambda photo: photo, transforms.ToTensor()), "<lambda>, whose effect is not known; known are Center"),
        (compose(Sharpen(), transforms.ToTensor()), "has Sharpen, whose effect"),
        (compose(transforms.Grayscale(3), transforms.ToTensor()), "has Grayscale"),
        (compose(transforms.Pad(3), transforms.ToTensor()), "has Pad"),
        (compose(transforms.ToTensor), "the class ToTensor, expected an instance"),
        (compose(transforms.RandomHorizontalFlip(), transforms.ToTensor()), "RandomHorizontalFlip, which is random"),
        (compose(transforms.ColorJitter(0.4), transforms.ToTensor()), "ColorJitter, which is random"),
        (create_transform(64, is_training=True), "which is random, as for training"),
        (compose(), "no floating-point tensor"),
        (compose(transforms.PILToTensor()), "no floating-point tensor"),
        (compose(transforms.PILToTensor(), NORMALIZE), "Normalize before there is a floating-point tensor"),
        (compose(transforms.ToTensor(), NORMALIZE, transforms.CenterCrop(4)), "CenterCrop after Normalize"),
        (compose(v2.ToImage(), v2.ToDtype(torch.float16, scale=True)), "to torch.float16, expected torch.float32"),
        (transforms.Compose([transforms.Resize(8), transforms.ToTensor()]), "depends on the photo"),
        (transforms.Compose([transforms.ToTensor()]), "depends on the photo"),
        (compose(transforms.CenterCrop(4), transforms.CenterCrop(8), transforms.ToTensor()), "crops twice"),
        (transforms.Compose([FlippedResize((8, 8)), transforms.ToTensor()]), "another tensor of a photo than its sett"),
        (torchvision.models.detection.FasterRCNN_ResNet50_FPN_Weights.DEFAULT.transforms(), "has ObjectDetection"),
        (print, "preprocessing is a builtin_function_or_method; expected a mapping"),
        ("resnet18", "preprocessing is a str; expected a mapping"),
    ],
)
def test_what_cannot_be_understood_is_refused_by_name(pipeline, message):
    with pytest.raises(ModelError, match=message) as caught:
        read_preprocessing(pipeline)
    assert "\n" not in str(caught.value)


def test_photo_that_becomes_too_thin_is_refused():
    preprocessing = read_preprocessing(PIPELINES["largest longer edge"]).preprocessing
    with pytest.raises(ImageError, match="too long and thin for this model: 1 × 200 pixels are resized to 0 × 70"):
        preprocessing.tensor(Image.new("RGB", (1, 200)))
    with pytest.raises(ImageError, match="mode L"):
        preprocessing.tensor(Image.new("L", (20, 20)))
