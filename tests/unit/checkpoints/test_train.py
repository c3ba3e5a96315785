"""The training script: resuming, frozen and fine-tuned weights, options, transforms."""

from __future__ import annotations

import csv
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file

KILLED = """
import os, signal, sys
sys.path.insert(0, {folder!r})
import torch
from checkpoints.training import train
torch.set_num_threads(1)
steps, update, save = 0, train.ModelEmaV3.update, torch.save
def counted(*args, **kwargs):
    global steps
    steps += 1
    if steps == {step}:
        os.kill(os.getpid(), signal.SIGKILL)
    return update(*args, **kwargs)
def half(state, path):
    save(state, path)
    with open(path, "r+b") as file:
        file.truncate(1000)
    os.kill(os.getpid(), signal.SIGKILL)
train.ModelEmaV3.update = counted
if {saving}:
    torch.save = half
sys.argv = {argv!r}
train.main()
"""


def words(tiny: Path, runs: Path, *more: str, epochs: int = 3) -> list[str]:
    given = ["--data", str(tiny), "--runs", str(runs), "--epochs", str(epochs), "--batch", "20"]
    return ["train.py", "resnet18-classic", *given, *more]


def run(monkeypatch, argv: list[str]) -> None:
    from checkpoints.training import train

    monkeypatch.setattr(sys, "argv", argv)
    train.main()


def killed(argv: list[str], *, step: int = 0, saving: bool = False) -> None:
    """Train in another process that is killed at a step, or while it writes its state."""
    folder = str(Path(__file__).resolve().parents[3])
    code = KILLED.format(folder=folder, step=step, saving=saving, argv=argv)
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == -9


def state_of(runs: Path, how: str = "from-scratch") -> dict:
    return torch.load(runs / f"resnet18-classic-{how}" / "last.pt", weights_only=True)


def without_seconds(history: list[dict]) -> list[dict]:
    """Return a history without durations, which differ between runs."""
    return [{key: value for key, value in row.items() if key != "seconds"} for row in history]


@pytest.fixture(scope="module")
def backbone(tmp_path_factory) -> Path:
    """The weights of somebody's ResNet-18 for another five classes."""
    torch.manual_seed(7)
    path = tmp_path_factory.mktemp("backbone") / "theirs.safetensors"
    save_file(timm.create_model("resnet18", num_classes=5).state_dict(), path)
    return path


@pytest.mark.slow
def test_killed_run_resumes_to_the_same_result(tiny, tmp_path, monkeypatch):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    run(monkeypatch, words(tiny, whole, epochs=2))
    killed(words(tiny, broken, epochs=2), step=2)  # in the first epoch: nothing was written yet
    assert not list(broken.glob("*/last.pt"))
    killed(words(tiny, broken, epochs=2), step=4 + 3)  # in the second
    assert len(state_of(broken)["history"]) == 1
    killed(words(tiny, broken, epochs=2), saving=True)  # while the second is written
    assert len(state_of(broken)["history"]) == 1
    run(monkeypatch, words(tiny, broken, epochs=2))
    once, again = state_of(whole), state_of(broken)
    assert [row["epoch"] for row in again["history"]] == [1, 2]
    assert without_seconds(again["history"]) == without_seconds(once["history"])
    for part in ("trained", "average"):
        assert all(torch.equal(once[part][key], again[part][key]) for key in once[part])
    with (broken / "resnet18-classic-from-scratch" / "history.csv").open(newline="") as file:
        assert [int(row["epoch"]) for row in csv.DictReader(file)] == [1, 2]


@pytest.mark.slow
def test_finished_run_does_not_train_again(tiny, tmp_path, monkeypatch):
    run(monkeypatch, words(tiny, tmp_path, epochs=1))
    before = state_of(tmp_path)
    run(monkeypatch, words(tiny, tmp_path, epochs=1))
    assert state_of(tmp_path)["history"] == before["history"]


@pytest.mark.slow
def test_run_is_not_resumed_with_other_settings(tiny, tmp_path, monkeypatch):
    run(monkeypatch, words(tiny, tmp_path, epochs=1))
    with pytest.raises(SystemExit, match=r"was started with epochs=1, not 2; pass another --runs or delete it"):
        run(monkeypatch, words(tiny, tmp_path, epochs=2))
    with pytest.raises(SystemExit, match=r"was started with seed=0, not 5"):
        run(monkeypatch, words(tiny, tmp_path, "--seed", "5", epochs=1))


@pytest.mark.slow
def test_training_learns_a_simple_task(tiny, tmp_path, monkeypatch):
    run(monkeypatch, words(tiny, tmp_path, epochs=5))
    history = state_of(tmp_path)["history"]
    assert history[-1]["train_top1"] > 60 > 30 > history[0]["train_top1"]
    assert history[-1]["train_loss"] < history[0]["train_loss"]


