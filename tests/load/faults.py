"""What a server makes of bad luck: it is killed, its disk is full or closed to it, a file is gone, a download is cut.

Whatever happens, a visitor is told one sentence without a path or a traceback, the server stays up and answers rightly
afterwards, and no broken file is served or read. Linux only. A row that this machine cannot stage is shown as skipped.
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

import numpy as np
from common import PATIENCE, RESNET, VIT, Answer, Question, Server, photo, plain, right, show
from hub import small_hub
from stage import CUT, HUB_MODEL, SkipError, small_disk

import vizlib
from vizlib.models.loading import checkpoint_files

SIMPLE, MAP = Question(0, RESNET), Question(1, RESNET, "grad-cam")
Row = tuple[str, str, str]  # what happened, what a visitor was told, whether all is well


def main() -> None:
    """Print the table."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    rows: list[Row] = []
    for part in (_killed, _full, _gone, _cut, _closed):
        with tempfile.TemporaryDirectory() as folder:
            try:
                rows += part(Path(folder))
            except SkipError as reason:
                rows.append((str(part.__doc__).rstrip("."), f"skipped: {reason}", "skipped"))
    show(("what happens", "what a visitor is told", "and then all is well"), rows)
    if any(row[-1].startswith("**no") for row in rows):
        raise SystemExit(1)


# ---------------------------------------------------------------------------------- killed


