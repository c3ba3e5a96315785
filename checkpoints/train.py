"""Train the bundled checkpoints on Imagenette, or your own on the same recipe.

    python checkpoints/train.py resnet18-imagenette                       # from scratch, downloads Imagenette
    python checkpoints/train.py resnet18-imagenette --data imagenette2-160.tar
    python checkpoints/train.py vit_tiny-imagenette --distill deit_tiny_patch16_224.fb_in1k
    python checkpoints/train.py resnet18-imagenette --export              # weights, sidecar and history to checkpoints/
    python checkpoints/train.py resnet18-imagenette --evaluate            # measure the shipped file

Training resumes from the last finished epoch: every epoch seeds itself, so a run that was killed and
restarted ends with the same history as one that was not.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import math
import os
import platform
import random
import shlex
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy
import timm
import torch
import torch.nn.functional as F
from imagenette import LABELS, MEAN, STD, imagenette, photos
from safetensors.torch import save_file
from timm.data import ImageNetInfo, Mixup, create_transform
from timm.loss import SoftTargetCrossEntropy
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler
from timm.utils import ModelEmaV3
from tqdm import tqdm

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Recipe:
    """How one bundled network is built and trained; everything that `--help` lets a person change starts here."""

    architecture: str
    arguments: dict  # what `timm.create_model` is given besides the name
    size: int  # side of the square input the finished network is used at, in pixels
    sizes: tuple[int, int]  # side while training, first and last epoch; grows in steps of 32 px
    epochs: int
    optimizer: dict
    interpolation: str
    warmup: float = 1.0  # epochs
    clean: int = 0  # last epochs without mixup and erasing, at `clean_size`
    clean_size: int = 160
    batch: int = 64
    mixup: float = 0.0
    erasing: float = 0.25
    scale: tuple[float, float] = (0.3, 1.0)


RECIPES = {
    "resnet18-imagenette": Recipe(
        architecture="resnet18",
        arguments={},
        size=192,  # of 128, 160 and 192 the best on the validation photos: objects look smaller in training crops
        sizes=(96, 128),
        epochs=28,
        clean=3,
        optimizer={"opt": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4},
        interpolation="bilinear",
        mixup=0.2,
    ),
    "vit_tiny-imagenette": Recipe(
        architecture="vit_tiny_patch16_224",
        arguments={"img_size": 160},
        size=160,
        sizes=(128, 160),
        epochs=6,
        optimizer={"opt": "adamw", "lr": 2e-3, "weight_decay": 0.02},
        warmup=0.2,
        batch=32,
        interpolation="bicubic",
        erasing=0.0,
        scale=(0.4, 1.0),
    ),
}


def build(recipe: Recipe) -> torch.nn.Module:
    dynamic = (
        {"dynamic_img_size": True} if "img_size" in recipe.arguments else {}
    )  # position embeddings follow the size
    return timm.create_model(recipe.architecture, num_classes=len(LABELS), **recipe.arguments, **dynamic)


def size_at(recipe: Recipe, epoch: int, epochs: int) -> int:
    """Side of the training photos in an epoch, in pixels."""
    if epoch >= epochs - recipe.clean:
        return recipe.clean_size
    first, last = recipe.sizes
    return round((first + (last - first) * epoch / max(epochs - 1, 1)) / 32) * 32


class Teacher:
    """A frozen network whose logits or block outputs the student learns to reproduce (Hinton 2015; Romero 2015)."""

    def __init__(self, name: str, weights: str | None, on: str, device: torch.device) -> None:
        extra = {"pretrained_cfg_overlay": {"file": weights}} if weights else {}
        self.model = timm.create_model(name, pretrained=True, dynamic_img_size=True, **extra).eval().to(device)
        self.model.requires_grad_(False)
        self.on = on
        info = ImageNetInfo()
        self.classes = [info.label_names().index(wnid) for wnid in LABELS]  # our ten among its thousand

    def loss(self, student, images: torch.Tensor, progress: float) -> tuple[torch.Tensor, torch.Tensor]:
        """The student's logits, and how far it is from the teacher on these images.

        `progress` runs from 0 to 1. On blocks, each student block is handed the teacher's tokens and must give the
        teacher's next ones, for the first half: twelve short tasks learned at once, where one long chain would learn
        slowly from so few photos (blockwise distillation, Li et al. 2020). Then the chain is trained as a whole.
        """
        if self.on == "logits":
            with torch.no_grad():
                wanted = self.model(images)[:, self.classes].float().softmax(-1)
            logits = student(images)
            return logits, F.cross_entropy(logits.float(), wanted)
        with torch.no_grad():
            wanted = list(_tokens(self.model, images))
        if self.on == "blocks" and progress < 0.5:
            tokens = _embedded(student, images)
            apart = F.mse_loss(tokens.float(), wanted[0].float()) / wanted[0].float().var()
            for block, before, after in zip(student.blocks, wanted, wanted[1:], strict=False):
                gap = F.mse_loss(block(before).float(), after.float())
                apart = apart + gap / F.mse_loss(before.float(), after.float())  # as a share of what the block adds
            last = wanted[-1]
        else:
            got = list(_tokens(student, images))
            widths = got[0].shape[-1:]
            gaps = [
                F.smooth_l1_loss(F.layer_norm(one.float(), widths), F.layer_norm(other.float(), widths))
                for one, other in zip(got, wanted, strict=True)
            ]
            apart, last = 4.0 * torch.stack(gaps).mean(), got[-1]
        return student.forward_head(student.norm(last)), apart


def _embedded(model, images: torch.Tensor) -> torch.Tensor:
    return model.norm_pre(model._pos_embed(model.patch_embed(images)))


def _tokens(model, images: torch.Tensor) -> Iterator[torch.Tensor]:
    """A vision transformer's tokens before its first block and after each."""
    tokens = _embedded(model, images)
    yield tokens
    for block in model.blocks:
        tokens = block(tokens)
        yield tokens


