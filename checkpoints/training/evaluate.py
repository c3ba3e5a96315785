"""Evaluate a bundled network: accuracy, confusions, out-of-distribution threshold, faithfulness of its maps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image
from tqdm import tqdm

import vizlib
from checkpoints.training.imagenette import LABELS, PhotoDataset, load_photos, open_imagenette
from vizlib.metrics import centred_gaussian, deletion
from vizlib.models.inference.batched_inference import BatchedInference
from vizlib.models.ood import OOD_SCORES

COVERAGE = 0.95  # fraction of the validation photos whose score must reach the out-of-distribution threshold
FAITHFULNESS_PHOTOS = 200  # validation photos whose maps are tested
VALIDATION = "Imagenette validation photos"
OOD_DATA, OTHERS = "Imagenette's validation photos", "ImageNet photos of other classes"


def evaluate_accuracy(name: str, data: str | None) -> dict:
    """Return the top-1 accuracy of the bundled file on Imagenette's validation photos, with vizlib's preprocessing."""
    model, val = vizlib.load(name), _load_validation_photos(data)
    return summarize_accuracy(*_compute_logits_and_labels(model, val), VALIDATION)


def evaluate_checkpoint(name: str, data: str | None, other_photos: Path | None, method: str) -> dict:
    """Return everything that a sidecar states about a bundled file after training.

    Args:
        name: Name of the bundled network.
        data: Folder or archive of Imagenette; downloaded if None.
        other_photos: Folder of photos of other classes, on which the out-of-distribution scores are compared.
        method: Method whose maps are tested for faithfulness.

    Returns:
        The sections `accuracy`, `ood` and `faithfulness` of the sidecar, and `confusions`, a list of sentences.
    """
    model, val = vizlib.load(name), _load_validation_photos(data)
    logits, labels = _compute_logits_and_labels(model, val)
    others = [vizlib.open_image(path) for path in sorted(other_photos.iterdir())] if other_photos else []
    return {
        "accuracy": summarize_accuracy(logits, labels, VALIDATION),
        "ood": calibrate_ood_score(logits, OOD_DATA, compute_logits(model, others) if others else None, OTHERS),
        "faithfulness": evaluate_faithfulness(model, [photo for photo, _ in val.photos], method),
        "confusions": describe_confusions(logits, labels, list(LABELS.values())),
    }


def summarize_accuracy(logits: torch.Tensor, labels: torch.Tensor, data: str) -> dict:
    """Return the section `accuracy` of a sidecar.

    Args:
        logits: Logits "photos classes".
        labels: Class of each photo "photos".
        data: What the photos are.
    """
    correct = int((logits.argmax(1) == labels).sum())
    low, high = wilson_interval(correct, len(labels))
    accuracy = {
        "data": data,
        "photos": len(labels),
        "top1": round(100 * correct / len(labels), 2),
        "interval95": [round(100 * low, 2), round(100 * high, 2)],
    }
    print("accuracy", accuracy)
    return accuracy


def describe_confusions(logits: torch.Tensor, labels: torch.Tensor, names: list[str], count: int = 3) -> list[str]:
    """Return the most frequent confusions on the validation photos, one sentence each."""
    counts = torch.zeros(len(names), len(names))
    counts.index_put_((labels, logits.argmax(1)), torch.ones(len(labels)), accumulate=True)
    fractions = counts / counts.sum(1, keepdim=True)
    fractions.fill_diagonal_(0)
    indices = fractions.flatten().topk(count).indices.tolist()
    pairs = [divmod(index, len(names)) for index in indices]
    return [
        f"Of the validation photos of a {names[true]}, {100 * fractions[true, predicted]:.1f} % are classified as "
        f"a {names[predicted]}."
        for true, predicted in pairs
    ]


def calibrate_ood_score(
    validation: torch.Tensor, data: str, others: torch.Tensor | None = None, other_data: str = ""
) -> dict:
    """Return the section `ood` of a sidecar: a score of the logits, and the threshold below which a photo gets a note.

    The score is the one that detects most of the other photos.

    Args:
        validation: Logits "photos classes" of photos like those of the training.
        data: What these photos are.
        others: Logits of other photos, if there are any.
        other_data: What the other photos are.
    """
    rows = []
    for score, compute_score in OOD_SCORES.items():
        threshold = round(compute_score(validation).quantile(1 - COVERAGE).item(), 4)
        detected = (compute_score(others) < threshold).float().mean().item() if others is not None else 0.0
        rows.append({"score": score, "threshold": threshold, "detected": round(detected, 3)})
        print("ood", rows[-1])
    # The top probability is shown anyway.
    best = max((row for row in rows if row["score"] != "max-probability"), key=lambda row: row["detected"])
    section = {"score": best["score"], "threshold": best["threshold"], "coverage": COVERAGE, "data": data}
    if others is not None:
        section["other_photos"] = {"data": other_data, "photos": len(others), "flagged": best["detected"]}
    return section


def evaluate_faithfulness(model: vizlib.Model, photos: Sequence[Image.Image], method: str) -> dict:
    """Return the area under the deletion curve of a method's maps and of a centred Gaussian; lower is better.

    Args:
        model: The model.
        photos: At least two photos, of which at most `FAITHFULNESS_PHOTOS` are used, evenly spaced.
        method: The method.
    """
    if len(photos) < 2:
        raise ValueError(f"an interval needs at least 2 photos, not {len(photos)}")
    step = max(1, len(photos) // FAITHFULNESS_PHOTOS)
    gaussian, areas = centred_gaussian(model.preprocessing.input_size), []
    for photo in tqdm(photos[::step][:FAITHFULNESS_PHOTOS], method, leave=False):
        attribution = vizlib.explain(model, photo, method)
        baseline = replace(attribution, heat=gaussian)
        areas.append((deletion(model, attribution).auc, deletion(model, baseline).auc))
    map_areas, baseline_areas = torch.tensor(areas).T
    gain = baseline_areas - map_areas
    section = {
        "metric": "area under the deletion curve (RISE, 20 steps, to the mean colour), for the top class",
        "method": method,
        "photos": len(areas),
        "auc": round(map_areas.mean().item(), 4),
        "centred_gaussian": round(baseline_areas.mean().item(), 4),
        "gain": round(gain.mean().item(), 4),
        "gain_interval95": round(1.96 * gain.std().item() / math.sqrt(len(areas)), 4),
        "better_on": round((gain > 0).float().mean().item(), 3),
    }
    print(section)
    return section


def _load_validation_photos(data: str | None) -> PhotoDataset:
    with open_imagenette(data) as folder:
        return load_photos(folder, "val")


def _compute_logits_and_labels(model: vizlib.Model, val: PhotoDataset) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the logits "photos classes" of all photos, and their labels "photos"."""
    return compute_logits(model, [photo for photo, _ in val.photos]), torch.tensor([label for _, label in val.photos])


def compute_logits(model: vizlib.Model, photos: list[Image.Image]) -> torch.Tensor:
    """Return the logits "photos classes" of photos, with the model's own preprocessing."""
    inference = BatchedInference(model, use_folded_copy=False)  # the network itself, not its BatchNorm-folded copy
    parts = inference.split_batches(torch.arange(len(photos)), inference.batch_size())
    batches = (torch.cat([model.tensor(photos[i]) for i in part.tolist()]) for part in parts)
    return torch.cat([inference.logits(batch) for batch in tqdm(batches, model.name, len(parts), leave=False)])


def wilson_interval(successes: int, total: int, z: float = 1.96) -> tuple[float, float]:
    """Return the confidence interval of a proportion, from 0 to 1.

    References:
        E. B. Wilson: Probable Inference, the Law of Succession, and Statistical Inference, JASA 1927.
    """
    proportion = successes / total
    centre = (proportion + z * z / (2 * total)) / (1 + z * z / total)
    spread = math.sqrt(proportion * (1 - proportion) / total + z * z / (4 * total * total))
    half_width = z / (1 + z * z / total) * spread
    return max(0.0, centre - half_width), min(1.0, centre + half_width)  # rounding may leave the range
