"""Put a trained network into this folder, with all that is known and measured of it; measure it again later."""

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
COMPARISON = CHECKPOINTS / "comparison"


def export_checkpoint(recipe: TrainConfig, run: Path, options: argparse.Namespace) -> None:
    """Write the averaged weights in half precision, the history, and the sidecar with what that very file does.

    Of a recipe whose weights do not ship, only the history is written.
    """
    state = torch.load(run / "last.pt", weights_only=True, map_location="cpu")
    command, history = strip_local_paths(state["command"]), state["history"]
    if not recipe.bundled:
        export_comparison_run(run.name.replace("-classic", ""), history, command)
        return
    finished = ("size", "arguments")  # what the table says of the network to ship; it may have learned at another size
    ran = {key: value for key, value in state["settings"].items() if hasattr(recipe, key) and key not in finished}
    recipe = replace(recipe, **ran)  # as it was when it ran, whatever the options or the table say by now
    missed = recipe.epochs - len(history)  # of a run that was stopped: its last epochs are those without mixing
    recipe = replace(recipe, clean=max(recipe.clean_epochs - missed, 0))
    weights = CHECKPOINTS / f"{options.name}.safetensors"
    ships = timm.create_model(recipe.architecture, num_classes=len(LABELS), **recipe.arguments)
    average = resample_position_embedding(state["average"], ships)
    average = {key: value.half() if value.is_floating_point() else value for key, value in average.items()}
    path = CHECKPOINTS / f"{options.name}.json"
    # A network that went on from the file that was here keeps the story of its first stages.
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
        "augmentation": describe_augmentation(recipe),
        "epochs": len(history),
        "minutes": round(sum(row["seconds"] for row in history) / 60),
        "note": options.note,
    }
    stages.append(stage)
    rows = [{"stage": len(stages), **row, "epoch": first + row["epoch"]} for row in history]
    write_history(CHECKPOINTS / f"{options.name}.csv", [*earlier, *rows])
    save_file({key: value.contiguous() for key, value in average.items()}, weights)
    sidecar = {
        "architecture": recipe.architecture,
        "arguments": recipe.arguments,
        "labels": list(LABELS.values()),
        "preprocessing": {
            "input_size": [3, recipe.size, recipe.size],
            "interpolation": recipe.interpolation,
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
        "weaknesses": list(recipe.weaknesses),
    }
    path.write_text(json.dumps(sidecar, indent=1) + "\n")
    found = evaluate_checkpoint(options.name, options.data, options.elsewhere, recipe.evaluation_method)
    sidecar["weaknesses"] += found.pop("confusions")
    sidecar |= found
    path.write_text(json.dumps(sidecar, indent=1) + "\n")


def strip_local_paths(command: str) -> str:
    """The command without this machine's folders: files keep their names, and where runs are kept is left out."""
    words = shlex.split(command)
    if "--runs" in words:
        at = words.index("--runs")
        words[at : at + 2] = []
    return shlex.join(word if word.startswith("checkpoints/") else Path(word).name for word in words)


def describe_teacher(options: argparse.Namespace) -> str | None:
    """Who taught, what, and under which licence its weights are."""
    if not options.distill:
        return None
    known = timm.get_pretrained_cfg(options.distill)
    licence = known.license if known and known.license else "licence unknown"
    return f"{' and '.join(options.distill_on)} of {options.distill} ({licence})"


def export_comparison_run(name: str, history: list[dict], command: str) -> None:
    """Add one start to the classic comparison: its history, and in `comparison.json` how it was made."""
    COMPARISON.mkdir(exist_ok=True)
    write_history(COMPARISON / f"{name}.csv", history)
    path = COMPARISON / "comparison.json"
    before = json.loads(path.read_text())["starts"] if path.exists() else {}
    how = name.partition("-")[2]
    starts = {**before, name: {"label": START_LABELS[how], "command": command}}
    told = {"starts": dict(sorted(starts.items(), key=lambda start: [*START_LABELS].index(start[0].partition("-")[2])))}
    path.write_text(json.dumps({**COMPARISON_TEXTS, **told}, indent=1) + "\n")


def _read_history(path: Path) -> list[dict]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def write_history(path: Path, history: list[dict]) -> None:
    """One row an epoch."""
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, history[0])
        table.writeheader()
        table.writerows(history)
