"""Training curves of the bundled networks and of a comparison of three ways to initialise training."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

from vizlib.core.errors import VizlibError, suggest_names
from vizlib.models.loading.checkpoint_files import BUNDLED_FOLDER

COMPARISON = "comparison"  # folder of the comparison: one CSV per initialisation, and a JSON file that describes it


def list_training_histories() -> tuple[str, ...]:
    """Return the names that `training_history` takes: the bundled networks, then those of the comparison."""
    return tuple(_history_files())


def training_history(name: str) -> dict[str, tuple[float, ...]]:
    """Return the training curves of a network.

    Args:
        name: Name of a bundled network, or of an initialisation of the comparison.

    Returns:
        Column -> one value per epoch, or per measurement of the accuracy. Among the columns are `epoch`, `lr`,
        `train_loss` and `val_top1` (in percent, on whole validation images); of training runs with labels also `size`
        (side of the training images in pixels), `train_top1` (in percent, on augmented images), `val_loss` and
        `seconds`. `pandas.DataFrame` takes it as it is.

    Raises:
        VizlibError: For an unknown name.

    Example:
        >>> import vizlib
        >>> history = vizlib.training_history("resnet18-imagenette")
        >>> len(history["val_top1"]) == len(history["epoch"])
        True
    """
    files = _history_files()
    if name not in files:
        raise VizlibError(f"there is no training history {name!r}; {suggest_names(name, list(files))}")
    with files[name].open(newline="", encoding="utf-8") as file:
        columns, *rows = csv.reader(file)
    return {column: tuple(float(row[index]) for row in rows) for index, column in enumerate(columns)}


def read_training_comparison() -> dict[str, Any]:
    """Return the description of the comparison: `title`, `data`, `starts`, ...; empty if it is not installed.

    `starts` maps the name of each history to its label and command.
    """
    path = BUNDLED_FOLDER / COMPARISON / f"{COMPARISON}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _history_files() -> dict[str, Path]:
    """Return the training histories: name -> CSV file."""
    bundled = sorted(BUNDLED_FOLDER.glob("*.csv"))
    return {path.stem: path for path in (*bundled, *sorted((BUNDLED_FOLDER / COMPARISON).glob("*.csv")))}
