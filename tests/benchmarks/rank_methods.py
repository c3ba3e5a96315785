"""Rank the methods by metrics on a network, and write the ranking that the documentation and the page show.

    python tests/benchmarks/rank_methods.py resnet18 --results DIR     # one network; an interrupted run continues

It needs the folder of data in VIZLIB_DATA: 260 ImageNet photos with boxes, 1,000 labelled photos, and Imagenette.
"""

from __future__ import annotations

import argparse
import json
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas
from common import DATA, PREPROCESSING

import vizlib
from vizlib.attribution.methods.registry import METHODS
from vizlib.attribution.request import MANY_PASSES
from vizlib.metrics.ranking import RANKINGS_FOLDER, RankedMethod, list_ranked_methods, write_ranking

REAL_NETWORKS = ("resnet18", "deit_tiny_patch16_224", "resnet50")
BUNDLED_NETWORKS = ("vit_tiny-imagenet", "resnet18-imagenette", "vit_tiny-imagenette")
CURVES, CHECKS = ("deletion", "insertion"), ("parameter-randomisation", "max-sensitivity")
BOXED_METRICS = ("energy-pointing-game", "pointing-game", "sparseness", "parameter-randomisation")
CLASSIFIER_ALONE = {"levels": 1, "order": "independent"}  # as in the published comparison of guided backpropagation
SENSITIVITY = {"samples": 5}


@dataclass(frozen=True)
class PhotoSet:
    """Photos with what is known of them.

    Attributes:
        name: What the photos are.
        labels: Class of each photo by its path.
        boxes: Boxes of the objects by the path; none where they are not known.
    """

    name: str
    labels: dict[str, int]
    boxes: dict[str, list] | None = None

    def take(self, count: int) -> PhotoSet:
        """Return evenly spaced photos."""
        paths = list(self.labels)[:: max(1, len(self.labels) // count)][:count]
        boxes = None if self.boxes is None else {path: self.boxes[path] for path in paths}
        name = self.name if len(paths) == len(self.labels) else f"{len(paths)} of the {self.name}"
        return PhotoSet(name, {path: self.labels[path] for path in paths}, boxes)


def open_photo_sets(folder: Path) -> dict[str, PhotoSet]:
    """Return the sets of photos; those in archives are unpacked into the folder."""
    assert DATA is not None, "VIZLIB_DATA names the folder of data"
    boxed = json.loads((DATA / "imagenet_val_boxes" / "boxes.json").read_text())
    paths = {row["file"]: str(DATA / "imagenet_val_boxes" / "images" / row["file"]) for row in boxed}
    ends = {row["file"]: [(x0, y0, x1 + 1, y1 + 1) for x0, y0, x1, y1 in row["boxes"]] for row in boxed}
    labelled, imagenette = folder / "labelled", folder / "imagenette"
    if not labelled.exists():
        zipfile.ZipFile(DATA / "photos_labelled.zip").extractall(labelled)
    if not imagenette.exists():
        with tarfile.open(DATA / "imagenette2-160.tar") as archive:
            members = [member for member in archive.getmembers() if "/val/" in member.name and member.isfile()]
            archive.extractall(imagenette, members[::40], filter="data")
    table = pandas.read_csv(labelled / "labels.csv")
    classes = sorted({path.parent.name for path in imagenette.rglob("*.JPEG")})
    return {
        "boxed": PhotoSet(
            "ImageNet validation photos with boxes",
            {paths[row["file"]]: row["label"] for row in boxed},
            {paths[row["file"]]: ends[row["file"]] for row in boxed},
        ),
        "labelled": PhotoSet(
            "labelled photos (NIPS 2017)",
            {str(labelled / file): int(label) for file, label in zip(table["file"], table["label"], strict=True)},
        ),
        "imagenette": PhotoSet(
            "Imagenette validation photos",
            {str(path): classes.index(path.parent.name) for path in sorted(imagenette.rglob("*.JPEG"))},
        ),
    }


def rank_methods(model: vizlib.Model, sets: dict[str, PhotoSet], counts: argparse.Namespace) -> list[RankedMethod]:
    """Return the ranking of a network: of all methods by curves, of those of few passes by everything else."""
    names = vizlib.list_methods(model)
    quick = [name for name in names if METHODS[name].cost != MANY_PASSES]
    photos = sets["imagenette" if len(model.labels) == 10 else "boxed"]
    folder = counts.results / counts.network
    rows: list[RankedMethod] = []

    def measure(title: str, chosen: PhotoSet, methods: list[str], metrics: tuple[str, ...], **options: Any) -> None:
        table = vizlib.benchmark(
            model,
            list(chosen.labels),
            methods=methods,
            metrics=metrics,
            labels=chosen.labels,
            boxes=chosen.boxes if {"energy-pointing-game", "pointing-game"} & set(metrics) else None,
            folder=folder / title,
            random_maps=5,
            **options,
        )
        texts = {
            metric: " ".join(f"{name}={value}" for name, value in values.items())
            for metric, values in options.get("parameters", {}).items()
        }
        rows.extend(list_ranked_methods(table, chosen.name, texts))
        write_ranking(counts.out / f"{counts.network}.csv", rows)
        print(f"{counts.network}: {title}, {len(chosen.labels)} photos", flush=True)

    if photos.boxes is not None:
        parameters = {"parameter-randomisation": CLASSIFIER_ALONE}
        measure("boxes", photos.take(counts.boxed), quick, BOXED_METRICS, parameters=parameters)
    checked = (sets["labelled"] if photos.boxes is not None else photos).take(counts.checks)
    measure("checks", checked, quick, CHECKS, parameters={"max-sensitivity": SENSITIVITY})
    curves = CURVES if photos.boxes is None else (*CURVES, "energy-pointing-game")
    measure("curves", photos.take(counts.curves), names, curves)
    return rows


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", choices=(*REAL_NETWORKS, *BUNDLED_NETWORKS))
    parser.add_argument("--results", type=Path, required=True, help="folder of the values by photo, and of photos")
    parser.add_argument("--out", type=Path, default=RANKINGS_FOLDER, help="folder of the ranking")
    parser.add_argument("--boxed", type=int, default=260, help="photos with boxes, for methods of few passes")
    parser.add_argument("--checks", type=int, default=16, help="photos for randomisation and sensitivity")
    parser.add_argument("--curves", type=int, default=8, help="photos for the curves of all methods")
    options = parser.parse_args()
    options.results.mkdir(parents=True, exist_ok=True)
    options.out.mkdir(parents=True, exist_ok=True)
    sets = open_photo_sets(options.results)
    if options.network in BUNDLED_NETWORKS:
        model = vizlib.load(options.network)
    else:
        assert DATA is not None
        weights = DATA / "weights" / f"{options.network}.in1k.safetensors"
        module = vizlib.load(weights, architecture=options.network).module
        interpolation = "bicubic" if "deit" in options.network else "bilinear"
        preprocessing = {**PREPROCESSING, "interpolation": interpolation}
        model = vizlib.wrap(module, preprocessing=preprocessing, name=options.network)
    model.module.requires_grad_(False)
    rank_methods(model, sets, options)


if __name__ == "__main__":
    main()
