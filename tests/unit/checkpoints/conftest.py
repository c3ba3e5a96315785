"""Ten classes of tiny photos to train on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Path:
    """Imagenette's layout with 8 photos a class to train on and 3 to measure on: a class is a colour."""
    from checkpoints.training.imagenette import LABELS

    folder, rng = tmp_path_factory.mktemp("tiny"), np.random.default_rng(0)
    for label, wnid in enumerate(LABELS):
        colour = np.array([label % 3, label // 3 % 3, label // 9], np.float64) * 100 + 25
        for split, count in (("train", 8), ("val", 3)):
            (folder / split / wnid).mkdir(parents=True)
            for number in range(count):
                pixels = (colour + rng.normal(0, 20, (40, 48, 3))).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / split / wnid / f"{number}.png")
    return folder
