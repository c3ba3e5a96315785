"""The private folder of a server: kept while it runs, deleted after it ended or was killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import gradio.mcp
import pytest

from dashboard.server import temp_dirs

ROOT = Path(__file__).resolve().parents[4]
# SIGINT is handled as in a terminal; a background process of a script would ignore it. The pauses are short because a
# signal that arrives just before one is only handled after it.
SERVER_SCRIPT = """
import signal, time
from pathlib import Path
from dashboard.server.temp_dirs import use_private_temp_dir
signal.signal(signal.SIGINT, signal.default_int_handler)
with use_private_temp_dir() as folder:
    Path(folder, "upload.jpg").write_bytes(b"a photo")
    print(folder, flush=True)
    for _ in range(6000):
        time.sleep(0.1)
"""


class Process:
    """A process that has a private folder until it is killed."""

    def __init__(self, temporary: Path) -> None:
        inherited = {name: value for name, value in os.environ.items() if name != temp_dirs.TEMP_DIR_VARIABLE}
        environment = inherited | {"PYTHONPATH": str(ROOT), "TMPDIR": str(temporary)}
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVER_SCRIPT], env=environment, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self.folder = Path(self.process.stdout.readline().strip())

    def kill(self, signal_number: int = signal.SIGKILL) -> None:
        self.process.send_signal(signal_number)
        self.process.wait(60)
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def start(tmp_path, monkeypatch) -> Iterator:
    monkeypatch.delenv(temp_dirs.TEMP_DIR_VARIABLE, raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    processes: list[Process] = []

    def start_process() -> Process:
        processes.append(Process(tmp_path))
        return processes[-1]

    yield start_process
    for process in processes:
        if process.process.poll() is None:
            process.kill()


def test_folders_of_killed_servers_are_deleted_and_those_of_running_ones_kept(start):
    killed, running = start(), start()
    assert (killed.folder / "upload.jpg").exists()
    killed.kill()
    assert (killed.folder / "upload.jpg").exists()  # SIGKILL leaves no time to delete anything
    with temp_dirs.use_private_temp_dir() as own_folder:
        assert not killed.folder.parent.exists()
        assert (running.folder / "upload.jpg").exists()
        third = start()
        assert own_folder.exists()
        assert third.folder != own_folder
    assert not own_folder.parent.exists()
    assert third.folder.exists()


def test_interrupted_server_deletes_its_folder(start):
    process = start()
    process.kill(signal.SIGINT)
    assert not process.folder.parent.exists()


def test_folder_without_a_lock_file_is_deleted(start):
    running = start()
    without_lock = running.folder.parent.parent / "without-lock"
    without_lock.mkdir()
    with temp_dirs.use_private_temp_dir():
        assert not without_lock.exists()
        assert running.folder.exists()


def test_gradio_uses_the_private_folder_unless_the_user_chose_one(start, tmp_path, monkeypatch):
    monkeypatch.setattr(gradio.mcp, "DEFAULT_TEMP_DIR", "")
    with temp_dirs.use_private_temp_dir() as folder:
        assert os.environ[temp_dirs.TEMP_DIR_VARIABLE] == gradio.mcp.DEFAULT_TEMP_DIR == str(folder)
        assert folder.stat().st_uid == os.getuid()
        assert folder.parent.parent.stat().st_mode & 0o077 == 0  # no access for other users
    assert temp_dirs.TEMP_DIR_VARIABLE not in os.environ
    chosen = tmp_path / "chosen"
    chosen.mkdir()
    (chosen / "old.jpg").touch()
    monkeypatch.setenv(temp_dirs.TEMP_DIR_VARIABLE, str(chosen))
    with temp_dirs.use_private_temp_dir() as folder:
        assert folder == chosen
    assert (chosen / "old.jpg").exists()


def test_symbolic_link_in_place_of_the_folder_is_not_followed(start, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "precious").mkdir(parents=True)
    (tmp_path / f"vizlib-{os.getuid()}").symlink_to(elsewhere)
    with temp_dirs.use_private_temp_dir() as folder:
        assert not folder.is_relative_to(elsewhere)
    assert (elsewhere / "precious").exists()


def test_only_old_incomplete_uploads_are_deleted(tmp_path):
    for name in ("tmpold", "tmpnew", "hash/whole.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    for name in ("tmpold", "hash/whole.jpg"):
        os.utime(tmp_path / name, (time.time() - 100, time.time() - 100))
    temp_dirs.delete_stale_uploads(tmp_path, 50)
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["tmpnew", "whole.jpg"]
    temp_dirs.delete_stale_uploads(tmp_path / "none", 50)
