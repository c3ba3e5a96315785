"""Shared by the load scripts: a server in its own process, generated photos, and the results of the library."""

from __future__ import annotations

import argparse
import importlib.util
import io
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["NO_PROXY"] = "127.0.0.1,localhost"

import gradio.media
import httpx
import numpy as np
import torch
from PIL import Image

import vizlib

ROOT = Path(__file__).resolve().parents[2]
RESNET, VIT = "resnet18-imagenette", "vit_tiny-imagenette"
ADDRESS = re.compile(r"Running on local URL: +(http\S+)\n")  # printed by a server that chose a free port
TIMEOUT_SECONDS = 120  # for a response, after which a visitor counts as unanswered
torch.set_num_threads(1)  # the server needs the cores

_spec = importlib.util.spec_from_file_location("benchmarks_common", ROOT / "tests" / "benchmarks" / "common.py")
assert _spec is not None
assert _spec.loader is not None
tables = importlib.util.module_from_spec(_spec)  # by its path, as it is called `common` too
sys.modules[_spec.name] = tables
_spec.loader.exec_module(tables)


class Query(NamedTuple):
    """A request about a photo; without a `method`, for its most probable classes."""

    photo: int
    model: str
    method: str = ""
    target: str = ""
    parameters: str = "{}"  # JSON

    @property
    def data(self) -> list[Any]:
        """The inputs of its endpoint after the photo."""
        return [self.model, self.method, self.target, json.loads(self.parameters)] if self.method else [self.model, 10]


class Reply(NamedTuple):
    """A response: HTTP status (0 for none), event ("complete", "error" or none) and its data as text."""

    status: int
    event: str
    text: str

    @property
    def message(self) -> str:
        """The message of an error."""
        try:
            data = json.loads(self.text)
        except ValueError:
            return self.text
        return str((data.get("error") or data.get("detail") or "") if isinstance(data, dict) else data or "")

    def values(self) -> np.ndarray:
        """Return the raw numbers of a complete response."""
        data = json.loads(self.text)[0]
        if isinstance(data, dict):
            return np.array(data["values"])
        return np.array([[row["index"], row["probability"], row["logit"]] for row in sorted(data, key=_index)])


