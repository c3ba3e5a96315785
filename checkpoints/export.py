"""Put a trained network into this folder, with all that is known and measured of it; measure it again later."""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import math
import os
import platform
import shlex
from dataclasses import replace
from pathlib import Path

import torch
from imagenette import LABELS, MEAN, STD, Photos, imagenette, photos
from recipes import Recipe, augmentation
from safetensors.torch import save_file
from tqdm import tqdm

HERE = Path(__file__).resolve().parent
COMPARISON = HERE / "comparison"
KEPT = 0.95  # of the validation photos must count as familiar
DELETIONS = 200  # photos on which the maps are tested


def export(recipe: Recipe, run: Path, options: argparse.Namespace) -> None:
    """Write the averaged weights in half precision, the history, and the sidecar with what that very file does.

    Of a recipe whose weights do not ship, only the history is written.
    """
    state = torch.load(run / "last.pt", weights_only=True, map_location="cpu")
    command, history = shareable(state["command"]), state["history"]
    if not recipe.ships:
        COMPARISON.mkdir(exist_ok=True)
        write_history(COMPARISON / f"{run.name.replace('-classic', '')}.csv", history)
        print(command)
        return
    weights = HERE / f"{options.name}.safetensors"
    average = {key: value.half() if value.is_floating_point() else value for key, value in state["average"].items()}
    path = HERE / f"{options.name}.json"
    # A network that went on from the file that was here keeps the story of its first stages.
    stages = json.loads(path.read_text())["origin"]["stages"] if options.finetune else []
    stages = [stage for stage in stages if stage["command"] != command]
    earlier = [row for row in _rows(HERE / f"{options.name}.csv") if int(row["stage"]) <= len(stages)] if stages else []
    first = len(earlier)
    stage = {
        "command": command,
        "start": "the weights of the stage before" if stages else "random initialisation",
        "teacher": f"{' and '.join(options.distill_on)} of {options.distill} (Apache-2.0)" if options.distill else None,
        "augmentation": augmentation(recipe),
        "epochs": len(history),
        "hours": round(sum(row["seconds"] for row in history) / 3600, 1),
        "note": options.note,
    }
    stages.append(stage)
    rows = [{"stage": len(stages), **row, "epoch": first + row["epoch"]} for row in history]
    write_history(HERE / f"{options.name}.csv", [*earlier, *rows])
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
        "sha256": sha256(weights),
        "origin": {
            "data": "Imagenette, 160 px (fastai), ten classes of ImageNet",
            "data_licence": "ImageNet's terms: research and education",
            "channel_order": "RGB",
            "stages": stages,
            "machine": f"{os.cpu_count()} cores of {platform.machine()}, PyTorch {torch.__version__}",
        },
        "weaknesses": list(recipe.weaknesses),
    }
    path.write_text(json.dumps(sidecar, indent=1) + "\n")
    sidecar |= measured(options.name, options.data, options.elsewhere, recipe.explained_by)
    path.write_text(json.dumps(sidecar, indent=1) + "\n")


def shareable(command: str) -> str:
    """The command without this machine's folders: files keep their names, and where runs are kept is left out."""
    words = shlex.split(command)
    if "--runs" in words:
        at = words.index("--runs")
        words[at : at + 2] = []
    return shlex.join(word if word.startswith("checkpoints/") else Path(word).name for word in words)


def evaluate(name: str, data: str | None) -> dict:
    """Top-1 accuracy of the shipped file on Imagenette's validation photos, as vizlib loads and shows them."""
    import vizlib

    model, val = vizlib.load(name), _val(data)
    logits, labels = (
        _logits(model, [photo for photo, _ in val.photos]),
        torch.tensor([label for _, label in val.photos]),
    )
    return _accuracy(name, logits, labels)


def measured(name: str, data: str | None, elsewhere: Path | None, method: str) -> dict:
    """What the shipped file does: its accuracy, how low a familiar photo may score, how far its maps can be trusted."""
    import vizlib

    model, val = vizlib.load(name), _val(data)
    logits, labels = (
        _logits(model, [photo for photo, _ in val.photos]),
        torch.tensor([label for _, label in val.photos]),
    )
    others = [vizlib.open_image(path) for path in sorted(elsewhere.iterdir())] if elsewhere else []
    return {
        "accuracy": _accuracy(name, logits, labels),
        "familiarity": _familiarity(logits, _logits(model, others) if others else None),
        "faithfulness": _faithfulness(model, val, method),
    }