@torch.inference_mode()
def accuracy(model: torch.nn.Module, loader, device: torch.device) -> tuple[float, float]:
    """Top-1 accuracy in percent and mean cross-entropy."""
    right = total = loss = 0.0
    for images, labels in loader:
        with torch.autocast(device.type, torch.bfloat16):
            logits = model(images.to(device, memory_format=torch.channels_last))
        logits, labels = logits.float(), labels.to(device)
        loss += F.cross_entropy(logits, labels, reduction="sum").item()
        right += (logits.argmax(1) == labels).sum().item()
        total += len(labels)
    return 100 * right / total, loss / total


def train(name: str, recipe: Recipe, options: argparse.Namespace) -> None:
    run = options.runs / name
    run.mkdir(parents=True, exist_ok=True)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    epochs = options.epochs or recipe.epochs
    with imagenette(options.data) as folder:
        data, val = photos(folder, "train"), photos(folder, "val")
    val.transform = create_transform(recipe.size, interpolation=recipe.interpolation, mean=MEAN, std=STD, crop_pct=1.0)
    batch = options.batch or recipe.batch
    batches = {"batch_size": batch, "num_workers": options.workers}
    checks = torch.utils.data.DataLoader(val, **batches)

    torch.manual_seed(options.seed)
    model = build(recipe).to(device, memory_format=torch.channels_last)
    average = ModelEmaV3(model, decay=0.998, use_warmup=True)
    optimizer = create_optimizer_v2(model, **recipe.optimizer)
    steps = len(data) // batch
    schedule = CosineLRScheduler(
        optimizer,
        t_initial=epochs * steps,
        warmup_t=round(recipe.warmup * steps),
        warmup_lr_init=1e-4,
        warmup_prefix=True,
        t_in_epochs=False,
    )
    mixup = Mixup(mixup_alpha=recipe.mixup, label_smoothing=0.1, num_classes=len(LABELS))
    criterion = SoftTargetCrossEntropy()
    teacher = Teacher(options.distill, options.teacher_weights, options.distill_on, device) if options.distill else None

    history: list[dict] = []
    state_file = run / "last.pt"
    if state_file.exists():
        state = torch.load(state_file, weights_only=True, map_location=device)
        model.load_state_dict(state["model"])
        average.module.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        history = state["history"]
        print(f"resuming {name} after epoch {len(history)}")

    for epoch in range(len(history), epochs):
        started = time.monotonic()
        seed = options.seed * 1000 + epoch  # every epoch seeds itself: a resumed run repeats the uninterrupted one
        torch.manual_seed(seed), random.seed(seed), numpy.random.seed(seed)
        size = size_at(recipe, epoch, epochs)
        clean = epoch >= epochs - recipe.clean
        data.transform = create_transform(
            size,
            is_training=True,
            scale=recipe.scale,
            interpolation=recipe.interpolation,
            color_jitter=None,
            re_prob=0.0 if clean else recipe.erasing,
            mean=MEAN,
            std=STD,
        )
        loader = torch.utils.data.DataLoader(data, shuffle=True, drop_last=True, **batches)
        model.train()
        sums = {"loss": 0.0, "right": 0.0}
        for step, (images, labels) in enumerate(tqdm(loader, f"epoch {epoch + 1}/{epochs} at {size} px", leave=False)):
            count = epoch * steps + step
            schedule.step_update(count)
            images, labels = images.to(device, memory_format=torch.channels_last), labels.to(device)
            if recipe.mixup and not clean:
                images, targets = mixup(images, labels)
            else:
                targets = F.one_hot(labels, len(LABELS)) * 0.9 + 0.01  # label smoothing 0.1
            with torch.autocast(device.type, torch.bfloat16):
                logits, apart = teacher.loss(model, images, epoch / epochs) if teacher else (model(images), 0.0)
            loss = criterion(logits.float(), targets) + apart
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0 if teacher else 5.0)
            optimizer.step()
            average.update(model, step=count)
            sums["loss"] += loss.item() / steps
            sums["right"] += (logits.argmax(1) == labels).float().mean().item() / steps
        top1, val_loss = accuracy(average.module.eval(), checks, device)
        history.append(
            {
                "epoch": epoch + 1,
                "size": size,
                "lr": round(optimizer.param_groups[0]["lr"], 6),
                "train_loss": round(sums["loss"], 4),
                "train_top1": round(100 * sums["right"], 2),  # on augmented photos, before averaging the weights
                "val_loss": round(val_loss, 4),
                "val_top1": round(top1, 2),
                "seconds": round(time.monotonic() - started, 1),
            }
        )
        state = {
            "model": model.state_dict(),
            "average": average.module.state_dict(),
            "optimizer": optimizer.state_dict(),
            "history": history,
            "command": "python checkpoints/train.py " + shlex.join(sys.argv[1:]),
        }
        torch.save(state, state_file.with_suffix(".tmp"))
        os.replace(state_file.with_suffix(".tmp"), state_file)  # a kill leaves the old file or the new one, never half
        write_history(run / "history.csv", history)
        print(history[-1], flush=True)


