"""A server as a person starts it, in a process of its own, and plain HTTP to treat it badly with."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
import torch
from http_timeouts import get, post

import vizlib

RESNET = "resnet18-imagenette"
ROOT = Path(__file__).resolve().parents[2]


class Malice:
    """What a pickle may hold: a call, made while it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


class Server(NamedTuple):
    """Where it listens, and its process."""

    address: str
    process: subprocess.Popen
    log: Path
    evil: Path  # a checkpoint it offers, whose pickle would write the file `written`
    written: Path

    def call(self, name: str, *data: Any) -> tuple[str, Any]:
        """What a named endpoint answers: ("complete", values) or ("error", sentence)."""
        api = f"{self.address}/gradio_api/call/{name}"
        asked = post(api, json={"data": data})
        if asked.status_code != 200:
            return str(asked.status_code), asked.text
        told = get(f"{api}/{asked.json()['event_id']}").text
        event, _, rest = told.rpartition("event: ")[2].partition("\n")
        answer = json.loads(rest.partition("data: ")[2])
        return event, answer["error"] if event == "error" and answer else answer

    def upload(self, data: bytes, name: str = "photo.png") -> dict[str, Any]:
        """A file as the page sends it, and the form in which an endpoint takes it."""
        (path,) = post(f"{self.address}/gradio_api/upload", files={"files": (name, data)}).json()
        return self.photo(path)

    @staticmethod
    def photo(path: str | None = None, url: str | None = None) -> dict[str, Any]:
        """A file at a path or an address, in the form in which an endpoint takes it."""
        return {"path": path, "url": url, "meta": {"_type": "gradio.FileData"}}

    def memory(self) -> tuple[int, int]:
        """Bytes that are resident now, and that were at most."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        rows = dict(line.split(":", 1) for line in status.splitlines())
        return tuple(int(rows[name].split()[0]) * 1024 for name in ("VmRSS", "VmHWM"))  # pyright: ignore


@pytest.fixture(scope="session")
def server(tmp_path_factory) -> Iterator[Server]:
    if RESNET not in {entry.name for entry in vizlib.list_models() if entry.bundled}:
        pytest.skip(f"the bundled checkpoint {RESNET} is not in checkpoints/")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    folder = tmp_path_factory.mktemp("server")
    (folder / "secret.txt").write_text("nobody may read this")
    evil, written = folder / "checkpoints" / "evil.pth", folder / "written"
    evil.parent.mkdir()
    torch.save({"weight": torch.ones(2), "evil": Malice(written)}, evil)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "GRADIO_TEMP_DIR": str(folder / "uploads")}
    command = [sys.executable, "-m", "dashboard", "--port", str(port), "--log", "--listed-only"]
    command += ["--checkpoints", str(evil.parent)]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
        address, until = f"http://127.0.0.1:{port}", time.monotonic() + 240
        while True:
            try:
                get(f"{address}/healthz")
                break
            except httpx.HTTPError:
                if process.poll() is not None or time.monotonic() > until:
                    pytest.fail((folder / "log").read_text())
                time.sleep(0.3)
        yield Server(address, process, folder / "log", evil, written)
        process.terminate()
        process.wait(60)
