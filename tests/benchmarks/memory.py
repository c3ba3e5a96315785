"""The memory that each method takes in addition to the model, in a new process each, with two budgets.

On the CPU it is the peak of the resident memory, less the resident memory after one forward pass of one photo; only
Linux can reset an earlier peak, so this runs only there. On a GPU it is the memory allocated by PyTorch.
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
from common import check_at_most, load_photos, load_resnet, make_vit, parse_options, print_table

import vizlib
from vizlib.attribution.methods.registry import METHODS
from vizlib.attribution.request import MANY_PASSES
from vizlib.models.inference.batched_inference import DEFAULT_BUDGET_MB

NETWORKS = {"resnet50": load_resnet, "vit": make_vit}
ALL_METHODS = "explain_all"
STREAM_STEPS = 3  # all steps need the same memory
SMALL_BUDGET_MB = 256
GOAL_MB, TOLERANCE = 1536, 1.2
GPU_PROCESS_MB = 4096  # memory of a GPU for one process


def main() -> None:
    """Print the table, or in a child process the megabytes of one method."""
    child = {
        "network": ("", "for child processes"),
        "method": ("", "for child processes"),
        "budget": (DEFAULT_BUDGET_MB, "for child processes"),
    }
    options = parse_options(__doc__, repeats=1, **child)
    if options.method:
        print(_measure_megabytes(options))
        return
    methods = [ALL_METHODS, *(name for name, row in METHODS.items() if row.cost == MANY_PASSES)]
    pairs = list(product(list(NETWORKS)[: 1 if options.quick else None], methods))
    with ThreadPoolExecutor(_count_processes(options.device)) as pool:  # memory is measured per process
        rows = list(pool.map(partial(_make_row, options=options), *zip(*pairs, strict=True)))
    columns = ("network", "method", "default budget", "goal, MB", "met")
    columns += (f"budget_mb={SMALL_BUDGET_MB}", "goal, MB", "met")
    steps = 1 if options.quick else STREAM_STEPS
    note = f"Peak above the loaded model; methods of many passes were stopped after {steps} steps."
    print_table(columns, rows, options, note)


def _count_processes(device: str) -> int:
    """Return the number of concurrent processes; on a GPU each has its own context and model."""
    processes = int(torch.cuda.mem_get_info()[0] / 1e6 / GPU_PROCESS_MB) if device == "cuda" else 4
    return max(1, min(processes, os.cpu_count() or 1))


def _make_row(network: str, method: str, options) -> tuple:
    default = _measure_in_process(network, method, DEFAULT_BUDGET_MB, options)
    cells = ("", "", "")
    if method != ALL_METHODS:
        small = _measure_in_process(network, method, SMALL_BUDGET_MB, options)
        cells = (f"{small:.0f} MB", *check_at_most(small, TOLERANCE * SMALL_BUDGET_MB))
    return network, method, f"{default:.0f} MB", *check_at_most(default, GOAL_MB), *cells


def _measure_in_process(network: str, method: str, budget: int, options) -> float:
    """Return the megabytes that a method takes in a new process."""
    command = [sys.executable, __file__, f"--network={network}", f"--method={method}", f"--budget={budget}"]
    command += [f"--device={options.device}"] + ["--quick"] * options.quick
    return float(subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE).stdout.split()[-1])


def _measure_megabytes(options) -> float:
    """Return the megabytes that a method takes in this process."""
    model, photo = NETWORKS[options.network](options.device), load_photos()[0]
    model.predict(photo)
    gc.collect()
    before = _reset_peak(options.device)
    if options.method == ALL_METHODS:
        vizlib.explain_all(model, photo)
    else:
        steps = vizlib.explain_stream(model, photo, options.method, budget_mb=options.budget)
        for _ in islice(steps, 1 if options.quick else STREAM_STEPS):
            pass
    return (_read_peak(options.device) - before) / 1e6


def _reset_peak(device: str) -> int:
    """Reset the peak, and return the bytes in use now."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    Path("/proc/self/clear_refs").write_text("5")
    return _read_status("VmRSS")


def _read_peak(device: str) -> int:
    return torch.cuda.max_memory_allocated() if device == "cuda" else _read_status("VmHWM")


def _read_status(field: str) -> int:
    """Return a field of /proc/self/status in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


if __name__ == "__main__":
    main()
