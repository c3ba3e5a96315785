"""The Use in code tab: its code runs and computes the map of the Why tab, and its files contain that map."""

from __future__ import annotations

import io
import json
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest
import timm
import torch
from bundled_models import load_bundled, resnet_by_default
from PIL import Image

import vizlib
from dashboard import app
from dashboard.components.code import build_code_blocks as blocks_of
from dashboard.components.files import describe_file
from dashboard.components.parameters import apply_parameter_settings
from dashboard.services.analysis_service import AnalysisService
from dashboard.services.explanation_request import ExplanationRequest
from dashboard.services.model_catalog import ModelCatalog
from dashboard.state.selection import Selection
from dashboard.tabs import code
from vizlib.reporting.html_report import READ_CODE


@pytest.fixture(scope="module")
def address(service):
    page = app.build_app(service.catalog)
    _, local, _ = app.launch(page, port=None, prevent_thread_lock=True, quiet=True)
    yield local
    page.close(verbose=False)


@pytest.fixture
def here(tmp_path, monkeypatch, cheetah):
    """Work in a folder that contains the photo under its name in the code, stored without loss."""
    monkeypatch.chdir(tmp_path)
    cheetah.save("cheetah.jpg", "PNG")
    return tmp_path


def run(text: str) -> dict:
    names = {}
    exec(compile(text, "block", "exec"), names)
    return names


def texts(service, photo, selection, method, menus=None) -> dict[str, str]:
    _, value = code.compute_content(service, photo, selection, method, menus)
    return {block["name"]: block["text"] for block in value["blocks"]}


@resnet_by_default
def test_code_blocks_contain_class_contrast_method_and_parameters(service, cheetah, selection):
    labels = service.catalog.get(selection.model).labels
    contrast = next(i for i in range(10) if i != selection.target)
    menus = apply_parameter_settings(
        service.catalog.get(selection.model), "grad-cam", {"score": "probability", "relu": "no"}
    )
    caption, _ = code.compute_content(service, cheetah, selection._replace(against=contrast), "grad-cam", menus)
    assert f"Why {labels[selection.target]} and not {labels[contrast]}?" in caption
    assert "cheetah.jpg is the photo shown here." in caption
    for text in texts(service, cheetah, selection._replace(against=contrast), "grad-cam", menus).values():
        for part in (
            "cheetah.jpg",
            selection.model,
            "grad-cam",
            labels[selection.target],
            labels[contrast],
            "probability",
        ):
            assert part in text, (part, text)
    plain = texts(service, cheetah, selection, "saliency", menus)  # parameters of another method are ignored
    assert "probability" not in "".join(plain.values())


@resnet_by_default
def test_python_code_computes_the_map_of_the_page(service, cheetah, selection, here):
    model = service.catalog.get(selection.model)
    menus = apply_parameter_settings(model, "grad-cam", {"layer": model.stages[1]})
    names = run(texts(service, cheetah, selection, "grad-cam", menus)["Python"])
    page_attribution = service.explain(selection.make_request(cheetah, "grad-cam", {"layer": model.stages[1]}))
    assert torch.allclose(
        names["why"].heat, page_attribution.heat, rtol=1e-4, atol=1e-7
    )  # the page reads its cached pass
    assert (names["why"].label, names["why"].notes) == (page_attribution.label, page_attribution.notes)


@resnet_by_default
def test_client_code_computes_the_map_of_the_page(service, cheetah, selection, here, address):
    contrast = next(i for i in range(10) if i != selection.target)
    contrasted = selection._replace(against=contrast)
    menus = apply_parameter_settings(service.catalog.get(selection.model), "saliency", {"channels": "norm"})
    text = texts(service, cheetah, contrasted, "saliency", menus)["API client"]
    assert code.ADDRESS_PLACEHOLDER in text
    names = run(text.replace(code.ADDRESS_PLACEHOLDER, address))
    expected = vizlib.explain(
        load_bundled(selection.model), cheetah, "saliency", selection.target, contrast, channels="norm"
    )
    assert np.allclose(names["heat"], expected.heat, rtol=1e-4, atol=1e-7)


def test_client_code_names_the_space_that_serves_the_page(service, cheetah, selection, monkeypatch):
    monkeypatch.setenv("SPACE_ID", "someone/see-why")
    _, value = code.compute_content(service, cheetah, selection, "grad-cam", None)
    assert 'Client("someone/see-why")' in value["blocks"][2]["text"]
    assert value["here"] == ""


def test_an_uploaded_photo_has_a_placeholder_name(service, tower, selection):
    own = vizlib.open_image(np.asarray(tower)[:300])
    caption, value = code.compute_content(service, own, selection, "grad-cam", None)
    assert "photo.jpg stands for your own photo." in caption
    assert all("photo.jpg" in block["text"] for block in value["blocks"])


