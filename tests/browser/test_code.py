"""The Use in code tab: downloads, and code that follows the selection and is copied as shown."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

import vizlib
from vizlib.reporting.html_report import READ_CODE

pytestmark = pytest.mark.slow

RESNET, VIT = "resnet18-imagenette", "vit_tiny-imagenette"
TAB = "Use in code"


@pytest.fixture(scope="module")
def session(open_session):
    session = open_session("?v=use-in-code&__theme=light")
    session.page.locator("#code-lines pre").first.wait_for()
    yield session
    assert session.errors == []
    session.page.close()


def block(session, name: str) -> str:
    return session.page.locator(f"#code-lines pre[aria-label='{name}']").inner_text()


def download(session, form: str, folder: Path) -> Path:
    """Click a button and return the downloaded file."""
    with session.page.expect_download() as pending:
        session.page.locator(f"#code-files [data-key={form}]").click()
    path = folder / pending.value.suggested_filename
    pending.value.save_as(path)
    session.settle()
    return path


def run(text: str, folder: Path, monkeypatch, tower) -> dict:
    """Run code in a folder with the photo under the name that the code uses, stored without loss."""
    monkeypatch.chdir(folder)
    tower.save("tower.jpg", "PNG")
    namespace = {}
    exec(compile(text, "block", "exec"), namespace)
    return namespace


# The tests below share one session and run in this order.


def test_download_of_raw_values_equals_the_result_of_the_shown_code(session, tmp_path, monkeypatch, tower):
    path = download(session, "npz", tmp_path)
    assert path.name == f"{RESNET}_grad-cam_{vizlib.load(RESNET).predict(tower)[0].index}.npz"
    assert session.get_text("#code-files .viz-file-status").startswith(f"{path.name}, ")
    with np.load(path) as downloaded:
        from_api = run(block(session, "API client"), tmp_path, monkeypatch, tower)
        assert downloaded["heat"].tolist() == from_api["heat"]
        from_python = run(block(session, "Python"), tmp_path, monkeypatch, tower)
        assert np.allclose(downloaded["heat"], from_python["why"].heat.numpy(), rtol=1e-4, atol=1e-6)


def test_downloaded_report_is_self_contained(session, chromium, tmp_path, tower):
    path = download(session, "html", tmp_path)
    values = download(session, "npz", tmp_path)
    page = chromium.new_page(viewport={"width": 390, "height": 844}, java_script_enabled=False)
    urls = []
    page.on("request", lambda request: urls.append(request.url))
    page.goto(path.as_uri())
    assert page.locator("h1").inner_text() == f"Why {vizlib.load(RESNET).predict(tower)[0].label}?"
    for picture in page.locator("img").all():
        assert picture.bounding_box()["width"] > 0
    assert [url for url in urls if not url.startswith(("file:", "data:"))] == []
    with page.expect_download() as pending:
        page.get_by_role("link", name="Raw values (.npz)").click()
    with np.load(values) as downloaded, np.load(pending.value.path()) as embedded:
        assert np.array_equal(downloaded["heat"], embedded["heat"])
    page.close()
    namespace = {}
    exec(READ_CODE.format(file=repr(str(path))), namespace)
    with np.load(values) as downloaded:
        assert np.array_equal(namespace["maps"][0]["heat"], downloaded["heat"])


def test_report_fits_phone_and_wide_window(session, chromium, tmp_path):
    path = download(session, "html", tmp_path)
    for width in (390, 800, 1440):
        page = chromium.new_page(viewport={"width": width, "height": 800})
        page.goto(path.as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") == width
        page.close()


def test_download_of_a_figure(session, tmp_path):
    assert ElementTree.fromstring(download(session, "svg", tmp_path).read_text()).tag.endswith("svg")
    with Image.open(download(session, "png", tmp_path)) as picture:
        assert min(picture.size) > 600


def test_code_follows_class_method_parameters_and_model(session, tower):
    lines = "() => document.querySelector('#code-lines').innerText.includes({!r})"
    session.page.locator("#bars button").nth(1).click()
    second = vizlib.load(RESNET).predict(tower)[1].label
    session.wait_until(lines.format(f'target="{second}"'))
    session.open_tab("Why")
    session.wait_for_change("#why-heatmap", lambda: session.page.locator("#why-methods [data-key=saliency]").click())
    session.wait_for_change(
        "#why-heatmap", lambda: session.page.locator("#why-parameters select").first.select_option(label="norm")
    )
    session.open_tab(TAB)
    assert 'method="saliency"' in block(session, "Python")
    assert 'channels="norm"' in block(session, "Python")
    shell = shlex.split(block(session, "Shell").replace("\\\n", " "))
    assert shell[shell.index("--param") + 1] == "channels=norm"
    session.choose_option("#model", VIT)
    session.wait_until(lines.format(f'model="{VIT}"'))
    session.settle()
    assert f'vizlib.load("{VIT}")' in block(session, "Python")


def test_copied_code_is_the_shown_code(session):
    session.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    for name in ("Python", "Shell", "API client"):
        button = session.page.get_by_role("button", name=f"Copy the lines for {name}")
        before = list(session.calls)
        button.click()
        session.wait_until("() => document.querySelector('#code-lines').innerText.includes('Copied')")
        copied = session.page.evaluate("navigator.clipboard.readText()")
        assert copied.rstrip() == block(session, name).rstrip()
        assert session.calls == before
        session.wait_until("() => !document.querySelector('#code-lines').innerText.includes('Copied')")


def test_address_in_the_code_is_that_of_the_page(session, address):
    call = re.search(r'Client\("(.+?)"\)', block(session, "API client"))
    assert call is not None
    assert call[1] == address


def test_download_without_a_photo_is_an_error_and_the_next_click_works(session, tmp_path):
    session.page.locator("#photo button[aria-label='Remove Image']").click()
    session.settle()
    assert session.page.locator("#code-lines pre").count() == 0
    session.page.locator("#code-files [data-key=html]").click()
    session.page.get_by_text("there is nothing to save yet: choose a photo first.", exact=True).first.wait_for()
    session.settle()
    assert session.get_text("#code-files .viz-file-status") == ""
    session.page.locator("#examples button").nth(1).click()
    session.page.locator("#code-lines pre").first.wait_for()
    session.settle()
    for _ in range(2):  # a second file of the same name
        name = download(session, "npz", tmp_path).name
        assert name.startswith(VIT)
        assert session.get_text("#code-files .viz-file-status").startswith(f"{name}, ")


def test_export_button_opens_the_files(session):
    session.open_tab("Why")
    session.page.get_by_role("button", name="Export").click()
    session.page.locator("#code-files [data-key=html]").wait_for()
    assert "v=use-in-code" in session.page.url


def test_link_opens_the_code_of_the_same_view(open_checked_session):
    linked = open_checked_session(
        f"?m={VIT}&img=ex:cheetah&c=church&vs=tench&v=use-in-code&w=grad-cam&k=layer:blocks.3"
    )
    linked.page.locator("#code-lines pre").first.wait_for()
    linked.settle()
    code = block(linked, "Python")
    for text in (VIT, "cheetah.jpg", 'target="church"', 'against="tench"', 'layer="blocks.3"'):
        assert text in code
