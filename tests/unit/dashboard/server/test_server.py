"""What a server can be told, what it tells, and what it lets go of."""

from __future__ import annotations

import io
import json
import logging
import re
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import gradio_client
import pytest
import torch
from http_timeouts import PATIENCE, get, post
from huggingface_hub import constants as hub
from PIL import Image
from typer.testing import CliRunner

import vizlib
from dashboard import app
from dashboard.server import options
from dashboard.server import server as serving
from dashboard.server.options import ServerOptions
from dashboard.services.analysis_service import AnalysisService
from dashboard.services.metrics import LOG, RunMetrics, make_counter, make_gauge, render_metrics
from dashboard.services.model_catalog import ModelCatalog
from dashboard.services.request import ExplanationRequest
from vizlib.cli import app as shell
from vizlib.models.loading.model_index import ModelEntry

RESNET, VIT = "resnet18-imagenette", "vit_tiny-imagenette"


@pytest.fixture(scope="module")
def served(service):
    """Starts servers with a service of their own; gives the address and the service."""
    pages = []

    def start(settings: ServerOptions, **more):
        asked = AnalysisService(settings.make_catalog())
        page = app.build_page(asked, settings)
        pages.append(page)
        more = {"prevent_thread_lock": True, "quiet": True, "auth": settings.parse_users(), **more}
        _, address, _ = app.launch(page, port=None, app_kwargs=serving.make_app_kwargs(asked, settings), **more)
        return address.rstrip("/"), asked

    yield start
    with ThreadPoolExecutor() as pool:  # each waits 5 seconds for visitors who are still listening
        list(pool.map(lambda page: page.close(verbose=False), pages))


@pytest.fixture(scope="module")
def server(served):
    return served(ServerOptions())


