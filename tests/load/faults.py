"""Faults of a server: it is killed, its disk is full or read-only, a file is deleted, a download is interrupted.

In each case a visitor gets one sentence without a path or a traceback, the server keeps running and gives correct
results afterwards, and no incomplete file is served or read. Linux only. A fault that cannot be caused on this machine
is listed as skipped.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import shutil
import socket
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from common import RESNET, TIMEOUT_SECONDS, VIT, Query, Reply, Server, is_correct, is_plain, make_photo, print_table
from hub import serve_model_hub
from small_disk import HUB_MODEL, INTERRUPT_BYTES, SkipError, mount_small_disk

import vizlib
from vizlib.models.loading import checkpoint_files

PREDICT_QUERY, MAP_QUERY = Query(0, RESNET), Query(1, RESNET, "grad-cam")
Row = tuple[str, str, str]  # fault, message to a visitor, whether the server works afterwards


def main() -> None:
    """Print the table of faults."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    rows: list[Row] = []
    for part in (_kill_server, _fill_disk, _delete_checkpoint, _interrupt_download, _make_read_only):
        with tempfile.TemporaryDirectory() as folder:
            try:
                rows += part(Path(folder))
            except SkipError as reason:
                rows.append((str(part.__doc__).rstrip("."), f"skipped: {reason}", "skipped"))
    print_table(("fault", "message to a visitor", "server works afterwards"), rows)
    if any(row[-1].startswith("**no") for row in rows):
        raise SystemExit(1)


# ---------------------------------------------------------------------------------- kill