class Server:
    """`vizlib serve` on a port that it chooses, in its own process, while a `with` block runs."""

    def __init__(self, folder: Path, *flags: str, wrapper: tuple[str, ...] = (), **environment: str) -> None:
        self.address, self.uploads = "", folder / "temporary"
        self.log = folder.with_suffix(".log")  # outside the folder, whose disk may be full
        self.uploads.mkdir(parents=True, exist_ok=True)
        self._command = [*wrapper, sys.executable, "-m", "dashboard", "--port", "0", *flags]
        inherited = {name: value for name, value in os.environ.items() if name != "GRADIO_TEMP_DIR"}
        self._environment = inherited | {"PYTHONPATH": str(ROOT), "TMPDIR": str(self.uploads)} | environment
        self._environment["PYTHONUNBUFFERED"] = "1"  # the address is read from the log

    def __enter__(self) -> Server:
        """Start the server, and wait until it responds."""
        with self.log.open("a") as log:
            start = log.tell()  # after what an earlier server of this folder wrote
            self.process = subprocess.Popen(
                self._command, cwd=self.log.parent, env=self._environment, stdout=log, stderr=log
            )
        until = time.monotonic() + TIMEOUT_SECONDS
        self.address = ""
        while not self._read_address(start) or not self.is_healthy():
            if self.process.poll() is not None or time.monotonic() > until:
                self.__exit__()
                raise RuntimeError(f"the server did not start:\n{self.log.read_text()}")
            time.sleep(0.2)
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait(60)

    def is_healthy(self) -> bool:
        """Return whether the health check succeeds."""
        try:
            return httpx.get(f"{self.address}/healthz", timeout=60).json()["status"] == "ok"
        except (httpx.HTTPError, ValueError):
            return False

    def upload(self, data: bytes, http: Any = httpx) -> httpx.Response:
        """Upload a file as the page does."""
        return http.post(f"{self.address}/gradio_api/upload", files={"files": ("a.jpg", data)}, timeout=TIMEOUT_SECONDS)

    def send(self, query: Query, file: dict[str, Any] | None = None, http: Any = httpx) -> Reply:
        """Upload the photo, unless a file is given, and send a query."""
        try:
            return self._send(query, file, http)
        except (httpx.HTTPError, ValueError):
            return Reply(0, "", "")

    def metrics(self) -> dict[str, float]:
        """Return the values of /metrics by name."""
        lines = httpx.get(f"{self.address}/metrics", timeout=60).text.splitlines()
        pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        return {name: float(value) for name, value in pairs}

    def resident_bytes(self) -> int:
        """Return the resident memory in bytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:"))

    def _read_address(self, start: int) -> str:
        """Set and return the address that the server printed after a position of its log; empty if there is none."""
        found = ADDRESS.search(self.log.read_bytes()[start:].decode("utf-8", "replace"))
        self.address = found[1] if found else ""
        return self.address

    def _send(self, query: Query, file: dict[str, Any] | None, http: Any) -> Reply:
        if file is None:
            upload = self.upload(make_photo(query.photo), http)
            if upload.status_code != 200:
                return Reply(upload.status_code, "", upload.text)
            file = {"path": upload.json()[0], "meta": {"_type": "gradio.FileData"}}
        url = f"{self.address}/gradio_api/call/{'explain' if query.method else 'predict'}"
        response = http.post(url, json={"data": [file, *query.data]}, timeout=TIMEOUT_SECONDS)
        if response.status_code != 200:
            return Reply(response.status_code, "", response.text)
        events = http.get(f"{url}/{response.json()['event_id']}", timeout=TIMEOUT_SECONDS).text
        event, _, data = events.rpartition("event: ")[2].partition("\ndata: ")
        return Reply(200, event, data.strip())


@cache
def _originals() -> list[Image.Image]:
    return [vizlib.open_image(gradio.media.get_image(f"{name}.jpg")) for name in ("tower", "cheetah")]


def make_photo(number: int) -> bytes:
    """Return a photo as a JPEG file; each number gives another crop of the example photos of gradio."""
    random = np.random.default_rng(number)
    whole = _originals()[number % 2]
    side = int(min(whole.size) * random.uniform(0.6, 0.95))
    left, top = (int(random.integers(0, length - side + 1)) for length in whole.size)
    file = io.BytesIO()
    whole.crop((left, top, left + side, top + side)).resize((400, 400)).save(file, "JPEG", quality=90)
    return file.getvalue()


@cache
def compute_expected(query: Query) -> np.ndarray:
    """Return the result of the library in this process."""
    model, photo = _load(query.model), vizlib.open_image(make_photo(query.photo))
    if not query.method:
        rows = sorted(model.predict(photo, top=10), key=lambda row: row.index)
        return np.array([[row.index, row.probability, row.logit] for row in rows])
    parameters = json.loads(query.parameters)
    return vizlib.explain(model, photo, query.method, query.target or None, **parameters).heat.double().numpy()


def is_close(values: np.ndarray, other: np.ndarray) -> bool:
    """Return whether two results are equal but for rounding, which depends on the number of threads.

    Where an input of a ReLU is 0 but for rounding (2e-8 was seen), its gradient is 0 or 1: a difference of 3e-4 of the
    largest value of a map. Results of two queries differ by far more.
    """
    return values.shape == other.shape and np.allclose(values, other, rtol=1e-3, atol=1e-3 * np.abs(other).max())


def is_correct(reply: Reply, query: Query) -> bool:
    """Return whether a response is complete and equals the result of the library."""
    return reply.event == "complete" and is_close(reply.values(), compute_expected(query))


def is_plain(text: str, *folders: Path) -> bool:
    """Return whether a message is one sentence without a path, traceback or name of an exception."""
    bad = ("Traceback", 'File "', "Errno", "Error", "/tmp", "/root", "/home", "site-packages", *map(str, folders))
    return bool(re.fullmatch(r"[^\n]{10,400}[.?]", text)) and not any(word in text for word in bad)


@cache
def _load(name: str) -> vizlib.Model:
    return vizlib.load(name)


def _index(row: dict[str, Any]) -> int:
    return row["index"]


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]], *notes: str, quick: bool = False) -> None:
    """Print a Markdown table, the machine and notes, in the format of the benchmarks."""
    tables.print_table(columns, rows, argparse.Namespace(quick=quick, device="cpu"), *notes)
