"""How long `import vizlib` takes against `import torch, timm`, in fresh interpreters by turns."""

from __future__ import annotations

import subprocess
import sys

from common import Timing, at_most, options, show

OURS, THEIRS = "import vizlib", "import torch, timm"
HEAVY = ("gradio", "matplotlib", "torchvision.datasets")


def main() -> None:
    """Print the table."""
    given = options(__doc__, repeats=15)
    found: dict[str, list[float]] = {OURS: [], THEIRS: []}
    loaded: dict[str, set[str]] = {}
    for turn in range((2 if given.quick else given.repeats) + 1):
        for what, seconds in found.items():
            took, loaded[what] = _import(what)
            if turn:  # the first reads from the disk what the others find in memory
                seconds.append(took)
    ours, theirs = (Timing(tuple(seconds)) for seconds in found.values())
    ratio = ours.median / theirs.median
    extra = [name for name in HEAVY if name in loaded[OURS] - loaded[THEIRS]]
    rows = [
        (THEIRS, theirs, "1", "", "", ""),
        (OURS, ours, f"{ratio:.3f}", *at_most(ratio, 1.15), ", ".join(extra) or "none"),
    ]
    show(("what", "time (min–max)", "ratio", "goal", "met", f"of {', '.join(HEAVY)} it alone loads"), rows, given)


def _import(what: str) -> tuple[float, set[str]]:
    """The seconds an import takes in a fresh interpreter, and which of the heavy packages are then loaded."""
    code = (
        f"import sys, time; before = time.perf_counter(); {what}; took = time.perf_counter() - before; "
        f"print(took, *(name for name in {HEAVY} if name in sys.modules))"
    )
    output = subprocess.run([sys.executable, "-c", code], check=True, text=True, stdout=subprocess.PIPE).stdout
    took, *names = output.split()
    return float(took), set(names)


if __name__ == "__main__":
    main()
