"""What Use in code shows is what Why shows: its lines are run, and its files hold the map to the bit."""

from __future__ import annotations

import io
import json
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest
import timm
import torch
from PIL import Image

import vizlib
from dashboard import app
from dashboard.components.code import build_code_blocks as blocks_of
from dashboard.components.files import describe_file
from dashboard.components.parameters import apply_settings
from dashboard.services.analysis_service import AnalysisService
from dashboard.services.model_catalog import ModelCatalog
from dashboard.services.request import ExplanationRequest
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
    """A folder that holds the photo by the name the lines call it, without its loss as JPEG."""
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


def test_code_blocks_contain_class_contrast_method_and_parameters(service, cheetah, selection):
    labels = service.catalog.get(selection.model).labels
    rival = next(i for i in range(10) if i != selection.target)
    menus = apply_settings(service.catalog.get(selection.model), "grad-cam", {"score": "probability", "relu": "no"})
    words, _ = code.compute_content(service, cheetah, selection._replace(against=rival), "grad-cam", menus)
    assert f"Why {labels[selection.target]} and not {labels[rival]}?" in words
    assert "cheetah.jpg is the photo shown here." in words
    for text in texts(service, cheetah, selection._replace(against=rival), "grad-cam", menus).values():
        for part in (
            "cheetah.jpg",
            selection.model,
            "grad-cam",
            labels[selection.target],
            labels[rival],
            "probability",
        ):
            assert part in text, (part, text)
    plain = texts(service, cheetah, selection, "saliency", menus)  # another method's knobs say nothing
    assert "probability" not in "".join(plain.values())


def test_python_code_computes_the_map_of_the_page(service, cheetah, selection, here):
    model = service.catalog.get(selection.model)
    menus = apply_settings(model, "grad-cam", {"layer": model.stages[1]})
    names = run(texts(service, cheetah, selection, "grad-cam", menus)["Python"])
    shown = service.explain(selection.request(cheetah, "grad-cam", {"layer": model.stages[1]}))
    assert torch.allclose(names["why"].heat, shown.heat, rtol=1e-4, atol=1e-7)  # the page reads its cached pass
    assert (names["why"].label, names["why"].notes) == (shown.label, shown.notes)


def test_client_code_computes_the_map_of_the_page(service, cheetah, selection, here, address):
    rival = next(i for i in range(10) if i != selection.target)
    aimed = selection._replace(against=rival)
    menus = apply_settings(service.catalog.get(selection.model), "saliency", {"channels": "norm"})
    text = texts(service, cheetah, aimed, "saliency", menus)["API client"]
    assert code.ADDRESS_PLACEHOLDER in text
    names = run(text.replace(code.ADDRESS_PLACEHOLDER, address))
    expected = vizlib.explain(
        vizlib.load(selection.model), cheetah, "saliency", selection.target, rival, channels="norm"
    )
    assert np.allclose(names["heat"], expected.heat, rtol=1e-4, atol=1e-7)


def test_client_code_names_the_space_that_serves_the_page(service, cheetah, selection, monkeypatch):
    monkeypatch.setenv("SPACE_ID", "someone/see-why")
    _, value = code.compute_content(service, cheetah, selection, "grad-cam", None)
    assert 'Client("someone/see-why")' in value["blocks"][2]["text"]
    assert value["here"] == ""


def test_an_uploaded_photo_has_a_placeholder_name(service, tower, selection):
    own = vizlib.open_image(np.asarray(tower)[:300])
    words, value = code.compute_content(service, own, selection, "grad-cam", None)
    assert "photo.jpg stands for your own photo." in words
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
    rival = next(i for i in range(10) if i != selection.target)
    aimed = selection._replace(against=rival)
    menus = apply_settings(
        service.catalog.get(selection.model), "grad-cam", {"layer": service.catalog.get(selection.model).stages[1]}
    )
    settings = {"layer": service.catalog.get(selection.model).stages[1]}
    answer = service.explain(
        ExplanationRequest(cheetah, selection.model, selection.target, rival, "grad-cam", settings)
    )
    return answer, lambda form: code.export_map(service, cheetah, aimed, "grad-cam", menus, form, tmp_path / "cache")


