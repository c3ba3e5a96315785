"""What a network in this folder does: how often it is right, what is foreign to it, how far its maps can be trusted."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import torch
from tqdm import tqdm

import vizlib
from checkpoints.training.imagenette import LABELS, PhotoDataset, load_photos, open_imagenette
from vizlib.metrics.faithfulness import centred_gaussian, deletion
from vizlib.models.inference.batched_inference import BatchedInference
from vizlib.models.ood import OOD_SCORES

CALIBRATION_QUANTILE = 0.95  # of the validation photos must count as familiar
FAITHFULNESS_PHOTOS = 200  # photos on which the maps are tested


def evaluate_accuracy(name: str, data: str | None) -> dict:
    """Top-1 accuracy of the shipped file on Imagenette's validation photos, as vizlib loads and shows them."""
    model, val = vizlib.load(name), _load_validation_photos(data)
    return _summarize_accuracy(name, *_compute_logits_and_labels(model, val))


def evaluate_checkpoint(name: str, data: str | None, elsewhere: Path | None, method: str) -> dict:
    """What the shipped file does: its accuracy, how low a familiar photo may score, how far its maps can be trusted."""
    model, val = vizlib.load(name), _load_validation_photos(data)
    logits, labels = _compute_logits_and_labels(model, val)
    others = [vizlib.open_image(path) for path in sorted(elsewhere.iterdir())] if elsewhere else []
    return {
        "accuracy": _summarize_accuracy(name, logits, labels),
        "ood": _calibrate_ood_score(logits, _compute_logits(model, others) if others else None),
        "faithfulness": _evaluate_faithfulness(model, val, method),
        "confusions": _describe_confusions(logits, labels),
    }


def _summarize_accuracy(name: str, logits: torch.Tensor, labels: torch.Tensor) -> dict:
    right = (logits.argmax(1) == labels).sum().item()
    low, high = wilson_interval(right, len(labels))
    found = {
        "data": "Imagenette validation photos",
        "photos": len(labels),
        "top1": round(100 * right / len(labels), 2),
        "interval95": [round(100 * low, 2), round(100 * high, 2)],
    }
    print(name, found)
    return found


def _describe_confusions(logits: torch.Tensor, labels: torch.Tensor, most: int = 3) -> list[str]:
    """The commonest mistakes on the validation photos, a sentence each."""
    names, counts = list(LABELS.values()), torch.zeros(len(LABELS), len(LABELS))
    counts.index_put_((labels, logits.argmax(1)), torch.ones(len(labels)), accumulate=True)
    shares = counts / counts.sum(1, keepdim=True)
    shares.fill_diagonal_(0)
    worst = shares.flatten().topk(most).indices.tolist()
    pairs = [divmod(place, len(names)) for place in worst]
    return [
        f"Of the validation photos of a {names[was]}, {100 * shares[was, said]:.1f} % are taken for a {names[said]}."
        for was, said in pairs
    ]


def _calibrate_ood_score(known: torch.Tensor, others: torch.Tensor | None) -> dict:
    """The score that tells photos of other things best, its threshold, and how many of them it notices."""
    rows = []
    for score, of in OOD_SCORES.items():
        threshold = round(of(known).quantile(1 - CALIBRATION_QUANTILE).item(), 4)
        noticed = (of(others) < threshold).float().mean().item() if others is not None else 0.0
        rows.append({"score": score, "threshold": threshold, "noticed": round(noticed, 3)})
        print("ood", rows[-1])
    best = max(rows[:2], key=lambda row: row["noticed"])  # a probability says nothing that the bars do not
    content = {"score": best["score"], "threshold": best["threshold"], "coverage": CALIBRATION_QUANTILE}
    content["data"] = "Imagenette's validation photos"
    if others is not None:
        content["elsewhere"] = {"data": "ImageNet photos of other classes", "photos": len(others)}
        content["elsewhere"]["flagged"] = best["noticed"]
    return content


def _evaluate_faithfulness(model, val: PhotoDataset, method: str) -> dict:
    """The area under the deletion curve of a method's maps, and of a Gaussian in the middle: the lower, the better."""
    middle, areas = centred_gaussian(model.preprocessing.input_size), []
    for photo, _ in tqdm(val.photos[:: len(val) // FAITHFULNESS_PHOTOS][:FAITHFULNESS_PHOTOS], f"deletion, {method}", leave=False):
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


def _load_validation_photos(data: str | None) -> PhotoDataset:
    with open_imagenette(data) as folder:
        return load_photos(folder, "val")


def _compute_logits_and_labels(model, val: PhotoDataset) -> tuple[torch.Tensor, torch.Tensor]:
    """The logits of all photos, and their labels."""
    return _compute_logits(model, [photo for photo, _ in val.photos]), torch.tensor([label for _, label in val.photos])


def _compute_logits(model, pictures: list) -> torch.Tensor:
    passes = BatchedInference(model, use_folded_copy=False)  # on the network itself, not on a quicker twin
    places = passes.split_batches(torch.arange(len(pictures)), passes.batch_size())
    batches = (torch.cat([model.tensor(pictures[at]) for at in part.tolist()]) for part in places)
    return torch.cat([passes.logits(batch) for batch in tqdm(batches, model.name, len(places), leave=False)])


def wilson_interval(right: int, total: int, z: float = 1.96) -> tuple[float, float]:
    """The 95 % confidence interval of a share (Wilson 1927)."""
    share = right / total
    middle = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    return middle - half, middle + half
