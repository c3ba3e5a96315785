"""Export of a trained network: weights in half precision, sidecar and training history."""

from __future__ import annotations

import argparse
import csv
import json

import pytest
import timm
import torch

import vizlib
from vizlib.models.loading import training_history

ROW = {
    "size": 128,
    "lr": 0.1,
    "train_loss": 1.0,
    "train_top1": 50.0,
    "val_loss": 1.0,
    "val_top1": 60.0,
    "seconds": 1800,
}
MEASURED = {
    "accuracy": {"data": "photos", "photos": 30, "top1": 60.0, "interval95": [42.0, 75.0]},
    "ood": {"score": "energy", "threshold": 1.5, "coverage": 0.95, "data": "photos"},
    "faithfulness": {"method": "grad-cam", "auc": 0.3, "centred_gaussian": 0.4, "photos": 30},
}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder of checkpoints, and a fixed result of the evaluation."""
    from checkpoints.training import export

    monkeypatch.setattr(export, "CHECKPOINTS", tmp_path)
    monkeypatch.setattr(export, "COMPARISON", tmp_path / "comparison")
    monkeypatch.setattr(
        export, "evaluate_checkpoint", lambda *_: {**MEASURED, "confusions": ["A tench is taken for a horn."]}
    )
    return tmp_path


def trained(folder, name: str, command: str, epochs: int, **settings) -> torch.nn.Module:
    """A run's state as training leaves it."""
    network = timm.create_model("resnet18", num_classes=10).eval()
    history = [{"epoch": epoch + 1, **ROW} for epoch in range(epochs)]
    run = folder / name
    run.mkdir(parents=True)
    state = {"average": network.state_dict(), "history": history, "settings": settings, "command": command}
    state["machine"] = "40 cores of another machine"
    torch.save(state, run / "last.pt")
    return network


def options(**given) -> argparse.Namespace:
    plain = {"name": "resnet18-imagenette", "finetune": None, "distill": None, "distill_on": ["logits"]}
    return argparse.Namespace(**{**plain, "note": "", "data": None, "other_photos": None, **given})


@pytest.mark.parametrize(("done", "clean"), [(24, 3), (23, 2), (21, 0), (12, 0)])
def test_export_of_a_stopped_run_describes_its_own_epochs(here, done, clean):
    from checkpoints.training.export import export_checkpoint
    from checkpoints.training.train_configs import TRAIN_CONFIGS

    trained(here, "run", "python -m checkpoints.training.train resnet18-imagenette", done, mixup=0.2)
    export_checkpoint(TRAIN_CONFIGS["resnet18-imagenette"], here / "run", options())
    (stage,) = json.loads((here / "resnet18-imagenette.json").read_text())["origin"]["stages"]
    texts = [words for words in stage["augmentation"] if words.startswith("none of erasing and mixing")]
    assert texts == ([f"none of erasing and mixing in the last {clean} epochs"] if clean else [])


def test_exported_network_equals_the_trained_one_in_half_precision(here):
    from checkpoints.training.export import export_checkpoint
    from checkpoints.training.train_configs import TRAIN_CONFIGS

    network = trained(here, "run", "python -m checkpoints.training.train resnet18-imagenette --data /home/me/photos", 2)
    export_checkpoint(TRAIN_CONFIGS["resnet18-imagenette"], here / "run", options())
    model = vizlib.load(here / "resnet18-imagenette.safetensors")
    images = torch.rand(2, 3, 192, 192)
    with torch.no_grad():
        assert torch.allclose(model.logits(images), network(images), atol=1e-2)
        assert not torch.equal(model.logits(images), network(images))  # half precision rounds
    assert model.labels[0] == "tench"
    assert model.preprocessing.input_size == (192, 192)
    assert model.ood_score is not None
    assert model.ood_score.threshold == 1.5


