"""The time of `import vizlib` relative to `import torch, timm`, alternately in new interpreters."""

from __future__ import annotations

import subprocess
import sys

from common import Timing, check_at_most, parse_options, print_table

VIZLIB, BASELINE = "import vizlib", "import torch, timm"
HEAVY_PACKAGES = ("gradio", "matplotlib", "torchvision.datasets")


def main() -> None:
    """Print the table."""
    options = parse_options(__doc__, repeats=15)
    seconds: dict[str, list[float]] = {VIZLIB: [], BASELINE: []}
    loaded: dict[str, set[str]] = {}
    for repeat in range((2 if options.quick else options.repeats) + 1):
        for statement, durations in seconds.items():
            duration, loaded[statement] = _time_import(statement)
            if repeat:  # the first reads the files from the disk, the others from the cache of the system
                durations.append(duration)
    vizlib, baseline = (Timing(tuple(durations)) for durations in seconds.values())
    ratio = vizlib.median / baseline.median
    extra = [name for name in HEAVY_PACKAGES if name in loaded[VIZLIB] - loaded[BASELINE]]
    rows = [
        (BASELINE, baseline, "1", "", "", ""),
        (VIZLIB, vizlib, f"{ratio:.3f}", *check_at_most(ratio, 1.15), ", ".join(extra) or "none"),
    ]
    columns = ("statement", "time (min–max)", "ratio", "goal", "met", f"loads of {', '.join(HEAVY_PACKAGES)}")
    print_table(columns, rows, options)


def _time_import(statement: str) -> tuple[float, set[str]]:
    """Return the duration of an import in a new interpreter in seconds, and the heavy packages it loads."""
    code = (
        f"import sys, time; started = time.perf_counter(); {statement}; seconds = time.perf_counter() - started; "
        f"print(seconds, *(name for name in {HEAVY_PACKAGES} if name in sys.modules))"
    )
    output = subprocess.run([sys.executable, "-c", code], check=True, text=True, stdout=subprocess.PIPE).stdout
    seconds, *names = output.split()
    return float(seconds), set(names)


if __name__ == "__main__":
    main()
