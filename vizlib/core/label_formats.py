"""Read class labels in the forms in which models, datasets and files state them."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from itertools import count
from pathlib import Path
from typing import Any, TypeAlias

from vizlib.core.errors import ModelError

LabelSource: TypeAlias = Iterable[Any] | Mapping[Any, Any] | int | str | os.PathLike[str]

LABEL_KEYS = ("labels", "id2label", "label_names", "classes", "categories", "names")  # of a JSON file that holds more
LABEL_SUFFIXES = (".json", ".txt")
EXPECTED_LABELS = (
    "expected a list of labels, a mapping from class index to label (or from label to index), the number of classes, "
    f"or the path of a {' or '.join(LABEL_SUFFIXES)} file"
)
_WORDNET_ID = re.compile(r"n\d{8}")
_INDEX = re.compile(r"\d{1,9}", re.ASCII)


def read_labels(source: object) -> list[str]:
    """Return the label of each class, in the order of the outputs.

    Args:
        source: Labels in the order of the outputs; a mapping whose keys are the indices 0, 1, 2, ... as integers or as
            text (`id2label` of a Hugging Face config), or whose values are (`class_to_idx` of a torchvision dataset);
            the number of classes, which are then called "class 0", "class 1", ...; or a file: text with one label a
            line, or JSON with any of these. A label given as several texts, such as ["n01440764", "tench"] of
            ImageNet's class index, is joined with commas, without WordNet's identifiers.

    Raises:
        ModelError: For anything else, indices with gaps, or a file that cannot be read.

    >>> read_labels({"0": "cat", "1": "dog"})
    ['cat', 'dog']
    >>> read_labels({"dog": 1, "cat": 0})
    ['cat', 'dog']
    >>> read_labels(2)
    ['class 0', 'class 1']
    """
    if isinstance(source, (str, os.PathLike)):
        return _read_file(source)
    if isinstance(source, bool):
        raise ModelError(f"labels is {source}; {EXPECTED_LABELS}")
    if isinstance(source, int):
        if source < 1:
            raise ModelError(f"labels is the number {source}, expected at least 1 class")
        return _number_classes(source)
    if isinstance(source, Mapping):
        return _order_mapping(source)
    if isinstance(source, Iterable) and not isinstance(source, (bytes, set, frozenset)):  # a set has no order
        return [_to_label(label) for label in source]
    raise ModelError(f"labels is a {type(source).__name__}; {EXPECTED_LABELS}")


def _number_classes(num_classes: int) -> list[str]:
    """Return "class 0", "class 1", ...: the labels of classes whose names nothing states."""
    return [f"class {index}" for index in range(num_classes)]


def _order_mapping(mapping: Mapping[Any, Any]) -> list[str]:
    if mapping and all(isinstance(key, str) and _is_int(value) for key, value in mapping.items()):
        by_index = {int(index): label for label, index in mapping.items()}  # label -> index
        if len(by_index) < len(mapping):
            raise ModelError("labels maps two labels to the same class index; give each class one label")
    else:
        by_index = {_parse_index(key): label for key, label in mapping.items()}
        if len(by_index) < len(mapping):
            raise ModelError("labels names the same class index twice, as a number and as text")
    missing = next(index for index in count() if index not in by_index)
    if missing < len(by_index):
        raise ModelError(
            f"labels has no class {missing}, but a class {max(by_index)}; expected every index from 0 to the number of "
            "classes minus 1"
        )
    return [_to_label(by_index[index]) for index in range(len(by_index))]


def _parse_index(key: Any) -> int:
    if _is_int(key) and int(key) >= 0:
        return int(key)
    if isinstance(key, str) and _INDEX.fullmatch(key.strip()):
        return int(key)
    raise ModelError(f"labels has the key {key!r}, which is not a class index; {EXPECTED_LABELS}")


def _is_int(value: Any) -> bool:
    return hasattr(value, "__index__") and not isinstance(value, bool)  # NumPy's integers too


def _to_label(value: Any) -> str:
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, (list, tuple)) and value and all(isinstance(part, str) for part in value):
        names = [part.strip() for part in value if not _WORDNET_ID.fullmatch(part)]
        return ", ".join(names or value)
    if isinstance(value, (int, float)) or _is_int(value):
        return str(value)
    raise ModelError(f"labels holds a {type(value).__name__}, expected text: {EXPECTED_LABELS}")


def _read_file(source: str | os.PathLike[str]) -> list[str]:
    path = Path(source).expanduser()
    if path.suffix.lower() not in LABEL_SUFFIXES:
        raise ModelError(f"labels is the text {os.fspath(source)!r}; {EXPECTED_LABELS}")
    try:
        text = path.read_text(encoding="utf-8-sig")
        content = json.loads(text) if path.suffix.lower() == ".json" else text
    except FileNotFoundError:
        raise ModelError(f"there is no file {path} with labels; check its folder") from None
    except OSError as error:
        raise ModelError(f"the labels in {path.name} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ModelError(f"the labels in {path.name} cannot be read: {error}") from error
    if isinstance(content, str):
        return _split_lines(content, path.name)
    if isinstance(content, Mapping):
        content = next((content[key] for key in LABEL_KEYS if isinstance(content.get(key), (dict, list))), content)
    if not isinstance(content, (list, Mapping)) or not content:
        raise ModelError(f"{path.name} holds no labels; expected a JSON list, or an object from class index to label")
    return read_labels(content)


def _split_lines(text: str, file: str) -> list[str]:
    lines = text.rstrip().splitlines()
    for number, line in enumerate(lines, start=1):
        if not line.strip():  # dropping it would shift every label after it
            raise ModelError(f"line {number} of {file} is empty, expected one label a line")
    if not lines:
        raise ModelError(f"{file} is empty, expected one label a line")
    return [re.sub(rf"^{_WORDNET_ID.pattern}\s+", "", line.strip()) for line in lines]
