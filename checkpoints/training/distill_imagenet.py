"""Train `vit_tiny-imagenet`, which knows ImageNet's 1,000 classes, from photos without labels and a teacher.

    python -m checkpoints.training.distill_imagenet                        # start or resume; reads VIZLIB_DATA
    python -m checkpoints.training.distill_imagenet --init WEIGHTS --block-steps 0    # start from exported weights
    python -m checkpoints.training.distill_imagenet --decay-steps 1000     # resume, lower the learning rate and end
    python -m checkpoints.training.distill_imagenet --export WEIGHTS       # write float16 weights of the last state
    python -m checkpoints.training.distill_imagenet --evaluate WEIGHTS     # accuracies beside the teacher's

The teacher is DeiT-Tiny (Touvron et al. 2021, arXiv:2012.12877), which has the same architecture; its licence is
Apache-2.0. The training has three stages:

* `blocks`: each half block of the student (attention or MLP, with its residual connection) is given the teacher's
  tokens and learns to return the teacher's next ones, and attention weights like the teacher's;
* `chain`: the half blocks in a chain, at a constant learning rate. Each is given the student's own tokens and learns
  what the teacher's half block makes of them; the last also learns the logits. This stage has no end;
* `decay`: as `chain`, with a learning rate that falls to 0 in `--decay-steps` steps. It can be started from any state.

Every `EVALUATION_STEPS` steps the accuracy on photos that are for choosing settings is measured. The state is saved
every `--save-steps` steps, and at SIGTERM, after which the process ends. The random choices of a step depend only on
the seed and its number, so that a resumed run has the same history as an uninterrupted one.
"""

from __future__ import annotations

import argparse
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from safetensors.torch import load_file, save
from torch import Tensor

import vizlib
from checkpoints.training.distill import (
    collect_tokens,
    compute_attention_losses,
    compute_block_losses,
    compute_kl_divergence,
    compute_own_token_losses,
    record_attention,
    split_blocks,
    use_explicit_attention,
)
from checkpoints.training.evaluate_imagenet import (
    PARTS,
    evaluate_beside_teacher,
    format_table,
    load_boxed_photos,
    load_labelled_photos,
)
from checkpoints.training.export import write_history
from checkpoints.training.imagenette import MEAN, STD
from checkpoints.training.photo_batches import PhotoCollection, draw_batch
from checkpoints.training.photo_cache import open_photo_cache
from vizlib.core.atomic_files import open_atomic
from vizlib.models.inference.batched_inference import supports_bfloat16

ARCHITECTURE = "vit_tiny_patch16_224"
TEACHER, TEACHER_FILE = "deit_tiny_patch16_224", "weights/deit_tiny_patch16_224.in1k.safetensors"
RUN_FOLDER = Path(__file__).resolve().parent.parent / "runs" / "vit_tiny-imagenet"
PREPROCESSING = {
    "input_size": (3, 224, 224),
    "interpolation": "bicubic",
    "crop_pct": 1.0,
    "crop_mode": "center",
    "mean": MEAN,
    "std": STD,
}
PATCH_SIZE = 16  # of both networks, in pixels
DEFAULT_BLOCK_STEPS = 3000
WARMUP_STEPS = 40  # at the start of `blocks` and of `chain`
LOG_STEPS = 20  # steps of one row of the history
EVALUATION_STEPS = 500  # between two measurements of the accuracy, which become part of a row of the history
MAX_GRADIENT_NORM = 5.0


@dataclass(frozen=True)
class Stage:
    """How one part of the training is done.

    Attributes:
        lr: Highest learning rate.
        sizes: Sides of the images in pixels; each step draws one of them.
        mixed: Fraction of the images that are mixtures of two photos.
    """

    lr: float
    sizes: tuple[int, ...]
    mixed: float


STAGES = {
    "blocks": Stage(3e-3, (112, 128, 160, 224), 0.3),
    "chain": Stage(1e-3, (112, 128, 160, 224), 0.3),
    "decay": Stage(1e-3, (160, 224), 0.15),
}


