"""The page: its public endpoints, queues, launch options and server start."""

from __future__ import annotations

import inspect
import socket
import sys
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import pytest
from bundled_models import load_bundled, resnet_by_default

import vizlib
from dashboard import __main__ as start
from dashboard import app
from dashboard.api import endpoints
from dashboard.components.photo import PhotoInput
from dashboard.i18n.translate import build_browser_translations, translate_in_browser
from dashboard.services.example_photos import open_example_photos
from dashboard.services.model_catalog import ModelCatalog

ENDPOINTS = {"clip", "models", "predict", "explain", "attention", "channels", "compare", "report", "trust", "gradient"}


@pytest.fixture(scope="module")
def page(service):
    return app.build_app(service.catalog)


def test_only_the_named_endpoints_are_public_and_documented(page):
    public = {fn.api_name: fn for fn in page.fns.values() if fn.api_visibility == "public"}
    assert set(public) == ENDPOINTS
    for name, described in page.get_api_info()["named_endpoints"].items():
        expected = list(inspect.signature(getattr(endpoints, f"handle_{name[1:]}_endpoint")).parameters)[1:]
        assert [parameter["parameter_name"] for parameter in described["parameters"]] == expected
        assert len(described["description"]) > 40


def test_events_take_at_most_five_inputs(page):
    assert max(len(fn.inputs) for fn in page.fns.values()) <= 5


def test_events_that_run_a_model_share_a_queue_and_streams_have_their_own(page):
    functions = [fn for fn in page.fns.values() if fn.fn is not None]  # the others run in the browser
    with_photo = [fn for fn in functions if any(isinstance(component, PhotoInput) for component in fn.inputs)]
    queues = [fn.concurrency_id for fn in with_photo]
    assert set(queues) == {"model", "stream", "trust"}
    assert (queues.count("stream"), queues.count("trust")) == (1, 2)  # trust of one map, and of all methods


def test_the_queue_cannot_be_bypassed(page):
    assert page.api_open is False


def test_page_has_one_h1_in_every_language(page):
    values = [str(block.value) for block in page.blocks.values() if getattr(block, "value", None)]
    assert sum(value.count("<h1") for value in values) == 0
    assert sum(str(translate_in_browser("header")) == value for value in values) == 1
    for table in build_browser_translations().translations.values():
        assert [key for key, text in table.items() if "<h1" in text] == ["page.header"]
        assert table["page.header"].count("<h1") == 1


def test_explain_endpoint_returns_the_attribution_of_python(service, cheetah, name):
    model = load_bundled(name)
    values, overlay = endpoints.handle_explain_endpoint(
        service, cheetah, name, "grad-cam", "church", {"layer": model.stages[1]}
    )
    theirs = vizlib.explain(model, cheetah, method="grad-cam", target="church", layer=model.stages[1])
    # The cached pass computes attention explicitly, which differs from the fused kernel in the last digits.
    assert np.allclose(values["values"], theirs.heat.numpy(), rtol=1e-4, atol=1e-6)
    assert values["notes"] == list(theirs.notes)
    assert np.abs(np.asarray(overlay).astype(int) - np.asarray(theirs.overlay())).max() <= 1


@resnet_by_default
def test_explain_endpoint_accepts_a_contrast_class(service, cheetah, name):
    values, _ = endpoints.handle_explain_endpoint(
        service, cheetah, name, "saliency", "church", {"against": "golf ball"}
    )
    theirs = vizlib.explain(load_bundled(name), cheetah, method="saliency", target="church", against="golf ball")
    assert np.allclose(values["values"], theirs.heat.numpy(), rtol=1e-3, atol=1e-5 * theirs.heat.max().item())


@pytest.mark.parametrize("other", [{"model": "vit_tiny-imagenette"}, {"target": "golf ball"}])
def test_compare_endpoint_returns_the_agreement_of_python(service, cheetah, other):
    first = {"model": "resnet18-imagenette", "target": "church"}
    result = endpoints.handle_compare_endpoint(service, cheetah, first, other, "grad-cam", 0.3)
    maps = [
        vizlib.explain(load_bundled(side["model"]), cheetah, method="grad-cam", target=side["target"])
        for side in (first, {**first, **other})
    ]
    expected = vizlib.agreement(*maps, fraction=0.3)
    assert (result["correlation"], result["overlap"]) == pytest.approx(
        (expected.correlation, expected.overlap), rel=1e-3
    )
    for ours, theirs in zip(result["maps"], maps, strict=True):
        assert np.allclose(ours["values"], theirs.heat.numpy(), atol=1e-3 * theirs.heat.max().item())


@pytest.mark.parametrize(("query", "expected"), [("6, 8", (6, 8)), ("class", "class"), ("", None), ("6;8", "6;8")])
def test_parse_query_token_accepts_names_and_patches(query, expected):
    assert endpoints.parse_query_token(query) == expected


def test_endpoints_refuse_invalid_inputs_in_one_sentence(service, cheetah, name):
    no_photo: Any = None
    with pytest.raises(vizlib.ImageError, match="photo is missing"):
        endpoints.handle_predict_endpoint(service, no_photo, name, 5)
    with pytest.raises(vizlib.ModelError, match="has channels 0 to"):
        endpoints.handle_channels_endpoint(service, cheetah, name, service.catalog.get(name).stages[0], 10**6)
    array: Any = ["layer"]
    with pytest.raises(vizlib.MethodError, match="parameters are an object"):
        endpoints.handle_explain_endpoint(service, cheetah, name, "saliency", "", array)


