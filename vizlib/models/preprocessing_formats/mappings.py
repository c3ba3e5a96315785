"""Read preprocessing given as a mapping: configs of timm and open_clip, and mappings with other names for the keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from timm.data.constants import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from vizlib.core.errors import ModelError, suggest_names
from vizlib.core.text import Note, make_note
from vizlib.models.preprocessing import Preprocessing, TimmPreprocessing
from vizlib.models.preprocessing_formats.image_processors import (
    MARKS,
    UNNAMED,
    find_processor_class,
    parse_numbers,
    parse_size,
    read_processor_config,
)
from vizlib.models.preprocessing_formats.resize_crop import CenterCrop, Resize, ResizeCropPreprocessing, Size, Step
from vizlib.models.preprocessing_formats.transforms import read_interpolation

ALIASES: Mapping[str, tuple[str, ...]] = {  # what a key means -> its names, timm's first
    "input_size": ("input_size", "img_size", "image_size", "crop_size", "crop", "center_crop"),
    "size": ("size",),  # of the input, or of the resize if the input's size is given too
    "resize": ("resize", "resize_size", "scale_size", "resize_to"),
    "interpolation": ("interpolation", "resample", "resampling"),
    "crop_pct": ("crop_pct", "crop_ratio"),
    "crop_mode": ("crop_mode",),
    "resize_mode": ("resize_mode",),
    "mean": ("mean", "means", "image_mean", "img_mean", "pixel_mean", "norm_mean"),
    "std": ("std", "stds", "image_std", "img_std", "pixel_std", "norm_std"),
    "fill_color": ("fill_color",),
}
_MEANINGS = {name: meaning for meaning, names in ALIASES.items() for name in names}
# Keys of timm's `pretrained_cfg`, of open_clip's and of mmpretrain's configs that say nothing about evaluation photos.
_UNUSED_KEYS = {
    *("architecture", "classifier", "custom_load", "file", "first_conv", "fixed_input_size", "global_pool"),
    *("hf_hub_filename", "hf_hub_id", "label_descriptions", "label_names", "label_offset", "license"),
    *("min_input_size", "model_args", "notes", "num_classes", "num_features", "origin_url", "paper_ids", "paper_name"),
    *("pool_size", "source", "state_dict", "tag", "tags", "test_crop_pct", "test_input_size", "test_pool_size", "url"),
}
_NESTED = ("data_config", "pretrained_cfg", "preprocess_cfg")  # keys of files that hold the description
_ONLY_VALUES = {"in_chans": 3, "mode": "RGB", "color_space": "RGB", "to_rgb": True, "bgr_to_rgb": True}
_RESIZE_MODES = ("shortest", "longest", "squash")  # of open_clip
_MAX_8_BIT = 255.0
_PROCESSOR_MARKS = frozenset(MARKS) - {"resample"}


@dataclass(frozen=True)
class RecordedConfig:
    """What a network records about its preprocessing, for what a mapping does not state.

    Attributes:
        source: Name of the architecture, class or file that the values are those of.
        values: Values under timm's keys.
    """

    source: str
    values: Mapping[str, Any]


def read_mapping(
    given: Mapping[str, Any], recorded: RecordedConfig | None = None
) -> tuple[Preprocessing, tuple[Note, ...]]:
    """Return the preprocessing that a mapping describes, and notes on what was converted or assumed.

    Args:
        given: timm's data config or `pretrained_cfg`, open_clip's `preprocess_cfg`, the `preprocessor_config.json` of
            transformers, or the same under the names in `ALIASES`. Values that are `None` count as missing. Missing
            keys have timm's defaults, or torchvision's bilinear interpolation if `resize` is given.
        recorded: What the network records itself, which replaces timm's defaults.

    Raises:
        ModelError: For unknown keys, two keys that contradict each other, or values of another type or out of range.
    """
    given = {str(key): value for key, value in given.items() if value is not None}
    for key in _NESTED:
        if isinstance(given.get(key), Mapping):
            return read_mapping(given[key], recorded)
    if find_processor_class(given):
        return read_processor_config(given).simplify(), ()
    if _describes_processor(given):
        return _read_unnamed_processor(given, recorded)
    values = _rename_keys(given)
    if "resize_mode" in values or "fill_color" in values:
        values = {"mean": OPENAI_CLIP_MEAN, "std": OPENAI_CLIP_STD, **values}
        notes = _complete_scale(values, recorded)
        return _read_open_clip(values).simplify(), notes
    notes = _complete_scale(values, recorded)
    if "size" in values:
        meaning = "resize" if "input_size" in values else "input_size"
        if meaning in values:
            raise ModelError(f"the preprocessing has size, {meaning} and input_size; leave size out")
        values[meaning] = values.pop("size")
    if "resize" in values:
        return _read_resize_and_crop(values).simplify(), notes
    if "interpolation" in values:
        values["interpolation"] = read_interpolation(values["interpolation"])
    if isinstance(values.get("input_size"), (int, str, Mapping)):
        values["input_size"] = _parse_input_size(values["input_size"])
    return TimmPreprocessing.from_config({**(recorded.values if recorded else {}), **values}), notes


def _describes_processor(given: Mapping[str, Any]) -> bool:
    """Return whether a mapping without the name of a class uses keys in the sense of transformers."""
    if isinstance(given.get("size"), Mapping) or not _PROCESSOR_MARKS.isdisjoint(given):
        return True
    return "size" in given and not {"image_mean", "image_std"}.isdisjoint(given)


def _rename_keys(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a mapping under timm's names; keys without effect on the photos are left out."""
    values: dict[str, Any] = {}
    names: dict[str, str] = {}
    for key, value in given.items():
        if key in _ONLY_VALUES:
            if value != _ONLY_VALUES[key]:
                raise ModelError(f"the preprocessing has {key}={value!r}, but only {_ONLY_VALUES[key]!r} is supported")
        elif key in _MEANINGS:
            meaning = _MEANINGS[key]
            if meaning in values and not _equal(values[meaning], value):
                raise ModelError(
                    f"the preprocessing has {names[meaning]}={values[meaning]!r} and {key}={value!r}, which mean the "
                    "same; give one of them"
                )
            values[meaning], names[meaning] = value, key
        elif key not in _UNUSED_KEYS:
            known = [name for names in ALIASES.values() for name in names]
            names_of_keys = suggest_names(key, known, max_names=99)
            raise ModelError(f"the preprocessing has the unknown key {key!r}; {names_of_keys}")
    return values


