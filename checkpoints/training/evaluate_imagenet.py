"""Evaluate a network with ImageNet's 1,000 classes beside its teacher, on photos that it was not trained on."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

import vizlib
from checkpoints.training.calibration import evaluate_calibration
from checkpoints.training.evaluate import compute_logits, wilson_interval
from vizlib.core.imagenet_groups import index_groups

PARTS = ("all", "choice", "report")
CHOICE_STEP = 5  # every fifth labelled photo is for choosing settings, the others are for reporting
RESAMPLES = 2000  # of the bootstrap
MIN_GROUP_PHOTOS = 20  # of a group of classes whose accuracy is stated

Photos = tuple[list[Image.Image], Tensor]
Boxes = Sequence[Sequence[float]]  # x0, y0, x1, y1 in pixels of the photo


def load_labelled_photos(data: Path, part: str = "all") -> Photos:
    """Return the photos of `photos_labelled.zip` and their classes "photos", from 0 to 999.

    Args:
        data: Folder that holds the archive.
        part: `choice`: every fifth photo, for choosing settings; `report`: the others; or `all`.
    """
    with zipfile.ZipFile(data / "photos_labelled.zip") as archive:
        rows = list(csv.DictReader(io.StringIO(archive.read("labels.csv").decode())))
        rows = [row for index, row in enumerate(rows) if part in ("all", _name_part(index))]
        photos = [vizlib.open_image(archive.read(row["file"])) for row in rows]
    return photos, torch.tensor([int(row["label"]) for row in rows])


def _name_part(index: int) -> str:
    return "report" if index % CHOICE_STEP else "choice"


def load_boxed_photos(data: Path) -> Photos:
    """Return the 260 photos of ImageNet's validation set that have boxes, and their classes "photos"."""
    rows = load_photos_with_boxes(data)
    return [photo for photo, _, _ in rows], torch.tensor([label for _, label, _ in rows])


def load_photos_with_boxes(data: Path) -> list[tuple[Image.Image, int, Boxes]]:
    """Return the same photos, each with its class and boxes."""
    folder = data / "imagenet_val_boxes"
    entries = json.loads((folder / "boxes.json").read_text())
    return [(vizlib.open_image(folder / "images" / row["file"]), row["label"], row["boxes"]) for row in entries]


def evaluate_beside_teacher(student: vizlib.Model, teacher: vizlib.Model, photos: Photos) -> dict:
    """Return the accuracies of a network and of its teacher on the same photos.

    Returns:
        `photos`, and `top1` and `top5`: each with the percentages `student` and `teacher`, their 95 % intervals
        (Wilson), the `ratio` of the two and its 95 % interval (bootstrap over photos); `agreement`: percentage of
        photos with the same top class; `calibration`: those of both networks.
    """
    images, labels = photos
    logits = {name: compute_logits(model, images) for name, model in (("student", student), ("teacher", teacher))}
    top = {name: value.argmax(-1) for name, value in logits.items()}
    agreement = (top["student"] == top["teacher"]).float().mean().item()
    result: dict = {"photos": len(labels), "agreement": round(100 * agreement, 2)}
    for count in (1, 5):
        correct = {name: find_correct(value, labels, count) for name, value in logits.items()}
        result[f"top{count}"] = {
            **{name: _summarize_proportion(value) for name, value in correct.items()},
            "ratio": round((correct["student"].sum() / correct["teacher"].sum()).item(), 3),
            "ratio_interval95": bootstrap_ratio(correct["student"], correct["teacher"]),
        }
    result["calibration"] = {name: evaluate_calibration(value, labels) for name, value in logits.items()}
    return result


def describe_weak_groups(logits: Tensor, labels: Tensor, count: int = 3) -> list[str]:
    """Return the groups of similar classes in which most photos are classified wrongly, one sentence each.

    Args:
        logits: Logits "photos 1000".
        labels: Classes "photos".
        count: Number of groups; those with fewer than `MIN_GROUP_PHOTOS` photos are left out.
    """
    groups = index_groups()
    rows = []
    for group in sorted(set(groups)):
        chosen = torch.tensor([groups[label] == group for label in labels.tolist()])
        if chosen.sum() < MIN_GROUP_PHOTOS:
            continue
        predicted = logits[chosen].argmax(-1)
        same_group = torch.tensor([groups[index] == group for index in predicted.tolist()])
        correct = (predicted == labels[chosen]).float().mean().item()
        rows.append((correct, same_group.float().mean().item(), int(chosen.sum()), group[-1]))
    return [
        f"Of {photos} photos of the group {name}, {100 * correct:.0f} % are classified correctly, and "
        f"{100 * same_group:.0f} % as a class of this group."
        for correct, same_group, photos, name in sorted(rows)[:count]
    ]


def find_correct(logits: Tensor, labels: Tensor, count: int) -> Tensor:
    """Return for each photo whether its class is among the `count` classes with the highest logits."""
    return (logits.topk(count).indices == labels[:, None]).any(-1)


def _summarize_proportion(correct: Tensor) -> dict:
    low, high = wilson_interval(int(correct.sum()), len(correct))
    return {
        "percent": round(100 * correct.float().mean().item(), 2),
        "interval95": [round(100 * low, 2), round(100 * high, 2)],
    }


def bootstrap_ratio(correct: Tensor, reference: Tensor, seed: int = 0) -> list[float]:
    """Return the 95 % interval of the ratio of two accuracies on the same photos, which are drawn with replacement.

    Args:
        correct: Whether each photo is classified correctly by the network.
        reference: The same by the network it is compared with.
        seed: Of the draws.

    References:
        B. Efron: Bootstrap Methods: Another Look at the Jackknife, Annals of Statistics 1979.
    """
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(len(correct), (RESAMPLES, len(correct)), generator=generator)
    ratios = correct.double()[drawn].mean(1) / reference.double()[drawn].mean(1)
    return [round(value, 3) for value in ratios.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()]


def format_table(results: Sequence[tuple[str, dict]]) -> str:
    """Return the accuracies of several sets of photos as a table in Markdown, the teacher beside the student."""
    lines = [
        "| photos | | student, % | teacher, % | student / teacher | same top class, % |",
        "|---|---|---|---|---|---|",
    ]
    for name, result in results:
        for key in ("top1", "top5"):
            row = result[key]
            cells = [
                f"{row[who]['percent']} ({_format_interval(row[who]['interval95'])})" for who in ("student", "teacher")
            ]
            ratio = f"{row['ratio']} ({_format_interval(row['ratio_interval95'])})"
            agreement = result["agreement"] if key == "top1" else ""
            lines.append(f"| {result['photos']} {name} | {key} | {cells[0]} | {cells[1]} | {ratio} | {agreement} |")
    return "\n".join(lines)


def _format_interval(interval: Sequence[float]) -> str:
    return f"{interval[0]} to {interval[1]}"
