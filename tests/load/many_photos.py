"""A thousand photos of 12 megapixels in one call of the command line: its memory, and that no result is lost.

The photos are hard links to a few JPEG files with noise, in folders whose files have the same names. Each result is
compared with that of the library for the same file in the process of the script. Linux only.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from common import RESNET, ROOT, is_close, make_photo, print_table, tables
from PIL import Image

import vizlib

GOAL_MB = 300  # above the resident memory after the first photo
PHOTOS_PER_FOLDER = 100
SIZES = ((4000, 3000), (3000, 4000), (4243, 2828), (3464, 3464))  # width and height: 12 megapixels
METHOD = "grad-cam"
Row = tuple[str, str, str, str]  # what, result, goal, whether it is met


def main() -> None:
    """Print the table; exit with code 1 if a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=int, default=1000, help="how many photos")
    count = parser.parse_args().photos
    with tempfile.TemporaryDirectory() as folder:
        rows = _measure(Path(folder), count)
    print_table(("photos of 12 megapixels in one call", "result", "goal", "met"), rows)
    if any("no" in met for *_, met in rows):
        raise SystemExit(1)


def _measure(folder: Path, count: int) -> list[Row]:
    """Return the rows of the table."""
    originals = [_write_photo(folder / f"{i}.jpg", i) for i in range(len(SIZES))]
    paths = list(_link_photos(folder / "photos", originals, count))
    start, out = time.monotonic(), folder / "out"
    results, resident, peaks = _run_command(folder / "photos", out)
    seconds = time.monotonic() - start
    model = vizlib.load(RESNET)
    expected = [vizlib.explain(model, original, METHOD).heat.double().numpy() for original in originals]
    sources = {path: expected[i % len(originals)] for i, path in enumerate(paths)}
    values = ((path, np.array(json.loads(Path(file).read_text())["values"])) for path, file in results)
    wrong = sum(not is_close(heat, sources[path]) for path, heat in values)
    lost = len(set(paths) - {path for path, _ in results})
    overwritten = len(results) - len({file for _, file in results} & {str(file) for file in out.iterdir()})
    growth, peak_growth = (max(values) - values[0] for values in (resident, peaks))
    return [
        ("results", str(len(results)), "", ""),
        _make_row("results lost", lost, 0),
        _make_row("results overwritten", overwritten, 0),
        _make_row("results that differ from those of the library", wrong, 0),
        ("resident memory after the first photo, MB", f"{resident[0]:.0f}", "", ""),
        _make_row("most resident memory after a later photo, above that, MB", growth, GOAL_MB),
        _make_row("growth of the peak after the first photo, MB", peak_growth, GOAL_MB),
        ("seconds", f"{seconds:.0f}", "", ""),
    ]


def _make_row(name: str, value: float, goal: float) -> Row:
    """Return a row with a goal that its value must not exceed."""
    return name, f"{value:.0f}", *tables.check_at_most(value, goal)


def _write_photo(path: Path, number: int) -> Path:
    """Write a photo of 12 megapixels with noise, as a camera does."""
    photo = np.asarray(Image.open(io.BytesIO(make_photo(number))).convert("RGB").resize(SIZES[number]), np.int16)
    noise = np.random.default_rng(number).integers(-8, 9, photo.shape, dtype=np.int16)
    Image.fromarray(np.clip(photo + noise, 0, 255).astype(np.uint8)).save(path, quality=85)
    return path


def _link_photos(folder: Path, originals: list[Path], count: int) -> Iterator[str]:
    """Yield the paths of hard links to the photos, whose names repeat in every folder."""
    for i in range(count):
        path = folder / f"day{i // PHOTOS_PER_FOLDER:02}" / f"IMG_{i % PHOTOS_PER_FOLDER:04}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        os.link(originals[i % len(originals)], path)
        yield str(path)


def _run_command(photos: Path, out: Path) -> tuple[list[tuple[str, str]], list[float], list[float]]:
    """Explain the photos with the command line.

    Returns:
        Of each result its photo and its file, and then the resident memory and its peak so far in megabytes.
    """
    command = [sys.executable, "-c", "from vizlib.cli import app; app()", "explain", str(photos), "--out", str(out)]
    command += ["--method", METHOD, "--model", RESNET, "--as", "json", "--jsonl"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    results, resident, peaks = [], [], []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        for line in process.stdout:
            try:
                status = Path(f"/proc/{process.pid}/status").read_text()
                values = {name: int(text.split()[0]) / 1000 for name, text in _parse_status(status)}
                resident.append(values["VmRSS"])
                peaks.append(values["VmHWM"])
            except (OSError, KeyError):  # it has ended after the last result
                pass
            row = json.loads(line)
            results.append((row["photo"]["path"], row["file"]))
    return results, resident, peaks


def _parse_status(text: str) -> Iterator[tuple[str, str]]:
    """Yield the names and values of memory in the status of a process."""
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name in ("VmRSS", "VmHWM"):
            yield name, value.strip()


if __name__ == "__main__":
    main()
