"""The server: options, health, metrics, log, limits and cleanup."""

from __future__ import annotations

import io
import json
import logging
import re
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import gradio_client
import pytest
import torch
from http_timeouts import TIMEOUT_SECONDS, get, post
from huggingface_hub import constants as hub
from PIL import Image
from typer.testing import CliRunner

import vizlib
from dashboard import app
from dashboard.server import options
from dashboard.server import server as server_module
from dashboard.server.body_limit import MAX_BODY_BYTES
from dashboard.server.options import ServerOptions
from dashboard.server.process import configure_process
from dashboard.services.analysis_service import AnalysisService
from dashboard.services.explanation_request import ExplanationRequest
from dashboard.services.metrics import LOG, RunMetrics, make_counter, make_gauge, render_metrics
from dashboard.services.model_catalog import ModelCatalog
from vizlib.cli import app as cli
from vizlib.models.loading.model_index import ModelEntry

RESNET, VIT = "resnet18-imagenette", "vit_tiny-imagenette"


@pytest.fixture(scope="module")
def start_server(service):
    """Return a function that starts a server with its own service, and returns its address and the service."""
    pages = []

    def start(options: ServerOptions, **more):
        service = AnalysisService(options.make_catalog())
        page = app.build_page(service, options)
        pages.append(page)
        more = {"prevent_thread_lock": True, "quiet": True, "auth": options.parse_users(), **more}
        _, address, _ = app.launch(page, port=None, app_kwargs=server_module.make_app_kwargs(service, options), **more)
        return address.rstrip("/"), service

    yield start
    with ThreadPoolExecutor() as pool:  # each waits 5 seconds for open connections
        list(pool.map(lambda page: page.close(verbose=False), pages))


@pytest.fixture(scope="module")
def server(start_server):
    return start_server(ServerOptions())


