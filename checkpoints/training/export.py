"""Export a trained network to the folder of bundled checkpoints: weights, training history and sidecar."""

from __future__ import annotations

import argparse
import csv
import json
import shlex
from dataclasses import replace
from pathlib import Path

import timm
import torch
from safetensors.torch import save_file

from checkpoints.training.evaluate import evaluate_checkpoint
from checkpoints.training.imagenette import LABELS, MEAN, STD
from checkpoints.training.train_configs import (
    COMPARISON_TEXTS,
    START_LABELS,
    TrainConfig,
    describe_augmentation,
    resample_position_embedding,
)
from vizlib.models.loading.checkpoint_files import hash_file

CHECKPOINTS = Path(__file__).resolve().parent.parent  # the folder of the bundled networks
COMPARISON = CHECKPOINTS / "comparison"  # histories of the runs of `resnet18-classic`


def export_checkpoint(config: TrainConfig, run: Path, options: argparse.Namespace) -> None:
    """Write the averaged weights in half precision, the history, and the sidecar with the evaluation of that file.

    Of a configuration whose weights are not bundled, only the history is written.

    Args:
        config: The training configuration.
        run: Folder of the run, which holds `last.pt`.
        options: Options of the training script.
    """
    state = torch.load(run / "last.pt", weights_only=True, map_location="cpu")
    command, history = strip_local_paths(state["command"]), state["history"]
    if not config.bundled:
        export_comparison_run(run.name.replace("-classic", ""), history, command)
        return
    exported = ("size", "arguments")  # of the exported network, which may have been trained at another size
    ran = {key: value for key, value in state["settings"].items() if hasattr(config, key) and key not in exported}
    config = replace(config, **ran)  # as in the run, whatever the options or the table say now
    missing = config.epochs - len(history)  # of a stopped run, which has fewer epochs without mixing
    config = replace(config, clean_epochs=max(config.clean_epochs - missing, 0))
    weights = CHECKPOINTS / f"{options.name}.safetensors"
    network = timm.create_model(config.architecture, num_classes=len(LABELS), **config.arguments)
    average = resample_position_embedding(state["average"], network)
    average = {key: value.half() if value.is_floating_point() else value for key, value in average.items()}
    path = CHECKPOINTS / f"{options.name}.json"
    # A network that was fine-tuned from the previous export keeps the description of its first stages.
    stages = json.loads(path.read_text())["origin"]["stages"] if options.finetune else []
    stages = [stage for stage in stages if stage["command"] != command]
    earlier = (
        [row for row in _read_history(CHECKPOINTS / f"{options.name}.csv") if int(row["stage"]) <= len(stages)]
        if stages
        else []
    )
    first = len(earlier)
    stage = {
        "command": command,
        "start": "the weights of the stage before" if stages else "random initialisation",
        "teacher": describe_teacher(options),
        "augmentation": describe_augmentation(config),
        "epochs": len(history),
        "minutes": round(sum(row["seconds"] for row in history) / 60),
        "note": options.note,
    }
    stages.append(stage)
    rows = [{"stage": len(stages), **row, "epoch": first + row["epoch"]} for row in history]
    write_history(CHECKPOINTS / f"{options.name}.csv", [*earlier, *rows])
    save_file({key: value.contiguous() for key, value in average.items()}, weights)
    sidecar = {
        "architecture": config.architecture,
        "arguments": config.arguments,
        "labels": list(LABELS.values()),
        "preprocessing": {
            "input_size": [3, config.size, config.size],
            "interpolation": config.interpolation,
            "crop_pct": 1.0,
            "crop_mode": "center",
            "mean": MEAN,
            "std": STD,
        },
        "sha256": hash_file(weights),
        "origin": {
            "data": "Imagenette, 160 px (fastai), ten classes of ImageNet",
            "data_licence": "ImageNet's terms: research and education",
            "channel_order": "RGB",
            "stages": stages,
            "machine": state["machine"],
        },
        "weaknesses": list(config.weaknesses),
    }
    path.write_text(json.dumps(sidecar, indent=1) + "\n")
    evaluation = evaluate_checkpoint(options.name, options.data, options.other_photos, config.evaluation_method)
    sidecar["weaknesses"] += evaluation.pop("confusions")
    sidecar |= evaluation
    path.write_text(json.dumps(sidecar, indent=1) + "\n")


def strip_local_paths(command: str) -> str:
    """Return the command without local folders: files keep their names, and `--runs` is removed."""
    words = shlex.split(command)
    if "--runs" in words:
        index = words.index("--runs")
        words[index : index + 2] = []
    return shlex.join(word if word.startswith("checkpoints/") else Path(word).name for word in words)


def describe_teacher(options: argparse.Namespace) -> str | None:
    """Return what was learned from which teacher, and the licence of its weights; None without a teacher."""
    if not options.distill:
        return None
    config = timm.get_pretrained_cfg(options.distill)
    licence = config.license if config and config.license else "licence unknown"
    return f"{' and '.join(options.distill_on)} of {options.distill} ({licence})"


def export_comparison_run(name: str, history: list[dict], command: str) -> None:
    """Add one run to the comparison: its history, and its command to `comparison.json`."""
    COMPARISON.mkdir(exist_ok=True)
    write_history(COMPARISON / f"{name}.csv", history)
    path = COMPARISON / "comparison.json"
    before = json.loads(path.read_text())["starts"] if path.exists() else {}
    start = name.partition("-")[2]
    starts = {**before, name: {"label": START_LABELS[start], "command": command}}
    order = [*START_LABELS]
    starts = dict(sorted(starts.items(), key=lambda item: order.index(item[0].partition("-")[2])))
    path.write_text(json.dumps({**COMPARISON_TEXTS, "starts": starts}, indent=1) + "\n")


def _read_history(path: Path) -> list[dict]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def write_history(path: Path, history: list[dict]) -> None:
    """Write a training history as CSV, one row per epoch."""
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, history[0])
        table.writeheader()
        table.writerows(history)
