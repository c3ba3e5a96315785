"""A folder of a server's own for uploads and pictures, so that what a killed server left can be told from the rest."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

try:
    import fcntl
except ImportError:  # Windows has no such locks: there a killed server's files stay until somebody deletes them
    fcntl = None

TEMP_DIR_VARIABLE = "GRADIO_TEMP_DIR"  # where gradio keeps files; a person who sets it also tidies there
LOCK_NAME = "alive"  # a file that is locked as long as its server lives: the system opens the lock of who was killed


@contextmanager
def private_temp_dir() -> Iterator[Path]:
    """Give gradio a folder of this server's own, deleted at the end; at the start those of dead servers are deleted.

    Servers of one user may start, live and die at the same time. A folder that the person chose is left as it is.
    """
    if os.environ.get(TEMP_DIR_VARIABLE):
        yield Path(os.environ[TEMP_DIR_VARIABLE])
        return
    folder, lock = _made()
    files = folder / "files"
    files.mkdir()
    os.environ[TEMP_DIR_VARIABLE] = str(files)
    if tools := sys.modules.get("gradio.mcp"):  # which has read it by now
        tools.DEFAULT_TEMP_DIR = str(files)  # pyright: ignore[reportAttributeAccessIssue]
    try:
        yield files
    finally:
        del os.environ[TEMP_DIR_VARIABLE]
        lock.close()
        shutil.rmtree(folder, ignore_errors=True)


def delete_stale_uploads(folder: Path, seconds: float) -> None:
    """Delete what was begun to be uploaded and never came whole: such files lie in the folder itself, nobody's."""
    for path in list(folder.iterdir()) if folder.is_dir() else []:
        with suppress(OSError):  # it came whole meanwhile, and lies elsewhere
            if path.is_file() and time.time() - path.stat().st_mtime > seconds:
                path.unlink()


def _made() -> tuple[Path, IO[str]]:
    """A new folder and its lock."""
    user = os.getuid() if hasattr(os, "getuid") else 0
    place = Path(tempfile.gettempdir()).resolve() / f"vizlib-{user}"
    with suppress(OSError):
        place.mkdir(mode=0o700, exist_ok=True)
    if not place.is_dir() or place.is_symlink() or (hasattr(os, "getuid") and place.stat().st_uid != user):
        place = Path(tempfile.mkdtemp(prefix="vizlib-"))  # somebody else's folder has that name
    with (place / "lock").open("w") as all_of_them:  # one server at a time looks around and moves in
        _lock(all_of_them, wait=True)
        for other in place.iterdir():
            if other.is_dir() and not _lives(other):
                shutil.rmtree(other, ignore_errors=True)
        folder = Path(tempfile.mkdtemp(dir=place))
        alive = (folder / LOCK_NAME).open("w")
        _lock(alive)
    return folder, alive


def _lives(folder: Path) -> bool:
    """Whether the server that made a folder is still there."""
    try:
        with (folder / LOCK_NAME).open("r+") as file:
            return fcntl is None or not _lock(file)
    except OSError:  # it was killed before it had made its lock
        return fcntl is None


def _lock(file: IO[str], *, wait: bool = False) -> bool:
    """Lock a file until it is closed; whether that could be done."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
