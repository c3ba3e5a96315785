"""A local hub with one model of random weights, whose downloads can be paused or interrupted."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import timm
import torch
from safetensors.torch import save_file


class ModelHub:
    """A local hub, and whether it sends its file completely, pauses in the middle, or stops there."""

    def __init__(self, size: int) -> None:
        self.address, self.size = "", size
        self.interrupt = threading.Event()  # set: it stops in the middle
        self.resume = threading.Event()  # not set: it pauses in the middle
        self.resume.set()
        self.requested_paths: list[str] = []


@contextmanager
def serve_model_hub(folder: Path, model: str, middle: int) -> Iterator[ModelHub]:
    """Serve the file `model.safetensors`, made in the folder, for a timm model; `middle` is a position in bytes."""
    torch.manual_seed(0)
    save_file(timm.create_model(model.split(".")[0]).state_dict(), folder / "model.safetensors")
    data = (folder / "model.safetensors").read_bytes()
    hub = ModelHub(len(data))

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            exists = self.path.endswith("/model.safetensors")
            self.send_response(200 if exists or self.path == "/" else 404)
            for name, value in (("ETag", '"1"'), ("X-Repo-Commit", "0" * 40), ("Content-Length", len(data) * exists)):
                self.send_header(name, str(value))
            self.end_headers()

        def do_GET(self) -> None:
            hub.requested_paths.append(self.path)
            self.do_HEAD()
            if not self.path.endswith("/model.safetensors"):
                return
            self.wfile.write(data[:middle])
            if hub.resume.wait(60) and not hub.interrupt.is_set():
                self.wfile.write(data[middle:])

        def log_message(self, *_) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        hub.address = f"http://127.0.0.1:{server.server_address[1]}"
        yield hub
        hub.resume.set()
        server.shutdown()
