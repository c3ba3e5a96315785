"""Write a run of `distill_imagenet` to the bundled checkpoints: weights, training history, sidecar with its evaluation.

python -m checkpoints.training.export_imagenet             # of the default run; reads VIZLIB_DATA
python -m checkpoints.training.export_imagenet --run RUN
"""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

import vizlib
from checkpoints.training.distill_imagenet import (
    ARCHITECTURE,
    EVALUATION_STEPS,
    PREPROCESSING,
    RUN_FOLDER,
    STAGES,
    TEACHER,
    Progress,
    count_photo_passes,
    create_teacher,
    export_weights,
)
from checkpoints.training.evaluate import (
    calibrate_ood_score,
    compute_logits,
    evaluate_faithfulness,
    summarize_accuracy,
)
from checkpoints.training.evaluate_imagenet import (
    describe_weak_groups,
    evaluate_beside_teacher,
    load_labelled_photos,
)
from checkpoints.training.export import CHECKPOINTS, write_history
from checkpoints.training.photo_batches import COLOUR_JITTER, CROP_AREA
from checkpoints.training.photo_cache import open_photo_cache
from checkpoints.training.train import describe_machine
from checkpoints.training.unfamiliar_images import draw_unfamiliar_images
from vizlib.models.loading.checkpoint_files import hash_file
from vizlib.models.ood import OodScore

NAME = "vit_tiny-imagenet"
METHOD = "attention-relevance"  # whose maps are tested for faithfulness
PHOTOS = "photos of 430 classes of ImageNet (NIPS 2017), none of them trained on"
UNFAMILIAR = "images of noise, one colour, text and line drawings"
UNFAMILIAR_COUNT = 100  # of each kind
AUGMENTATION = [
    f"random crop of {100 * CROP_AREA[0]:.0f} to {100 * CROP_AREA[1]:.0f} % of the area, resized",
    "horizontal flip",
    f"brightness, contrast and saturation changed by up to {100 * COLOUR_JITTER:.0f} %",
    f"{100 * STAGES['chain'].mixed:.0f} % of the images mixed (mixup or CutMix), "
    f"{100 * STAGES['decay'].mixed:.0f} % while the learning rate falls",
]
WEAKNESSES = [
    "It learned what its teacher predicts for 27,000 photos without labels, which show few of many of its classes.",
    "Three of its classes are people: ballplayer, groom and scuba diver. Other people are named by what they wear.",
    "ImageNet's photos come from the web of 2010, mostly from richer countries, and the people in them were not asked "
    "for consent.",
]


def export_run(run: Path, data: Path, cache: Path) -> None:
    """Write the network of a run to the folder of bundled checkpoints.

    Args:
        run: Folder of the run, which holds `last.pt`.
        data: Folder of labelled photos and of the teacher.
        cache: Folder of the decoded training photos.

    Raises:
        SystemExit: If the accuracy was not measured yet.
    """
    state = torch.load(run / "last.pt", weights_only=True, map_location="cpu")
    weights, path = CHECKPOINTS / f"{NAME}.safetensors", CHECKPOINTS / f"{NAME}.json"
    photo_count = len(open_photo_cache(data, cache))
    rows = list_evaluated_rows(state, photo_count)
    if not rows:
        raise SystemExit(f"{run} has no accuracy yet, which is measured every {EVALUATION_STEPS} steps; train longer")
    export_weights(run / "last.pt", weights)
    write_history(CHECKPOINTS / f"{NAME}.csv", rows)
    sidecar = {
        "architecture": ARCHITECTURE,
        "arguments": {},
        "labels": list(vizlib.wrap(create_teacher(data).eval(), preprocessing=PREPROCESSING).labels),
        "preprocessing": PREPROCESSING,
        "sha256": hash_file(weights),
        "origin": describe_origin(state, photo_count),
    }
    path.write_text(json.dumps(sidecar, indent=1) + "\n")
    sidecar |= evaluate_network(data)
    path.write_text(json.dumps(sidecar, indent=1) + "\n")


def list_evaluated_rows(state: dict, photo_count: int) -> list[dict]:
    """Return the rows of the history at which the accuracy was measured, with numbers only.

    Args:
        state: State of the run.
        photo_count: Number of training photos.
    """
    progress, settings, names = Progress(**state["progress"]), state["settings"], list(STAGES)
    return [
        {
            "stage": names.index(row["stage"]) + 1,
            "epoch": round(_count_passes(replace(progress, step=row["step"]), settings) / photo_count, 2),
            "lr": row["lr"],
            "train_loss": row["loss"],
            "val_top1": row["val_top1"],
        }
        for row in state["history"]
        if row["val_top1"] is not None
    ]


def _count_passes(progress: Progress, settings: dict) -> int:
    return count_photo_passes(progress, settings["seed"], settings["tokens"])