def write_history(path: Path, history: list[dict]) -> None:
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, history[0])
        table.writeheader()
        table.writerows(history)


def export(name: str, recipe: Recipe, options: argparse.Namespace) -> None:
    """Write the averaged weights in half precision, the history, and the sidecar with that very file's accuracy."""
    state = torch.load(options.runs / name / "last.pt", weights_only=True, map_location="cpu")
    weights = HERE / f"{name}.safetensors"
    average = {key: value.half() if value.is_floating_point() else value for key, value in state["average"].items()}
    save_file({key: value.contiguous() for key, value in average.items()}, weights)
    history = state["history"]
    write_history(HERE / f"{name}.csv", history)
    command = _shareable(state["command"])
    teacher = "blocks of deit_tiny_patch16_224.fb_in1k (Apache-2.0)" if "--distill" in command else None
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
        "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "origin": {
            "data": "Imagenette, 160 px (fastai), ten classes of ImageNet",
            "data_licence": "ImageNet's terms: research and education",
            "start": "random initialisation",
            "teacher": teacher,
            "augmentation": f"random resized crop {recipe.scale}, horizontal flip, mixup {recipe.mixup}, "
            f"random erasing {recipe.erasing}, label smoothing 0.1; RGB order",
            "command": command,
            "note": options.note,
            "epochs": len(history),
            "hours": round(sum(row["seconds"] for row in history) / 3600, 1),
            "machine": f"{os.cpu_count()} cores of {platform.machine()}, PyTorch {torch.__version__}",
        },
    }
    path = HERE / f"{name}.json"
    path.write_text(json.dumps(sidecar, indent=1) + "\n")
    sidecar["accuracy"] = evaluate(name, options)
    path.write_text(json.dumps(sidecar, indent=1) + "\n")


def _shareable(command: str) -> str:
    """The command without this machine's folders: files keep their names, and where runs are kept is left out."""
    words = shlex.split(command)
    if "--runs" in words:
        at = words.index("--runs")
        words[at : at + 2] = []
    return shlex.join(word if word == "checkpoints/train.py" else Path(word).name for word in words)


@torch.inference_mode()
def evaluate(name: str, options: argparse.Namespace) -> dict:
    """Top-1 accuracy of the shipped file on Imagenette's validation photos, as vizlib loads and shows them."""
    import vizlib

    model = vizlib.load(name)
    with imagenette(options.data) as folder:
        val = photos(folder, "val")
    right = 0
    for start in tqdm(range(0, len(val), 64), name, leave=False):
        batch = val.photos[start : start + 64]
        logits = model.module(torch.cat([model.tensor(photo) for photo, _ in batch]))
        right += (logits.argmax(1) == torch.tensor([label for _, label in batch])).sum().item()
    low, high = wilson(right, len(val))
    measured = {
        "data": "Imagenette validation photos",
        "photos": len(val),
        "top1": round(100 * right / len(val), 2),
        "interval95": [round(100 * low, 2), round(100 * high, 2)],
    }
    print(name, measured)
    return measured


def wilson(right: int, total: int, z: float = 1.96) -> tuple[float, float]:
    """The 95 % confidence interval of a share (Wilson 1927)."""
    share = right / total
    middle = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    return middle - half, middle + half


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=RECIPES, help="which bundled checkpoint")
    parser.add_argument("--data", help="a folder or tar with train/ and val/; downloaded when left out")
    parser.add_argument("--runs", type=Path, default=HERE / "runs", help="where unfinished training is kept")
    parser.add_argument("--epochs", type=int, help="default: the recipe's")
    parser.add_argument("--batch", type=int, help="default: the recipe's")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--distill", metavar="TEACHER", help="a timm model to learn from besides the labels")
    parser.add_argument("--teacher-weights", metavar="FILE", help="its weights, when not downloaded")
    parser.add_argument("--distill-on", choices=("blocks", "features", "logits"), default="blocks")
    parser.add_argument("--export", action="store_true", help="write the trained network to checkpoints/")
    parser.add_argument("--note", default="", help="with --export: what else to know about this run")
    parser.add_argument("--evaluate", action="store_true", help="measure the network in checkpoints/")
    options = parser.parse_args()
    if options.evaluate:
        evaluate(options.name, options)
    elif options.export:
        export(options.name, RECIPES[options.name], options)
    else:
        train(options.name, RECIPES[options.name], options)


if __name__ == "__main__":
    main()
