"""Compare the maps of a network with its teacher's on photos with boxes: energy in the boxes, deletion, attention.

python -m checkpoints.training.evaluate_maps checkpoints/vit_tiny-imagenet.safetensors    # reads VIZLIB_DATA
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

import vizlib
from checkpoints.training.distill_imagenet import PREPROCESSING, TEACHER, create_student, create_teacher
from checkpoints.training.evaluate_imagenet import Boxes, load_photos_with_boxes
from vizlib.metrics import deletion

METHODS = ("grad-cam", "attention-relevance")
DELETION_STEPS = 10


def compare_maps(
    student: vizlib.Model, teacher: vizlib.Model, photos: Iterable[tuple[Image.Image, int, Boxes]]
) -> dict[str, dict]:
    """Return how good the maps of two networks are on the same photos, for the true class of each.

    Returns:
        For each method of `METHODS` the means `energy` (fraction of the positive heat within the boxes) and `deletion`
        (area under the deletion curve), each of `student` and `teacher`; and `attention`: the mean correlation of the
        attention weights of both networks, for each layer.

    References:
        Wang et al.: Score-CAM, CVPR Workshops 2020, section 4.2 (energy-based pointing game), arXiv:1910.01279.
    """
    models = {"student": student, "teacher": teacher}
    sums: dict[str, dict[str, dict[str, list[float]]]] = {
        method: {measure: {name: [] for name in models} for measure in ("energy", "deletion")} for method in METHODS
    }
    correlations = []
    for photo, target, boxes in photos:
        for name, model in models.items():
            attributions = vizlib.explain_all(model, photo, target)
            for method in METHODS:
                attribution = attributions[method]
                sums[method]["energy"][name].append(compute_energy_in_boxes(attribution, boxes))
                sums[method]["deletion"][name].append(deletion(model, attribution, steps=DELETION_STEPS).auc)
        runs = [model.run(photo, attention=True).attention.values() for model in models.values()]
        correlations.append(
            [compute_correlation(own.detach(), other.detach()) for own, other in zip(*runs, strict=True)]
        )
    result: dict[str, dict] = {
        method: {
            measure: {name: round(sum(values) / len(values), 4) for name, values in by_name.items()}
            for measure, by_name in measures.items()
        }
        for method, measures in sums.items()
    }
    result["attention"] = {"correlation": [round(value, 3) for value in torch.tensor(correlations).mean(0).tolist()]}
    return result


def compute_energy_in_boxes(attribution: vizlib.Attribution, boxes: Boxes) -> float:
    """Return the fraction of the positive heat that lies within the boxes, on the part of the photo the model saw."""
    heat = torch.as_tensor(attribution.project_to_photo()).nan_to_num().clamp(min=0).double()
    inside = torch.zeros_like(heat, dtype=torch.bool)
    for x0, y0, x1, y1 in boxes:
        inside[max(round(y0), 0) : round(y1) + 1, max(round(x0), 0) : round(x1) + 1] = True
    return (heat[inside].sum() / heat.sum().clamp(min=1e-30)).item()


def compute_correlation(own: Tensor, other: Tensor) -> float:
    """Return the Pearson correlation of two tensors of one shape."""
    return torch.corrcoef(torch.stack([own.flatten().double(), other.flatten().double()]))[0, 1].item()


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path, help="a .safetensors file")
    parser.add_argument("--data", type=Path, help="folder of photos and teacher; default: VIZLIB_DATA")
    parser.add_argument("--every", type=int, default=1, help="use only every n-th photo")
    options = parser.parse_args()
    data = options.data or Path(os.environ.get("VIZLIB_DATA") or parser.error("give --data or set VIZLIB_DATA"))
    student, teacher = (
        vizlib.wrap(module.eval(), preprocessing=PREPROCESSING, name=name)
        for module, name in (
            (create_student(options.weights, 0), options.weights.stem),
            (create_teacher(data), TEACHER),
        )
    )
    photos = load_photos_with_boxes(data)[:: options.every]
    for name, row in compare_maps(student, teacher, tqdm(photos, disable=None)).items():
        print(name, row)


if __name__ == "__main__":
    main()
