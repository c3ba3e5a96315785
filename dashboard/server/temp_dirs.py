"""A private folder of each server for uploads and pictures, so that what a killed server left can be recognised."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

TEMP_DIR_VARIABLE = "GRADIO_TEMP_DIR"  # where gradio keeps files; a user who sets it deletes them as well
LOCK_NAME = "alive"  # a file locked while its server runs: the system releases the lock of a killed process


@contextmanager
def use_private_temp_dir() -> Iterator[Path]:
    """Give gradio a temporary folder of this server, deleted at the end; delete those of dead servers first.

    Servers of one user may start, run and end at the same time. A folder set by the user is left as it is.
    """
    if os.environ.get(TEMP_DIR_VARIABLE):
        yield Path(os.environ[TEMP_DIR_VARIABLE])
        return
    folder, lock = _make_folder()
    files = folder / "files"
    files.mkdir()
    os.environ[TEMP_DIR_VARIABLE] = str(files)
    if mcp := sys.modules.get("gradio.mcp"):  # which has read the variable already
        mcp.DEFAULT_TEMP_DIR = str(files)  # pyright: ignore[reportAttributeAccessIssue]
    try:
        yield files
    finally:
        del os.environ[TEMP_DIR_VARIABLE]
        lock.release()
        shutil.rmtree(folder, ignore_errors=True)


def delete_stale_uploads(folder: Path, max_age: float) -> None:
    """Delete incomplete uploads in a temporary folder that are older than `max_age` seconds."""
    for path in list(folder.iterdir()) if folder.is_dir() else []:
        with suppress(OSError):  # the upload was completed meanwhile, and moved
            if path.is_file() and time.time() - path.stat().st_mtime > max_age:
                path.unlink()


def _make_folder() -> tuple[Path, FileLock]:
    """Make a temporary folder and lock its lock file; folders whose lock file is not locked are deleted."""
    user = os.getuid() if hasattr(os, "getuid") else 0
    parent = Path(tempfile.gettempdir()).resolve() / f"vizlib-{user}"
    with suppress(OSError):
        parent.mkdir(mode=0o700, exist_ok=True)
    if not parent.is_dir() or parent.is_symlink() or (hasattr(os, "getuid") and parent.stat().st_uid != user):
        parent = Path(tempfile.mkdtemp(prefix="vizlib-"))  # a folder of another user has that name
    setup = FileLock(parent / "lock", is_singleton=False)
    locked = _acquire(setup, timeout=-1)  # one server at a time deletes and makes folders
    try:
        for other in parent.iterdir():
            if other.is_dir() and not _is_in_use(other):
                shutil.rmtree(other, ignore_errors=True)
        folder = Path(tempfile.mkdtemp(dir=parent))
        lock = FileLock(folder / LOCK_NAME, is_singleton=False)
        _acquire(lock, timeout=0)
    finally:
        if locked:
            setup.release()
    return folder, lock


def _is_in_use(folder: Path) -> bool:
    """Return whether the server that made a temporary folder still runs."""
    lock = FileLock(folder / LOCK_NAME, is_singleton=False)
    if _acquire(lock, timeout=0):
        lock.release()
        return False
    return True


def _acquire(lock: FileLock, timeout: float) -> bool:
    """Return whether the lock of a temporary folder was acquired; not on a file system without locks."""
    try:
        lock.acquire(timeout=timeout)
    except (Timeout, OSError, NotImplementedError):
        return False
    return True