def _kill_server(folder: Path) -> list[Row]:
    """The server is killed."""
    rows, data = [], make_photo(0)
    half = data[: len(data) // 2]
    with Server(folder) as server:
        with socket.create_connection(("127.0.0.1", int(server.address.rpartition(":")[2]))) as connection:
            head = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.jpg"\r\n\r\n'
            length = len(head) + len(data) + len(b"\r\n--x--\r\n")
            connection.sendall(
                b"POST /gradio_api/upload HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n"
                b"Content-Type: multipart/form-data; boundary=x\r\n\r\n" % length + head + half
            )
            until = time.monotonic() + 60
            while not (incomplete := _find_incomplete(server)) and time.monotonic() < until:
                time.sleep(0.01)
            server.__exit__()
        files = _find_files(server)
    received = incomplete[0].read_bytes() if incomplete else b""
    problem = "" if received and half.startswith(received) else "no part of the photo had arrived when it was killed"
    with Server(folder) as server:
        rows.append(
            _format_row("kill -9 during an upload", "", _check_server(server, problem or _check_deleted(files)))
        )
        threads = [
            threading.Thread(target=_send_until_killed, args=(server, number), daemon=True) for number in range(6)
        ]
        for thread in threads:
            thread.start()
        until = time.monotonic() + TIMEOUT_SECONDS
        while len(_find_files(server, "*.png")) < 3 and time.monotonic() < until:
            time.sleep(0.01)
        server.__exit__()
        files = _find_files(server)
        for thread in threads:
            thread.join(60)
    with Server(folder) as server:
        problem = _check_deleted(files)
        rows.append(_format_row("kill -9 while pictures are written", "", _check_server(server, problem)))
        picture = _find_picture(server)
        complete = picture.read_bytes()
        picture.write_bytes(complete[:2000])  # as if killed while writing it
        restored = _find_picture(server) == picture and picture.read_bytes() == complete
        rows.append(_format_row("an incomplete picture is requested again", "", "" if restored else "it is incomplete"))
    return rows


def _send_until_killed(server: Server, number: int) -> None:
    count = 0
    while server.process.poll() is None:
        count += 1
        server.send(Query(100 + 10_000 * number + count, RESNET, "grad-cam"))


def _find_picture(server: Server) -> Path:
    """Return the path of the picture of a response."""
    return Path(json.loads(server.send(MAP_QUERY).text)[1]["path"])


def _find_files(server: Server, pattern: str = "*") -> list[Path]:
    """Return all uploads and pictures."""
    return [path for path in server.uploads.rglob(pattern) if path.is_file() and "files" in path.parts]


def _find_incomplete(server: Server) -> list[Path]:
    """Return the incomplete uploads."""
    return [path for path in _find_files(server) if path.parent.name == "files" and path.stat().st_size]


def _check_deleted(files: list[Path]) -> str:
    """Return a problem if files of a killed server exist after the next one has started."""
    existing = [path for path in files if path.exists()]
    return f"{len(existing)} of the {len(files)} files that it left still exist" if existing or not files else ""


# ---------------------------------------------------------------------------------- disks


def _fill_disk(folder: Path) -> list[Row]:
    """The disk is full."""
    disk = folder / "disk"
    with (
        mount_small_disk(disk) as (fill, free),
        serve_model_hub(folder, HUB_MODEL, INTERRUPT_BYTES) as hub,
        Server(disk, **_make_hub_environment(disk, hub.address)) as server,
    ):
        server.send(PREDICT_QUERY)
        fill(server)
        rows = _fail_to_write("a full disk", server)
        free(server)
        return [*rows, _format_row("the disk has space again", "", _check_server(server))]


def _make_read_only(folder: Path) -> list[Row]:
    """The folders for uploads, pictures and models are read-only."""
    wrapper: tuple[str, ...] = ()
    if os.geteuid() == 0:  # root can write to read-only folders unless the capability is dropped
        if shutil.which("setpriv") is None:
            raise SkipError("root can write to read-only folders, and setpriv, which drops the capability, is missing")
        wrapper = ("setpriv", "--bounding-set=-dac_override", "--inh-caps=-dac_override")
    root = folder / "read-only"
    with (
        serve_model_hub(folder, HUB_MODEL, INTERRUPT_BYTES) as hub,
        Server(root, wrapper=wrapper, **_make_hub_environment(root, hub.address)) as server,
    ):
        server.send(PREDICT_QUERY)
        (root / "models").mkdir(exist_ok=True)
        folders = [path for path in root.rglob("*") if path.is_dir()]
        for path in folders:
            path.chmod(0o555)
        rows = _fail_to_write("a read-only folder", server)
        for path in folders:
            path.chmod(0o755)
        return [*rows, _format_row("the folder is writable again", "", _check_server(server))]


def _fail_to_write(fault: str, server: Server) -> list[Row]:
    """Return the rows of an upload, a picture and a download that cannot be written."""
    upload = Reply(0, "", server.upload(bytes(300_000)).text)
    data_url = _make_data_url(5)
    rows = [_check_message(f"{fault}: an upload", upload, server)]
    rows.append(_check_message(f"{fault}: the picture of a map", server.send(MAP_QUERY, data_url), server))
    rows.append(_check_message(f"{fault}: the download of a model", server.send(Query(0, HUB_MODEL), data_url), server))
    problem = "" if is_correct(server.send(Query(5, VIT), data_url), Query(5, VIT)) else "no correct result meanwhile"
    return [*rows, _format_row(f"{fault}: a query that needs no file", "", problem)]


# ---------------------------------------------------------------------------------- models


def _delete_checkpoint(folder: Path) -> list[Row]:
    """A checkpoint is deleted after the start."""
    own = folder / "own"
    own.mkdir()
    for ending in (".safetensors", ".json"):
        shutil.copy((checkpoint_files.BUNDLED_FOLDER / RESNET).with_suffix(ending), own / f"mine{ending}")
    with Server(folder / "server", f"--checkpoints={own}") as server:
        (own / "mine.safetensors").unlink()
        return [_check_message("a checkpoint is deleted after the start", server.send(Query(0, "mine")), server, own)]


def _interrupt_download(folder: Path) -> list[Row]:
    """The download of a model is interrupted."""
    server_folder, query = folder / "server", Query(3, HUB_MODEL)
    with (
        serve_model_hub(folder, HUB_MODEL, INTERRUPT_BYTES) as hub,
        Server(server_folder, **_make_hub_environment(server_folder, hub.address)) as server,
    ):
        hub.interrupt.set()
        row = _check_message("the download of a model is interrupted", server.send(query), server)
        hub.interrupt.clear()
        reply = server.send(query)
    model = vizlib.load(folder / "model.safetensors", architecture=HUB_MODEL.split(".")[0])
    logits = {row.index: row.logit for row in model.predict(vizlib.open_image(make_photo(3)), top=10)}
    correct = reply.event == "complete" and np.allclose(
        reply.values()[:, 2], [logits[i] for i in sorted(logits)], atol=1e-4
    )
    problem = "" if correct else f"not the correct result, but {reply.message or reply.text[:80]}"
    return [row, _format_row("it is requested again, and is complete", "", problem)]


def _make_hub_environment(folder: Path, hub: str) -> dict[str, Any]:
    """Return the environment variables for the source and folder of model downloads."""
    return {"HF_HOME": str(folder / "models"), "HF_ENDPOINT": hub, "HF_HUB_OFFLINE": "0"}


# ---------------------------------------------------------------------------------- rows


def _check_message(fault: str, reply: Reply, server: Server, *folders: Path) -> Row:
    """Return a row with the message to a visitor."""
    message = reply.message or "nothing"
    problem = "" if is_plain(message, server.uploads.parent, *folders) else "the message is not one plain sentence"
    return _format_row(fault, message, _check_server(server, problem, _make_data_url(2)))


def _check_server(server: Server, problem: str = "", file: dict | None = None) -> str:
    """Return the given problem, or one of the server now."""
    if problem or not server.is_healthy():
        return problem or "the server is not healthy"
    query = Query(2, RESNET)
    return "" if is_correct(server.send(query, file), query) else "the server gives no correct result"


def _make_data_url(number: int) -> dict:
    """Return a photo as a data URL, as an input of an endpoint."""
    text = base64.b64encode(make_photo(number)).decode()
    return {"path": None, "url": f"data:image/jpeg;base64,{text}", "meta": {"_type": "gradio.FileData"}}


def _format_row(fault: str, message: str, problem: str) -> Row:
    return fault, message, f"**no**: {problem}" if problem else "yes"


if __name__ == "__main__":
    main()
