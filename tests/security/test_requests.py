"""Malicious requests: files of the server, other machines, forged events, names of models."""

from __future__ import annotations

import http.server
import json
import threading
from pathlib import Path

import gradio.media
import httpx
import pytest
from http_timeouts import TIMEOUT_SECONDS, get, post

import vizlib

RESNET = "resnet18-imagenette"
TOWER = Path(gradio.media.get_image("tower.jpg"))
SECRETS = ("/etc/passwd", "/proc/self/environ", "secret.txt", "./secret.txt", "uploads/../secret.txt")
READ_BY_GRADIO = ("photo", "top", "channel", "share")  # gradio refuses invalid values of these without a message
JUNK = (None, "<img src=x onerror=alert(1)>", "../../etc/passwd", -1, 10**12, 1e308, [[]], {"a": {"b": []}}, True)


def check_message(text: object) -> str:
    """Return a text meant for a visitor; fail if it holds a path or a traceback."""
    for bad in ("Traceback", 'File "', "/tmp/", "/root/", "/home/", "site-packages", str(vizlib.__file__)):
        assert bad not in str(text), text
    return str(text)


def is_sentence(message: object) -> bool:
    """Return whether an error has a message of the dashboard; an internal error has none."""
    return isinstance(message, str) and message.endswith((".", "?")) and "\n" not in message


@pytest.fixture(scope="module")
def photo(server):
    return server.upload(TOWER.read_bytes())


@pytest.fixture
def canary():
    """Yield the port of a private server, and the paths requested from it."""
    paths: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            paths.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(TOWER.read_bytes())

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        yield listening.server_address[1], paths
        listening.shutdown()


@pytest.mark.parametrize("path", SECRETS)
def test_files_of_the_server_cannot_be_read(server, path):
    for address in (f"file={path}", f"file/{path}", f"file=/../../..{path}", f"file={Path(vizlib.__file__).resolve()}"):
        response = get(f"{server.address}/gradio_api/{address}")
        assert response.status_code in {403, 404}
        assert "root:" not in response.text
    event, message = server.call("predict", server.photo(path), RESNET, 1)
    assert event == "error"
    check_message(message)


@pytest.mark.parametrize("name", ["../../evil.png", "..\\..\\evil.png", "/evil.png", "a/../../b.png", "\0.png"])
def test_upload_name_cannot_leave_the_upload_folder(server, name, tmp_path):
    if name.startswith("/"):
        name = f"{tmp_path}{name}"  # without the guard, the file is written there
    response = post(f"{server.address}/gradio_api/upload", files={"files": (name, TOWER.read_bytes())})
    assert not (tmp_path / "evil.png").exists()
    for path in response.json() if response.status_code == 200 else []:
        assert Path(path).resolve().is_relative_to(server.log.parent / "uploads")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "0.0.0.0", "127.1", "2130706433"])
def test_server_does_not_fetch_private_urls(server, canary, host):
    port, paths = canary
    url = f"http://{host}:{port}/secret.jpg"
    for file in (server.photo(url), server.photo(None, url), server.photo(url, url)):
        event, message = server.call("predict", file, RESNET, 1)
        assert event != "complete"
        check_message(message)
    for address in (f"file={url}", f"proxy={url}"):
        assert get(f"{server.address}/gradio_api/{address}", follow_redirects=False).status_code != 200
    assert paths == []


@pytest.mark.parametrize("origin", ["https://evil.example", "null"])
def test_other_origins_may_not_read_responses(server, origin):
    for path in ("/config", "/healthz", "/gradio_api/info"):
        response = get(f"{server.address}{path}", headers={"Origin": origin})
        assert "access-control-allow-origin" not in response.headers


@pytest.mark.parametrize("path", ["run/predict", "api/predict", "run/explain"])
def test_the_queue_cannot_be_bypassed(server, photo, path):
    response = post(f"{server.address}/gradio_api/{path}", json={"data": [photo, RESNET, 1]})
    assert response.status_code in {404, 405, 422}


def test_no_component_has_server_functions(server):
    config = get(f"{server.address}/config").json()
    assert config["api_prefix"] == "/gradio_api"
    for component in config["components"]:
        assert not component["props"].get("server_fns"), component