def metrics(address: str) -> dict[str, float]:
    lines = [line for line in get(f"{address}/metrics").text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


def test_health_is_json_and_asks_no_model(server):
    answer = get(f"{server[0]}/healthz")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok", "version": vizlib.__version__})


def test_metrics_count_what_was_done(server, cheetah):
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
    assert after["vizlib_cache_hits_total"] - before["vizlib_cache_hits_total"] == 4
    assert after["vizlib_cache_bytes"] == service.cache.held_bytes > before["vizlib_cache_bytes"]
    assert after["vizlib_resident_models"] == 1
    weights = sum(p.numel() * p.element_size() for p in service.catalog.get(RESNET).module.parameters())
    assert weights < after["vizlib_resident_model_bytes"] < weights * 1.01  # batch statistics besides
    assert after['vizlib_http_requests_total{route="/metrics",status="200"}'] >= 1


def test_metrics_tell_what_decoded_photos_take(server):
    address, _ = server
    before = metrics(address)
    assert before["vizlib_photo_cache_budget_bytes"] == 192_000_000
    file = io.BytesIO()
    Image.new("RGB", (300, 200), "teal").save(file, "PNG")
    (path,) = post(f"{address}/gradio_api/upload", files={"files": ("a.png", file.getvalue())}).json()
    given = {"path": path, "meta": {"_type": "gradio.FileData"}}
    asked = post(f"{address}/gradio_api/call/predict", json={"data": [given, RESNET, 1]}).json()
    get(f"{address}/gradio_api/call/predict/{asked['event_id']}")
    assert metrics(address)["vizlib_photo_cache_bytes"] - before["vizlib_photo_cache_bytes"] == 300 * 200 * 3


def test_routes_are_counted_without_the_names_of_files(server):
    address, _ = server
    get(f"{address}/gradio_api/file=/tmp/my secret photo.png")
    get(f"{address}/somewhere/secret")
    text = get(f"{address}/metrics").text
    assert "secret" not in text
    assert 'route="/gradio_api/file={path_or_url:path}",status="403"' in text


def test_the_text_is_prometheus_own():
    counter = make_counter("a_total", "Words.", ("of",), {'say "hi"\n\\': 2, "x": 0.5})
    assert render_metrics([counter, make_gauge("b", "B.", 3)]).decode() == (
        "# HELP a_total Words.\n# TYPE a_total counter\n"
        'a_total{of="say \\"hi\\"\\n\\\\"} 2.0\na_total{of="x"} 0.5\n'
        "# HELP b B.\n# TYPE b gauge\nb 3.0\n"
    )


def test_the_log_is_one_json_object_a_run_with_neither_photo_nor_path(cheetah, tmp_path):
    written = io.StringIO()
    handler = logging.StreamHandler(written)
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
    lines = [json.loads(line) for line in written.getvalue().splitlines()]
    assert [(line["what"], line["model"], line["end"]) for line in lines] == [
        ("predictions", RESNET, "answered"),
        ("predictions", "other", "refused"),
    ]
    assert set(lines[0]) == {"time", "event", "what", "model", "end", "seconds"}


def test_a_failure_is_counted_and_goes_on_its_way():
    meter = RunMetrics()
    with pytest.raises(ZeroDivisionError), meter.measure_run("rise", "m"):
        raise ZeroDivisionError
    assert meter.runs["rise", "failed"] == 1


def test_a_stream_that_is_left_was_stopped(cheetah):
    service = AnalysisService(ModelCatalog())
    request = ExplanationRequest(cheetah, RESNET, "church", None, "occlusion", {"window": 64, "stride": 64})
    steps = service.stream_explanation(request)
    next(steps)
    steps.close()
    assert service.metrics.runs == {("predictions", "answered"): 1, ("occlusion", "stopped"): 1}


def test_a_body_over_the_limit_is_refused_whether_or_not_it_tells_its_length(server):
    address, _ = server
    large = b"x" * (serving.MAX_BODY_BYTES + 1)
    for body in (large, iter([large[: len(large) // 2]] * 3)):  # the second goes in chunks
        answer = post(f"{address}/gradio_api/call/predict", content=body)
        assert answer.status_code == 413
        assert answer.json() == {"detail": "a photo may have at most 20 MB"}


def test_the_page_needs_a_password_and_the_health_check_does_not(served, tmp_path):
    (tmp_path / "users").write_text("ann:one:two\n\nbob:three\n")
    address, _ = served(ServerOptions(auth=f"@{tmp_path / 'users'}"))
    assert get(f"{address}/healthz").status_code == 200
    assert get(f"{address}/config").status_code == 401
    how = {"verbose": False, "analytics_enabled": False, "httpx_kwargs": {"timeout": PATIENCE}}
    gradio_client.Client(address, auth=("ann", "one:two"), **how)
    with pytest.raises(ValueError, match="Could not login"):
        gradio_client.Client(address, auth=("bob", "one:two"), **how)


def test_uploads_are_deleted(served):
    address, _ = served(ServerOptions(delete_after=1))
    sent = {"files": ("photo.png", b"not even a photo")}
    until, there = time.monotonic() + 60, False
    while not there:  # on a busy machine its second may be over before it is asked for
        assert time.monotonic() < until
        (path,) = post(f"{address}/gradio_api/upload", files=sent).json()
        there = get(f"{address}/gradio_api/file={path}").status_code == 200
    while get(f"{address}/gradio_api/file={path}").status_code == 200:
        assert time.monotonic() < until
        time.sleep(0.2)


def test_an_upload_that_broke_off_is_deleted(served, monkeypatch, tmp_path):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    address, _ = served(ServerOptions(delete_after=1))
    head = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.jpg"\r\n\r\n'
    with socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2]))) as line:
        line.sendall(
            b"POST /gradio_api/upload HTTP/1.1\r\nHost: x\r\nContent-Length: 5000000\r\n"
            b"Content-Type: multipart/form-data; boundary=x\r\n\r\n" + head + bytes(100_000)
        )
        until = time.monotonic() + 60
        while not (begun := [path for path in tmp_path.iterdir() if path.is_file()]):
            assert time.monotonic() < until
            time.sleep(0.01)
    while begun[0].exists():
        assert time.monotonic() < until
        time.sleep(0.2)


def test_a_model_that_nobody_asks_leaves_the_memory(served, cheetah, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("dashboard.services.model_catalog.time", SimpleNamespace(monotonic=lambda: now[0]))
    address, service = served(ServerOptions(idle_minutes=0.02))
    service.predict(cheetah, RESNET)
    assert metrics(address)["vizlib_resident_models"] == 1
    now[0] = 1.3
    until = time.monotonic() + 60
    while metrics(address)["vizlib_resident_models"]:
        assert time.monotonic() < until
        time.sleep(0.2)


def test_only_idle_models_are_let_go(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("dashboard.services.model_catalog.time.monotonic", lambda: now[0])
    catalog = ModelCatalog([], extra={name: lambda: vizlib.wrap(torch.nn.Flatten()) for name in "ab"})
    catalog.get("a")
    now[0] = 50.0
    catalog.get("b")
    now[0] = 70.0
    catalog.unload_idle(60)
    assert list(catalog.count_bytes()) == ["b"]


def test_only_the_chosen_models_are_offered_in_their_order():
    entries = [ModelEntry("a", "bundled", 1.0), ModelEntry("b", "download", 2.0), ModelEntry("c", "downloaded", 3.0)]
    assert ModelCatalog(entries, only=["c", "a"]).names == ["c", "a"]
    assert ModelCatalog(entries, offline=True).names == ["a", "c"]
    with pytest.raises(vizlib.ModelError, match="there is no model 'b' to offer"):
        ModelCatalog(entries, only=["b"], offline=True)
    with pytest.raises(vizlib.ModelError, match="no model is on this machine"):
        ModelCatalog(entries[1:2], offline=True)


def test_any_model_is_loaded_only_where_the_server_says_so(monkeypatch):
    monkeypatch.setattr(vizlib, "load", lambda name, **_: name)
    assert ModelCatalog(any_model=True).get("resnet10t") == "resnet10t"
    with pytest.raises(vizlib.ModelError, match="there is no model"):
        ModelCatalog().get("resnet10t")
    with pytest.raises(vizlib.ModelError, match="there is no model"):
        ModelCatalog(any_model=True).get("")


@pytest.mark.parametrize(
    ("settings", "environment", "typed"),
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
def test_names_may_be_typed_on_a_server_of_ones_own_alone(settings, environment, typed, monkeypatch):
    for name in ("SPACE_ID", "GRADIO_SERVER_NAME", "GRADIO_ROOT_PATH"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    catalog = ServerOptions(**settings).make_catalog()
    assert (catalog.any_timm, catalog.any_model) == (typed, False)


def test_the_menu_takes_text_only_where_it_may_be_typed(service):
    for any_timm in (False, True):
        page = app.build_page(AnalysisService(ModelCatalog(any_timm=any_timm)), ServerOptions())
        menu = next(block for block in page.blocks.values() if getattr(block, "elem_id", None) == "model")
        assert menu.allow_custom_value is any_timm


def test_workers_and_queue_are_the_settings(service):
    page = app.build_page(service, ServerOptions(workers=3, max_queue=7))
    assert page._queue.max_size == 7
    limits = {fn.concurrency_id: fn.concurrency_limit for fn in page.fns.values()}
    assert limits["model"] == "default"
    assert page._queue.default_concurrency_limit == 3


def test_offline_asks_no_hub(monkeypatch):
    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", False)
    monkeypatch.delenv("HF_HUB_OFFLINE")
    serving.configure_process(ServerOptions(offline=True))
    assert hub.HF_HUB_OFFLINE


def test_a_space_uses_its_own_cores(monkeypatch):
    monkeypatch.setenv("CPU_CORES", "3")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 64)
    asked = []
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    serving.configure_process(ServerOptions())
    assert asked == [3]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--workers", "0"], "--workers must be greater than 0, not 0"),
        (["--delete-after", "-5"], "--delete-after must be greater than 0, not -5"),
        (["--offline", "--allow-any-model"], "--offline and --allow-any-model exclude each other"),
        (["--listed-only", "--allow-any-model"], "--listed-only and --allow-any-model exclude each other"),
        (["--mcp", "--auth", "ann:one"], "--mcp and --auth exclude each other"),
        (["--auth", "nobody"], "--auth takes user:password"),
        (["--auth", "ann:"], "--auth takes user:password"),
        (["--auth", "@/nowhere/at/all"], "the file of users given by --auth cannot be read"),
        (["--models", "resnet18-imagenete"], "did you mean resnet18-imagenette"),
    ],
)
def test_a_setting_that_cannot_be_meant_is_one_sentence(words, said, monkeypatch):
    monkeypatch.setattr(app, "launch", lambda *_, **__: pytest.fail("it was served"))
    result = CliRunner().invoke(shell, ["serve", "--no-browser", *words])
    assert result.exit_code == 2
    assert re.fullmatch(r"vizlib: [^\n]+\n", result.stderr)
    assert said in result.stderr


def test_names_of_models_may_stand_in_a_row(monkeypatch):
    given = []
    monkeypatch.setattr(app, "serve", given.append)
    words = ["--models", f"{VIT},{RESNET}", "--models", "resnet50.a1_in1k", "--workers", "4", "--mcp"]
    monkeypatch.setattr(options, "find_spec", lambda name: name)
    result = CliRunner().invoke(shell, ["serve", *words])
    assert result.exit_code == 0, result.output
    assert given == [ServerOptions(models=(VIT, RESNET, "resnet50.a1_in1k"), workers=4, mcp=True, browser=True)]


def test_tools_for_language_models_need_their_extra(monkeypatch):
    monkeypatch.setattr(options, "find_spec", lambda name: None)
    with pytest.raises(vizlib.VizlibError, match=r"pip install 'vizlib\[mcp\]'"):
        ServerOptions(mcp=True)
