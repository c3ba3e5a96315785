"""A server's folder: its own while it lives, gone when it is dead, however it died."""

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
# As in a terminal, an interrupt is heard: a process started in a script's background would ignore it. The naps are
# short because a signal that comes just before one begins is only looked at when it ends.
LIVES = """
import signal, time
from pathlib import Path
from dashboard.server.temp_dirs import private_temp_dir
signal.signal(signal.SIGINT, signal.default_int_handler)
with private_temp_dir() as folder:
    Path(folder, "upload.jpg").write_bytes(b"a photo")
    print(folder, flush=True)
    for _ in range(6000):
        time.sleep(0.1)
"""


class Process:
    """A process that has a folder of its own until it is killed."""

    def __init__(self, temporary: Path) -> None:
        known = {name: value for name, value in os.environ.items() if name != temp_dirs.TEMP_DIR_VARIABLE}
        environment = known | {"PYTHONPATH": str(ROOT), "TMPDIR": str(temporary)}
        self.process = subprocess.Popen(
            [sys.executable, "-c", LIVES], env=environment, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self.folder = Path(self.process.stdout.readline().strip())

    def kill(self, how: int = signal.SIGKILL) -> None:
        self.process.send_signal(how)
        self.process.wait(60)
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def start(tmp_path, monkeypatch) -> Iterator:
    monkeypatch.delenv(temp_dirs.TEMP_DIR_VARIABLE, raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    started: list[Process] = []

    def one() -> Process:
        started.append(Process(tmp_path))
        return started[-1]

    yield one
    for other in started:
        if other.process.poll() is None:
            other.kill()


def test_what_a_killed_server_left_is_deleted_and_what_a_living_one_has_is_not(start):
    killed, living = start(), start()
    assert (killed.folder / "upload.jpg").exists()
    killed.kill()
    assert (killed.folder / "upload.jpg").exists()  # kill -9 gives nobody time to tidy up
    with temp_dirs.private_temp_dir() as mine:
        assert not killed.folder.parent.exists()
        assert (living.folder / "upload.jpg").exists()
        third = start()
        assert mine.exists()
        assert third.folder != mine
    assert not mine.parent.exists()
    assert third.folder.exists()


def test_an_interrupted_server_tidies_up_itself(start):
    process = start()
    process.kill(signal.SIGINT)
    assert not process.folder.parent.exists()


def test_a_server_that_was_killed_before_it_had_a_lock_is_dead_too(start):
    living = start()
    half = living.folder.parent.parent / "half"
    half.mkdir()
    with temp_dirs.private_temp_dir():
        assert not half.exists()
        assert living.folder.exists()


def test_gradio_is_told_and_what_the_person_says_counts(start, tmp_path, monkeypatch):
    monkeypatch.setattr(gradio.mcp, "DEFAULT_TEMP_DIR", "")
    with temp_dirs.private_temp_dir() as folder:
        assert os.environ[temp_dirs.TEMP_DIR_VARIABLE] == gradio.mcp.DEFAULT_TEMP_DIR == str(folder)
        assert folder.stat().st_uid == os.getuid()
        assert folder.parent.parent.stat().st_mode & 0o077 == 0  # nobody else looks in
    assert temp_dirs.TEMP_DIR_VARIABLE not in os.environ
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "old.jpg").touch()
    monkeypatch.setenv(temp_dirs.TEMP_DIR_VARIABLE, str(theirs))
    with temp_dirs.private_temp_dir() as folder:
        assert folder == theirs
    assert (theirs / "old.jpg").exists()


def test_a_link_in_its_place_is_not_followed(start, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "precious").mkdir(parents=True)
    (tmp_path / f"vizlib-{os.getuid()}").symlink_to(elsewhere)
    with temp_dirs.private_temp_dir() as folder:
        assert not folder.is_relative_to(elsewhere)
    assert (elsewhere / "precious").exists()


def test_only_old_files_that_never_came_whole_are_deleted(tmp_path):
    for name in ("tmpold", "tmpnew", "hash/whole.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    for name in ("tmpold", "hash/whole.jpg"):
        os.utime(tmp_path / name, (time.time() - 100, time.time() - 100))
    temp_dirs.delete_stale_uploads(tmp_path, 50)
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["tmpnew", "whole.jpg"]
    temp_dirs.delete_stale_uploads(tmp_path / "none", 50)
