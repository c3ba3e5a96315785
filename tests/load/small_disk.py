"""A small disk that can be filled, to cause faults; the hub whose downloads can be interrupted is in `hub.py`."""

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
INTERRUPT_BYTES = 8_000_000  # sent of an interrupted download
DISK_BYTES = 16_000_000
MAX_FILE_BYTES = 4096  # where a limit on the size of files replaces a full disk


class SkipError(Exception):
    """A fault cannot be caused on this machine."""


@contextmanager
def mount_small_disk(folder: Path) -> Iterator[tuple[Callable[[Server], None], Callable[[Server], None]]]:
    """Mount a small disk at a folder; yield functions that fill it for a server, and that free it again.

    Without the right to mount one, the size of files is limited instead, which fails at the same places.
    """
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)]
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
        raise SkipError("this user may not mount a small disk, and prlimit, which limits the size of files, is missing")

    def limit(size: str, server: Server) -> None:
        subprocess.run(["prlimit", f"--pid={server.process.pid}", f"--fsize={size}:"], check=True)

    yield partial(limit, str(MAX_FILE_BYTES)), partial(limit, "unlimited")
