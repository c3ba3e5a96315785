"""Shared by the benchmarks: networks and photos, timing of several functions in one run, correlations, Markdown."""

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
# Of the real ResNet weights; used for random weights too.
PREPROCESSING = {
    "input_size": (3, 224, 224),
    "crop_pct": 0.875,
    "crop_mode": "center",
    "interpolation": "bilinear",
    "mean": (0.485, 0.456, 0.406),
    "std": (0.229, 0.224, 0.225),
}


def parse_options(about: str | None, *, repeats: int, **more: tuple[Any, str]) -> argparse.Namespace:
    """Parse the command line.

    Args:
        about: Description of the script.
        repeats: Default number of timed runs.
        more: Further options beside `--quick`, `--device` and `--repeats`, as `name=(default, help)`.
    """
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--quick", action="store_true", help="little work, to check that the script runs")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--repeats", type=int, help=f"number of timed runs; default {repeats}")
    for name, (default, text) in more.items():
        kind: dict[str, Any] = (
            {"action": "store_true"} if default is False else {"type": type(default), "default": default}
        )
        parser.add_argument(f"--{name}", help=text, **kind)
    options = parser.parse_args()
    options.repeats = options.repeats or (1 if options.quick else repeats)
    return options


# ---------------------------------------------------------------------------------- networks and photos


def load_resnet(device: str, name: str = "resnet50") -> vizlib.Model:
    """Return a ResNet with frozen weights: real ones if there is a folder of data, else random ones."""
    if DATA is None:
        torch.manual_seed(0)
        module = timm.create_model(name).eval()
    else:
        module = vizlib.load(DATA / "weights" / f"{name}.in1k.safetensors", architecture=name).module
    title = {"resnet50": "ResNet-50", "resnet18": "ResNet-18"}[name]
    return vizlib.wrap(module.requires_grad_(False).to(device), preprocessing=PREPROCESSING, name=title)


def make_vit(device: str) -> vizlib.Model:
    """Return ViT-B/16 with frozen random weights, on which its speed does not depend."""
    torch.manual_seed(0)
    module = timm.create_model("vit_base_patch16_224").eval()
    return vizlib.wrap(module.requires_grad_(False).to(device), preprocessing=PREPROCESSING, name="ViT-B/16")


def load_photos(count: int = 1) -> list[Image.Image]:
    """Return the first real photos of the folder of data, else noise."""
    if DATA is not None:
        files = sorted((DATA / "imagenet_val_boxes" / "images").glob("*.JPEG"))[:count]
        return [vizlib.open_image(file) for file in files]
    noise = np.random.default_rng(0).integers(0, 256, (count, 256, 256, 3), dtype=np.uint8)
    return [vizlib.open_image(pixels) for pixels in noise]


# ---------------------------------------------------------------------------------- time


@dataclass(frozen=True)
class Timing:
    """Durations of repeated runs, in seconds."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """The median duration in seconds."""
        return median(self.seconds)

    def scale(self, factor: float) -> Timing:
        """Return the durations of work that is larger by a factor."""
        return Timing(tuple(factor * duration for duration in self.seconds))

    def add(self, other: Timing) -> Timing:
        """Return the durations of both in sequence."""
        return Timing(tuple(a + b for a, b in zip(self.seconds, other.seconds, strict=True)))

    def __str__(self) -> str:
        """Return the median, minimum and maximum."""
        unit, factor = ("ms", 1e3) if self.median < 1 else ("s", 1)
        low, middle, high = (
            f"{factor * duration:.{3 if factor * duration < 1000 else 4}g}"
            for duration in (min(self.seconds), self.median, max(self.seconds))
        )
        return f"{middle} {unit} ({low}–{high})"


def time_alternately(repeats: int, device: str, **functions: Callable[[], object]) -> dict[str, Timing]:
    """Time several functions in turn, so that other load on the machine affects all of them.

    Each runs once before, untimed: the first call reads files and measures the cost of a pass.
    """
    for function in functions.values():
        function()
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(repeats):
        for name, function in functions.items():
            gc.collect()
            synchronize(device)
            started = time.perf_counter()
            function()
            synchronize(device)
            seconds[name].append(time.perf_counter() - started)
    return {name: Timing(tuple(durations)) for name, durations in seconds.items()}


def synchronize(device: str) -> None:
    """Wait until a GPU has finished all work."""
    if device == "cuda":
        torch.cuda.synchronize()


# ---------------------------------------------------------------------------------- correlations


def pearson(a, b) -> float:
    """Return the correlation of two maps."""
    return float(np.corrcoef(_flatten(a), _flatten(b))[0, 1])


def spearman(a, b) -> float:
    """Return the rank correlation of two maps; equal values get the mean of their ranks."""
    return pearson(_rank(_flatten(a)), _rank(_flatten(b)))


def _flatten(values) -> np.ndarray:
    return torch.as_tensor(values).detach().cpu().double().flatten().numpy()


def _rank(values: np.ndarray) -> np.ndarray:
    _, indices, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (counts.cumsum() - (counts - 1) / 2)[indices]


# ---------------------------------------------------------------------------------- Markdown


def check_at_most(value: float, goal: float) -> tuple[str, str]:
    """Return two cells: a goal that a value must not exceed, and whether it is met."""
    return f"≤ {goal:g}", "yes" if value <= goal else "**no**"


def check_at_least(value: float, goal: float) -> tuple[str, str]:
    """Return two cells: a goal that a value must reach, and whether it is met."""
    return f"≥ {goal:g}", "yes" if value >= goal else "**no**"


def print_table(
    columns: Sequence[str], rows: Sequence[Sequence[object]], options: argparse.Namespace, *notes: str
) -> None:
    """Print a Markdown table, then the machine, then notes."""
    print()
    for line in (columns, ["---"] * len(columns), *rows):
        print("| " + " | ".join(map(str, line)) + " |")
    if options.quick:
        print("\n**Run with --quick: this checks that the script runs, and measures nothing.**")
    print("\n" + "\n".join((describe_machine(options.device), *notes)), flush=True)


def describe_machine(device: str) -> str:
    """Return processor, cores, versions and date in one line."""
    name = platform.processor() or platform.machine()
    cpu = Path("/proc/cpuinfo")
    if cpu.exists():
        models = [line.split(":")[1].strip() for line in cpu.read_text().splitlines() if line.startswith("model name")]
        name = models[0] if models else name
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    bfloat16 = "with" if capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") else "without"
    gpu = f", {torch.cuda.get_device_name()}" if device == "cuda" else ""
    weights = "real" if DATA is not None else "random"
    return (
        f"{name} {bfloat16} bfloat16, {os.cpu_count()} cores, {torch.get_num_threads()} threads{gpu}; "
        f"torch {torch.__version__}, timm {timm.__version__}; ResNet weights {weights}; {datetime.date.today()}"
    )