def test_sidecar_describes_the_actual_run_without_folders(here):
    from checkpoints.training.export import export_checkpoint
    from checkpoints.training.train_configs import TRAIN_CONFIGS

    config = TRAIN_CONFIGS["resnet18-imagenette"]
    trained(
        here,
        "run",
        "python -m checkpoints.training.train resnet18-imagenette --data /home/me/photos",
        2,
        mixup=0.7,
        clean_epochs=0,
    )
    export_checkpoint(config, here / "run", options(distill="deit_tiny_patch16_224.fb_in1k", note="stopped once"))
    sidecar = json.loads((here / "resnet18-imagenette.json").read_text())
    (stage,) = sidecar["origin"]["stages"]
    assert stage["command"] == "python -m checkpoints.training.train resnet18-imagenette --data photos"
    assert stage["start"] == "random initialisation"
    assert stage["teacher"] == "logits of deit_tiny_patch16_224.fb_in1k (apache-2.0)"
    assert "mixup 0.7" in stage["augmentation"]
    assert (stage["epochs"], stage["minutes"], stage["note"]) == (2, 60, "stopped once")
    assert sidecar["origin"]["machine"] == "40 cores of another machine"  # that trained it, and not this one
    assert sidecar["weaknesses"] == [*config.weaknesses, "A tench is taken for a horn."]
    assert {key: sidecar[key] for key in MEASURED} == MEASURED


def test_second_stage_keeps_the_first_and_repeated_export_adds_nothing(here):
    from checkpoints.training.export import export_checkpoint
    from checkpoints.training.train_configs import TRAIN_CONFIGS

    config = TRAIN_CONFIGS["resnet18-imagenette"]
    trained(here, "one", "python -m checkpoints.training.train a", 2)
    trained(here, "two", "python -m checkpoints.training.train b", 3)
    export_checkpoint(config, here / "one", options())
    for _ in range(2):
        export_checkpoint(config, here / "two", options(finetune="resnet18-imagenette.safetensors"))
    stages = json.loads((here / "resnet18-imagenette.json").read_text())["origin"]["stages"]
    assert [stage["command"][-1] for stage in stages] == ["a", "b"]
    assert stages[1]["start"] == "the weights of the stage before"
    with (here / "resnet18-imagenette.csv").open(newline="") as file:
        rows = [(int(row["stage"]), int(row["epoch"])) for row in csv.DictReader(file)]
    assert rows == [(1, 1), (1, 2), (2, 3), (2, 4), (2, 5)]
    trained(here, "new", "python -m checkpoints.training.train c", 1)
    export_checkpoint(config, here / "new", options())  # from random weights: a new first stage
    stages = json.loads((here / "resnet18-imagenette.json").read_text())["origin"]["stages"]
    assert [stage["command"][-1] for stage in stages] == ["c"]


def test_comparison_runs_export_only_histories(here, monkeypatch):
    from checkpoints.training.export import export_checkpoint
    from checkpoints.training.train_configs import TRAIN_CONFIGS

    names = ("resnet18-fine-tuned", "resnet18-from-scratch", "resnet18-frozen-backbone")
    for name in names:
        run = name.replace("resnet18", "resnet18-classic")
        trained(here, run, f"python -m checkpoints.training.train {name}", 2)
        export_checkpoint(TRAIN_CONFIGS["resnet18-classic"], here / run, options())
    assert not list(here.glob("**/*.safetensors"))
    monkeypatch.setattr(training_history, "BUNDLED_FOLDER", here)
    assert set(training_history.list_training_histories()) == set(names)
    texts = training_history.read_training_comparison()
    assert [row["label"] for row in texts["starts"].values()] == [
        "from scratch",
        "frozen backbone",
        "everything fine-tuned",
    ]
    assert (
        texts["starts"]["resnet18-fine-tuned"]["command"] == "python -m checkpoints.training.train resnet18-fine-tuned"
    )
    assert vizlib.training_history("resnet18-from-scratch")["val_top1"] == (60.0, 60.0)
