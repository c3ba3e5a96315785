"""What the load scripts share: a server in a process of its own, photos without end, and what the library says."""

from __future__ import annotations

import argparse
import importlib.util
import io
import json
import os
import re
import socket
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
PATIENCE = 120  # seconds for an answer, after which a visitor counts as left hanging
torch.set_num_threads(1)  # the server needs the cores

_spec = importlib.util.spec_from_file_location("benchmarks_common", ROOT / "tests" / "benchmarks" / "common.py")
assert _spec is not None
assert _spec.loader is not None
tables = importlib.util.module_from_spec(_spec)  # by its path, as it is called `common` too
sys.modules[_spec.name] = tables
_spec.loader.exec_module(tables)


class Question(NamedTuple):
    """Something to ask of a photo: `method` is empty for the likeliest classes."""

    photo: int
    model: str
    method: str = ""
    target: str = ""
    knobs: str = "{}"

    @property
    def data(self) -> list[Any]:
        """What its endpoint takes after the photo."""
        return [self.model, self.method, self.target, json.loads(self.knobs)] if self.method else [self.model, 10]


class Answer(NamedTuple):
    """What came back: the HTTP status (0 for none), the event ("complete" or "error", or none) and its data as text."""

    status: int
    event: str
    text: str

    @property
    def said(self) -> str:
        """The sentence of an error, for whoever reads it."""
        try:
            data = json.loads(self.text)
        except ValueError:
            return self.text
        return str((data.get("error") or data.get("detail") or "") if isinstance(data, dict) else data or "")

    def values(self) -> np.ndarray:
        """The raw numbers of a complete answer."""
        data = json.loads(self.text)[0]
        if isinstance(data, dict):
            return np.array(data["values"])
        return np.array([[row["index"], row["probability"], row["logit"]] for row in sorted(data, key=_index)])


class Server:
    """`vizlib serve` on a free port, in a process of its own; it starts where it is called in a `with` block."""

    def __init__(self, folder: Path, *flags: str, before: tuple[str, ...] = (), **environment: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = str(free.getsockname()[1])
        self.address, self.uploads = f"http://127.0.0.1:{port}", folder / "temporary"
        self.log = folder.with_suffix(".log")  # beside it: that folder's disk may be full
        self.uploads.mkdir(parents=True, exist_ok=True)
        self._command = [*before, sys.executable, "-m", "dashboard", "--port", port, *flags]
        given = {name: value for name, value in os.environ.items() if name != "GRADIO_TEMP_DIR"}
        self._environment = given | {"PYTHONPATH": str(ROOT), "TMPDIR": str(self.uploads)} | environment

    def __enter__(self) -> Server:
        """Start it, and wait until it is there."""
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                self._command, cwd=self.log.parent, env=self._environment, stdout=log, stderr=log
            )
        until = time.monotonic() + PATIENCE
        while not self.healthy():
            if self.process.poll() is not None or time.monotonic() > until:
                self.__exit__()
                raise RuntimeError(f"the server did not start:\n{self.log.read_text()}")
            time.sleep(0.2)
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait(60)

    def healthy(self) -> bool:
        """Whether it says that it is well."""
        try:
            return httpx.get(f"{self.address}/healthz", timeout=60).json()["status"] == "ok"
        except (httpx.HTTPError, ValueError):
            return False

    def upload(self, data: bytes, http: Any = httpx) -> httpx.Response:
        """Send a file as the page does."""
        return http.post(f"{self.address}/gradio_api/upload", files={"files": ("a.jpg", data)}, timeout=PATIENCE)

    def ask(self, question: Question, given: dict[str, Any] | None = None, http: Any = httpx) -> Answer:
        """Upload the photo, unless it is given in another form, and ask."""
        try:
            return self._asked(question, given, http)
        except (httpx.HTTPError, ValueError):
            return Answer(0, "", "")

    def metrics(self) -> dict[str, float]:
        """The numbers of /metrics."""
        lines = httpx.get(f"{self.address}/metrics", timeout=60).text.splitlines()
        pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        return {name: float(value) for name, value in pairs}

    def resident(self) -> int:
        """Bytes of memory in use."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:"))

    def _asked(self, question: Question, given: dict[str, Any] | None, http: Any) -> Answer:
        if given is None:
            sent = self.upload(photo(question.photo), http)
            if sent.status_code != 200:
                return Answer(sent.status_code, "", sent.text)
            given = {"path": sent.json()[0], "meta": {"_type": "gradio.FileData"}}
        url = f"{self.address}/gradio_api/call/{'explain' if question.method else 'predict'}"
        asked = http.post(url, json={"data": [given, *question.data]}, timeout=PATIENCE)
        if asked.status_code != 200:
            return Answer(asked.status_code, "", asked.text)
        told = http.get(f"{url}/{asked.json()['event_id']}", timeout=PATIENCE).text
        event, _, data = told.rpartition("event: ")[2].partition("\ndata: ")
        return Answer(200, event, data.strip())


@cache
def _originals() -> list[Image.Image]:
    return [vizlib.open_image(gradio.media.get_image(f"{name}.jpg")) for name in ("tower", "cheetah")]


def photo(number: int) -> bytes:
    """The JPEG file of a photo; each number gives another one, cut out of those that come with gradio."""
    random = np.random.default_rng(number)
    whole = _originals()[number % 2]
    side = int(min(whole.size) * random.uniform(0.6, 0.95))
    left, top = (int(random.integers(0, length - side + 1)) for length in whole.size)
    file = io.BytesIO()
    whole.crop((left, top, left + side, top + side)).resize((400, 400)).save(file, "JPEG", quality=90)
    return file.getvalue()


@cache
def truth(question: Question) -> np.ndarray:
    """What the library answers, in this process, one question after the other."""
    model, seen = _model(question.model), vizlib.open_image(photo(question.photo))
    if not question.method:
        rows = sorted(model.predict(seen, top=10), key=lambda one: one.index)
        return np.array([[one.index, one.probability, one.logit] for one in rows])
    knobs = json.loads(question.knobs)
    return vizlib.explain(model, seen, question.method, question.target or None, **knobs).heat.double().numpy()


def same(values: np.ndarray, other: np.ndarray) -> bool:
    """Whether two answers are equal but for the last digits of single precision."""
    return values.shape == other.shape and np.allclose(values, other, rtol=1e-3, atol=1e-4 * np.abs(other).max())


def right(answer: Answer, question: Question) -> bool:
    """Whether it is complete, and says what the library does."""
    return answer.event == "complete" and same(answer.values(), truth(question))


def plain(text: str, *folders: Path) -> bool:
    """Whether a visitor is told one sentence, in which there is no path, traceback or name of an exception."""
    bad = ("Traceback", 'File "', "Errno", "Error", "/tmp", "/root", "/home", "site-packages", *map(str, folders))
    return bool(re.fullmatch(r"[^\n]{10,400}[.?]", text)) and not any(word in text for word in bad)


@cache
def _model(name: str) -> vizlib.Model:
    return vizlib.load(name)


def _index(row: dict[str, Any]) -> int:
    return row["index"]


def show(columns: Sequence[str], rows: Sequence[Sequence[object]], *notes: str, quick: bool = False) -> None:
    """Print a Markdown table, then the machine, then notes, as benchmarks do."""
    tables.show(columns, rows, argparse.Namespace(quick=quick, device="cpu"), *notes)