@pytest.mark.slow
def test_frozen_backbone_is_unchanged_and_the_head_learns(tiny, tmp_path, monkeypatch, backbone):
    from safetensors.torch import load_file

    run(monkeypatch, words(tiny, tmp_path, "--finetune", str(backbone), "--freeze-backbone", epochs=1))
    theirs = load_file(backbone)
    after = {key.removeprefix("0."): v for key, v in state_of(tmp_path, "frozen-backbone")["trained"].items()}
    assert after.keys() == theirs.keys()
    for key, value in theirs.items():  # the statistics of BatchNorm are part of the backbone
        if not key.startswith("fc."):
            assert torch.equal(after[key], value), key
    torch.manual_seed(0)  # the head's first weights
    module: Any = timm.create_model("resnet18", num_classes=10)
    first = module.fc.weight
    assert after["fc.weight"].shape == (10, 512)
    assert not torch.equal(after["fc.weight"], first)


@pytest.mark.slow
def test_fine_tuning_changes_all_kernels_and_statistics(tiny, tmp_path, monkeypatch, backbone):
    from safetensors.torch import load_file

    run(monkeypatch, words(tiny, tmp_path, "--finetune", str(backbone), "--restore-batchnorm", epochs=1))
    theirs = load_file(backbone)
    after = {key.removeprefix("0."): v for key, v in state_of(tmp_path, "fine-tuned")["trained"].items()}
    kernels = [key for key in theirs if theirs[key].ndim == 4]
    assert len(kernels) == 20
    assert not [key for key in kernels if torch.equal(after[key], theirs[key])]
    statistics = [key for key in theirs if key.endswith("running_mean")]
    assert len(statistics) == 20
    assert not [key for key in statistics if torch.equal(after[key], theirs[key])]


def test_options_are_checked_before_loading(tiny, tmp_path, monkeypatch, capsys, backbone):
    with pytest.raises(SystemExit) as caught:
        run(monkeypatch, words(tiny, tmp_path, "--freeze-backbone"))
    assert caught.value.code == 2
    assert "needs --finetune WEIGHTS" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run(monkeypatch, words(tiny, tmp_path, "--from-scratch", "--finetune", str(backbone)))
    other = tmp_path / "other.safetensors"
    save_file(timm.create_model("test_vit", num_classes=5).state_dict(), other)
    with pytest.raises(SystemExit, match=r"other.safetensors has no \S+ that fits resnet18"):
        run(monkeypatch, words(tiny, tmp_path, "--finetune", str(other)))


def test_described_augmentation_matches_the_transform():
    from checkpoints.training.train_configs import TRAIN_CONFIGS, create_train_transform, describe_augmentation

    for config in TRAIN_CONFIGS.values():
        listed, names = describe_augmentation(config), repr(create_train_transform(config, 64, clean=False))
        assert "RandomResizedCropAndInterpolation" in names
        assert f"scale=({config.scale[0]}, {config.scale[1]})" in names
        assert "RandomHorizontalFlip" in names
        assert "ColorJitter" not in names
        assert ("RandomErasing" in names) == bool(config.erasing) == any("erasing" in line for line in listed)
        assert "RandomErasing" not in repr(create_train_transform(config, 64, clean=True))
        assert any("mixup" in line for line in listed) == bool(config.mixup)
        assert set(asdict(config)) >= {"bundled", "evaluation_method", "weaknesses"}


def test_position_embedding_is_resampled_as_timm_does():
    from checkpoints.training.train_configs import resample_position_embedding

    small = timm.create_model("test_vit", num_classes=10, img_size=96, dynamic_img_size=True).eval()
    large: Any = timm.create_model("test_vit", num_classes=10, img_size=160).eval()
    weights = resample_position_embedding(small.state_dict(), large)
    large.load_state_dict(weights)
    images = torch.rand(1, 3, 160, 160)
    with torch.no_grad():
        assert torch.allclose(large(images), small(images), atol=1e-5)
    assert weights["pos_embed"].shape != small.pos_embed.shape
    assert resample_position_embedding(large.state_dict(), large)["pos_embed"].equal(large.pos_embed)
    resnet = timm.create_model("resnet18", num_classes=10)
    assert resample_position_embedding(resnet.state_dict(), resnet).keys() == resnet.state_dict().keys()


def test_train_size_grows_in_steps_of_32_pixels():
    from checkpoints.training.train_configs import TRAIN_CONFIGS, compute_train_size

    config = TRAIN_CONFIGS["resnet18-imagenette"]
    sizes = [compute_train_size(config, epoch, 24) for epoch in range(24)]
    assert sizes[0] == config.sizes[0]
    assert sizes[-config.clean_epochs :] == [config.clean_size] * config.clean_epochs
    assert sizes[: -config.clean_epochs] == sorted(sizes[: -config.clean_epochs])
    assert not [size for size in sizes if size % 32]


def test_strip_local_paths_removes_folders():
    from checkpoints.training.export import strip_local_paths

    start = "python -m checkpoints.training.train vit"
    command = f"{start} --data /home/me/data --runs /tmp/r --finetune checkpoints/vit.safetensors"
    expected = "python -m checkpoints.training.train vit --data data --finetune checkpoints/vit.safetensors"
    assert strip_local_paths(command) == expected
