"""Labels and preprocessing that a network records: those of timm, transformers and open_clip."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import try_to_load_from_cache
from timm.data.config import resolve_model_data_config
from torch import nn

from vizlib.core.errors import ModelError
from vizlib.core.label_formats import read_labels
from vizlib.core.text import Note, make_note
from vizlib.models.preprocessing import Preprocessing, TimmPreprocessing
from vizlib.models.preprocessing_formats.image_processors import PROCESSORS
from vizlib.models.preprocessing_formats.mappings import RecordedConfig
from vizlib.models.preprocessing_formats.reader import ReadPreprocessing, read_preprocessing

PROCESSORS_BY_MODEL_TYPE: Mapping[str, str] = {  # as AutoImageProcessor chooses it for a model type of transformers
    **dict.fromkeys(("beit", "data2vec-vision"), "BeitImageProcessor"),
    **dict.fromkeys(("bit", "dinov2", "dinov2_with_registers", "focalnet", "hiera"), "BitImageProcessor"),
    **dict.fromkeys(("clip", "metaclip_2"), "CLIPImageProcessor"),
    **dict.fromkeys(("convnext", "convnextv2", "cvt", "regnet", "resnet"), "ConvNextImageProcessor"),
    "deit": "DeiTImageProcessor",
    **dict.fromkeys(("dinov3_convnext", "dinov3_vit"), "DINOv3ViTImageProcessor"),
    "efficientnet": "EfficientNetImageProcessor",
    "levit": "LevitImageProcessor",
    "mobilenet_v1": "MobileNetV1ImageProcessor",
    "mobilenet_v2": "MobileNetV2ImageProcessor",
    **dict.fromkeys(("mobilevit", "mobilevitv2"), "MobileViTImageProcessor"),
    "poolformer": "PoolFormerImageProcessor",
    **dict.fromkeys(("pvt", "pvt_v2"), "PvtImageProcessor"),
    "segformer": "SegformerImageProcessor",
    "siglip": "SiglipImageProcessor",
    **dict.fromkeys(("dinat", "ijepa", "swiftformer", "swin", "swinv2", "vit", "vit_msn"), "ViTImageProcessor"),
}
PROCESSOR_FILES = ("processor_config.json", "preprocessor_config.json")  # the first may hold the second
_PLACEHOLDER = re.compile(r"LABEL_\d+")  # what transformers calls classes whose names nobody stated


def resolve_preprocessing(module: nn.Module, given: object | None, name: str) -> ReadPreprocessing:
    """Return the preprocessing of a network: the given one, else what the network records, else that of ImageNet.

    What is assumed, because it is neither given nor recorded, is a note.

    Args:
        module: The network.
        given: Preprocessing in any form that `read_preprocessing` takes.
        name: Name of the model in notes.

    Raises:
        ModelError: If what is given or recorded cannot be read.
    """
    if given is not None:
        return read_preprocessing(given, _find_recorded_config(module))
    if (read := _read_recorded(module, name)) is not None:
        return read
    for part, inner in module.named_modules():
        if part and (read := _read_recorded(inner, name)) is not None:
            part_name = f"{part} ({type(inner).__name__})"
            return ReadPreprocessing(
                read.preprocessing, (_note_assumed("inner", name, read.preprocessing, part=part_name),)
            )
    size = _find_image_size(getattr(module, "config", None))
    assumed = TimmPreprocessing.from_config({"input_size": size} if size else {})
    return ReadPreprocessing(assumed, (_note_assumed("imagenet", name, assumed),))


def find_recorded_labels(module: nn.Module, num_outputs: int) -> list[str] | None:
    """Return the labels that a network, or a part of it, records for this number of outputs; `None` if there are none.

    They are the `id2label` of a config of transformers, unless these are the placeholders "LABEL_0", "LABEL_1", ..., or
    the `label_names` of timm's config, with its `label_descriptions`.
    """
    for part in module.modules():
        labels = _read_id2label(part) or _read_timm_labels(part, num_outputs)
        if labels and len(labels) == num_outputs:
            return labels
    return None


def _read_recorded(module: nn.Module, name: str) -> ReadPreprocessing | None:
    """Return the preprocessing that a module records, `None` if it records none."""
    config = getattr(module, "config", None)
    if _is_transformers_config(config):
        return _read_transformers_config(config, name)
    for part in (module, getattr(module, "visual", None)):  # of open_clip
        if isinstance(record := getattr(part, "preprocess_cfg", None), Mapping):
            return read_preprocessing(record)
    timm_config = _read_timm_config(module)
    return ReadPreprocessing(TimmPreprocessing.from_config(timm_config.values)) if timm_config else None


def _find_recorded_config(module: nn.Module) -> RecordedConfig | None:
    """Return what a network records about its preprocessing, for what a given preprocessing does not state."""
    if (timm_config := _read_timm_config(module)) is not None:
        return timm_config
    config: Any = getattr(module, "config", None)
    try:
        read = _read_transformers_config(config, "") if _is_transformers_config(config) else None
    except ModelError:  # what is given replaces it
        return None
    if read is None:
        return None
    source = PROCESSORS_BY_MODEL_TYPE.get(config.model_type, type(config).__name__) if read.notes else "its config"
    return RecordedConfig(source, {"mean": read.preprocessing.mean, "std": read.preprocessing.std})


def _read_timm_config(module: nn.Module) -> RecordedConfig | None:
    """Return timm's data config of a network that timm built, at the input size that it was built for."""
    record = getattr(module, "pretrained_cfg", None)
    if not isinstance(record, Mapping):
        return None
    config = resolve_model_data_config(module)
    size = getattr(getattr(module, "patch_embed", None), "img_size", None)
    if isinstance(size, (tuple, list)) and len(size) == 2:
        config["input_size"] = (3, *size)
    return RecordedConfig(str(record.get("architecture") or type(module).__name__), config)