def test_a_local_model_is_named_without_the_server_folder(tmp_path, cheetah):
    torch.manual_seed(0)
    (tmp_path / "secret").mkdir()
    torch.save(timm.create_model("test_resnet", num_classes=3).state_dict(), tmp_path / "secret" / "mine.pth")
    service = AnalysisService(ModelCatalog(folder=tmp_path / "secret"))
    text = texts(service, cheetah, Selection("cheetah", "mine", 1), "saliency")
    assert 'vizlib.load("mine", checkpoints=".")' in text["Python"]
    assert "--model mine --checkpoints ." in text["Shell"].replace(" \\\n   ", "")
    assert "secret" not in "".join(text.values())


@pytest.fixture
def exported(service, cheetah, selection, tmp_path):
    contrast = next(i for i in range(10) if i != selection.target)
    contrasted = selection._replace(against=contrast)
    menus = apply_parameter_settings(
        service.catalog.get(selection.model), "grad-cam", {"layer": service.catalog.get(selection.model).stages[1]}
    )
    parameters = {"layer": service.catalog.get(selection.model).stages[1]}
    attribution = service.explain(
        ExplanationRequest(cheetah, selection.model, selection.target, contrast, "grad-cam", parameters)
    )
    return attribution, lambda file_format: code.export_map(
        service, cheetah, contrasted, "grad-cam", menus, file_format, tmp_path / "cache"
    )


def test_exported_raw_values_equal_the_map(exported):
    attribution, export = exported
    with np.load(export("npz")) as found:
        assert np.array_equal(found["heat"], attribution.heat.numpy())


@resnet_by_default
def test_exported_report_contains_the_map_and_its_code(service, exported, selection):
    attribution, export = exported
    path = export("html")
    names = run(READ_CODE.format(file=repr(str(path))))
    assert np.array_equal(names["maps"][0]["heat"], attribution.heat.numpy())
    text = path.read_text()
    HTMLParser().feed(text)
    assert "cheetah.jpg" in text
    assert "SHA-256 of the weights" in text
    assert str(path.parent) not in text


@resnet_by_default
def test_exported_figures_have_the_requested_format(exported, service, selection):
    attribution, export = exported
    labels = service.catalog.get(selection.model).labels
    contrast = labels[attribution.against]
    assert ElementTree.fromstring(export("svg").read_text()).tag.endswith("svg")
    with Image.open(export("png")) as picture:
        assert picture.format == "PNG"
        assert picture.width > 1000
    file = io.BytesIO()
    title = f"Why {attribution.label} and not {contrast}? {selection.model}, grad-cam"
    attribution.figure(title).savefig(file)
    file.seek(0)
    assert np.array_equal(np.asarray(Image.open(file)), np.asarray(Image.open(export("png"))))


def test_an_exported_file_has_a_plain_name_in_a_random_folder(exported, selection, tmp_path):
    attribution, export = exported
    one, two = export("npz"), export("npz")
    contrast = attribution.against
    assert one.name == two.name == f"{selection.model}_grad-cam_{selection.target}_vs_{contrast}.npz"
    assert one.parent != two.parent
    assert one.parent.parent == two.parent.parent == tmp_path / "cache"
    assert len(list((tmp_path / "cache").rglob("*.*"))) == 2


@pytest.mark.parametrize(
    ("photo", "method", "file_format", "sentence"),
    [
        (False, "grad-cam", "npz", "there is nothing to save yet"),
        (True, "grad-cam", "../../etc/passwd", "cannot save as '../../etc/passwd'; use one of html, svg, png, npz"),
        (True, "rise", "npz", "rise has not run yet: start it in the Why tab"),
        (True, "unicorn", "npz", "there is no method 'unicorn'"),
    ],
)
def test_an_export_without_a_map_raises_and_writes_no_file(
    service, cheetah, selection, tmp_path, photo, method, file_format, sentence
):
    inputs = (cheetah, selection) if photo else (None, None)
    with pytest.raises(vizlib.VizlibError, match=f"^{sentence}"):
        code.export_map(service, *inputs, method, None, file_format, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_method_of_many_passes_is_exported_after_it_has_run(service, cheetah, selection, tmp_path):
    fresh = AnalysisService(service.catalog)
    for step in fresh.stream_explanation(selection.make_request(cheetah, "occlusion")):
        attribution = step.attribution
    path = code.export_map(fresh, cheetah, selection, "occlusion", None, "npz", tmp_path)
    with np.load(path) as found:
        assert np.array_equal(found["heat"], attribution.heat.numpy())
        assert json.loads(str(found["about"]))["method"] == "occlusion"


def test_code_tab_is_empty_without_a_photo(service):
    caption, value = code.compute_content(service, None, None, None, None)
    assert "No photo yet" in caption
    assert value == blocks_of(())


def test_file_sizes_have_a_suitable_unit():
    assert [describe_file("a", size) for size in (10, 1_400, 99_000, 250_000)] == [
        "a, 1 kB",
        "a, 1 kB",
        "a, 99 kB",
        "a, 0.2 MB",
    ]
