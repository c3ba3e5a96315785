"""Remove each guard of `guards/` in turn, check that its tests fail, and print the table of the README.

    python tests/security/mutate.py              # all rows, each in a copy of the checkout; about an hour
    python tests/security/mutate.py bomb XSS     # rows whose risk contains one of these words

Exits with code 1 if a guard is not in the code, or one of its tests passes without it. Python 3.11 or later.
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
SUBJECTS = ("uploads", "requests", "page_events", "html_output", "resources")
HEAD = "| risk | protection | tests | without the protection | test results |\n| --- | --- | --- | --- | --- |"

# The start of the server, and a line after which protections of gradio are disabled.
START_FILE, START_LINE = "dashboard/__main__.py", "from __future__ import annotations\n"


def read_guards() -> list[dict[str, Any]]:
    """Return the guards: risk, protection, tests, without, and `edit` (file, old, new) or `gradio` (lines of code)."""
    rows = []
    for subject in SUBJECTS:
        rows += tomllib.loads((ROOT / f"tests/security/guards/{subject}.toml").read_text(encoding="utf-8"))["guard"]
    for row in rows:
        row.setdefault("edit", [])
        if "gradio" in row:
            row["edit"].append({"file": START_FILE, "old": START_LINE, "new": START_LINE + row["gradio"]})
    return rows


def apply_edit(folder: Path, edit: dict[str, str]) -> str:
    """Return the text of a file after an edit.

    Raises:
        ValueError: If the guard does not occur exactly once.
    """
    text = (folder / edit["file"]).read_text(encoding="utf-8")
    if text.count(edit["old"]) != 1:
        raise ValueError(f"{edit['file']} contains {text.count(edit['old'])} times, not once: {edit['old']!r}")
    return text.replace(edit["old"], edit["new"])


def format_row(guard: dict[str, Any], results: list[str]) -> str:
    """Return a row of the table of the README."""
    tests = "<br>".join(f"`{test}`" for test in guard["tests"])
    return f"| {guard['risk']} | {guard['protection']} | {tests} | {guard['without']} | {'<br>'.join(results)} |"


def main(words: list[str]) -> int:
    """Print the rows, and return the exit code."""
    selected = [guard for guard in read_guards() if not words or any(word in guard["risk"] for word in words)]
    print(HEAD)
    untested = [guard["risk"] for guard in selected if not measure(guard)]
    print(
        f"\n{len(selected) - len(untested)} of {len(selected)} guards are tested by all of their tests.",
        file=sys.stderr,
    )
    print(*(f"not tested: {risk}" for risk in untested), sep="\n", file=sys.stderr)
    return 1 if untested or not selected else 0


def measure(guard: dict[str, Any]) -> bool:
    """Print one row, and return whether each of its tests fails without the guard."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "checkout"
        command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]  # all but ignored files
        files = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
        for name in filter(None, files.split("\0")):
            if (ROOT / name).is_file():
                (copy / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, copy / name)
        for edit in guard["edit"]:
            (copy / edit["file"]).write_text(apply_edit(copy, edit), encoding="utf-8")
        counts = count_failures(copy, guard["tests"])
    print(format_row(guard, [f"{failed} of {ran} failed" for failed, ran in counts]), flush=True)
    return all(failed for failed, _ in counts)


def count_failures(copy: Path, tests: list[str]) -> list[tuple[int, int]]:
    """Return how many cases of each test failed and ran in the copy, and print why each failed.

    A server that does not start, ends or cannot be reached is no failure of a test.
    """
    results = copy.parent / "results.xml"
    command = [sys.executable, "-m", "pytest", "-m", "", "-n", "0", "-p", "no:cacheprovider", f"--junitxml={results}"]
    command += ["-W", "default", "-p", "no:unraisableexception"]  # a test must fail without its guard, not by a warning
    environment = os.environ | {"PYTHONPATH": str(copy)}
    arguments = [*command, *(f"tests/{test}" for test in tests)]
    output = subprocess.run(arguments, cwd=copy, env=environment, capture_output=True, text=True).stdout
    cases = list(ElementTree.parse(results).iter("testcase")) if results.exists() else []
    if any(case.find("error") is not None for case in cases) or not cases:
        print(output, file=sys.stderr)
    counts = []
    for test in tests:
        file, _, name = test.partition("::")
        own = [case for case in cases if case.get("classname") == f"tests.{file.removesuffix('.py').replace('/', '.')}"]
        own = [case for case in own if case.get("name") == name or str(case.get("name")).startswith(f"{name}[")]
        failures = [(case.get("name"), failure.get("message", "")) for case in own for failure in case.iter("failure")]
        for case, reason in failures:
            print(f"{case}: {reason}", file=sys.stderr)
        counts.append((sum(not reason.startswith("httpx.") for _, reason in failures), len(own)))
    return counts


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
