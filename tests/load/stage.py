"""What faults are staged with: a small disk that can be filled, and a hub whose line can be cut."""

from __future__ import annotations

import contextlib
import http.server
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import timm
import torch
from common import Server
from safetensors.torch import save_file

HUB_MODEL = "deit_tiny_patch16_224.fb_in1k"
CUT = 8_000_000  # bytes of a download that arrive
DISK = 16_000_000
SMALL_FILE = 4096  # bytes, where a limit on files stands for a full disk


class SkipError(Exception):
    """Why this machine cannot stage a fault."""


@contextmanager
def small_disk(folder: Path) -> Iterator[tuple[Callable[[Server], None], Callable[[Server], None]]]:
    """A small disk at a folder: what fills it for a server, and what makes room again.

    Who may not mount one gets a limit on the size of files instead, which fails in the same places.
    """
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(folder)]
    if shutil.which("mount") and subprocess.run(mount, capture_output=True).returncode == 0:
        filler = folder / "filler"

        def fill(_: Server) -> None:
            with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
                while True:
                    file.write(bytes(4096))

        try:
            yield fill, lambda _: filler.unlink()
        finally:
            subprocess.run(["umount", str(folder)], check=True)
        return
    if shutil.which("prlimit") is None:
        raise SkipError("this user may not mount a small disk, and there is no prlimit to limit the size of files")

    def limit(size: str, server: Server) -> None:
        subprocess.run(["prlimit", f"--pid={server.process.pid}", f"--fsize={size}:"], check=True)

    yield partial(limit, str(SMALL_FILE)), partial(limit, "unlimited")


@contextmanager
def small_hub(folder: Path) -> Iterator[tuple[str, threading.Event]]:
    """A hub on this machine that has one model, of random weights, and breaks off in the middle while `cut` is set.

    Gives its address, and `cut`. The weights lie in the folder as `model.safetensors`.
    """
    torch.manual_seed(0)
    save_file(timm.create_model(HUB_MODEL.split(".")[0]).state_dict(), folder / "model.safetensors")
    data, cut = (folder / "model.safetensors").read_bytes(), threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            known = self.path.endswith("/model.safetensors")
            self.send_response(200 if known or self.path == "/" else 404)
            for name, value in (("ETag", '"1"'), ("X-Repo-Commit", "0" * 40), ("Content-Length", len(data) * known)):
                self.send_header(name, str(value))
            self.end_headers()

        def do_GET(self) -> None:
            self.do_HEAD()
            if self.path.endswith("/model.safetensors"):
                self.wfile.write(data[:CUT] if cut.is_set() else data)

        def log_message(self, *_) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{listening.server_address[1]}", cut
        listening.shutdown()