def test_exported_raw_values_equal_the_map(exported):
    answer, export = exported
    with np.load(export("npz")) as found:
        assert np.array_equal(found["heat"], answer.heat.numpy())


def test_exported_report_contains_the_map_and_its_code(service, exported, selection):
    answer, export = exported
    path = export("html")
    names = run(READ_CODE.format(file=repr(str(path))))
    assert np.array_equal(names["maps"][0]["heat"], answer.heat.numpy())
    text = path.read_text()
    HTMLParser().feed(text)
    assert "cheetah.jpg" in text
    assert "SHA-256 of the weights" in text
    assert str(path.parent) not in text


def test_exported_figures_have_the_requested_format(exported, service, selection):
    answer, export = exported
    labels = service.catalog.get(selection.model).labels
    rival = labels[answer.against]
    assert ElementTree.fromstring(export("svg").read_text()).tag.endswith("svg")
    with Image.open(export("png")) as picture:
        assert picture.format == "PNG"
        assert picture.width > 1000
    file = io.BytesIO()
    title = f"Why {answer.label} and not {rival}? {selection.model}, grad-cam"
    answer.figure(title).savefig(file)
    file.seek(0)
    assert np.array_equal(np.asarray(Image.open(file)), np.asarray(Image.open(export("png"))))


def test_an_exported_file_has_a_plain_name_in_a_random_folder(exported, selection, tmp_path):
    answer, export = exported
    one, two = export("npz"), export("npz")
    rival = answer.against
    assert one.name == two.name == f"{selection.model}_grad-cam_{selection.target}_vs_{rival}.npz"
    assert one.parent != two.parent
    assert one.parent.parent == two.parent.parent == tmp_path / "cache"
    assert len(list((tmp_path / "cache").rglob("*.*"))) == 2


@pytest.mark.parametrize(
    ("photo", "method", "form", "sentence"),
    [
        (False, "grad-cam", "npz", "there is nothing to save yet"),
        (True, "grad-cam", "../../etc/passwd", "cannot save as '../../etc/passwd'; use one of html, svg, png, npz"),
        (True, "rise", "npz", "rise has not run yet: start it in the Why tab"),
        (True, "unicorn", "npz", "there is no method 'unicorn'"),
    ],
)
def test_an_export_without_a_map_raises_and_writes_no_file(
    service, cheetah, selection, tmp_path, photo, method, form, sentence
):
    asked_for = (cheetah, selection) if photo else (None, None)
    with pytest.raises(vizlib.VizlibError, match=f"^{sentence}"):
        code.export_map(service, *asked_for, method, None, form, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_method_of_many_passes_is_exported_after_it_has_run(service, cheetah, selection, tmp_path):
    fresh = AnalysisService(service.catalog)
    for step in fresh.stream_explanation(selection.request(cheetah, "occlusion")):
        answer = step.attribution
    path = code.export_map(fresh, cheetah, selection, "occlusion", None, "npz", tmp_path)
    with np.load(path) as found:
        assert np.array_equal(found["heat"], answer.heat.numpy())
        assert json.loads(str(found["about"]))["method"] == "occlusion"


def test_code_tab_is_empty_without_a_photo(service):
    words, value = code.compute_content(service, None, None, None, None)
    assert "No photo yet" in words
    assert value == blocks_of(())


def test_file_sizes_have_a_suitable_unit():
    assert [describe_file("a", size) for size in (10, 1_400, 99_000, 250_000)] == [
        "a, 1 kB",
        "a, 1 kB",
        "a, 99 kB",
        "a, 0.2 MB",
    ]
