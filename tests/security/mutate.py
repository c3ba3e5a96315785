"""Take each guard of `guards/` away, one at a time, see its tests fail, and print the table of the README.

    python tests/security/mutate.py              # all rows, each in a copy of the checkout; about an hour
    python tests/security/mutate.py bomb XSS     # rows whose risk holds one of these words

Ends with exit code 1 where a guard is gone from the code, or one of its tests passes without it. Python 3.11 or later.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import tomllib

ROOT = Path(__file__).resolve().parents[2]
SUBJECTS = ("sent", "asked", "forged", "shown", "kept")
HEAD = "| risk | what is done | tests | seen failing when | without it |\n| --- | --- | --- | --- | --- |"

# The first lines of the server's start; what gradio does by itself is switched off after the second.
START, FIRST = "dashboard/__main__.py", "from __future__ import annotations\n"


def guards() -> list[dict[str, Any]]:
    """The rows: risk, done, tests, without, and `edit` (file, old, new) or `gradio` (lines that switch it off)."""
    rows = []
    for subject in SUBJECTS:
        rows += tomllib.loads((ROOT / f"tests/security/guards/{subject}.toml").read_text(encoding="utf-8"))["guard"]
    for row in rows:
        row.setdefault("edit", [])
        if "gradio" in row:
            row["edit"].append({"file": START, "old": FIRST, "new": FIRST + row["gradio"]})
    return rows


def changed(folder: Path, edit: dict[str, str]) -> str:
    """The text of a file after an edit. Raises: ValueError where the guard does not stand there exactly once."""
    text = (folder / edit["file"]).read_text(encoding="utf-8")
    if text.count(edit["old"]) != 1:
        raise ValueError(f"{edit['file']} holds {text.count(edit['old'])} times, not once: {edit['old']!r}")
    return text.replace(edit["old"], edit["new"])


def told(guard: dict[str, Any], seen: list[str]) -> str:
    """A row as the README has it."""
    tests = "<br>".join(f"`{test}`" for test in guard["tests"])
    return f"| {guard['risk']} | {guard['done']} | {tests} | {guard['without']} | {'<br>'.join(seen)} |"


def main(words: list[str]) -> int:
    """Print the rows; the exit code."""
    chosen = [guard for guard in guards() if not words or any(word in guard["risk"] for word in words)]
    print(HEAD)
    missed = [guard["risk"] for guard in chosen if not measured(guard)]
    print(f"\n{len(chosen) - len(missed)} of {len(chosen)} guards are missed by all of their tests.", file=sys.stderr)
    print(*(f"not missed: {risk}" for risk in missed), sep="\n", file=sys.stderr)
    return 1 if missed or not chosen else 0


def measured(guard: dict[str, Any]) -> bool:
    """Print one row; whether each of its tests fails without its guard."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "checkout"
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
        for name in filter(None, listed.split("\0")):
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, copy / name)
        for edit in guard["edit"]:
            (copy / edit["file"]).write_text(changed(copy, edit), encoding="utf-8")
        found = failures(copy, guard["tests"])
    print(told(guard, [f"{failed} of {ran} failed" for failed, ran in found]), flush=True)
    return all(failed for failed, _ in found)


def failures(copy: Path, tests: list[str]) -> list[tuple[int, int]]:
    """Of each test in the copy, how many cases failed and how many ran; a server that does not start fails none."""
    results = copy.parent / "results.xml"
    command = [sys.executable, "-m", "pytest", "-m", "", "-n", "0", "-p", "no:cacheprovider", f"--junitxml={results}"]
    environment = os.environ | {"PYTHONPATH": str(copy)}
    asked = [*command, *(f"tests/{test}" for test in tests)]
    said = subprocess.run(asked, cwd=copy, env=environment, capture_output=True, text=True).stdout
    cases = list(ElementTree.parse(results).iter("testcase")) if results.exists() else []
    if any(case.find("error") is not None for case in cases) or not cases:
        print(said, file=sys.stderr)
    counts = []
    for test in tests:
        file, _, name = test.partition("::")
        own = [case for case in cases if case.get("classname") == f"tests.{file.removesuffix('.py').replace('/', '.')}"]
        own = [case for case in own if case.get("name") == name or str(case.get("name")).startswith(f"{name}[")]
        counts.append((sum(case.find("failure") is not None for case in own), len(own)))
    return counts


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