def _equal(first: Any, second: Any) -> bool:
    return str(first) == str(second) or (_is_numbers(first) and _is_numbers(second) and list(first) == list(second))


def _is_numbers(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _complete_scale(values: dict[str, Any], recorded: RecordedConfig | None) -> tuple[Note, ...]:
    """Convert the mean and standard deviation to values from 0 to 1, add those that are missing, and note both."""
    notes = _convert_to_unit_range(values)
    missing = [key for key in ("mean", "std") if key not in values]
    if not missing:
        return notes
    recorded = recorded or RecordedConfig("ImageNet", {})
    defaults = TimmPreprocessing.from_config(recorded.values)
    values |= {key: getattr(defaults, key) for key in missing}
    texts = ", ".join(f"{key} {_format_numbers(values[key])}" for key in missing)
    keys = " and ".join(missing)
    return (*notes, make_note("preprocessing.assumed-mean", keys=keys, source=recorded.source, values=texts))


def _convert_to_unit_range(values: dict[str, Any]) -> tuple[Note, ...]:
    """Divide a mean and standard deviation of pixel values from 0 to 255 by 255, and return the note that says so."""
    numbers = {key: parse_numbers(values[key], key) for key in ("mean", "std") if key in values}
    values |= numbers
    mean, std = numbers.get("mean", (0.0,)), numbers.get("std", (1.0,))
    if max(mean) <= 1 and max(std) <= 1:
        return ()
    in_8_bit = max(mean) <= _MAX_8_BIT and max(std) <= _MAX_8_BIT and min(mean) >= 0
    if "mean" not in numbers or "std" not in numbers or not in_8_bit or min(std) < 1 or 0 < max(mean) <= 1:
        raise ModelError(
            f"mean is {values.get('mean')} and std {values.get('std')}, expected both for pixel values from 0 to 1, or "
            "both for 0 to 255"
        )
    values |= {key: tuple(number / _MAX_8_BIT for number in numbers[key]) for key in numbers}
    return (make_note("preprocessing.8-bit-mean", mean=_format_numbers(mean), std=_format_numbers(std)),)


def _format_numbers(numbers: Sequence[float]) -> str:
    return ", ".join(f"{number:g}" for number in numbers)


def _parse_input_size(size: Any) -> Size:
    """Return (height, width) of a size given as an integer, (height, width), (3, height, width) or a mapping."""
    if isinstance(size, (list, tuple)) and len(size) == 3 and size[0] == 3:
        size = size[1:]
    parsed = parse_size(size, "input_size")
    if isinstance(parsed, int):
        raise ModelError("input_size is a shortest_edge, expected height and width")
    return parsed


def _read_resize_and_crop(values: dict[str, Any]) -> ResizeCropPreprocessing:
    """Return the preprocessing of a resize, followed by a central crop if the size of the input is given."""
    for key in ("crop_pct", "crop_mode"):
        if key in values:
            raise ModelError(f"the preprocessing has resize and {key}, which both say how photos are resized; give one")
    interpolation = read_interpolation(values.get("interpolation", "bilinear"))
    resize = parse_size(values["resize"], "resize", square=False)
    edge = (resize, resize) if isinstance(resize, int) else resize
    steps: list[Step] = [Resize(edge, "shorter" if isinstance(resize, int) else "exact", interpolation)]
    if "input_size" in values:
        steps.append(CenterCrop(_parse_input_size(values["input_size"])))
    return _combine_steps(steps, values)


def _read_open_clip(values: dict[str, Any]) -> ResizeCropPreprocessing:
    """Return the preprocessing of open_clip's `image_transform` for evaluation."""
    mode = values.get("resize_mode", "shortest")
    if mode not in _RESIZE_MODES:
        raise ModelError(f"resize_mode is {mode!r}, expected one of {', '.join(_RESIZE_MODES)}")
    size = _parse_input_size(values.get("size", values.get("input_size", 224)))
    interpolation = read_interpolation(values.get("interpolation", "bicubic"))
    fill = int(values.get("fill_color", 0))
    if mode == "squash":
        return _combine_steps([Resize(size, "exact", interpolation)], values)
    if mode == "longest":
        crop = CenterCrop(size, fill=(fill, fill, fill))
        return _combine_steps([Resize(size, "contain", interpolation), crop], values)
    if size[0] == size[1]:
        return _combine_steps([Resize(size, "shorter", interpolation), CenterCrop(size)], values)
    return _combine_steps(
        [Resize(size, "cover", "bicubic"), CenterCrop(size)], values
    )  # open_clip ignores interpolation here


def _combine_steps(steps: Sequence[Step], values: Mapping[str, Any]) -> ResizeCropPreprocessing:
    """Return the preprocessing of a mapping's steps, with its mean and standard deviation."""
    return ResizeCropPreprocessing(tuple(steps), tuple(values["mean"]), tuple(values["std"]))


def _read_unnamed_processor(
    given: Mapping[str, Any], recorded: RecordedConfig | None
) -> tuple[Preprocessing, tuple[Note, ...]]:
    """Return the preprocessing of a mapping that names no image processor: resize with Pillow, crop, normalise."""
    scale = {meaning: given[key] for key in given if (meaning := _MEANINGS.get(key)) in ("mean", "std")}
    config = {key: value for key, value in given.items() if _MEANINGS.get(key) not in ("mean", "std", "interpolation")}
    for key in ALIASES["interpolation"]:
        if key in given:
            config["resample"] = given[key]
    if "size" not in config and config.get("do_resize", True):
        raise ModelError("the image processor states no size; give size, or do_resize=False and crop_size")
    if "crop_pct" in config:
        raise ModelError("crop_pct has a meaning only with image_processor_type; give size and crop_size instead")
    notes: tuple[Note, ...] = ()
    if config.get("do_normalize", True):
        if {"do_rescale", "rescale_factor"}.isdisjoint(config):
            notes = _complete_scale(scale, recorded)
        elif {"mean", "std"} - scale.keys():
            raise ModelError("the image processor states no image_mean or image_std; give both, or do_normalize=False")
    return read_processor_config(
        {**config, **{f"image_{key}": value for key, value in scale.items()}},
        defaults=replace(UNNAMED, do_crop="crop_size" in config),
        on_tensors=False,
    ).simplify(), notes
