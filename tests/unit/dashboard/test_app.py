"""The page as gradio is told of it: what it publishes, and what it keeps to itself."""

from __future__ import annotations

import inspect
import socket
import sys
from pathlib import Path

import gradio as gr
import numpy as np
import pytest

import vizlib
from dashboard import __main__ as start
from dashboard import app
from dashboard.api import endpoints
from dashboard.components.photo import PhotoInput
from dashboard.i18n.translate import browser_text, browser_translations
from dashboard.services import examples

ENDPOINTS = {"models", "predict", "explain", "attention", "channels", "compare", "report"}


@pytest.fixture(scope="module")
def page(service):
    return app.build_app(service.catalog)


def test_exactly_the_named_endpoints_are_public_and_documented(page):
    public = {fn.api_name: fn for fn in page.fns.values() if fn.api_visibility == "public"}
    assert set(public) == ENDPOINTS
    for name, described in page.get_api_info()["named_endpoints"].items():
        expected = list(inspect.signature(getattr(endpoints, name[1:])).parameters)[1:]
        assert [one["parameter_name"] for one in described["parameters"]] == expected
        assert len(described["description"]) > 40


def test_no_event_takes_more_than_five_inputs(page):
    assert max(len(fn.inputs) for fn in page.fns.values()) <= 5


def test_all_that_runs_a_model_waits_in_one_line_but_streams_which_wait_for_each_other(page):
    asked = [fn for fn in page.fns.values() if fn.fn is not None]  # the others run in the browser
    shown = [fn for fn in asked if any(isinstance(one, PhotoInput) for one in fn.inputs)]
    lines = [fn.concurrency_id for fn in shown]
    assert set(lines) == {"model", "stream"}
    assert lines.count("stream") == 1


def test_the_queue_cannot_be_bypassed(page):
    assert page.api_open is False


def test_there_is_one_heading_of_the_first_rank_in_every_language(page):
    values = [str(block.value) for block in page.blocks.values() if getattr(block, "value", None)]
    assert sum(value.count("<h1") for value in values) == 0
    assert sum(str(browser_text("header")) == value for value in values) == 1
    for table in browser_translations().translations.values():
        assert [key for key, text in table.items() if "<h1" in text] == ["page.header"]
        assert table["page.header"].count("<h1") == 1


def test_explain_gives_the_numbers_and_the_picture_of_python(service, cheetah, name):
    model = vizlib.load(name)
    about, overlay = endpoints.explain(service, cheetah, name, "grad-cam", "church", {"layer": model.stages[1]})
    theirs = vizlib.explain(model, cheetah, method="grad-cam", target="church", layer=model.stages[1])
    assert about["values"] == theirs.heat.tolist()
    assert about["notes"] == list(theirs.notes)
    assert np.array_equal(np.asarray(overlay), np.asarray(theirs.overlay()))


def test_explain_answers_why_this_class_and_not_another(service, cheetah, name):
    about, _ = endpoints.explain(service, cheetah, name, "saliency", "church", {"against": "golf ball"})
    theirs = vizlib.explain(vizlib.load(name), cheetah, method="saliency", target="church", against="golf ball")
    assert np.allclose(about["values"], theirs.heat.numpy(), rtol=1e-3, atol=1e-5 * theirs.heat.max().item())


@pytest.mark.parametrize("other", [{"model": "vit_tiny-imagenette"}, {"target": "golf ball"}])
def test_compare_gives_the_agreement_of_python(service, cheetah, other):
    first = {"model": "resnet18-imagenette", "target": "church"}
    about = endpoints.compare(service, cheetah, first, other, "grad-cam", 0.3)
    maps = [
        vizlib.explain(vizlib.load(one["model"]), cheetah, method="grad-cam", target=one["target"])
        for one in (first, {**first, **other})
    ]
    expected = vizlib.agreement(*maps, fraction=0.3)
    assert (about["correlation"], about["overlap"]) == pytest.approx((expected.correlation, expected.overlap), rel=1e-3)
    for told, one in zip(about["maps"], maps, strict=True):
        assert np.allclose(told["values"], one.heat.numpy(), atol=1e-3 * one.heat.max().item())


@pytest.mark.parametrize(("query", "meant"), [("6, 8", (6, 8)), ("class", "class"), ("", None), ("6;8", "6;8")])
def test_a_token_is_a_name_or_a_patch(query, meant):
    assert endpoints.parse_token(query) == meant


