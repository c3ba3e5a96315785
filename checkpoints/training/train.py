"""Train the bundled checkpoints on Imagenette, or your own on the same recipe.

    python -m checkpoints.training.train resnet18-imagenette             # from scratch; downloads Imagenette
    python -m checkpoints.training.train resnet18-imagenette --data imagenette2-160.tar
    python -m checkpoints.training.train vit_tiny-imagenette --distill deit_tiny_patch16_224.fb_in1k \
        --distill-on features
    python -m checkpoints.training.train resnet18-classic --finetune resnet18.safetensors --freeze-backbone
    python -m checkpoints.training.train resnet18-classic --finetune resnet18.safetensors --unfold
    python -m checkpoints.training.train --export resnet18-imagenette    # weights, sidecar and history to checkpoints/
    python -m checkpoints.training.train --evaluate resnet18-imagenette  # measure the shipped file

Training resumes from the last finished epoch: every epoch seeds itself, so a run that was killed and restarted ends
with the same history as one that was not.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import shlex
import sys
import time
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path

import numpy
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from timm.data import Mixup, create_transform
from timm.loss import SoftTargetCrossEntropy
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler
from timm.utils import ModelEmaV3
from tqdm import tqdm

from checkpoints.training.distill import DISTILLATION_KINDS, Teacher, use_explicit_attention
from checkpoints.training.evaluate import evaluate_accuracy
from checkpoints.training.export import export_checkpoint, write_history
from checkpoints.training.imagenette import IMAGENET_INDICES, LABELS, MEAN, STD, load_photos, open_imagenette
from checkpoints.training.restore_batchnorm import restore_batch_statistics
from checkpoints.training.train_configs import (
    DESCRIPTIVE_FIELDS,
    TRAIN_CONFIGS,
    TrainConfig,
    compute_train_size,
    create_train_transform,
    resample_position_embedding,
)
from vizlib.models.inference.batched_inference import supports_bfloat16

STATISTICS_BATCHES = 16  # batches that a folded network's statistics are measured on
CHECKPOINTS = Path(__file__).resolve().parent.parent  # the folder of the bundled networks


def create_initial_model(recipe: TrainConfig, options: argparse.Namespace) -> torch.nn.Module:
    """The network before its first step: random, or with somebody's weights and, where the classes differ, a new head.

    With `--freeze-backbone` only the head learns.
    """
    # The position embeddings follow the size of the photos.
    dynamic = {"dynamic_img_size": True} if "vit" in recipe.architecture else {}
    model = timm.create_model(recipe.architecture, num_classes=len(LABELS), **recipe.arguments, **dynamic)
    if options.finetune:
        weights, own = resample_position_embedding(load_file(options.finetune), model), model.state_dict()
        body = {key: value for key, value in weights.items() if key in own and value.shape == own[key].shape}
        head = {key for key in own if model.get_submodule(key.rpartition(".")[0]) is model.get_classifier()}
        if lost := own.keys() - body.keys() - head:
            raise SystemExit(f"{options.finetune.name} has no {min(lost)} that fits {recipe.architecture}")
        model.load_state_dict(body, strict=False)
    if options.freeze_backbone:
        model.requires_grad_(False)
        model.get_classifier().requires_grad_(True)
    return use_explicit_attention(model)


def set_train_mode(model: torch.nn.Module, options: argparse.Namespace) -> None:
    """Training mode, but with the batch statistics of a frozen backbone left as they are."""
    model.train()
    if options.freeze_backbone:
        for module in model.modules():
            if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
                module.eval()


def autocast_bfloat16(device: torch.device) -> torch.autocast:
    """bfloat16 where the device has it: a processor that has not is many times slower with it than without."""
    return torch.autocast(device.type, torch.bfloat16, enabled=supports_bfloat16(device))


@torch.inference_mode()
def compute_accuracy(model: torch.nn.Module, loader, device: torch.device) -> tuple[float, float]:
    """Top-1 accuracy in percent and mean cross-entropy."""
    right = total = loss = 0.0
    for images, labels in loader:
        with autocast_bfloat16(device):
            logits = model(images.to(device, memory_format=torch.channels_last))
        logits, labels = logits.float(), labels.to(device)
        loss += F.cross_entropy(logits, labels, reduction="sum").item()
        right += (logits.argmax(1) == labels).sum().item()
        total += len(labels)
    return 100 * right / total, loss / total


def train(recipe: TrainConfig, options: argparse.Namespace) -> None:
    run = get_run_folder(options)
    run.mkdir(parents=True, exist_ok=True)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with open_imagenette(options.data) as folder:
        data, val = load_photos(folder, "train"), load_photos(folder, "val")
    val.transform = create_transform(recipe.size, interpolation=recipe.interpolation, mean=MEAN, std=STD, crop_pct=1.0)
    batches = {"batch_size": recipe.batch, "num_workers": options.workers}
    checks = torch.utils.data.DataLoader(val, **batches)

    torch.manual_seed(options.seed)
    model = create_initial_model(recipe, options).to(device, memory_format=torch.channels_last)
    if options.unfold and not (run / "last.pt").exists():
        data.transform = val.transform
        some = torch.utils.data.DataLoader(data, recipe.batch, shuffle=True)
        restore_batch_statistics(model, (images.to(device) for images, _ in islice(some, STATISTICS_BATCHES)))
    teacher, spares = None, torch.nn.ModuleDict()
    if options.distill:
        weights, kinds, size = options.teacher_weights, options.distill_on, options.teacher_size
        teacher = Teacher(options.distill, weights, kinds, model, size, IMAGENET_INDICES)
        spares = teacher.to(device).auxiliary_heads
    learners = torch.nn.ModuleList([model, spares])
    average = ModelEmaV3(model, decay=0.998, use_warmup=True)
    optimizer = create_optimizer_v2(learners, **recipe.optimizer)
    steps = len(data) // recipe.batch
    schedule = CosineLRScheduler(
        optimizer,
        t_initial=recipe.epochs * steps,
        warmup_t=round(recipe.warmup_epochs * steps),
        warmup_lr_init=1e-4,
        warmup_prefix=True,
        t_in_epochs=False,
    )
    mixup = Mixup(recipe.mixup, recipe.cutmix, label_smoothing=0.1, num_classes=len(LABELS))
    criterion = SoftTargetCrossEntropy()

    history: list[dict] = []
    settings = collect_settings(recipe, options)
    if (run / "last.pt").exists():
        state = torch.load(run / "last.pt", weights_only=True, map_location=device)
        if other := [key for key in settings if settings[key] != state["settings"].get(key)]:
            was, now = state["settings"].get(other[0]), settings[other[0]]
            raise SystemExit(f"{run} was begun with {other[0]}={was}, not {now}; give another --runs or delete it")
        learners.load_state_dict(state["learners"])
        average.module.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        history = state["history"]
        print(f"resuming {run.name} after epoch {len(history)}")

    for epoch in range(len(history), recipe.epochs):
        started = time.monotonic()
        seed = options.seed * 1000 + epoch  # every epoch seeds itself: a resumed run repeats the uninterrupted one
        torch.manual_seed(seed), random.seed(seed), numpy.random.seed(seed)
        size, clean = compute_train_size(recipe, epoch, recipe.epochs), epoch >= recipe.epochs - recipe.clean_epochs
        data.transform = create_train_transform(recipe, size, clean)
        loader = torch.utils.data.DataLoader(data, shuffle=True, drop_last=True, **batches)
        set_train_mode(model, options)
        sums = {"loss": 0.0, "right": 0.0}
        title = f"epoch {epoch + 1}/{recipe.epochs} at {size} px"
        for step, (images, labels) in enumerate(tqdm(loader, title, leave=False)):
            count = epoch * steps + step
            schedule.step_update(count)
            images, labels = images.to(device, memory_format=torch.channels_last), labels.to(device)
            if (recipe.mixup or recipe.cutmix) and not clean:
                images, targets = mixup(images, labels)
            else:
                targets = F.one_hot(labels, len(LABELS)) * 0.9 + 0.01  # label smoothing 0.1
            with autocast_bfloat16(device):
                logits, apart = teacher(model, images, epoch / recipe.epochs) if teacher else (model(images), 0.0)
            loss = criterion(logits.float(), targets) + apart
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(learners.parameters(), 1.0 if "adamw" in recipe.optimizer["opt"] else 5.0)
            optimizer.step()
            average.update(model, step=count)
            sums["loss"] += loss.item() / steps
            sums["right"] += (logits.argmax(1) == labels).float().mean().item() / steps
        top1, val_loss = compute_accuracy(average.module.eval(), checks, device)
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
            "learners": learners.state_dict(),
            "average": average.module.state_dict(),
            "optimizer": optimizer.state_dict(),
            "history": history,
            "settings": settings,
            "machine": describe_machine(device),
            "command": "python -m checkpoints.training.train " + shlex.join(sys.argv[1:]),
        }
        torch.save(state, run / "last.tmp")
        os.replace(run / "last.tmp", run / "last.pt")  # a kill leaves the old file or the new one, never half
        write_history(run / "history.csv", history)
        print(history[-1], flush=True)


def describe_machine(device: torch.device) -> str:
    """What a run is computed on."""
    card = f" and {torch.cuda.get_device_name(device)}" if device.type == "cuda" else ""
    return f"{os.cpu_count()} cores of {platform.machine()}{card}, PyTorch {torch.__version__}"


def get_run_folder(options: argparse.Namespace) -> Path:
    """Where a run keeps its state: one folder for each start of a recipe."""
    how = "-frozen-backbone" if options.freeze_backbone else "-fine-tuned" if options.finetune else "-from-scratch"
    return options.runs / (options.name + how)


def collect_settings(recipe: TrainConfig, options: argparse.Namespace) -> dict:
    """What changes the result, and so must be the same when a run is resumed."""
    of_recipe = {key: value for key, value in asdict(recipe).items() if key not in DESCRIPTIVE_FIELDS}
    given = ("seed", "finetune", "freeze_backbone", "unfold", "distill", "distill_on", "teacher_size")
    return {**of_recipe, **{key: str(getattr(options, key)) for key in given}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=TRAIN_CONFIGS, help="which recipe")
    parser.add_argument("--data", help="a folder or tar with train/ and val/; downloaded when left out")
    parser.add_argument("--runs", type=Path, default=CHECKPOINTS / "runs", help="where unfinished training is kept")
    parser.add_argument("--epochs", type=int, help="default: the recipe's")
    parser.add_argument("--batch", type=int, help="default: the recipe's")
    parser.add_argument("--lr", type=float, help="the highest learning rate; default: the recipe's")
    parser.add_argument(
        "--sizes", type=int, nargs=2, metavar=("FIRST", "LAST"), help="of the photos, in pixels, likewise"
    )
    parser.add_argument("--mixup", type=float, help="alpha; default: the recipe's")
    parser.add_argument("--cutmix", type=float, help="alpha; default: the recipe's")
    parser.add_argument("--workers", type=int, default=0, help="processes that cut the photos; 0: the training's own")
    parser.add_argument("--seed", type=int, default=0)
    first = parser.add_mutually_exclusive_group()
    first.add_argument("--from-scratch", action="store_true", help="start from random weights; what happens anyway")
    first.add_argument("--finetune", metavar="WEIGHTS", type=Path, help="start from a .safetensors of the architecture")
    parser.add_argument("--freeze-backbone", action="store_true", help="train the head only")
    parser.add_argument("--unfold", action="store_true", help="give folded weights their batch statistics back first")
    parser.add_argument("--distill", metavar="TEACHER", help="a timm model to learn from besides the labels")
    parser.add_argument("--teacher-weights", metavar="FILE", help="its .safetensors, when not downloaded")
    parser.add_argument(
        "--teacher-size", type=int, default=160, help="for logits: side of the photos it sees, in pixels"
    )
    parser.add_argument("--distill-on", nargs="+", choices=DISTILLATION_KINDS, default=["logits"])
    does = parser.add_mutually_exclusive_group()
    does.add_argument("--export", action="store_true", help="write the trained network to checkpoints/")
    does.add_argument("--evaluate", action="store_true", help="measure the network in checkpoints/")
    parser.add_argument("--elsewhere", metavar="FOLDER", type=Path, help="with --export: photos of other things")
    parser.add_argument("--note", default="", help="with --export: what else to know about this run")
    options = parser.parse_args()
    if options.freeze_backbone and not options.finetune:
        parser.error("--freeze-backbone trains the head only, so it needs --finetune WEIGHTS to start from")
    recipe = TRAIN_CONFIGS[options.name]
    own = {key: getattr(options, key) for key in ("epochs", "batch", "mixup", "cutmix")}
    own["sizes"] = options.sizes and tuple(options.sizes)
    own["optimizer"] = options.lr and {**recipe.optimizer, "lr": options.lr}
    recipe = replace(recipe, **{key: value for key, value in own.items() if value is not None})
    if options.evaluate:
        evaluate_accuracy(options.name, options.data)
    elif options.export:
        export_checkpoint(recipe, get_run_folder(options), options)
    else:
        train(recipe, options)


if __name__ == "__main__":
    main()
