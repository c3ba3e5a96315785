"""Train the bundled networks on Imagenette, or your own with the same configurations.

    python -m checkpoints.training.train resnet18-imagenette             # from scratch; downloads Imagenette
    python -m checkpoints.training.train resnet18-imagenette --data imagenette2-160.tar
    python -m checkpoints.training.train vit_tiny-imagenette --distill deit_tiny_patch16_224.fb_in1k \
        --distill-on features
    python -m checkpoints.training.train resnet18-classic --finetune resnet18.safetensors --freeze-backbone
    python -m checkpoints.training.train resnet18-classic --finetune resnet18.safetensors --restore-batchnorm
    python -m checkpoints.training.train --export resnet18-imagenette    # weights, sidecar and history to checkpoints/
    python -m checkpoints.training.train --evaluate resnet18-imagenette  # evaluate the bundled file

Training resumes from the last finished epoch. Every epoch sets its own seed, so that a run that was killed and
restarted has the same history as an uninterrupted one.
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
from typing import Any, cast

import numpy
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from timm.data.mixup import Mixup
from timm.data.transforms_factory import create_transform
from timm.loss.cross_entropy import SoftTargetCrossEntropy
from timm.optim._optim_factory import create_optimizer_v2
from timm.scheduler.cosine_lr import CosineLRScheduler
from timm.utils.model_ema import ModelEmaV3
from tqdm import tqdm

from checkpoints.training.distill import DISTILLATION_KINDS, Teacher, use_explicit_attention
from checkpoints.training.evaluate import evaluate_accuracy
from checkpoints.training.export import export_checkpoint, write_history
from checkpoints.training.imagenette import (
    IMAGENET_INDICES,
    LABELS,
    MEAN,
    STD,
    PhotoTransform,
    load_photos,
    open_imagenette,
)
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

STATISTICS_BATCHES = 16  # number of batches from which BatchNorm statistics are restored
CHECKPOINTS = Path(__file__).resolve().parent.parent  # the folder of the bundled networks


def create_initial_model(config: TrainConfig, options: argparse.Namespace) -> torch.nn.Module:
    """Return the network before the first step.

    It has random weights, or those of `--finetune`, with a new head where the classes differ. With `--freeze-backbone`
    only the head requires gradients.

    Raises:
        SystemExit: If the weights do not fit the architecture.
    """
    # Position embeddings are resampled to the size of the photos.
    dynamic: dict[str, Any] = {"dynamic_img_size": True} if "vit" in config.architecture else {}
    model: Any = timm.create_model(config.architecture, num_classes=len(LABELS), **config.arguments, **dynamic)
    if options.finetune:
        weights, own = resample_position_embedding(load_file(options.finetune), model), model.state_dict()
        body = {key: value for key, value in weights.items() if key in own and value.shape == own[key].shape}
        head = {key for key in own if model.get_submodule(key.rpartition(".")[0]) is model.get_classifier()}
        if missing := own.keys() - body.keys() - head:
            raise SystemExit(f"{options.finetune.name} has no {min(missing)} that fits {config.architecture}")
        model.load_state_dict(body, strict=False)
    if options.freeze_backbone:
        model.requires_grad_(False)
        model.get_classifier().requires_grad_(True)
    return use_explicit_attention(model)


def set_train_mode(model: torch.nn.Module, options: argparse.Namespace) -> None:
    """Set training mode, except for the BatchNorm layers of a frozen backbone, whose statistics must not change."""
    model.train()
    if options.freeze_backbone:
        for module in model.modules():
            if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
                module.eval()


def autocast_bfloat16(device: torch.device) -> torch.autocast:
    """Return autocast to bfloat16 where the device supports it; others are several times slower with it."""
    return torch.autocast(device.type, torch.bfloat16, enabled=supports_bfloat16(device))


@torch.inference_mode()
def compute_accuracy(model: torch.nn.Module, loader, device: torch.device) -> tuple[float, float]:
    """Return top-1 accuracy in percent and mean cross-entropy."""
    correct = total = loss = 0.0
    for images, labels in loader:
        with autocast_bfloat16(device):
            logits = model(images.to(device, memory_format=torch.channels_last))
        logits, labels = logits.float(), labels.to(device)
        loss += F.cross_entropy(logits, labels, reduction="sum").item()
        correct += (logits.argmax(1) == labels).sum().item()
        total += len(labels)
    return 100 * correct / total, loss / total


def train(config: TrainConfig, options: argparse.Namespace) -> None:
    """Train a network, or resume its run; state and history are written after every epoch."""
    run = get_run_folder(options)
    run.mkdir(parents=True, exist_ok=True)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with open_imagenette(options.data) as folder:
        data, val = load_photos(folder, "train"), load_photos(folder, "val")
    evaluation = create_transform(config.size, interpolation=config.interpolation, mean=MEAN, std=STD, crop_pct=1.0)
    val.transform = cast(PhotoTransform, evaluation)
    batches = {"batch_size": config.batch, "num_workers": options.workers}
    val_loader = torch.utils.data.DataLoader(val, **batches)

    torch.manual_seed(options.seed)
    model: Any = create_initial_model(config, options)
    model = model.to(device, memory_format=torch.channels_last)
    if options.restore_batchnorm and not (run / "last.pt").exists():
        data.transform = val.transform
        statistics_loader = torch.utils.data.DataLoader(data, config.batch, shuffle=True)
        restore_batch_statistics(
            model, (images.to(device) for images, _ in islice(statistics_loader, STATISTICS_BATCHES))
        )
    teacher, auxiliary_heads = None, torch.nn.ModuleDict()
    if options.distill:
        weights, kinds, size = options.teacher_weights, options.distill_on, options.teacher_size
        teacher = Teacher(options.distill, weights, kinds, model, size, IMAGENET_INDICES)
        auxiliary_heads = teacher.to(device).auxiliary_heads
    trained = torch.nn.ModuleList([model, auxiliary_heads])
    average = ModelEmaV3(model, decay=0.998, use_warmup=True)
    optimizer = create_optimizer_v2(trained, **config.optimizer)
    steps = len(data) // config.batch
    schedule = CosineLRScheduler(
        optimizer,
        t_initial=config.epochs * steps,
        warmup_t=round(config.warmup_epochs * steps),
        warmup_lr_init=1e-4,
        warmup_prefix=True,
        t_in_epochs=False,
    )
    mixup = Mixup(config.mixup, config.cutmix, label_smoothing=0.1, num_classes=len(LABELS))
    criterion = SoftTargetCrossEntropy()

    history: list[dict] = []
    settings = collect_settings(config, options)
    if (run / "last.pt").exists():
        state = torch.load(run / "last.pt", weights_only=True, map_location=device)
        if changed := [key for key in settings if settings[key] != state["settings"].get(key)]:
            key = changed[0]
            raise SystemExit(
                f"{run} was started with {key}={state['settings'].get(key)}, not {settings[key]}; "
                "pass another --runs or delete it"
            )
        trained.load_state_dict(state["trained"])
        average.module.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        history = state["history"]
        print(f"resuming {run.name} after epoch {len(history)}")

    for epoch in range(len(history), config.epochs):
        started = time.monotonic()
        seed = options.seed * 1000 + epoch  # per epoch, so that a resumed run repeats the uninterrupted one
        torch.manual_seed(seed)
        random.seed(seed)
        numpy.random.seed(seed)
        size, clean = compute_train_size(config, epoch, config.epochs), epoch >= config.epochs - config.clean_epochs
        data.transform = cast(PhotoTransform, create_train_transform(config, size, clean))
        loader = torch.utils.data.DataLoader(data, shuffle=True, drop_last=True, **batches)
        set_train_mode(model, options)
        means = {"loss": 0.0, "correct": 0.0}
        title = f"epoch {epoch + 1}/{config.epochs} at {size} px"
        for step, (images, labels) in enumerate(tqdm(loader, title, leave=False)):
            count = epoch * steps + step
            schedule.step_update(count)
            images, labels = images.to(device, memory_format=torch.channels_last), labels.to(device)
            if (config.mixup or config.cutmix) and not clean:
                images, targets = mixup(images, labels)
            else:
                targets = F.one_hot(labels, len(LABELS)) * 0.9 + 0.01  # label smoothing 0.1
            with autocast_bfloat16(device):
                if teacher:
                    logits, distillation_loss = teacher(model, images, epoch / config.epochs)
                else:
                    logits, distillation_loss = model(images), 0.0
            loss = criterion(logits.float(), targets) + distillation_loss
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained.parameters(), 1.0 if "adamw" in config.optimizer["opt"] else 5.0)
            optimizer.step()
            average.update(model, step=count)
            means["loss"] += loss.item() / steps
            means["correct"] += (logits.argmax(1) == labels).float().mean().item() / steps
        top1, val_loss = compute_accuracy(average.module.eval(), val_loader, device)
        history.append(
            {
                "epoch": epoch + 1,
                "size": size,
                "lr": round(optimizer.param_groups[0]["lr"], 6),
                "train_loss": round(means["loss"], 4),
                "train_top1": round(
                    100 * means["correct"], 2
                ),  # on augmented photos, with the weights before averaging
                "val_loss": round(val_loss, 4),
                "val_top1": round(top1, 2),
                "seconds": round(time.monotonic() - started, 1),
            }
        )
        state = {
            "trained": trained.state_dict(),
            "average": average.module.state_dict(),
            "optimizer": optimizer.state_dict(),
            "history": history,
            "settings": settings,
            "machine": describe_machine(device),
            "command": "python -m checkpoints.training.train " + shlex.join(sys.argv[1:]),
        }
        torch.save(state, run / "last.tmp")
        os.replace(run / "last.tmp", run / "last.pt")  # atomic: a killed run leaves the old or the new file
        write_history(run / "history.csv", history)
        print(history[-1], flush=True)


def describe_machine(device: torch.device) -> str:
    """Return processor, GPU and PyTorch version of a run."""
    card = f" and {torch.cuda.get_device_name(device)}" if device.type == "cuda" else ""
    return f"{os.cpu_count()} cores of {platform.machine()}{card}, PyTorch {torch.__version__}"


def get_run_folder(options: argparse.Namespace) -> Path:
    """Return the folder of a run's state, one for each configuration and kind of initialisation."""
    start = "-frozen-backbone" if options.freeze_backbone else "-fine-tuned" if options.finetune else "-from-scratch"
    return options.runs / (options.name + start)


