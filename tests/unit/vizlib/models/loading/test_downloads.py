"""Downloads with progress reports, from servers on this machine."""

from __future__ import annotations

import hashlib
import http.server
import io
import threading
from pathlib import Path

import pytest
import torch
import torchvision

import vizlib
from vizlib.models.loading import downloads

NAME = "test_resnet.r160_in1k"


def partial_files(folder: Path) -> list[Path]:
    """Return the unfinished downloads in a cache."""
    return [
        path for path in folder.rglob("*") if path.is_file() and path.suffix in (".incomplete", ".partial", ".part")
    ]


def test_load_reports_progress_while_it_downloads(hub, tmp_path, cheetah):
    reports: list[tuple[int, int]] = []
    halfway = threading.Event()

    def progress(here: int, total: int) -> None:
        reports.append((here, total))
        if here >= 1_000_000:
            halfway.set()

    hub.resume.clear()
    loaded = []
    thread = threading.Thread(target=lambda: loaded.append(vizlib.load(NAME, progress=progress)), daemon=True)
    thread.start()
    assert halfway.wait(60)
    assert not loaded  # progress is reported before the download is complete
    hub.resume.set()
    thread.join(60)
    assert {total for _, total in reports} == {hub.size}
    assert [here for here, _ in reports] == sorted(here for here, _ in reports)
    assert reports[-1] == (hub.size, hub.size)
    expected = vizlib.load(tmp_path / "model.safetensors", architecture="test_resnet").predict(cheetah)
    assert [prediction.logit for prediction in loaded[0].predict(cheetah)] == pytest.approx(
        [prediction.logit for prediction in expected], rel=1e-4
    )
    reports.clear()
    vizlib.load(NAME, progress=progress)
    assert reports == []  # cached
    assert sum(path.endswith("model.safetensors") for path in hub.requested_paths) == 1


@pytest.mark.slow
def test_load_raises_one_line_and_leaves_no_file_if_a_download_breaks(hub, tmp_path, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # between the attempts of huggingface_hub
    reports: list[tuple[int, int]] = []
    hub.interrupt.set()
    with pytest.raises(vizlib.ModelError, match=rf"^{NAME} could not be downloaded: [^\n]+$"):
        vizlib.load(NAME, progress=lambda *here: reports.append(here))
    assert 0 < max(reports)[0] < hub.size
    assert [here for here, _ in reports] == sorted(here for here, _ in reports)  # although each attempt starts at 0
    assert partial_files(tmp_path / "cache") == []
    hub.interrupt.clear()
    assert len(vizlib.load(NAME, progress=lambda *_: None).labels) == 1000


def test_load_downloads_without_progress_reports_if_they_are_not_supported(hub, monkeypatch):
    monkeypatch.setattr(downloads, "_supports_progress_bar", lambda: False)
    reports: list[tuple[int, int]] = []
    assert vizlib.load(NAME, progress=lambda *here: reports.append(here)).name == NAME
    assert reports == []


def test_download_from_hub_takes_the_first_file_that_exists(hub, tmp_path):
    downloads.download_from_hub("timm/test_resnet.r160_in1k", ["none.bin", "model.safetensors"], lambda *_: None)
    downloads.download_from_hub("timm/test_resnet.r160_in1k", ["none.bin"], lambda *_: None)
    assert downloads.is_in_hub_cache("timm/test_resnet.r160_in1k", ["model.safetensors"])


# ---------------------------------------------------------------------------------- torchvision's server


@pytest.fixture
def torch_server(tmp_path, monkeypatch):
    """A server of random SqueezeNet weights named with their hash; yields the URL and a list of the bytes to send."""
    torch.manual_seed(0)
    file = io.BytesIO()
    torch.save(torchvision.models.squeezenet1_1().state_dict(), file)
    content = file.getvalue()
    send = [content]

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(send[0])

        def do_HEAD(self):
            self.do_GET()

        def log_message(self, *_):
            pass

    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        name = f"squeezenet1_1-{hashlib.sha256(content).hexdigest()[:8]}.pth"
        yield f"http://127.0.0.1:{server.server_address[1]}/{name}", send
        server.shutdown()


def test_download_to_torch_cache_reports_progress(torch_server, tmp_path, monkeypatch):
    url, (content,) = torch_server
    reports: list[tuple[int, int]] = []
    downloads.download_to_torch_cache(url, lambda *here: reports.append(here))
    assert (tmp_path / "checkpoints" / url.rsplit("/", 1)[-1]).read_bytes() == content
    assert reports[-1] == (len(content), len(content))
    assert [here for here, _ in reports] == [
        min(n * downloads.BLOCK_BYTES, len(content)) for n in range(1, len(reports) + 1)
    ]
    assert downloads.is_in_torch_cache(url)


@pytest.mark.parametrize("alter", [lambda content: content[: len(content) // 2], lambda content: b"x" + content[1:]])
def test_load_keeps_no_incomplete_or_changed_file_of_torchvisions_server(torch_server, tmp_path, monkeypatch, alter):
    url, send = torch_server
    send[0] = alter(send[0])
    weights = torchvision.models.SqueezeNet1_1_Weights.DEFAULT
    monkeypatch.setattr(type(weights), "url", url)
    with pytest.raises(
        vizlib.ModelError, match=r"^torchvision/squeezenet1_1 could not be downloaded: the file is incomplete"
    ):
        vizlib.load("torchvision/squeezenet1_1", progress=lambda *_: None)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