def test_launch_disables_telemetry_and_sharing(page, monkeypatch):
    options = {}
    monkeypatch.setattr(page, "launch", lambda **kwargs: options.update(kwargs))
    app.launch(page)
    assert page.analytics_enabled is False
    assert (options["run_history"], options["enable_monitoring"], options["share"], options["pwa"]) == (False,) * 4
    assert options["max_file_size"] == "20mb"
    assert options["state_session_capacity"] == 200
    assert not {"allowed_paths", "show_error", "strict_cors"} & set(options)  # gradio's defaults are safe


def test_tabs_have_their_order(page):
    english = build_browser_translations().translations["en"]
    titles: list[Any] = [block.label for block in page.blocks.values() if isinstance(block, gr.Tab)]
    labels = [english[title.key] for title in titles]
    assert labels == ["Why", "Attention", "Inside", "Compare", "Learn", "Model", "Use in code"]


@pytest.mark.parametrize(("only", "photo"), [((), "lion.jpg"), (["resnet18-imagenette"], "tower.jpg")])
def test_page_opens_with_a_photo_that_the_first_model_knows(only, photo):
    page = app.build_app(ModelCatalog(only=only))
    (box,) = [block for block in page.blocks.values() if isinstance(block, PhotoInput) and block.elem_id == "photo"]
    assert box.value["orig_name"] == photo


def test_port_in_use_is_one_sentence():
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
def test_invalid_port_or_host_is_one_sentence(host, port, sentence, monkeypatch):
    def fails(**kwargs):  # as gradio does
        raise (
            OverflowError("port must be 0-65535")
            if port > 65535
            else OSError(f"Cannot find empty port in range: {port}")
        )

    with gr.Blocks() as empty:
        monkeypatch.setattr(empty, "launch", fails)
        with pytest.raises(vizlib.VizlibError, match=sentence):
            app.launch(empty, host, port)


def test_other_launch_errors_propagate(monkeypatch):
    def fails(**kwargs):
        raise OSError("no space left on device")

    with gr.Blocks() as empty:
        monkeypatch.setattr(empty, "launch", fails)
        with pytest.raises(OSError, match="no space left"):
            app.launch(empty)


def test_serve_keeps_files_in_a_private_folder(monkeypatch, tmp_path):
    monkeypatch.delenv("GRADIO_TEMP_DIR", raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    folders = []

    def record_folders(page, *_, **__):
        folders.append({Path(block.GRADIO_CACHE) for block in page.blocks.values()})
        return None, "http://127.0.0.1:7860/", None

    monkeypatch.setattr(app, "launch", record_folders)
    app.run_app()
    (folder,) = folders[0]
    assert folder.is_relative_to(tmp_path)
    assert not folder.exists()


def test_checkpoints_option_adds_the_models_of_a_folder(tmp_path, monkeypatch):
    (tmp_path / "mine.safetensors").write_bytes(b"weights")
    offered = []
    empty = gr.Blocks()
    monkeypatch.setattr(app, "build_page", lambda service, _: offered.extend(service.catalog.names) or empty)
    monkeypatch.setattr(app, "launch", lambda *_, **__: (None, "http://127.0.0.1:7860/", None))
    monkeypatch.setattr(sys, "argv", ["dashboard", "--checkpoints", str(tmp_path)])
    with pytest.raises(SystemExit) as exit_info:
        start.main()
    assert exit_info.value.code == 0
    assert "mine" in offered


def test_missing_folder_is_one_sentence_and_exit_code_2(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["dashboard", "--checkpoints", str(tmp_path / "nowhere")])
    with pytest.raises(SystemExit) as exit_info:
        start.main()
    assert exit_info.value.code == 2
    message = capsys.readouterr().err
    assert message.startswith("vizlib: there is no folder ")
    assert message.count("\n") == 1


def test_clip_endpoint_returns_the_map_the_prompts_and_the_words_of_python(service):
    picture = open_example_photos()["ex:digits"]
    prompts = ["a red seven", "a blue two", "a white one"]
    values, overlay = endpoints.handle_clip_endpoint(
        service, picture, "clip-digits", "\n".join(["", *prompts]), "a blue two", {"against": "a red seven"}
    )
    model = vizlib.load_clip("clip-digits").with_prompts(prompts)
    theirs = vizlib.explain(model, picture, target="a blue two", against="a red seven")
    assert values["method"] == "attention-relevance"
    assert np.allclose(values["values"], theirs.heat.numpy(), rtol=1e-4, atol=1e-5)
    assert [row["label"] for row in values["prompts"]] == [row.label for row in model.predict(picture)]
    assert values["words"]["words"] == ["a", "blue", "two"]
    assert values["words"]["values"] == pytest.approx(vizlib.explain_words(model, picture, 1).values, rel=1e-3)
    assert overlay.size == picture.size
    own, _ = endpoints.handle_clip_endpoint(service, picture, "clip-digits", "", "", {"method": "hires-cam"})
    assert len(own["prompts"]) == 60
    with pytest.raises(vizlib.ModelError, match="fixed list of 10 classes, and reads no prompts"):
        endpoints.handle_clip_endpoint(service, picture, "resnet18-imagenette", "", "", None)
    with pytest.raises(vizlib.TargetError, match="'dog' is not among them"):
        endpoints.handle_clip_endpoint(service, picture, "clip-digits", "a dog", "", None)