@pytest.mark.parametrize(
    "name",
    [
        "hf-hub:someone/model",
        "local-dir:/etc",
        "/tmp/evil.pth",
        "../evil.pt",
        "resnet10t",
        "torchvision/resnet18",
        "",
        None,
    ],
)
def test_unlisted_model_is_refused(server, photo, name):
    event, message = server.call("predict", photo, name, 1)
    assert event == "error"
    assert message.casefold().startswith("there is no model")


@pytest.mark.parametrize("path", ["/monitoring", "/monitoring/summary", "/gradio_api/monitoring/summary"])
def test_monitoring_is_not_accessible(server, path):
    assert get(f"{server.address}{path}").status_code in {403, 404}


@pytest.mark.slow
def test_endpoints_answer_invalid_input_with_one_sentence(server, photo):
    for name, description in get(f"{server.address}/gradio_api/info").json()["named_endpoints"].items():
        defaults = [
            photo if parameter["label"] == "photo" else parameter.get("parameter_default")
            for parameter in description["parameters"]
        ]
        for position in range(len(defaults)):
            for junk in JUNK:
                event, message = server.call(name[1:], *defaults[:position], junk, *defaults[position + 1 :])
                if event == "complete":
                    continue
                assert "\n" not in check_message(message)
                if description["parameters"][position]["label"] not in READ_BY_GRADIO:
                    assert is_sentence(message), (name, position, junk)


def test_forged_events_do_no_harm(server, photo):
    """Send every private event by its number, with invalid values in all inputs and in the event data."""
    config = get(f"{server.address}/config").json()
    with httpx.Client(timeout=TIMEOUT_SECONDS) as client:
        for event in config["dependencies"]:
            if not event["backend_fn"]:
                continue
            for junk in (
                None,
                "<img src=x onerror=alert(1)>",
                10**12,
                [],
                {"index": ["../etc"], "method": {}, "parameters": [[]]},
            ):
                session = f"forged{event['id']}"
                body = {
                    "data": [junk] * len(event["inputs"]),
                    "event_data": {"index": junk, "value": junk, "selected": True, "_data": junk},
                    "fn_index": event["id"],
                    "session_hash": session,
                }
                response = client.post(f"{server.address}/gradio_api/queue/join", json=body)
                check_message(response.text)
                if response.status_code != 200:
                    continue
                with client.stream(
                    "GET", f"{server.address}/gradio_api/queue/data", params={"session_hash": session}
                ) as stream:
                    for line in stream.iter_lines():
                        if not line.startswith("data:"):
                            continue
                        message = json.loads(line[5:])
                        if message["msg"] == "process_completed":
                            check_message(message["output"].get("error"))
                        if message["msg"] in ("process_completed", "close_stream", "unexpected_error"):
                            break
    assert get(f"{server.address}/healthz").status_code == 200
    assert server.call("predict", photo, RESNET, 1)[0] == "complete"


def test_parameters_have_bounds(server, photo):
    for method, parameters in (
        ("rise", {"masks": 10**9}),
        ("rise", {"masks": 10**400}),
        ("occlusion", {"window": 1, "stride": 0}),
        ("smoothgrad", {"samples": 10**7}),
        ("integrated-gradients", {"steps": 10**7}),
        ("grad-cam", {"layer": ["layer4"] * 10_000}),
        ("grad-cam", {"layer": "x" * 1_000_000}),
        ("saliency", {f"k{i}": i for i in range(10_000)}),
    ):
        event, message = server.call("explain", photo, RESNET, method, "church", parameters)
        assert event == "error", (method, list(parameters)[:1])
        assert is_sentence(check_message(message)), (method, list(parameters)[:1], message)
        assert len(message) < 1_000


def test_log_holds_no_photo_names_or_paths(server, photo):
    server.call("predict", server.upload(TOWER.read_bytes(), "my secret trip.jpg"), RESNET, 1)
    lines = [line for line in server.log.read_text().splitlines() if line.startswith("{")]
    assert any(json.loads(line)["event"] == "run" for line in lines)
    assert not [line for line in lines if "secret" in line or "/" in line]