def describe_origin(state: dict, photo_count: int) -> dict:
    """Return the section `origin` of the sidecar: data, command, teacher, duration and machine."""
    progress, settings = Progress(**state["progress"]), state["settings"]
    chain_steps = (progress.step if progress.decay_start is None else progress.decay_start) - progress.block_steps
    init = settings["init"]
    command = f"python -m checkpoints.training.distill_imagenet --tokens {settings['tokens']}"
    stage = {
        "command": f"{command} --block-steps {progress.block_steps}; {command} --decay-steps {progress.decay_steps}",
        "start": "random initialisation" if init == "None" else f"the weights of {Path(init).name}",
        "teacher": f"tokens, attention weights and logits of {TEACHER}.fb_in1k (apache-2.0)",
        "augmentation": AUGMENTATION,
        "epochs": round(_count_passes(progress, settings) / photo_count, 1),
        "minutes": round(sum(row["cpu_seconds"] for row in state["history"]) / 60),
        "note": f"minutes of CPU; {progress.block_steps} steps of half blocks, {chain_steps} of the whole network, and "
        f"{progress.decay_steps} with a falling learning rate",
    }
    return {
        "data": "27,000 photos without labels: Imagenette, Tiny ImageNet, Caltech-101 and nine smaller sets",
        "data_licence": "research terms, or none stated",
        "channel_order": "RGB",
        "stages": [stage],
        "machine": describe_machine(torch.device("cpu")),
    }


def evaluate_network(data: Path) -> dict:
    """Return the sections of the sidecar that state how good the exported network is.

    Returns:
        `weaknesses`, `accuracy` (beside the teacher's), `calibration`, `ood` and `faithfulness`, on the photos for
        reporting.
    """
    model, (photos, labels) = vizlib.load(NAME), load_labelled_photos(data, "report")
    teacher = vizlib.wrap(create_teacher(data).eval(), preprocessing=PREPROCESSING, name=TEACHER)
    beside = evaluate_beside_teacher(model, teacher, (photos, labels))
    choice_photos, _ = load_labelled_photos(data, "choice")
    choice_unfamiliar = _compute_unfamiliar_logits(model, choice_photos, seed=1)
    choice = compute_logits(model, choice_photos)
    ood = calibrate_ood_score(choice, PHOTOS, torch.cat(list(choice_unfamiliar.values())), UNFAMILIAR)
    by_kind = {
        kind: _compute_flagged_share(ood, logits)
        for kind, logits in _compute_unfamiliar_logits(model, photos, seed=0).items()
    }
    ood["other_photos"] |= {"flagged": round(sum(by_kind.values()) / len(by_kind), 3), "by_kind": by_kind}
    logits = compute_logits(model, photos)
    ood["report_photos"] = {"photos": len(photos), "flagged": _compute_flagged_share(ood, logits)}
    accuracy = summarize_accuracy(logits, labels, PHOTOS)
    accuracy |= {
        "top5": beside["top5"]["student"]["percent"],
        "top5_interval95": beside["top5"]["student"]["interval95"],
        "teacher": {f"top{count}": beside[f"top{count}"]["teacher"]["percent"] for count in (1, 5)},
        "command": f"python -m checkpoints.training.distill_imagenet --evaluate checkpoints/{NAME}.safetensors",
    }
    return {
        "weaknesses": WEAKNESSES + describe_weak_groups(logits, labels),
        "accuracy": accuracy,
        "calibration": beside["calibration"]["student"],
        "ood": ood,
        "faithfulness": evaluate_faithfulness(model, photos, METHOD),
    }


def _compute_unfamiliar_logits(model: vizlib.Model, photos: list[Image.Image], seed: int) -> dict[str, Tensor]:
    """Return the logits of each kind of unfamiliar images."""
    images = draw_unfamiliar_images(photos, UNFAMILIAR_COUNT, seed)
    return {kind: compute_logits(model, drawn) for kind, drawn in images.items()}


def _compute_flagged_share(section: dict, logits: Tensor) -> float:
    """Return the fraction of images whose score is below the threshold of a section `ood`."""
    score = OodScore.from_sidecar(section)
    assert score is not None
    return round((score.compute(logits) < score.threshold).float().mean().item(), 3)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=RUN_FOLDER, help="folder of the run")
    parser.add_argument("--data", type=Path, help="folder of photos and teacher; default: VIZLIB_DATA")
    parser.add_argument("--cache", type=Path, help="folder of the decoded photos; default: RUN/cache")
    options = parser.parse_args()
    data = options.data or Path(os.environ.get("VIZLIB_DATA") or parser.error("give --data or set VIZLIB_DATA"))
    export_run(options.run, data, options.cache or options.run / "cache")


if __name__ == "__main__":
    main()
