"""Both scripts of this folder run to their end and miss no goal; with `-s` their tables are shown."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import vizlib

HERE = Path(__file__).parent


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read as Linux tells it")
@pytest.mark.parametrize("command", [["visitors.py", "--quick"], ["faults.py"]])
def test_a_server_stands_many_visitors_and_bad_luck(command):
    if sum(entry.bundled for entry in vizlib.list_models()) < 2:
        pytest.skip("the two bundled checkpoints are not in checkpoints/")
    script, *flags = command
    ran = subprocess.run([sys.executable, HERE / script, *flags], capture_output=True, text=True, timeout=900)
    print(ran.stdout)
    assert ran.returncode == 0, ran.stdout + ran.stderr
