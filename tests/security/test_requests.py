"""Requests nobody makes by accident: files that are not theirs, other machines, forged events, names of models."""

from __future__ import annotations

import http.server
import json
import threading
from pathlib import Path

import gradio.media
import httpx
import pytest
from http_timeouts import PATIENCE, get, post

import vizlib

RESNET = "resnet18-imagenette"
TOWER = Path(gradio.media.get_image("tower.jpg"))
SECRETS = ("/etc/passwd", "/proc/self/environ", "secret.txt", "./secret.txt", "uploads/../secret.txt")
READ_BY_GRADIO = ("photo", "top", "channel", "share")  # junk for these never gets to us: "error", and no word more
JUNK = (None, "<img src=x onerror=alert(1)>", "../../etc/passwd", -1, 10**12, 1e308, [[]], {"a": {"b": []}}, True)


def told(text: object) -> str:
    """Fails where a text meant for a visitor holds a path or a traceback."""
    for bad in ("Traceback", 'File "', "/tmp/", "/root/", "/home/", "site-packages", str(vizlib.__file__)):
        assert bad not in str(text), text
    return str(text)


def is_sentence(said: object) -> bool:
    """Whether a mistake was answered by us; what breaks inside the server is an error without a word."""
    return isinstance(said, str) and said.endswith((".", "?")) and "\n" not in said


@pytest.fixture(scope="module")
def given(server):
    return server.upload(TOWER.read_bytes())


@pytest.fixture
def canary():
    """A server on this machine that no other server should ask, and the requests it got."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(TOWER.read_bytes())

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        yield listening.server_address[1], asked
        listening.shutdown()


@pytest.mark.parametrize("path", SECRETS)
def test_no_file_of_the_machine_can_be_read(server, path):
    for address in (f"file={path}", f"file/{path}", f"file=/../../..{path}", f"file={Path(vizlib.__file__).resolve()}"):
        answer = get(f"{server.address}/gradio_api/{address}")
        assert answer.status_code in {403, 404}
        assert "root:" not in answer.text
    event, said = server.call("predict", server.photo(path), RESNET, 1)
    assert event == "error"
    told(said)


@pytest.mark.parametrize("name", ["../../evil.png", "..\\..\\evil.png", "/etc/cron.d/evil", "a/../../b.png", "\0.png"])
def test_an_upload_stays_in_its_own_folder(server, name, tmp_path):
    answer = post(f"{server.address}/gradio_api/upload", files={"files": (name, TOWER.read_bytes())})
    for path in answer.json() if answer.status_code == 200 else []:
        assert Path(path).resolve().is_relative_to(server.log.parent / "uploads")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "0.0.0.0", "127.1", "2130706433"])
def test_no_other_server_is_asked_for_a_visitor(server, canary, host):
    port, asked = canary
    url = f"http://{host}:{port}/secret.jpg"
    for given in (server.photo(url), server.photo(None, url), server.photo(url, url)):
        event, said = server.call("predict", given, RESNET, 1)
        assert event != "complete"
        told(said)
    for address in (f"file={url}", f"proxy={url}"):
        assert get(f"{server.address}/gradio_api/{address}", follow_redirects=False).status_code != 200
    assert asked == []


@pytest.mark.parametrize("origin", ["https://evil.example", "null"])
def test_a_page_of_another_origin_may_not_read_the_answers(server, origin):
    for path in ("/config", "/healthz", "/gradio_api/info"):
        answer = get(f"{server.address}{path}", headers={"Origin": origin})
        assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("path", ["run/predict", "api/predict", "run/explain"])
def test_the_queue_cannot_be_bypassed(server, given, path):
    answer = post(f"{server.address}/gradio_api/{path}", json={"data": [given, RESNET, 1]})
    assert answer.status_code in {404, 405, 422}


def test_no_part_of_the_page_calls_the_server_past_the_queue(server):
    config = get(f"{server.address}/config").json()
    assert config["api_prefix"] == "/gradio_api"
    for part in config["components"]:
        assert not part["props"].get("server_fns"), part


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
def test_no_model_is_loaded_that_is_not_on_the_list(server, given, name):
    event, said = server.call("predict", given, name, 1)
    assert event == "error"
    assert said.casefold().startswith("there is no model")


@pytest.mark.parametrize("path", ["/monitoring", "/monitoring/summary", "/gradio_api/monitoring/summary"])
def test_nobody_may_read_how_others_use_the_page(server, path):
    assert get(f"{server.address}{path}").status_code in {403, 404}


@pytest.mark.slow
def test_every_named_endpoint_answers_junk_with_one_sentence(server, given):
    for name, about in get(f"{server.address}/gradio_api/info").json()["named_endpoints"].items():
        usual = [given if one["label"] == "photo" else one.get("parameter_default") for one in about["parameters"]]
        for place in range(len(usual)):
            for junk in JUNK:
                event, said = server.call(name[1:], *usual[:place], junk, *usual[place + 1 :])
                if event == "complete":
                    continue
                assert "\n" not in told(said)
                if about["parameters"][place]["label"] not in READ_BY_GRADIO:
                    assert is_sentence(said), (name, place, junk)


def test_forged_events_of_the_page_do_no_harm(server, given):
    """Every private event, by its number, with junk in all its inputs and in what the browser says happened."""
    config = get(f"{server.address}/config").json()
    with httpx.Client(timeout=PATIENCE) as client:
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
                joined = client.post(f"{server.address}/gradio_api/queue/join", json=body)
                told(joined.text)
                if joined.status_code != 200:
                    continue
                with client.stream(
                    "GET", f"{server.address}/gradio_api/queue/data", params={"session_hash": session}
                ) as stream:
                    for line in stream.iter_lines():
                        if not line.startswith("data:"):
                            continue
                        message = json.loads(line[5:])
                        if message["msg"] == "process_completed":
                            told(message["output"].get("error"))
                        if message["msg"] in ("process_completed", "close_stream", "unexpected_error"):
                            break
    assert get(f"{server.address}/healthz").status_code == 200
    assert server.call("predict", given, RESNET, 1)[0] == "complete"


def test_lists_and_numbers_of_knobs_have_bounds(server, given):
    for method, knobs in (
        ("rise", {"masks": 10**9}),
        ("rise", {"masks": 10**400}),
        ("occlusion", {"window": 1, "stride": 0}),
        ("smoothgrad", {"samples": 10**7}),
        ("integrated-gradients", {"steps": 10**7}),
        ("grad-cam", {"layer": ["layer4"] * 10_000}),
        ("grad-cam", {"layer": "x" * 1_000_000}),
        ("saliency", {f"k{i}": i for i in range(10_000)}),
    ):
        event, said = server.call("explain", given, RESNET, method, "church", knobs)
        assert event == "error", (method, list(knobs)[:1])
        assert is_sentence(told(said)), (method, list(knobs)[:1], said)
        assert len(said) < 1_000


def test_the_log_tells_nothing_of_photos_and_no_path_of_theirs(server, given):
    server.call("predict", server.upload(TOWER.read_bytes(), "my secret trip.jpg"), RESNET, 1)
    lines = [line for line in server.log.read_text().splitlines() if line.startswith("{")]
    assert any(json.loads(line)["event"] == "run" for line in lines)
    assert not [line for line in lines if "secret" in line or "/" in line]