def test_a_missing_photo_a_wrong_channel_and_wrong_knobs_are_one_sentence(service, cheetah, name):
    with pytest.raises(vizlib.ImageError, match="photo is missing"):
        endpoints.predict(service, None, name, 5)
    with pytest.raises(vizlib.ModelError, match="has channels 0 to"):
        endpoints.channels(service, cheetah, name, service.catalog.get(name).stages[0], 10**6)
    with pytest.raises(vizlib.MethodError, match="parameters are an object"):
        endpoints.explain(service, cheetah, name, "saliency", "", ["layer"])


def test_nothing_is_told_to_others_about_a_visitor(page, monkeypatch):
    told = {}
    monkeypatch.setattr(page, "launch", lambda **how: told.update(how))
    app.launch(page)
    assert page.analytics_enabled is False
    assert (told["run_history"], told["enable_monitoring"], told["share"], told["pwa"]) == (False,) * 4
    assert told["max_file_size"] == "20mb"
    assert told["state_session_capacity"] == 200
    assert not {"allowed_paths", "show_error", "strict_cors"} & set(told)  # gradio's own defaults are the safe ones


def test_the_tabs_stand_in_their_order_with_the_code_last(page):
    english = browser_translations().translations["en"]
    labels = [english[block.label.key] for block in page.blocks.values() if isinstance(block, gr.Tab)]
    assert labels == ["Why", "Attention", "Inside", "Compare", "Learn", "Model", "Use in code"]


def test_the_tower_is_the_first_example():
    assert next(iter(examples.EXAMPLES)) == "The Eiffel tower"


def test_a_port_that_is_taken_is_one_sentence():
    with socket.create_server(("127.0.0.1", 0)) as other, gr.Blocks() as empty:
        port = other.getsockname()[1]
        with pytest.raises(vizlib.VizlibError, match=f"port {port} is taken; give another with --port, or 0 for any"):
            app.launch(empty, port=port, quiet=True)


@pytest.mark.parametrize(
    ("host", "port", "sentence"),
    [
        ("127.0.0.1", 99999, "a port is a number from 0 to 65535"),
        ("192.0.2.1", 7999, "nothing can listen at 192.0.2.1"),
    ],
)
def test_a_wrong_port_or_host_is_one_sentence(host, port, sentence, monkeypatch):
    def fails(**how):  # as gradio does, after a wait
        raise (
            OverflowError("port must be 0-65535")
            if port > 65535
            else OSError(f"Cannot find empty port in range: {port}")
        )

    with gr.Blocks() as empty:
        monkeypatch.setattr(empty, "launch", fails)
        with pytest.raises(vizlib.VizlibError, match=sentence):
            app.launch(empty, host, port)


def test_another_trouble_of_the_machine_is_not_called_a_taken_port(monkeypatch):
    def fails(**how):
        raise OSError("no space left on device")

    with gr.Blocks() as empty:
        monkeypatch.setattr(empty, "launch", fails)
        with pytest.raises(OSError, match="no space left"):
            app.launch(empty)


def test_files_lie_in_a_folder_of_the_servers_own_that_is_gone_afterwards(monkeypatch, tmp_path):
    monkeypatch.delenv("GRADIO_TEMP_DIR", raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    seen = []

    def launched(page, *_, **__):
        seen.append({Path(block.GRADIO_CACHE) for block in page.blocks.values()})

    monkeypatch.setattr(app, "launch", launched)
    app.serve()
    (folder,) = seen[0]
    assert folder.is_relative_to(tmp_path)
    assert not folder.exists()


def test_a_folder_of_yours_joins_the_menu(tmp_path, monkeypatch):
    (tmp_path / "mine.safetensors").write_bytes(b"weights")
    offered = []
    monkeypatch.setattr(app, "build", lambda service, _: offered.extend(service.catalog.names))
    monkeypatch.setattr(app, "launch", lambda *_, **__: None)
    monkeypatch.setattr(sys, "argv", ["dashboard", "--checkpoints", str(tmp_path)])
    with pytest.raises(SystemExit) as left:
        start.main()
    assert left.value.code == 0
    assert "mine" in offered


def test_a_wrong_folder_is_one_sentence_and_exit_code_2(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["dashboard", "--checkpoints", str(tmp_path / "nowhere")])
    with pytest.raises(SystemExit) as left:
        start.main()
    assert left.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("vizlib: there is no folder ")
    assert said.count("\n") == 1
