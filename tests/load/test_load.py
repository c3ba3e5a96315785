"""The scripts of this folder reach all goals; `-s` shows their tables."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import vizlib

HERE = Path(__file__).parent


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
@pytest.mark.parametrize("command", [["visitors.py", "--quick"], ["faults.py"], ["many_photos.py", "--photos=40"]])
def test_load_and_faults_are_withstood(command):
    if sum(entry.bundled for entry in vizlib.list_models()) < 2:
        pytest.skip("the two bundled checkpoints are not in checkpoints/")
    script, *flags = command
    process = subprocess.run([sys.executable, HERE / script, *flags], capture_output=True, text=True, timeout=900)
    print(process.stdout)
    assert process.returncode == 0, process.stdout + process.stderr
