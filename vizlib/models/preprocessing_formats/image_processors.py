"""Read image processors of transformers: objects, and the `preprocessor_config.json` that describes one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from timm.data.constants import (
    IMAGENET_DEFAULT_MEAN,
    IMAGENET_DEFAULT_STD,
    IMAGENET_INCEPTION_MEAN,
    IMAGENET_INCEPTION_STD,
    OPENAI_CLIP_MEAN,
    OPENAI_CLIP_STD,
)

from vizlib.core.errors import ModelError, suggest_names
from vizlib.models.preprocessing_formats.resize_crop import (
    CenterCrop,
    Kernel,
    Resize,
    ResizeCropPreprocessing,
    Size,
    Step,
)
from vizlib.models.preprocessing_formats.transforms import read_interpolation

Scheme = Literal["standard", "convnext", "dinov3", "efficientnet", "levit", "mobilevit", "poolformer", "segformer"]

MARKS = (  # keys that only descriptions of image processors have
    "image_processor_type",
    "feature_extractor_type",
    "processor_class",
    "do_resize",
    "do_center_crop",
    "do_rescale",
    "do_normalize",
    "rescale_factor",
    "resample",
)
_READ = (*MARKS, "size", "crop_size", "crop_pct", "image_mean", "image_std", "default_to_square", "do_pad")
_UNUSED_SETTINGS = (  # on the pixels of one RGB photo
    "do_convert_rgb",
    "data_format",
    "input_data_format",
    "device",
    "return_tensors",
    "disable_grouping",
    "do_reduce_labels",
    "reduce_labels",
    "model_input_names",
    "num_channels",
    "pad_size",
    "auto_map",
    "_processor_class",
    "_valid_processor_keys",
)
_CONVNEXT_SQUASH = 384  # from this side on, ConvNextImageProcessor resizes without a crop


@dataclass(frozen=True)
class ProcessorDefaults:
    """What a class of image processors does where a configuration does not say otherwise.

    Attributes:
        size: Size to resize to: (height, width), or the shorter edge.
        crop: Size of the central crop; `None` if there is none.
        resample: Pillow's number of the interpolation.
        mean: Mean of each channel.
        std: Standard deviation of each channel.
        square: Whether one integer as a size is both height and width, instead of the shorter edge.
        scheme: How sizes are computed and values are scaled.
        crop_pct: Share of the resized edge that the crop keeps, for the schemes that have one.
        do_crop: Whether it crops unless told otherwise.
    """

    size: Size | int
    crop: Size | None
    resample: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    square: bool = True
    scheme: Scheme = "standard"
    crop_pct: float | None = None
    do_crop: bool | None = None

    @property
    def crops_by_default(self) -> bool:
        """Whether a processor of this class crops unless told otherwise."""
        return self.crop is not None if self.do_crop is None else self.do_crop


_HALF = (IMAGENET_INCEPTION_MEAN, IMAGENET_INCEPTION_STD)
_IMAGENET = (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
_CLIP = (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD)
_BILINEAR, _BICUBIC = 2, 3
PROCESSORS: Mapping[str, ProcessorDefaults] = {  # the classes of transformers that prepare photos for classifiers
    "BeitImageProcessor": ProcessorDefaults((224, 224), (224, 224), _BICUBIC, *_HALF, do_crop=False),
    "BitImageProcessor": ProcessorDefaults(224, (224, 224), _BICUBIC, *_CLIP, square=False),
    "CLIPImageProcessor": ProcessorDefaults(224, (224, 224), _BICUBIC, *_CLIP, square=False),
    "ConvNextImageProcessor": ProcessorDefaults(
        384, None, _BICUBIC, *_HALF, square=False, scheme="convnext", crop_pct=224 / 256
    ),
    "DINOv3ViTImageProcessor": ProcessorDefaults((224, 224), None, _BILINEAR, *_IMAGENET, scheme="dinov3"),
    "DeiTImageProcessor": ProcessorDefaults((256, 256), (224, 224), _BICUBIC, *_HALF),
    "EfficientNetImageProcessor": ProcessorDefaults(
        (346, 346), (289, 289), _BICUBIC, *_HALF, scheme="efficientnet", do_crop=False
    ),
    "LevitImageProcessor": ProcessorDefaults(224, (224, 224), _BICUBIC, *_IMAGENET, square=False, scheme="levit"),
    "MobileNetV1ImageProcessor": ProcessorDefaults(256, (224, 224), _BILINEAR, *_HALF, square=False),
    "MobileNetV2ImageProcessor": ProcessorDefaults(256, (224, 224), _BILINEAR, *_HALF, square=False),
    "MobileViTImageProcessor": ProcessorDefaults(224, (256, 256), _BICUBIC, *_HALF, square=False, scheme="mobilevit"),
    "PoolFormerImageProcessor": ProcessorDefaults(
        224, (224, 224), _BICUBIC, *_IMAGENET, square=False, scheme="poolformer", crop_pct=0.9
    ),
    "PvtImageProcessor": ProcessorDefaults((224, 224), None, _BICUBIC, *_IMAGENET),
    "SegformerImageProcessor": ProcessorDefaults((512, 512), None, _BILINEAR, *_IMAGENET, scheme="segformer"),
    "SiglipImageProcessor": ProcessorDefaults((224, 224), None, _BICUBIC, *_HALF, square=False),
    "ViTImageProcessor": ProcessorDefaults((224, 224), None, _BILINEAR, *_HALF),
}
# Where a description does not name its class.
UNNAMED = ProcessorDefaults((224, 224), (224, 224), _BILINEAR, *_IMAGENET)


def is_image_processor(source: object) -> bool:
    """Return whether an object is an image processor of transformers, or a processor that holds one."""
    processor = getattr(source, "image_processor", source)
    return callable(processor) and hasattr(processor, "to_dict") and hasattr(processor, "model_input_names")


def read_image_processor(source: Any) -> ResizeCropPreprocessing:
    """Return the preprocessing that equals an image processor of transformers, on the backend it has.

    Args:
        source: An image processor, or a processor such as `CLIPProcessor` that holds one.

    Raises:
        ModelError: For a processor whose steps are not known, or settings that are not supported; the message names
            them.
    """
    processor = getattr(source, "image_processor", source)
    name = type(processor).__name__
    backend = getattr(processor, "backend", "torchvision" if name.endswith("Fast") else "pil")
    settings = {key: value for key, value in processor.to_dict().items() if value is not None}
    return read_processor_config({**settings, "image_processor_type": name}, on_tensors=backend != "pil")


def read_processor_config(
    config: Mapping[str, Any], *, defaults: ProcessorDefaults | None = None, on_tensors: bool = True
) -> ResizeCropPreprocessing:
    """Return the preprocessing that a `preprocessor_config.json` describes.

    Args:
        config: Its content.
        defaults: Settings that it lacks; by default those of the class that it names.
        on_tensors: Resize 8-bit tensors, as transformers does from version 5 on and in its fast processors, instead of
            Pillow images.

    Raises:
        ModelError: For a class whose steps are not known, or unknown or unsupported settings; the message names them.
    """
    if defaults is None:
        name = find_processor_class(config)
        if name not in PROCESSORS:
            raise ModelError(
                f"the steps of the image processor {name} are not known; {suggest_names(name, PROCESSORS)}; pass "
                "transforms of torchvision that do the same, or an object with the members of vizlib.Preprocessing"
            )
        defaults = PROCESSORS[name]
    _check_settings(config, defaults)
    steps = _read_steps(config, defaults, on_tensors)
    mean, std = _read_scale(config, defaults)
    swapped = defaults.scheme == "mobilevit" and _get(config, "do_flip_channel_order", True)
    return ResizeCropPreprocessing(tuple(steps), mean, std, "BGR" if swapped else "RGB")


def find_processor_class(config: Mapping[str, Any]) -> str:
    """Return the name of the class of a configuration as transformers 5 has it; empty if it names none."""
    name = str(config.get("image_processor_type") or config.get("feature_extractor_type") or "")
    name = name.replace("FeatureExtractor", "ImageProcessor")
    for suffix in ("Fast", "Pil"):
        name = name.removesuffix(suffix)
    return name


def parse_size(size: Any, key: str, *, square: bool = True) -> Size | int:
    """Return a size as (height, width), or as the length of the shorter edge.

    Args:
        size: An integer, alone or in a list, (height, width), or a mapping with "height" and "width" or with
            "shortest_edge".
        key: Name of the setting, for error messages.
        square: Whether one integer is both height and width, instead of the shorter edge.

    Raises:
        ModelError: For anything else.
    """
    if isinstance(size, (list, tuple)) and len(size) == 1:  # as torchvision's presets have it
        size = size[0]
    if isinstance(size, int) and not isinstance(size, bool):
        return (size, size) if square else size
    if isinstance(size, Mapping):
        given = {name: side for name, side in size.items() if side is not None}
        if given.keys() == {"height", "width"}:
            return int(given["height"]), int(given["width"])
        if given.keys() == {"shortest_edge"}:
            return int(given["shortest_edge"])
    if isinstance(size, (list, tuple)) and len(size) == 2 and all(isinstance(side, int) for side in size):
        return size[0], size[1]
    raise ModelError(f"{key} is {size!r}, expected an integer, height and width, or shortest_edge")


def parse_numbers(value: Any, key: str) -> tuple[float, ...]:
    """Return the three numbers of the channels, from three or from one for all.

    Raises:
        ModelError: For anything else.
    """
    numbers = value if hasattr(value, "__iter__") and not isinstance(value, str) else [value]
    try:
        parsed = tuple(float(number) for number in numbers)
    except (TypeError, ValueError):
        parsed = ()
    if len(parsed) not in (1, 3):
        raise ModelError(f"{key} is {value!r}, expected one number or one for each of the three channels")
    return parsed * 3 if len(parsed) == 1 else parsed


def _check_settings(config: Mapping[str, Any], defaults: ProcessorDefaults) -> None:
    known = {*_READ, *_UNUSED_SETTINGS}
    if defaults.scheme == "efficientnet":
        known |= {"rescale_offset", "include_top"}
    if defaults.scheme == "mobilevit":
        known |= {"do_flip_channel_order"}
    for key, value in config.items():
        if key not in known and value is not None and value is not False:
            raise ModelError(
                f"the image processor has {key}={value!r}, whose effect is not known; {suggest_names(key, known)}"
            )
    if config.get("do_pad"):
        raise ModelError("the image processor pads (do_pad), which is not supported; give one that resizes or crops")


def _read_steps(config: Mapping[str, Any], defaults: ProcessorDefaults, on_tensors: bool) -> list[Step]:
    square = bool(_get(config, "default_to_square", defaults.square))
    size = parse_size(_get(config, "size", defaults.size), "size", square=square)
    steps: list[Step] = []
    if _get(config, "do_resize", True):
        kernel: Kernel = "uint8" if on_tensors else "pillow"
        if defaults.scheme == "dinov3" and _get(config, "do_rescale", True):
            kernel = "float32"  # it scales the values before it resizes
        interpolation = read_interpolation(_get(config, "resample", defaults.resample))
        fit, target, crop = _find_target(size, config, defaults)
        steps.append(Resize(target, fit, interpolation, kernel))
        if crop is not None:
            steps.append(_make_crop(crop, on_tensors))
    # Segformer's processor never crops.
    if _get(config, "do_center_crop", defaults.crops_by_default) and defaults.scheme != "segformer":
        crop_size = parse_size(_get(config, "crop_size", defaults.crop), "crop_size")
        if isinstance(crop_size, int):
            raise ModelError("crop_size is a shortest_edge, expected height and width")
        steps.append(_make_crop(crop_size, on_tensors))
    return steps


def _find_target(
    size: Size | int, config: Mapping[str, Any], defaults: ProcessorDefaults
) -> tuple[Literal["exact", "shorter"], Size, Size | None]:
    """Return the fit and size of the resize, and the size of a crop that belongs to it, if there is one."""
    crop_pct = float(_get(config, "crop_pct", defaults.crop_pct or 0))
    if defaults.scheme == "convnext":
        if not isinstance(size, int):
            raise ModelError(f"size of a ConvNextImageProcessor is {size}, expected shortest_edge")
        if size >= _CONVNEXT_SQUASH:
            return "exact", (size, size), None
        edge = int(size / crop_pct)
        return "shorter", (edge, edge), (size, size)
    if defaults.scheme == "poolformer" and crop_pct:
        if not isinstance(size, int) and size[0] != size[1]:
            return "exact", (int(size[0] / crop_pct), int(size[1] / crop_pct)), None
        edge = int((size if isinstance(size, int) else size[0]) / crop_pct)
        return "shorter", (edge, edge), None
    if defaults.scheme == "levit" and isinstance(size, int):
        edge = int((256 / 224) * size)
        return "shorter", (edge, edge), None
    return ("shorter", (size, size), None) if isinstance(size, int) else ("exact", size, None)


def _make_crop(size: Size, on_tensors: bool) -> CenterCrop:
    return CenterCrop(size, rounding="down", odd_padding="end" if on_tensors else "start")


def _read_scale(config: Mapping[str, Any], defaults: ProcessorDefaults) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the mean and standard deviation, for pixel values from 0 to 1, that equal its rescaling and normalising.

    A processor maps a pixel value p from 0 to 255 to p * factor + shift, then to (... - mean) / std.
    """
    factor, shift = 1.0, 0.0
    if _get(config, "do_rescale", True):
        factor = float(_get(config, "rescale_factor", 1 / 255))
        shift = -1.0 if config.get("rescale_offset") else 0.0
    if factor <= 0:
        raise ModelError(f"rescale_factor is {factor}, expected a number above 0")
    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    given_std = parse_numbers(_get(config, "image_std", defaults.std), "image_std")
    if _get(config, "do_normalize", True) and defaults.scheme != "mobilevit":  # which never normalises
        mean, std = parse_numbers(_get(config, "image_mean", defaults.mean), "image_mean"), given_std
    if defaults.scheme == "efficientnet" and _get(config, "include_top", True):
        std = tuple(value * other for value, other in zip(std, given_std, strict=True))  # it divides once more
    return tuple((value - shift) / (255 * factor) for value in mean), tuple(value / (255 * factor) for value in std)


def _get(config: Mapping[str, Any], key: str, default: Any) -> Any:
    value = config.get(key)
    return default if value is None else value
