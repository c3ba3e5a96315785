"""What faults are staged with: a small disk that can be filled; the hub whose line can be cut is in `hub.py`."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from common import Server

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