def metrics(address: str) -> dict[str, float]:
    lines = [line for line in get(f"{address}/metrics").text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


def test_health_is_json(server):
    response = get(f"{server[0]}/healthz")
    assert (response.status_code, response.json()) == (200, {"status": "ok", "version": vizlib.__version__})


def test_metrics_count_runs_and_cached_results(server, cheetah):
    address, service = server
    before = metrics(address)
    service.explain(ExplanationRequest(cheetah, RESNET, "church", None, "occlusion", {"window": 96, "stride": 96}))
    for _ in range(3):
        service.predict(cheetah, RESNET)
    with pytest.raises(vizlib.MethodError):
        service.explain(ExplanationRequest(cheetah, RESNET, "church", None, "occlusion", {"window": -1}))
    after = metrics(address)
    assert after['vizlib_runs_total{end="answered",method="occlusion"}'] == 1
    assert after['vizlib_runs_total{end="refused",method="occlusion"}'] == 1
    assert after['vizlib_runs_total{end="answered",method="predictions"}'] == 1
    assert 0 < after['vizlib_run_seconds_total{method="occlusion"}'] < 60
    assert after["vizlib_cache_misses_total"] - before["vizlib_cache_misses_total"] == 3
    assert after["vizlib_cache_hits_total"] - before["vizlib_cache_hits_total"] == 2
    assert after["vizlib_cache_bytes"] == service.cache.held_bytes > before["vizlib_cache_bytes"]
    assert after["vizlib_resident_models"] == 1
    weights = sum(p.numel() * p.element_size() for p in service.catalog.get(RESNET).module.parameters())
    assert weights < after["vizlib_resident_model_bytes"] < weights * 1.01  # with batch statistics
    assert after['vizlib_http_requests_total{route="/metrics",status="200"}'] >= 1


def test_metrics_report_bytes_of_decoded_photos(server):
    address, _ = server
    before = metrics(address)
    assert before["vizlib_photo_cache_budget_bytes"] == 192_000_000
    file = io.BytesIO()
    Image.new("RGB", (300, 200), "teal").save(file, "PNG")
    (path,) = post(f"{address}/gradio_api/upload", files={"files": ("a.png", file.getvalue())}).json()
    photo = {"path": path, "meta": {"_type": "gradio.FileData"}}
    event = post(f"{address}/gradio_api/call/predict", json={"data": [photo, RESNET, 1]}).json()
    get(f"{address}/gradio_api/call/predict/{event['event_id']}")
    assert metrics(address)["vizlib_photo_cache_bytes"] - before["vizlib_photo_cache_bytes"] == 300 * 200 * 3


def test_metrics_count_routes_without_file_names(server):
    address, _ = server
    get(f"{address}/gradio_api/file=/tmp/my secret photo.png")
    get(f"{address}/somewhere/secret")
    text = get(f"{address}/metrics").text
    assert "secret" not in text
    assert 'route="/gradio_api/file={path_or_url:path}",status="403"' in text


def test_metrics_have_the_text_format_of_prometheus():
    counter = make_counter("a_total", "Words.", ("of",), {'say "hi"\n\\': 2, "x": 0.5})
    assert render_metrics([counter, make_gauge("b", "B.", 3)]).decode() == (
        "# HELP a_total Words.\n# TYPE a_total counter\n"
        'a_total{of="say \\"hi\\"\\n\\\\"} 2.0\na_total{of="x"} 0.5\n'
        "# HELP b B.\n# TYPE b gauge\nb 3.0\n"
    )


def test_log_has_one_json_line_per_run_without_photo_or_path(cheetah, tmp_path):
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    LOG.addHandler(handler)
    LOG.setLevel(logging.INFO)
    try:
        path = str(tmp_path / "secret.safetensors")
        service = AnalysisService(ModelCatalog(any_model=True))
        service.predict(cheetah, RESNET)
        with pytest.raises(vizlib.ModelError):
            service.predict(cheetah, path)
    finally:
        LOG.removeHandler(handler)
        LOG.setLevel(logging.NOTSET)
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [(line["what"], line["model"], line["end"]) for line in lines] == [
        ("predictions", RESNET, "answered"),
        ("predictions", "other", "refused"),
    ]
    assert set(lines[0]) == {"time", "event", "what", "model", "end", "seconds"}


def test_failed_run_is_counted_and_raised():
    metrics = RunMetrics()
    with pytest.raises(ZeroDivisionError), metrics.measure_run("rise", "m"):
        raise ZeroDivisionError
    assert metrics.runs["rise", "failed"] == 1


def test_closed_stream_is_counted_as_stopped(cheetah):
    service = AnalysisService(ModelCatalog())
    request = ExplanationRequest(cheetah, RESNET, "church", None, "occlusion", {"window": 64, "stride": 64})
    steps = service.stream_explanation(request)
    next(steps)
    steps.close()
    assert service.metrics.runs == {("occlusion", "stopped"): 1}


def test_body_over_the_limit_is_refused_with_or_without_content_length(server):
    address, _ = server
    large = b"x" * (MAX_BODY_BYTES + 1)
    for body in (large, iter([large[: len(large) // 2]] * 3)):  # the second is sent in chunks
        response = post(f"{address}/gradio_api/call/predict", content=body)
        assert response.status_code == 413
        assert response.json() == {"detail": "a photo may have at most 20 MB"}


def test_login_protects_the_page_but_not_the_health_check(start_server, tmp_path):
    (tmp_path / "users").write_text("ann:one:two\n\nbob:three\n")
    address, _ = start_server(ServerOptions(auth=f"@{tmp_path / 'users'}"))
    assert get(f"{address}/healthz").status_code == 200
    assert get(f"{address}/config").status_code == 401
    options = {"verbose": False, "analytics_enabled": False, "httpx_kwargs": {"timeout": TIMEOUT_SECONDS}}
    gradio_client.Client(address, auth=("ann", "one:two"), **options)
    with pytest.raises(ValueError, match="Could not login"):
        gradio_client.Client(address, auth=("bob", "one:two"), **options)


def test_uploads_are_deleted(start_server):
    address, _ = start_server(ServerOptions(delete_after=1))
    files = {"files": ("photo.png", b"not even a photo")}
    until, found = time.monotonic() + 60, False
    while not found:  # on a busy machine it may be deleted before it is requested
        assert time.monotonic() < until
        (path,) = post(f"{address}/gradio_api/upload", files=files).json()
        found = get(f"{address}/gradio_api/file={path}").status_code == 200
    while get(f"{address}/gradio_api/file={path}").status_code == 200:
        assert time.monotonic() < until
        time.sleep(0.2)


def test_incomplete_upload_is_deleted(start_server, monkeypatch, tmp_path):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    address, _ = start_server(ServerOptions(delete_after=1))
    head = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.jpg"\r\n\r\n'
    with socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2]))) as line:
        line.sendall(
            b"POST /gradio_api/upload HTTP/1.1\r\nHost: x\r\nContent-Length: 5000000\r\n"
            b"Content-Type: multipart/form-data; boundary=x\r\n\r\n" + head + bytes(100_000)
        )
        until = time.monotonic() + 60
        while not (uploads := [path for path in tmp_path.iterdir() if path.is_file()]):
            assert time.monotonic() < until
            time.sleep(0.01)
    while uploads[0].exists():
        assert time.monotonic() < until
        time.sleep(0.2)


def test_idle_model_is_unloaded_by_the_server(start_server, cheetah, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("dashboard.services.model_catalog.time", SimpleNamespace(monotonic=lambda: now[0]))
    address, service = start_server(ServerOptions(idle_minutes=0.02))
    service.predict(cheetah, RESNET)
    assert metrics(address)["vizlib_resident_models"] == 1
    now[0] = 1.3
    until = time.monotonic() + 60
    while metrics(address)["vizlib_resident_models"]:
        assert time.monotonic() < until
        time.sleep(0.2)


def test_unload_idle_keeps_recently_used_models(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("dashboard.services.model_catalog.time.monotonic", lambda: now[0])
    catalog = ModelCatalog([], extra={name: lambda: vizlib.wrap(torch.nn.Flatten()) for name in "ab"})
    catalog.get("a")
    now[0] = 50.0
    catalog.get("b")
    now[0] = 70.0
    catalog.unload_idle(60)
    assert list(catalog.count_bytes()) == ["b"]


def test_catalog_offers_only_the_given_models_in_their_order():
    entries = [ModelEntry("a", "bundled", 1.0), ModelEntry("b", "download", 2.0), ModelEntry("c", "downloaded", 3.0)]
    assert ModelCatalog(entries, only=["c", "a"]).names == ["c", "a"]
    assert ModelCatalog(entries, offline=True).names == ["a", "c"]
    with pytest.raises(vizlib.ModelError, match="there is no model 'b' to offer"):
        ModelCatalog(entries, only=["b"], offline=True)
    with pytest.raises(vizlib.ModelError, match="no model is on this machine"):
        ModelCatalog(entries[1:2], offline=True)


def test_any_model_is_loaded_only_with_the_option(monkeypatch):
    monkeypatch.setattr(vizlib, "load", lambda name, **_: name)
    assert ModelCatalog(any_model=True).get("resnet10t") == "resnet10t"
    with pytest.raises(vizlib.ModelError, match="there is no model"):
        ModelCatalog().get("resnet10t")
    with pytest.raises(vizlib.ModelError, match="there is no model"):
        ModelCatalog(any_model=True).get("")


@pytest.mark.parametrize(
    ("options", "environment", "expected"),
    [
        ({}, {}, True),
        ({"host": "::1"}, {}, True),
        ({"host": "localhost"}, {}, True),
        ({"host": None}, {}, True),
        ({"host": "0.0.0.0"}, {}, False),
        ({"host": "192.168.0.7"}, {}, False),
        ({"host": "my.machine"}, {}, False),
        ({"host": None}, {"GRADIO_SERVER_NAME": "0.0.0.0"}, False),
        ({}, {"SPACE_ID": "ann/vizlib"}, False),
        ({}, {"GRADIO_ROOT_PATH": "/vizlib"}, False),
        ({"auth": "ann:one"}, {}, False),
        ({"models": (RESNET,)}, {}, False),
        ({"offline": True}, {}, False),
        ({"listed_only": True}, {}, False),
    ],
)
def test_typed_names_are_accepted_only_by_a_local_server(options, environment, expected, monkeypatch):
    for name in ("SPACE_ID", "GRADIO_SERVER_NAME", "GRADIO_ROOT_PATH"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    catalog = ServerOptions(**options).make_catalog()
    assert (catalog.any_timm, catalog.any_model) == (expected, False)


def test_model_menu_accepts_text_only_with_any_timm(service):
    for any_timm in (False, True):
        page = app.build_page(AnalysisService(ModelCatalog(any_timm=any_timm)), ServerOptions())
        menu: Any = next(block for block in page.blocks.values() if getattr(block, "elem_id", None) == "model")
        assert menu.allow_custom_value is any_timm


def test_page_queue_has_the_limits_of_the_options(service):
    page = app.build_page(service, ServerOptions(workers=3, max_queue=7))
    assert page._queue.max_size == 7
    limits = {fn.concurrency_id: fn.concurrency_limit for fn in page.fns.values()}
    assert limits["model"] == "default"
    assert page._queue.default_concurrency_limit == 3


def test_offline_option_disables_the_hub(monkeypatch):
    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", False)
    monkeypatch.delenv("HF_HUB_OFFLINE")
    configure_process(ServerOptions(offline=True))
    assert hub.HF_HUB_OFFLINE


def test_space_uses_its_share_of_the_cores(monkeypatch):
    monkeypatch.setenv("CPU_CORES", "3")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 64)
    counts = []
    monkeypatch.setattr(torch, "set_num_threads", counts.append)
    configure_process(ServerOptions())
    assert counts == [3]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--workers", "0"], "--workers must be greater than 0, not 0"),
        (["--delete-after", "-5"], "--delete-after must be greater than 0, not -5"),
        (["--offline", "--allow-any-model"], "--offline and --allow-any-model exclude each other"),
        (["--listed-only", "--allow-any-model"], "--listed-only and --allow-any-model exclude each other"),
        (["--mcp", "--auth", "ann:one"], "--mcp and --auth exclude each other"),
        (["--auth", "user"], "--auth takes user:password"),
        (["--auth", "ann:"], "--auth takes user:password"),
        (["--auth", "@/nowhere/at/all"], "the file of users given by --auth cannot be read"),
        (["--models", "resnet18-imagenete"], "did you mean resnet18-imagenette"),
    ],
)
def test_invalid_options_are_refused_in_one_sentence(arguments, message, monkeypatch):
    monkeypatch.setattr(app, "launch", lambda *_, **__: pytest.fail("a server was started"))
    result = CliRunner().invoke(cli, ["serve", "--no-browser", *arguments])
    assert result.exit_code == 2
    assert re.fullmatch(r"vizlib: [^\n]+\n", result.stderr)
    assert message in result.stderr


def test_models_option_accepts_several_names(monkeypatch):
    calls = []
    monkeypatch.setattr(app, "run_app", calls.append)
    arguments = ["--models", f"{VIT},{RESNET}", "--models", "resnet50.a1_in1k", "--workers", "4", "--mcp"]
    monkeypatch.setattr(options, "find_spec", lambda name: name)
    result = CliRunner().invoke(cli, ["serve", *arguments])
    assert result.exit_code == 0, result.output
    assert calls == [ServerOptions(models=(VIT, RESNET, "resnet50.a1_in1k"), workers=4, mcp=True, browser=True)]


def test_mcp_option_needs_the_extra(monkeypatch):
    monkeypatch.setattr(options, "find_spec", lambda name: None)
    with pytest.raises(vizlib.VizlibError, match=r"pip install 'vizlib\[mcp\]'"):
        ServerOptions(mcp=True)