def _killed(folder: Path) -> list[Row]:
    """The server is killed."""
    rows, whole = [], photo(0)
    half = whole[: len(whole) // 2]
    with Server(folder) as server:
        with socket.create_connection(("127.0.0.1", int(server.address.rpartition(":")[2]))) as line:
            head = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.jpg"\r\n\r\n'
            length = len(head) + len(whole) + len(b"\r\n--x--\r\n")
            line.sendall(
                b"POST /gradio_api/upload HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n"
                b"Content-Type: multipart/form-data; boundary=x\r\n\r\n" % length + head + half
            )
            until = time.monotonic() + 60
            while not (begun := _begun(server)) and time.monotonic() < until:
                time.sleep(0.01)
            server.__exit__()
        left = _files(server)
    came = begun[0].read_bytes() if begun else b""
    problem = "" if came and half.startswith(came) else "no part of the photo had arrived when it was killed"
    with Server(folder) as server:
        rows.append(_row("kill -9 in the middle of an upload", "", _after(server, problem or _gone_by_now(left))))
        threads = [threading.Thread(target=_asked_for_long, args=(server, number), daemon=True) for number in range(6)]
        for thread in threads:
            thread.start()
        until = time.monotonic() + PATIENCE
        while len(_files(server, "*.png")) < 3 and time.monotonic() < until:
            time.sleep(0.01)
        server.__exit__()
        left = _files(server)
        for thread in threads:
            thread.join(60)
    with Server(folder) as server:
        problem = _gone_by_now(left)
        rows.append(_row("kill -9 while answers and their pictures are made", "", _after(server, problem)))
        picture = _picture(server)
        whole = picture.read_bytes()
        picture.write_bytes(whole[:2000])  # as if killed in the middle of writing it
        mended = _picture(server) == picture and picture.read_bytes() == whole
        rows.append(_row("a picture cut short is asked for again", "", "" if mended else "it is still broken"))
    return rows


def _asked_for_long(server: Server, number: int) -> None:
    count = 0
    while server.process.poll() is None:
        count += 1
        server.ask(Question(100 + 10_000 * number + count, RESNET, "grad-cam"))


def _picture(server: Server) -> Path:
    """Where the picture of an answer lies."""
    return Path(json.loads(server.ask(MAP).text)[1]["path"])


def _files(server: Server, kind: str = "*") -> list[Path]:
    """Uploads and pictures."""
    return [path for path in server.uploads.rglob(kind) if path.is_file() and "files" in path.parts]


def _begun(server: Server) -> list[Path]:
    """Uploads of which something is there, but not all."""
    return [path for path in _files(server) if path.parent.name == "files" and path.stat().st_size]


def _gone_by_now(left: list[Path]) -> str:
    """What is wrong where files of a killed server are still there after the next one has started."""
    there = [path for path in left if path.exists()]
    return f"{len(there)} of the {len(left)} files that it left are still there" if there or not left else ""


# ---------------------------------------------------------------------------------- disks


def _full(folder: Path) -> list[Row]:
    """The disk is full."""
    place = folder / "disk"
    with (
        small_disk(place) as (fill, free),
        small_hub(folder, HUB_MODEL, CUT) as hub,
        Server(place, **_models(place, hub.address)) as server,
    ):
        server.ask(SIMPLE)
        fill(server)
        rows = _no_room("a full disk", server)
        free(server)
        return [*rows, _row("the disk has room again", "", _after(server))]


def _closed(folder: Path) -> list[Row]:
    """The folders for uploads, pictures and models may not be written to."""
    before: tuple[str, ...] = ()
    if os.geteuid() == 0:  # who may write everywhere, unless that is taken away
        if shutil.which("setpriv") is None:
            raise SkipError("root may write everywhere, and there is no setpriv to take that away")
        before = ("setpriv", "--bounding-set=-dac_override", "--inh-caps=-dac_override")
    place = folder / "closed"
    with (
        small_hub(folder, HUB_MODEL, CUT) as hub,
        Server(place, before=before, **_models(place, hub.address)) as server,
    ):
        server.ask(SIMPLE)
        (place / "models").mkdir(exist_ok=True)
        inside = [path for path in place.rglob("*") if path.is_dir()]
        for path in inside:
            path.chmod(0o555)
        rows = _no_room("a read-only folder", server)
        for path in inside:
            path.chmod(0o755)
        return [*rows, _row("the folder may be written to again", "", _after(server))]


def _no_room(fault: str, server: Server) -> list[Row]:
    """A photo comes, a picture is to be made, a model to be downloaded: nothing can be written."""
    sent = Answer(0, "", server.upload(bytes(300_000)).text)
    within = _within(5)
    rows = [_told(f"{fault}: an upload", sent, server)]
    rows.append(_told(f"{fault}: the picture of an answer", server.ask(MAP, within), server))
    rows.append(_told(f"{fault}: a model's download", server.ask(Question(0, HUB_MODEL), within), server))
    problem = "" if right(server.ask(Question(5, VIT), within), Question(5, VIT)) else "no right answer meanwhile"
    return [*rows, _row(f"{fault}: a question that needs no file", "", problem)]


# ---------------------------------------------------------------------------------- models


def _gone(folder: Path) -> list[Row]:
    """A checkpoint is removed after the start."""
    own = folder / "own"
    own.mkdir()
    for ending in (".safetensors", ".json"):
        shutil.copy((checkpoint_files.BUNDLED_FOLDER / RESNET).with_suffix(ending), own / f"mine{ending}")
    with Server(folder / "server", f"--checkpoints={own}") as server:
        (own / "mine.safetensors").unlink()
        return [_told("a checkpoint is removed after the start", server.ask(Question(0, "mine")), server, own)]


def _cut(folder: Path) -> list[Row]:
    """A model's download is cut."""
    place, asked = folder / "server", Question(3, HUB_MODEL)
    with small_hub(folder, HUB_MODEL, CUT) as hub, Server(place, **_models(place, hub.address)) as server:
        hub.cut.set()
        row = _told("a model's download is cut half-way", server.ask(asked), server)
        hub.cut.clear()
        answer = server.ask(asked)
    model = vizlib.load(folder / "model.safetensors", architecture=HUB_MODEL.split(".")[0])
    logits = {one.index: one.logit for one in model.predict(vizlib.open_image(photo(3)), top=10)}
    well = answer.event == "complete" and np.allclose(
        answer.values()[:, 2], [logits[i] for i in sorted(logits)], atol=1e-4
    )
    problem = "" if well else f"not the right answer, but {answer.said or answer.text[:80]}"
    return [row, _row("it is asked for again, and comes whole", "", problem)]


def _models(place: Path, hub: str) -> dict[str, str]:
    """Where a server downloads models from, and to."""
    return {"HF_HOME": str(place / "models"), "HF_ENDPOINT": hub, "HF_HUB_OFFLINE": "0"}


# ---------------------------------------------------------------------------------- rows


def _told(fault: str, answer: Answer, server: Server, *folders: Path) -> Row:
    """A row on what a visitor was told."""
    said = answer.said or "nothing"
    problem = "" if plain(said, server.uploads.parent, *folders) else "that is no plain sentence"
    return _row(fault, said, _after(server, problem, _within(2)))


def _after(server: Server, problem: str = "", given: dict | None = None) -> str:
    """The problem, else what is wrong with the server now."""
    if problem or not server.healthy():
        return problem or "the server is not healthy"
    asked = Question(2, RESNET)
    return "" if right(server.ask(asked, given), asked) else "the server gives no right answer"


def _within(number: int) -> dict:
    """A photo inside the question itself."""
    text = base64.b64encode(photo(number)).decode()
    return {"path": None, "url": f"data:image/jpeg;base64,{text}", "meta": {"_type": "gradio.FileData"}}


def _row(fault: str, said: str, problem: str) -> Row:
    return fault, said, f"**no**: {problem}" if problem else "yes"


if __name__ == "__main__":
    main()