def _accuracy(name: str, logits: torch.Tensor, labels: torch.Tensor) -> dict:
    right = (logits.argmax(1) == labels).sum().item()
    low, high = wilson(right, len(labels))
    found = {
        "data": "Imagenette validation photos",
        "photos": len(labels),
        "top1": round(100 * right / len(labels), 2),
        "interval95": [round(100 * low, 2), round(100 * high, 2)],
    }
    print(name, found)
    return found


def _familiarity(known: torch.Tensor, others: torch.Tensor | None) -> dict:
    """The score that tells photos of other things best, its threshold, and how many of them it notices."""
    from vizlib.familiarity import SCORES

    rows = []
    for score, of in SCORES.items():
        threshold = round(of(known).quantile(1 - KEPT).item(), 4)
        noticed = (of(others) < threshold).float().mean().item() if others is not None else 0.0
        rows.append({"score": score, "threshold": threshold, "noticed": round(noticed, 3)})
        print("familiarity", rows[-1])
    best = max(rows[:2], key=lambda row: row["noticed"])  # a probability says nothing that the bars do not
    content = {"score": best["score"], "threshold": best["threshold"], "kept": KEPT}
    content["data"] = "Imagenette's validation photos"
    if others is not None:
        content["elsewhere"] = {"data": "ImageNet photos of other classes", "photos": len(others)}
        content["elsewhere"]["flagged"] = best["noticed"]
    return content


def _faithfulness(model, val: Photos, method: str) -> dict:
    """The area under the deletion curve of a method's maps, and of a Gaussian in the middle: the lower, the better."""
    import vizlib
    from vizlib.metrics import centred_gaussian, deletion

    middle, areas = centred_gaussian(model.preprocessing.input_size), []
    for photo, _ in tqdm(val.photos[:: len(val) // DELETIONS][:DELETIONS], f"deletion, {method}", leave=False):
        why = vizlib.explain(model, photo, method)
        areas.append((deletion(model, why).auc, deletion(model, replace(why, heat=middle)).auc))
    found, blind = torch.tensor(areas).T
    gain = blind - found
    content = {
        "metric": "area under the deletion curve (RISE, 20 steps, to the mean colour), for the top class",
        "method": method,
        "photos": len(areas),
        "auc": round(found.mean().item(), 4),
        "centred_gaussian": round(blind.mean().item(), 4),
        "gain": round(gain.mean().item(), 4),
        "gain_interval95": round(1.96 * gain.std().item() / math.sqrt(len(areas)), 4),
        "better_on": round((gain > 0).float().mean().item(), 3),
    }
    print(content)
    return content


def _val(data: str | None) -> Photos:
    with imagenette(data) as folder:
        return photos(folder, "val")


def _answers(model, val: Photos) -> tuple[torch.Tensor, torch.Tensor]:
    """The logits of all photos, and their labels."""
    return _logits(model, [photo for photo, _ in val.photos]), torch.tensor([label for _, label in val.photos])


def _logits(model, pictures: list) -> torch.Tensor:
    parts = [pictures[at : at + 64] for at in range(0, len(pictures), 64)]
    return torch.cat(
        [
            model.logits(torch.cat([model.tensor(photo) for photo in part]))
            for part in tqdm(parts, model.name, leave=False)
        ]
    )


def sha256(path: Path) -> str:
    """The file's SHA-256 as 64 hexadecimal digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def wilson(right: int, total: int, z: float = 1.96) -> tuple[float, float]:
    """The 95 % confidence interval of a share (Wilson 1927)."""
    share = right / total
    middle = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    return middle - half, middle + half


def _rows(path: Path) -> list[dict]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def write_history(path: Path, history: list[dict]) -> None:
    """One row an epoch."""
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, history[0])
        table.writeheader()
        table.writerows(history)
