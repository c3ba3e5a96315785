"""One click takes a file away, the lines follow what is selected, and what is copied is what is shown."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

import vizlib
from vizlib.reporting.html_report import READ

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


def downloaded(session, form: str, folder: Path) -> Path:
    """What one click on a button brings."""
    with session.page.expect_download() as waiting:
        session.page.locator(f"#code-files [data-key={form}]").click()
    path = folder / waiting.value.suggested_filename
    waiting.value.save_as(path)
    session.settle()
    return path


def run(text: str, folder: Path, monkeypatch, tower) -> dict:
    """Run some lines where the photo lies by the name they call it, without its loss as JPEG."""
    monkeypatch.chdir(folder)
    tower.save("tower.jpg", "PNG")
    names = {}
    exec(compile(text, "block", "exec"), names)
    return names


# The tests below are one visit, in this order; each leaves the page in a state the next may start from.


def test_one_click_brings_the_raw_values_and_they_are_those_of_the_lines_shown(session, tmp_path, monkeypatch, tower):
    path = downloaded(session, "npz", tmp_path)
    assert path.name == f"{RESNET}_grad-cam_{vizlib.load(RESNET).predict(tower)[0].index}.npz"
    assert session.get_text("#code-files .viz-file-status").startswith(f"{path.name}, ")
    with np.load(path) as found:
        asked = run(block(session, "API client"), tmp_path, monkeypatch, tower)
        assert found["heat"].tolist() == asked["heat"]
        made = run(block(session, "Python"), tmp_path, monkeypatch, tower)
        assert np.allclose(found["heat"], made["why"].heat.numpy(), rtol=1e-4, atol=1e-6)


def test_one_click_brings_a_report_that_opens_by_itself_without_a_network(session, chromium, tmp_path, tower):
    path = downloaded(session, "html", tmp_path)
    values = downloaded(session, "npz", tmp_path)
    page = chromium.new_page(viewport={"width": 390, "height": 844}, java_script_enabled=False)
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(path.as_uri())
    assert page.locator("h1").inner_text() == f"Why {vizlib.load(RESNET).predict(tower)[0].label}?"
    for picture in page.locator("img").all():
        assert picture.bounding_box()["width"] > 0
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    with page.expect_download() as waiting:
        page.get_by_role("link", name="Raw values (.npz)").click()
    with np.load(values) as found, np.load(waiting.value.path()) as inside:
        assert np.array_equal(found["heat"], inside["heat"])
    page.close()
    names = {}
    exec(READ.format(file=repr(str(path))), names)
    with np.load(values) as found:
        assert np.array_equal(names["maps"][0]["heat"], found["heat"])


def test_a_report_fits_a_phone_and_a_wide_window(session, chromium, tmp_path):
    path = downloaded(session, "html", tmp_path)
    for width in (390, 800, 1440):
        page = chromium.new_page(viewport={"width": width, "height": 800})
        page.goto(path.as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") == width
        page.close()


def test_one_click_brings_a_figure(session, tmp_path):
    assert ElementTree.fromstring(downloaded(session, "svg", tmp_path).read_text()).tag.endswith("svg")
    with Image.open(downloaded(session, "png", tmp_path)) as picture:
        assert min(picture.size) > 600


def test_the_lines_follow_class_method_knobs_and_model(session, tower):
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
    assert shell[shell.index("--knob") + 1] == "channels=norm"
    session.choose_option("#model", VIT)
    session.wait_until(lines.format(f'model="{VIT}"'))
    session.settle()
    assert f'vizlib.load("{VIT}")' in block(session, "Python")


def test_what_is_copied_is_what_is_shown(session):
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


def test_the_address_in_the_lines_is_the_pages_own(session, address):
    assert re.search(r'Client\("(.+?)"\)', block(session, "API client"))[1] == address


def test_what_cannot_be_saved_is_said_and_the_next_click_works(session, tmp_path):
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
    for _ in range(2):  # the second file is called as the first
        name = downloaded(session, "npz", tmp_path).name
        assert name.startswith(VIT)
        assert session.get_text("#code-files .viz-file-status").startswith(f"{name}, ")


def test_export_in_the_header_leads_to_the_files(session):
    session.open_tab("Why")
    session.page.get_by_role("button", name="Export").click()
    session.page.locator("#code-files [data-key=html]").wait_for()
    assert "v=use-in-code" in session.page.url


def test_a_link_opens_the_lines_of_the_same_view(open_checked_session):
    one = open_checked_session(f"?m={VIT}&img=ex:cheetah&c=church&vs=tench&v=use-in-code&w=grad-cam&k=layer:blocks.3")
    one.page.locator("#code-lines pre").first.wait_for()
    one.settle()
    text = block(one, "Python")
    for part in (VIT, "cheetah.jpg", 'target="church"', 'against="tench"', 'layer="blocks.3"'):
        assert part in text