@dataclass
class Progress:
    """Which steps a run has done, and when its stages begin.

    Attributes:
        step: Number of finished steps.
        block_steps: Number of steps of the stage `blocks`.
        decay_start: First step of the stage `decay`; None if it has not been started.
        decay_steps: Its number of steps.
    """

    step: int
    block_steps: int
    decay_start: int | None = None
    decay_steps: int = 0

    @property
    def stage(self) -> str:
        """The stage of the next step."""
        if self.decay_start is not None and self.step >= self.decay_start:
            return "decay"
        return "blocks" if self.step < self.block_steps else "chain"

    @property
    def finished(self) -> bool:
        """Whether the last step of the stage `decay` is done."""
        return self.decay_start is not None and self.step >= self.decay_start + self.decay_steps

    def compute_learning_rate(self) -> float:
        """Return the learning rate of the next step."""
        highest = STAGES[self.stage].lr
        if self.decay_start is not None:
            return highest * (1 - (self.step - self.decay_start) / self.decay_steps)
        since = self.step - (self.block_steps if self.stage == "chain" else 0)
        return highest * min(1.0, (since + 1) / WARMUP_STEPS)


class Run:
    """A training run: student, teacher, optimizer and history; its state is one file, `last.pt`.

    Args:
        options: Options of the command line.
        student: The network that is trained.
        teacher: The network it learns from.
        device: Where both run.
        validation: Normalised images "photos 3 h w" and their classes "photos", on which the accuracy is measured.

    Attributes:
        folder: Folder of the state.
        progress: Which steps are done.
        history: One row for each `LOG_STEPS` steps.
        student: The network that is trained.
    """

    def __init__(
        self,
        options: argparse.Namespace,
        student: Any,
        teacher: Any,
        device: torch.device,
        validation: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        self.folder: Path = options.run
        self.settings = {"seed": options.seed, "tokens": options.tokens, "init": str(options.init)}
        self.device = device
        self.student = use_explicit_attention(student).to(device).train()
        self.teacher = use_explicit_attention(teacher).to(device).eval().requires_grad_(False)
        self.optimizer = torch.optim.AdamW(self.student.parameters(), betas=(0.9, 0.98), weight_decay=0.02)
        self.progress = Progress(0, DEFAULT_BLOCK_STEPS if options.block_steps is None else options.block_steps)
        self.history: list[dict] = []
        self._validation = validation
        self._block_steps: int | None = options.block_steps
        self._unlogged: list[tuple[float, float]] = []  # loss and CPU seconds of the steps after the last row

    def resume(self) -> None:
        """Load the state of the folder if it has one; `--block-steps` can still change where the first stage ends.

        Raises:
            SystemExit: If the state is of a run with other settings.
        """
        path = self.folder / "last.pt"
        if not path.exists():
            return
        state = torch.load(path, weights_only=True, map_location=self.device)
        if differing := [key for key, value in self.settings.items() if state["settings"].get(key) != value]:
            raise SystemExit(f"{path} was trained with another {differing[0]}: {state['settings'].get(differing[0])}")
        self.student.load_state_dict(state["student"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.progress, self.history = Progress(**state["progress"]), state["history"]
        self._unlogged = [(loss, seconds) for loss, seconds in state["unlogged"]]
        if self._block_steps is not None and self.progress.stage == "blocks":
            self.progress.block_steps = max(self._block_steps, self.progress.step)

    def save(self) -> None:
        """Write state and history; an interrupted call leaves the state before."""
        state = {
            "student": self.student.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "progress": vars(self.progress),
            "history": self.history,
            "unlogged": self._unlogged,
            "settings": self.settings,
        }
        with open_atomic(self.folder / "last.pt") as file:
            torch.save(state, file)
        if self.history:
            write_history(self.folder / "history.csv", self.history)

    def start_decay(self, steps: int) -> None:
        """Begin the stage `decay` at the next step, unless it has begun."""
        if self.progress.decay_start is None:
            self.progress.decay_start, self.progress.decay_steps = self.progress.step, steps

    def train_step(self, photos: PhotoCollection) -> float:
        """Do one step and return its loss."""
        started, stage = time.process_time(), STAGES[self.progress.stage]
        rng = np.random.default_rng((self.settings["seed"], self.progress.step))
        size = draw_size(self.progress.stage, rng)
        count = min(len(photos), count_photos(size, self.settings["tokens"]))
        images = draw_batch(photos, size, count, stage.mixed, rng).to(self.device)
        for group in self.optimizer.param_groups:
            group["lr"] = self.progress.compute_learning_rate()
        self.optimizer.zero_grad()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=supports_bfloat16(self.device)):
            loss = compute_stage_loss(self.progress.stage, self.student, self.teacher, images)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.student.parameters(), MAX_GRADIENT_NORM)
        self.optimizer.step()
        self._log_step(size, loss.item(), time.process_time() - started)
        self.progress.step += 1
        return loss.item()

    def _log_step(self, size: int, loss: float, seconds: float) -> None:
        self._unlogged.append((loss, seconds))
        if len(self._unlogged) < LOG_STEPS:
            return
        losses, times = zip(*self._unlogged, strict=True)
        row = {
            "step": self.progress.step + 1,
            "stage": self.progress.stage,
            "lr": round(self.progress.compute_learning_rate(), 7),
            "loss": round(sum(losses) / len(losses), 4),
            "cpu_seconds": round(sum(times), 1),
            "val_top1": None,
        }
        if self._validation is not None and row["step"] % EVALUATION_STEPS == 0:
            row["val_top1"] = round(100 * compute_accuracy(self.student, *self._validation), 2)
        self.history.append(row)
        self._unlogged = []
        print(row, f"{size} px", time.strftime("%H:%M:%S"), flush=True)


def compute_accuracy(network: Any, images: Tensor, labels: Tensor, batch_size: int = 25) -> float:
    """Return the fraction of normalised images "photos 3 h w" whose class is predicted, in evaluation mode."""
    device, was_training = next(network.parameters()).device, network.training
    network.eval()
    with torch.no_grad():
        predictions = torch.cat([network(batch.to(device)).argmax(1).cpu() for batch in images.split(batch_size)])
    network.train(was_training)
    return (predictions == labels).float().mean().item()


def count_photo_passes(progress: Progress, seed: int, tokens: int) -> int:
    """Return how many photos the finished steps of a run were given."""
    stages = [replace(progress, step=step).stage for step in range(progress.step)]
    sizes = [draw_size(stage, np.random.default_rng((seed, step))) for step, stage in enumerate(stages)]
    return sum(count_photos(size, tokens) for size in sizes)


def draw_size(stage: str, rng: np.random.Generator) -> int:
    """Return the side of the images of a step in pixels."""
    return int(rng.choice(STAGES[stage].sizes))


def count_photos(size: int, tokens: int) -> int:
    """Return the number of photos of a batch that has about so many patches."""
    return max(1, round(tokens / (size // PATCH_SIZE) ** 2))


def compute_stage_loss(stage: str, student: Any, teacher: Any, images: Tensor) -> Tensor:
    """Return the loss of one batch; both networks compute their attention explicitly.

    In `blocks` it is the sum of the errors of the embedding and of all half blocks, given the teacher's tokens, and of
    the divergences of their attention weights. In `chain` and `decay` it is the same sum given the student's tokens,
    plus the Kullback-Leibler divergence of the logits.
    """
    parts, teacher_parts = split_blocks(student), split_blocks(teacher)
    with record_attention(student) as attention, record_attention(teacher) as targets:
        with torch.no_grad():
            teacher_tokens = collect_tokens(teacher, images, teacher_parts)
        if stage == "blocks":
            losses = compute_block_losses(student, images, parts, teacher_tokens)
            return losses.sum() + compute_attention_losses(attention, targets).sum()
        targets.clear()  # those on the student's tokens follow
        losses, tokens = compute_own_token_losses(student, images, parts, teacher_parts, teacher_tokens[0])
    logits = student.forward_head(student.norm(tokens))
    with torch.no_grad():
        teacher_logits = teacher.forward_head(teacher.norm(teacher_tokens[-1]))
    divergences = compute_attention_losses(attention, targets)
    return losses.sum() + divergences.sum() + compute_kl_divergence(logits, teacher_logits)


@contextmanager
def catch_termination() -> Iterator[threading.Event]:
    """Yield an event that SIGTERM sets, instead of ending the process."""
    event = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: event.set())
    try:
        yield event
    finally:
        signal.signal(signal.SIGTERM, before)


def train(
    run: Run, photos: PhotoCollection, save_steps: int, stop: threading.Event, last_step: int | None = None
) -> None:
    """Train until the decay is done, `stop` is set or `last_step` is reached; the state is saved at the end."""
    while not run.progress.finished and not stop.is_set() and run.progress.step != last_step:
        loss = run.train_step(photos)
        if not np.isfinite(loss):
            raise SystemExit(f"The loss of step {run.progress.step} is {loss}; the last saved state is from before.")
        if run.progress.step % save_steps == 0:
            run.save()
    run.save()


def create_student(init: Path | None, seed: int) -> Any:
    """Return the network before the first step, with random weights or those of a `.safetensors` file."""
    torch.manual_seed(seed)
    student: Any = timm.create_model(ARCHITECTURE, dynamic_img_size=True)
    if init:
        student.load_state_dict(load_file(init))
    return student


def create_teacher(data: Path) -> Any:
    """Return DeiT-Tiny with the weights in the data folder."""
    teacher: Any = timm.create_model(TEACHER, dynamic_img_size=True)
    teacher.load_state_dict(load_file(data / TEACHER_FILE))
    return teacher


def prepare_validation(student: Any, data: Path) -> tuple[Tensor, Tensor]:
    """Return the images "photos 3 h w" and the classes "photos" that are for choosing settings."""
    model = vizlib.wrap(student, preprocessing=PREPROCESSING)
    photos, labels = load_labelled_photos(data, "choice")
    return torch.cat([model.tensor(photo) for photo in photos]), labels


def export_weights(state: Path, weights: Path) -> None:
    """Write the student of a state as a `.safetensors` file in half precision."""
    student = torch.load(state, weights_only=True, map_location="cpu")["student"]
    with open_atomic(weights) as file:
        file.write(save({key: value.half().contiguous() for key, value in student.items()}))


def evaluate(weights: Path, data: Path, part: str) -> None:
    """Print accuracy and calibration of a weight file and of the teacher, on one part of the labelled photos.

    Unless that part is for choosing settings, the photos with boxes follow.
    """
    student, teacher = (
        vizlib.wrap(model.eval(), preprocessing=PREPROCESSING, name=name)
        for model, name in ((create_student(weights, 0), weights.stem), (create_teacher(data), TEACHER))
    )
    sets = {"labelled photos": load_labelled_photos(data, part)}
    if part != "choice":
        sets["photos with boxes"] = load_boxed_photos(data)
    results = [(name, evaluate_beside_teacher(student, teacher, photos)) for name, photos in sets.items()]
    print(format_table(results))
    for name, result in results:
        print(name, result["calibration"])


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=RUN_FOLDER, help="folder of the state")
    parser.add_argument("--data", type=Path, help="folder of photos and teacher; default: VIZLIB_DATA")
    parser.add_argument("--cache", type=Path, help="folder of the decoded photos, 2 GB; default: RUN/cache")
    parser.add_argument("--init", type=Path, metavar="WEIGHTS", help="start from a .safetensors file")
    parser.add_argument(
        "--block-steps", type=int, help=f"steps of the stage `blocks`; default: {DEFAULT_BLOCK_STEPS}, or as before"
    )
    parser.add_argument("--decay-steps", type=int, help="begin the stage `decay`, and end after so many steps")
    parser.add_argument("--tokens", type=int, default=800, help="patches in a batch, which set its number of photos")
    parser.add_argument("--save-steps", type=int, default=50, help="steps between two saved states")
    parser.add_argument("--seed", type=int, default=0)
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--export", type=Path, metavar="WEIGHTS", help="write the weights of the last state")
    action.add_argument("--evaluate", type=Path, metavar="WEIGHTS", help="evaluate a .safetensors file")
    parser.add_argument("--part", choices=PARTS, default="report", help="with --evaluate: which labelled photos")
    options = parser.parse_args()
    if options.export:
        export_weights(options.run / "last.pt", options.export)
        return
    data = options.data or Path(os.environ.get("VIZLIB_DATA") or parser.error("give --data or set VIZLIB_DATA"))
    if options.evaluate:
        evaluate(options.evaluate, data, options.part)
        return
    options.run.mkdir(parents=True, exist_ok=True)
    photos = open_photo_cache(data, options.cache or options.run / "cache")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    student = create_student(options.init, options.seed)
    run = Run(options, student, create_teacher(data), device, prepare_validation(student, data))
    run.resume()
    if options.decay_steps:
        run.start_decay(options.decay_steps)
    with catch_termination() as stop:
        train(run, photos, options.save_steps, stop)


if __name__ == "__main__":
    main()
