"""What the benchmarks share: networks and photos, timing two things in one run, correlations, Markdown."""

from __future__ import annotations

import argparse
import datetime
import gc
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import timm
import torch
from PIL import Image

import vizlib

DATA = Path(os.environ["VIZLIB_DATA"]) if os.environ.get("VIZLIB_DATA") else None
BFLOAT16 = "Computed in bfloat16"  # how a note of a method that used it begins
# Of the real ResNet weights; random weights are shown the same.
PREPROCESSING = {
    "input_size": (3, 224, 224),
    "crop_pct": 0.875,
    "crop_mode": "center",
    "interpolation": "bilinear",
    "mean": (0.485, 0.456, 0.406),
    "std": (0.229, 0.224, 0.225),
}


def options(about: str | None, *, repeats: int, **more) -> argparse.Namespace:
    """Read `--quick`, `--device`, `--repeats`, and more flags given as `name=(default, help)`."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--quick", action="store_true", help="little work, to see that the script runs: no measurement")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--repeats", type=int, help=f"how often each thing is timed; left out, {repeats}")
    for name, (default, text) in more.items():
        kind: dict[str, Any] = (
            {"action": "store_true"} if default is False else {"type": type(default), "default": default}
        )
        parser.add_argument(f"--{name}", help=text, **kind)
    given = parser.parse_args()
    given.repeats = given.repeats or (1 if given.quick else repeats)
    return given


# ---------------------------------------------------------------------------------- networks and photos


def resnet(device: str, name: str = "resnet50") -> vizlib.Model:
    """A ResNet, frozen; its weights are real where there is a folder of data, else random."""
    if DATA is None:
        torch.manual_seed(0)
        module = timm.create_model(name).eval()
    else:
        module = vizlib.load(DATA / "weights" / f"{name}.in1k.safetensors", architecture=name).module
    title = {"resnet50": "ResNet-50", "resnet18": "ResNet-18"}[name]
    return vizlib.wrap(module.requires_grad_(False).to(device), preprocessing=PREPROCESSING, name=title)


def vit(device: str) -> vizlib.Model:
    """ViT-B/16, frozen, of random weights: how long it takes does not depend on them."""
    torch.manual_seed(0)
    module = timm.create_model("vit_base_patch16_224").eval()
    return vizlib.wrap(module.requires_grad_(False).to(device), preprocessing=PREPROCESSING, name="ViT-B/16")


def photos(count: int = 1) -> list[Image.Image]:
    """The first real photos of the folder of data, else noise."""
    if DATA is not None:
        files = sorted((DATA / "imagenet_val_boxes" / "images").glob("*.JPEG"))[:count]
        return [vizlib.open_image(file) for file in files]
    noise = np.random.default_rng(0).integers(0, 256, (count, 256, 256, 3), dtype=np.uint8)
    return [vizlib.open_image(pixels) for pixels in noise]


# ---------------------------------------------------------------------------------- time


@dataclass(frozen=True)
class Timing:
    """How long one thing took, each time, in seconds."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return median(self.seconds)

    def times(self, factor: float) -> Timing:
        """What it would take if it were this much more work."""
        return Timing(tuple(factor * one for one in self.seconds))

    def plus(self, other: Timing) -> Timing:
        """One after the other."""
        return Timing(tuple(a + b for a, b in zip(self.seconds, other.seconds, strict=True)))

    def __str__(self) -> str:
        """Median, and the shortest and longest."""
        unit, factor = ("ms", 1e3) if self.median < 1 else ("s", 1)
        low, middle, high = (
            f"{factor * one:.{3 if factor * one < 1000 else 4}g}"
            for one in (min(self.seconds), self.median, max(self.seconds))
        )
        return f"{middle} {unit} ({low}–{high})"


def interleaved(repeats: int, device: str, **runs: Callable[[], object]) -> dict[str, Timing]:
    """Time several things in turn, so that whatever else the machine does meets all of them.

    Each runs once before, untimed: a first call reads files, and measures what a pass costs.
    """
    for run in runs.values():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            gc.collect()
            finish(device)
            before = time.perf_counter()
            run()
            finish(device)
            seconds[name].append(time.perf_counter() - before)
    return {name: Timing(tuple(found)) for name, found in seconds.items()}


def finish(device: str) -> None:
    """Wait until a GPU has done what it was asked."""
    if device == "cuda":
        torch.cuda.synchronize()


# ---------------------------------------------------------------------------------- likeness


def pearson(a, b) -> float:
    """The correlation of two maps."""
    return float(np.corrcoef(_flat(a), _flat(b))[0, 1])


def spearman(a, b) -> float:
    """The correlation of the ranks of two maps; equal values share the mean of their ranks."""
    return pearson(_ranks(_flat(a)), _ranks(_flat(b)))


def _flat(values) -> np.ndarray:
    return torch.as_tensor(values).detach().cpu().double().flatten().numpy()


def _ranks(values: np.ndarray) -> np.ndarray:
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    return (count.cumsum() - (count - 1) / 2)[place]


# ---------------------------------------------------------------------------------- Markdown


def at_most(value: float, goal: float) -> tuple[str, str]:
    """Two cells: a goal that a value must not exceed, and whether it is met."""
    return f"≤ {goal:g}", "yes" if value <= goal else "**no**"


def at_least(value: float, goal: float) -> tuple[str, str]:
    """Two cells: a goal that a value must reach, and whether it is met."""
    return f"≥ {goal:g}", "yes" if value >= goal else "**no**"


def show(columns: Sequence[str], rows: Sequence[Sequence[object]], given: argparse.Namespace, *notes: str) -> None:
    """Print a Markdown table, then the machine, then notes."""
    print()
    for line in (columns, ["---"] * len(columns), *rows):
        print("| " + " | ".join(map(str, line)) + " |")
    if given.quick:
        print("\n**Run with --quick: it shows that the script works, and measures nothing.**")
    print("\n" + "\n".join((machine(given.device), *notes)), flush=True)


def machine(device: str) -> str:
    """The processor, its cores, the versions and the day, in one line."""
    name = platform.processor() or platform.machine()
    cpu = Path("/proc/cpuinfo")
    if cpu.exists():
        models = [line.split(":")[1].strip() for line in cpu.read_text().splitlines() if line.startswith("model name")]
        name = models[0] if models else name
    can = getattr(torch.cpu, "get_capabilities", dict)()
    quick = "with" if can.get("avx512_bf16") or can.get("amx_bf16") else "without"
    card = f", {torch.cuda.get_device_name()}" if device == "cuda" else ""
    weights = "real" if DATA is not None else "random"
    return (
        f"{name} {quick} bfloat16, {os.cpu_count()} cores, {torch.get_num_threads()} threads{card}; "
        f"torch {torch.__version__}, timm {timm.__version__}; ResNet weights {weights}; {datetime.date.today()}"
    )
