"""Model cards agree with the sidecars, and the sidecars with the weight files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vizlib.models.loading import checkpoint_files

FOLDER = Path(__file__).resolve().parents[3] / "checkpoints"
NAMES = ("resnet18-imagenette", "vit_tiny-imagenet", "vit_tiny-imagenette")


def test_model_cards_match_the_sidecars():
    from checkpoints.training import model_cards

    assert (FOLDER / "README.md").read_text() == model_cards.render_cards(), (
        "run python -m checkpoints.training.model_cards"
    )


@pytest.mark.parametrize("name", NAMES)
def test_bundled_file_has_the_hash_in_its_sidecar(name):
    path = checkpoint_files.list_bundled()[name]
    assert checkpoint_files.hash_file(path) == json.loads(path.with_suffix(".json").read_text())["sha256"]


def test_bundled_files_are_small():
    assert sum(path.stat().st_size for path in checkpoint_files.list_bundled().values()) < 60e6
