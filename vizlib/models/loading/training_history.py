"""How the bundled networks learned, epoch by epoch, and a classic comparison of three starts."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

from vizlib.core.errors import VizlibError, suggest_names
from vizlib.models.loading.checkpoint_files import BUNDLED_FOLDER

COMPARISON = "comparison"  # the folder of the classic comparison: one history a start, and what they have in common


def list_training_histories() -> tuple[str, ...]:
    """The names `training_history` knows: the bundled networks, then the three starts of the classic comparison."""
    return tuple(_files())


def training_history(name: str) -> dict[str, tuple[float, ...]]:
    """How a network learned: one tuple a column, one value an epoch.

    Among the columns are `epoch`, `size` (side of the training photos in pixels), `lr`, `train_loss` and `train_top1`
    (in percent, on augmented photos), `val_loss`, `val_top1` (in percent, on whole validation photos) and `seconds`.
    Ready for a data frame: `pandas.DataFrame(training_history(name))`.

    >>> history = training_history("resnet18-imagenette")
    >>> len(history["val_top1"]) == len(history["epoch"])
    True

    Raises: VizlibError for an unknown name.
    """
    files = _files()
    if name not in files:
        raise VizlibError(f"there is no training history {name!r}; {suggest_names(name, list(files))}")
    with files[name].open(newline="", encoding="utf-8") as file:
        columns, *rows = csv.reader(file)
    return {column: tuple(float(row[index]) for row in rows) for index, column in enumerate(columns)}


def read_training_comparison() -> dict[str, Any]:
    """What the three starts of the classic comparison share and where they differ: `title`, `data`, `starts`, ...

    `starts` gives each history's name its label and its command. Empty where the comparison did not travel along.
    """
    path = BUNDLED_FOLDER / COMPARISON / f"{COMPARISON}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _files() -> dict[str, Path]:
    own = sorted(BUNDLED_FOLDER.glob("*.csv"))
    return {path.stem: path for path in (*own, *sorted((BUNDLED_FOLDER / COMPARISON).glob("*.csv")))}