def _is_transformers_config(config: object) -> bool:
    return isinstance(getattr(config, "model_type", None), str) and hasattr(config, "id2label")


def _read_transformers_config(config: Any, name: str) -> ReadPreprocessing | None:
    """Return the preprocessing of a network of transformers: that of its folder or repository, else its class's."""
    if isinstance(record := getattr(config, "pretrained_cfg", None), Mapping):  # a network of timm
        return read_preprocessing(record)
    if (stated := _find_processor_config(config)) is not None:
        return read_preprocessing(stated)
    processor = PROCESSORS_BY_MODEL_TYPE.get(config.model_type)
    if processor is None:
        return None
    read = read_preprocessing(_make_default_config(processor, _find_image_size(config))).preprocessing
    return ReadPreprocessing(read, (_note_assumed("processor", name, read, processor=processor),))


def _find_processor_config(config: Any) -> Mapping[str, Any] | None:
    """Return the image processor's config in the folder, or the cached repository, that a network was loaded from."""
    source = str(getattr(config, "_name_or_path", "") or "")
    if not source:
        return None
    for file in PROCESSOR_FILES:
        path = Path(source) / file
        if not path.is_file():
            try:
                cached = try_to_load_from_cache(source, file, revision=getattr(config, "_commit_hash", None))
            except ValueError:  # the name of a folder is none of a repository
                continue
            if not isinstance(cached, str):
                continue
            path = Path(cached)
        content = read_json_object(path)
        if file == PROCESSOR_FILES[1]:
            return content
        if isinstance(content.get("image_processor"), dict):
            return content["image_processor"]
    return None


def read_json_object(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file.

    Raises:
        ModelError: If the file cannot be read or holds something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path.name} is not JSON ({error}); correct or remove it") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path.name} must hold a JSON object, not a {type(content).__name__}")
    return content


def _make_default_config(processor: str, size: tuple[int, int] | None) -> dict[str, Any]:
    """Return the config of a class of image processors by default, scaled to another size of the network's input."""
    config: dict[str, Any] = {"image_processor_type": processor}
    defaults = PROCESSORS[processor]
    if size is None:
        return config
    height, width = size
    if defaults.scheme == "convnext":
        return {**config, "size": {"shortest_edge": min(size)}}
    if not defaults.crops_by_default or defaults.crop is None:
        return {**config, "size": {"height": height, "width": width}}
    config["crop_size"] = {"height": height, "width": width}
    if isinstance(defaults.size, int):
        return {**config, "size": {"shortest_edge": round(defaults.size * max(size) / max(defaults.crop))}}
    scaled = (round(edge * side / crop) for edge, side, crop in zip(defaults.size, size, defaults.crop, strict=True))
    return {**config, "size": dict(zip(("height", "width"), scaled, strict=True))}


def _find_image_size(config: Any) -> tuple[int, int] | None:
    """Return the height and width of the input in a config of transformers, `None` if it states none."""
    for part in (config, getattr(config, "vision_config", None)):
        size = getattr(part, "image_size", None)
        if isinstance(size, int):
            return size, size
        if isinstance(size, (list, tuple)) and len(size) == 2:
            return int(size[0]), int(size[1])
    return None


def _read_id2label(module: nn.Module) -> list[str] | None:
    config = getattr(module, "config", None)
    names = getattr(config, "id2label", None) if _is_transformers_config(config) else None
    if not isinstance(names, Mapping) or all(_PLACEHOLDER.fullmatch(str(label)) for label in names.values()):
        return None
    return read_labels(names)


def _read_timm_labels(module: nn.Module, num_outputs: int) -> list[str] | None:
    record = getattr(module, "pretrained_cfg", None)
    if not isinstance(record, Mapping) or not (names := record.get("label_names")):
        return None
    if isinstance(names, Mapping):  # index -> name, with gaps for outputs that no class uses
        names = [names.get(i, names.get(str(i), f"class {i}")) for i in range(num_outputs)]
    descriptions = record.get("label_descriptions")
    return [str(descriptions.get(name, name)) if isinstance(descriptions, Mapping) else str(name) for name in names]


def _note_assumed(kind: str, name: str, assumed: Preprocessing, **facts: str) -> Note:
    height, width = assumed.input_size
    return make_note(
        f"model.assumed-{kind}", model=name, height=height, width=width, mean=f"{assumed.mean[0]:.3g}", **facts
    )
