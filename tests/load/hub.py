"""A hub on this machine that has one model, of random weights, and whose line can be held up or cut."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import timm
import torch
from safetensors.torch import save_file


class Line:
    """How a hub sends its file: whole, after a pause in the middle, or not to its end."""

    def __init__(self, size: int) -> None:
        self.address, self.size = "", size
        self.cut = threading.Event()  # set: it breaks off in the middle
        self.go_on = threading.Event()  # not set: it waits in the middle
        self.go_on.set()
        self.asked: list[str] = []  # paths of what was to be sent


@contextmanager
def small_hub(folder: Path, model: str, middle: int) -> Iterator[Line]:
    """Serve the file `model.safetensors`, made in the folder, for a timm model; `middle` is so many bytes on."""
    torch.manual_seed(0)
    save_file(timm.create_model(model.split(".")[0]).state_dict(), folder / "model.safetensors")
    data = (folder / "model.safetensors").read_bytes()
    line = Line(len(data))

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            known = self.path.endswith("/model.safetensors")
            self.send_response(200 if known or self.path == "/" else 404)
            for name, value in (("ETag", '"1"'), ("X-Repo-Commit", "0" * 40), ("Content-Length", len(data) * known)):
                self.send_header(name, str(value))
            self.end_headers()

        def do_GET(self) -> None:
            line.asked.append(self.path)
            self.do_HEAD()
            if not self.path.endswith("/model.safetensors"):
                return
            self.wfile.write(data[:middle])
            if line.go_on.wait(60) and not line.cut.is_set():
                self.wfile.write(data[middle:])

        def log_message(self, *_) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        line.address = f"http://127.0.0.1:{listening.server_address[1]}"
        yield line
        line.go_on.set()
        listening.shutdown()
