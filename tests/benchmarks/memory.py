"""How much memory the methods take besides the model, each in a fresh process, with two budgets.

On the processor it is the resident memory at its peak, above what was resident after one forward pass of one photo;
Linux alone can forget an earlier peak, so it runs there only. On a GPU it is what PyTorch's allocator handed out.
"""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice, product
from pathlib import Path

import torch
from common import at_most, options, photos, resnet, show, vit

import vizlib
from vizlib.attribution.methods.base import MANY_PASSES
from vizlib.attribution.methods.registry import METHODS
from vizlib.models.inference.batched_inference import DEFAULT_BUDGET_MB

NETWORKS = {"resnet50": resnet, "vit": vit}
EVERYTHING = "explain_all"
STEPS = 3  # of a stream: each needs what the others do
SMALL_MB = 256
GOAL_MB, SLACK = 1536, 1.2
ROOM_MB = 4096  # for one process on a GPU


def main() -> None:
    """Print the table, or in a child process the megabytes of one method."""
    child = {"network": ("", "for child processes"), "method": ("", "the same"), "budget": (DEFAULT_BUDGET_MB, "the same")}
    given = options(__doc__, repeats=1, **child)
    if given.method:
        print(_megabytes(given))
        return
    methods = [EVERYTHING, *(name for name, row in METHODS.items() if row.cost == MANY_PASSES)]
    asked = list(product(list(NETWORKS)[: 1 if given.quick else None], methods))
    with ThreadPoolExecutor(_side_by_side(given.device)) as pool:  # what one process takes is not another's
        rows = list(pool.map(partial(_row, given=given), *zip(*asked, strict=True)))
    columns = ("network", "method", "default budget", "goal, MB", "met", f"budget_mb={SMALL_MB}", "goal, MB", "met")
    steps = 1 if given.quick else STEPS
    show(columns, rows, given, f"Peak above the loaded model; methods of many passes were stopped after {steps} steps.")


def _side_by_side(device: str) -> int:
    """How many processes there is room for: on a GPU each needs its own context and model besides what is measured."""
    room = int(torch.cuda.mem_get_info()[0] / 1e6 / ROOM_MB) if device == "cuda" else 4
    return max(1, min(room, os.cpu_count() or 1))


def _row(network: str, method: str, given) -> tuple:
    usual = _measured(network, method, DEFAULT_BUDGET_MB, given)
    small = ("", "", "")
    if method != EVERYTHING:
        found = _measured(network, method, SMALL_MB, given)
        small = (f"{found:.0f} MB", *at_most(found, SLACK * SMALL_MB))
    return network, method, f"{usual:.0f} MB", *at_most(usual, GOAL_MB), *small


def _measured(network: str, method: str, budget: int, given) -> float:
    """What a fresh process needs."""
    command = [sys.executable, __file__, f"--network={network}", f"--method={method}", f"--budget={budget}"]
    command += [f"--device={given.device}"] + ["--quick"] * given.quick
    return float(subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE).stdout.split()[-1])


def _megabytes(given) -> float:
    model, photo = NETWORKS[given.network](given.device), photos()[0]
    model.predict(photo)
    gc.collect()
    before = _forget_peak(given.device)
    if given.method == EVERYTHING:
        vizlib.explain_all(model, photo)
    else:
        steps = vizlib.explain_stream(model, photo, given.method, budget_mb=given.budget)
        for _ in islice(steps, 1 if given.quick else STEPS):
            pass
    return (_peak(given.device) - before) / 1e6


def _forget_peak(device: str) -> int:
    """Start to look for the peak anew; what is in use now."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _peak(device: str) -> int:
    return torch.cuda.max_memory_allocated() if device == "cuda" else _status("VmHWM")


def _status(what: str) -> int:
    """A line of Linux's account of this process, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{what}:"))


if __name__ == "__main__":
    main()