def collect_settings(config: TrainConfig, options: argparse.Namespace) -> dict:
    """Return what influences the result and must therefore be the same when a run is resumed."""
    fields = {key: value for key, value in asdict(config).items() if key not in DESCRIPTIVE_FIELDS}
    names = ("seed", "finetune", "freeze_backbone", "restore_batchnorm", "distill", "distill_on", "teacher_size")
    return {**fields, **{name: str(getattr(options, name)) for name in names}}


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=TRAIN_CONFIGS, help="training configuration")
    parser.add_argument("--data", help="a folder or tar with train/ and val/; downloaded by default")
    parser.add_argument("--runs", type=Path, default=CHECKPOINTS / "runs", help="folder of the state of runs")
    parser.add_argument("--epochs", type=int, help="default: as configured")
    parser.add_argument("--batch", type=int, help="batch size; default: as configured")
    parser.add_argument("--lr", type=float, help="highest learning rate; default: as configured")
    parser.add_argument(
        "--sizes",
        type=int,
        nargs=2,
        metavar=("FIRST", "LAST"),
        help="side of the training photos in pixels; default: as configured",
    )
    parser.add_argument("--mixup", type=float, help="alpha; default: as configured")
    parser.add_argument("--cutmix", type=float, help="alpha; default: as configured")
    parser.add_argument("--workers", type=int, default=0, help="processes that load photos; 0: the main process")
    parser.add_argument("--seed", type=int, default=0)
    start = parser.add_mutually_exclusive_group()
    start.add_argument("--from-scratch", action="store_true", help="start from random weights (the default)")
    start.add_argument("--finetune", metavar="WEIGHTS", type=Path, help="start from a .safetensors file")
    parser.add_argument("--freeze-backbone", action="store_true", help="train the head only")
    parser.add_argument(
        "--restore-batchnorm", action="store_true", help="first restore the BatchNorm statistics of folded weights"
    )
    parser.add_argument("--distill", metavar="TEACHER", help="distil from this timm model besides the labels")
    parser.add_argument(
        "--teacher-weights", metavar="FILE", help="weights of the teacher (.safetensors); downloaded by default"
    )
    parser.add_argument(
        "--teacher-size", type=int, default=160, help="side of the teacher's input in pixels, for logits"
    )
    parser.add_argument("--distill-on", nargs="+", choices=DISTILLATION_KINDS, default=["logits"])
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--export", action="store_true", help="write the trained network to checkpoints/")
    action.add_argument("--evaluate", action="store_true", help="evaluate the network in checkpoints/")
    parser.add_argument("--other-photos", metavar="FOLDER", type=Path, help="with --export: photos of other classes")
    parser.add_argument("--note", default="", help="with --export: a remark about this run")
    options = parser.parse_args()
    if options.freeze_backbone and not options.finetune:
        parser.error("--freeze-backbone trains only the head and needs --finetune WEIGHTS")
    config = TRAIN_CONFIGS[options.name]
    overrides = {key: getattr(options, key) for key in ("epochs", "batch", "mixup", "cutmix")}
    overrides["sizes"] = options.sizes and tuple(options.sizes)
    overrides["optimizer"] = options.lr and {**config.optimizer, "lr": options.lr}
    config = replace(config, **{key: value for key, value in overrides.items() if value is not None})
    if options.evaluate:
        evaluate_accuracy(options.name, options.data)
    elif options.export:
        export_checkpoint(config, get_run_folder(options), options)
    else:
        train(config, options)


if __name__ == "__main__":
    main()
