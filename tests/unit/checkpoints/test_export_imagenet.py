"""What the export of the 1,000-class network states of a run, and the images on which its note is measured."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from checkpoints.training import distill_imagenet, export_imagenet
from checkpoints.training.unfamiliar_images import SIDE, draw_unfamiliar_images


def make_row(step: int, stage: str, accuracy: float | None) -> dict:
    return {"step": step, "stage": stage, "lr": 0.001, "loss": 2.5, "cpu_seconds": 60.0, "val_top1": accuracy}


STATE = {
    "progress": {"step": 9, "block_steps": 4, "decay_start": 7, "decay_steps": 2},
    "settings": {"seed": 3, "tokens": 400, "init": "None"},
    "history": [
        make_row(2, "blocks", None),
        make_row(4, "blocks", 0.5),
        make_row(6, "chain", None),
        make_row(8, "decay", 70.0),
    ],
}


def test_history_has_the_rows_with_an_accuracy_in_numbers():
    rows = export_imagenet.list_evaluated_rows(STATE, photo_count=10)
    passes = []
    for step in range(9):
        stage = "blocks" if step < 4 else "chain" if step < 7 else "decay"
        side = int(np.random.default_rng((3, step)).choice(distill_imagenet.STAGES[stage].sizes))
        passes.append(round(400 / (side // 16) ** 2))
    assert [(row["stage"], row["val_top1"]) for row in rows] == [(1, 0.5), (3, 70.0)]
    assert [row["epoch"] for row in rows] == [pytest.approx(sum(passes[:step]) / 10) for step in (4, 8)]


def test_a_run_without_an_accuracy_is_not_exported(tmp_path, monkeypatch):
    torch.save({**STATE, "history": STATE["history"][:1]}, tmp_path / "last.pt")
    monkeypatch.setattr(export_imagenet, "CHECKPOINTS", tmp_path / "bundled")
    monkeypatch.setattr(export_imagenet, "open_photo_cache", lambda data, cache: [None] * 10)
    with pytest.raises(SystemExit, match="has no accuracy yet, which is measured every 500 steps"):
        export_imagenet.export_run(tmp_path, tmp_path, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["last.pt"]


def test_origin_states_steps_minutes_and_teacher():
    origin = export_imagenet.describe_origin(STATE, photo_count=10)
    (stage,) = origin["stages"]
    assert stage["minutes"] == 4
    assert "4 steps of half blocks, 3 of the whole network, and 2 with a falling" in stage["note"]
    assert stage["command"].endswith("--decay-steps 2")
    assert "apache-2.0" in stage["teacher"]
    assert stage["start"] == "random initialisation"
    continued = {**STATE, "settings": STATE["settings"] | {"init": "folder/first.safetensors"}}
    (stage,) = export_imagenet.describe_origin(continued, photo_count=10)["stages"]
    assert stage["start"] == "the weights of first.safetensors"


def test_unfamiliar_images_are_of_their_kind():
    rng = np.random.default_rng(0)
    photos = [Image.fromarray(rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)) for _ in range(4)]
    images = draw_unfamiliar_images(photos, 4)
    assert {kind: len(drawn) for kind, drawn in images.items()} == {
        "noise": 4,
        "one colour": 4,
        "text": 4,
        "line drawings": 4,
    }
    for kind, drawn in images.items():
        assert {(image.mode, image.size) for image in drawn} == {("RGB", (SIDE, SIDE))}, kind
        assert len({image.tobytes() for image in drawn}) == 4, kind
    columns = [np.asarray(image).astype(int) for image in images["one colour"]]
    assert all((pixels == pixels[:, :1]).all() for pixels in columns)  # no change from left to right
    assert all(len(image.getcolors(SIDE * SIDE) or ()) > 2 for image in images["text"])
    assert images["noise"][0].tobytes() == draw_unfamiliar_images(photos, 4)["noise"][0].tobytes()
    assert images["noise"][0].tobytes() != draw_unfamiliar_images(photos, 4, seed=1)["noise"][0].tobytes()
