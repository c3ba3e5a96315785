"""A server in its own process, and a client that sends it arbitrary HTTP requests."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from http_timeouts import get, post

import vizlib

RESNET = "resnet18-imagenette"
ROOT = Path(__file__).resolve().parents[2]
ADDRESS = re.compile(r"Running on local URL: +(http\S+)\n")


class CodeInPickle:
    """An object whose unpickling creates a file, as a pickle may call any function."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


class Server(NamedTuple):
    """A running server."""

    address: str
    process: subprocess.Popen
    log: Path
    unsafe_checkpoint: Path  # a checkpoint it offers, whose pickle would create the file `created`
    created: Path

    def call(self, name: str, *data: Any) -> tuple[str, Any]:
        """Return the result of a named endpoint: ("complete", values) or ("error", message)."""
        api = f"{self.address}/gradio_api/call/{name}"
        response = post(api, json={"data": data})
        if response.status_code != 200:
            return str(response.status_code), response.text
        events = get(f"{api}/{response.json()['event_id']}").text
        event, _, rest = events.rpartition("event: ")[2].partition("\n")
        result = json.loads(rest.partition("data: ")[2])
        return event, result["error"] if event == "error" and result else result

    def upload(self, data: bytes, name: str = "photo.png") -> dict[str, Any]:
        """Upload a file as the page does, and return it as an input of an endpoint."""
        (path,) = post(f"{self.address}/gradio_api/upload", files={"files": (name, data)}).json()
        return self.photo(path)

    @staticmethod
    def photo(path: str | None = None, url: str | None = None) -> dict[str, Any]:
        """Return a file at a path or URL as an input of an endpoint."""
        return {"path": path, "url": url, "meta": {"_type": "gradio.FileData"}}

    def memory(self) -> tuple[int, int]:
        """Return current and peak resident memory in bytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        rows = dict(line.split(":", 1) for line in status.splitlines())
        resident, peak = (int(rows[name].split()[0]) * 1024 for name in ("VmRSS", "VmHWM"))
        return resident, peak


@pytest.fixture(scope="session")
def server(tmp_path_factory) -> Iterator[Server]:
    if RESNET not in {entry.name for entry in vizlib.list_models() if entry.bundled}:
        pytest.skip(f"the bundled checkpoint {RESNET} is not in checkpoints/")
    folder = tmp_path_factory.mktemp("server")
    (folder / "secret.txt").write_text("not to be read")
    unsafe, created = folder / "checkpoints" / "evil.pth", folder / "created"
    unsafe.parent.mkdir()
    torch.save({"weight": torch.ones(2), "evil": CodeInPickle(created)}, unsafe)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "GRADIO_TEMP_DIR": str(folder / "uploads")}
    environment["PYTHONUNBUFFERED"] = "1"  # the address is read from the log
    command = [sys.executable, "-m", "dashboard", "--port", "0", "--log", "--listed-only"]
    command += ["--checkpoints", str(unsafe.parent)]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
        until = time.monotonic() + 240
        while not (address := ADDRESS.search((folder / "log").read_text())):
            if process.poll() is not None or time.monotonic() > until:
                process.kill()
                pytest.fail((folder / "log").read_text())
            time.sleep(0.3)
        yield Server(address[1], process, folder / "log", unsafe, created)
        ended = process.poll()
        process.terminate()
        process.wait(60)
    assert ended is None, f"the server ended with code {ended}:\n{(folder / 'log').read_text()}"
