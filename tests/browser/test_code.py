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
def visit(visiting):
    visit = visiting("?v=use-in-code&__theme=light")
    visit.page.locator("#code-lines pre").first.wait_for()
    yield visit
    assert visit.complaints == []
    visit.page.close()


def block(visit, name: str) -> str:
    return visit.page.locator(f"#code-lines pre[aria-label='{name}']").inner_text()


def downloaded(visit, form: str, folder: Path) -> Path:
    """What one click on a button brings."""
    with visit.page.expect_download() as waiting:
        visit.page.locator(f"#code-files [data-key={form}]").click()
    path = folder / waiting.value.suggested_filename
    waiting.value.save_as(path)
    visit.settle()
    return path


def run(text: str, folder: Path, monkeypatch, tower) -> dict:
    """Run some lines where the photo lies by the name they call it, without its loss as JPEG."""
    monkeypatch.chdir(folder)
    tower.save("tower.jpg", "PNG")
    names = {}
    exec(compile(text, "block", "exec"), names)
    return names


# The tests below are one visit, in this order; each leaves the page in a state the next may start from.


def test_one_click_brings_the_raw_values_and_they_are_those_of_the_lines_shown(visit, tmp_path, monkeypatch, tower):
    path = downloaded(visit, "npz", tmp_path)
    assert path.name == f"{RESNET}_grad-cam_{vizlib.load(RESNET).predict(tower)[0].index}.npz"
    assert visit.said("#code-files .viz-told").startswith(f"{path.name}, ")
    with np.load(path) as found:
        asked = run(block(visit, "API client"), tmp_path, monkeypatch, tower)
        assert found["heat"].tolist() == asked["heat"]
        made = run(block(visit, "Python"), tmp_path, monkeypatch, tower)
        assert np.allclose(found["heat"], made["why"].heat.numpy(), rtol=1e-4, atol=1e-6)


def test_one_click_brings_a_report_that_opens_by_itself_without_a_network(visit, chromium, tmp_path, tower):
    path = downloaded(visit, "html", tmp_path)
    values = downloaded(visit, "npz", tmp_path)
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


def test_a_report_fits_a_phone_and_a_wide_window(visit, chromium, tmp_path):
    path = downloaded(visit, "html", tmp_path)
    for width in (390, 800, 1440):
        page = chromium.new_page(viewport={"width": width, "height": 800})
        page.goto(path.as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") == width
        page.close()


def test_one_click_brings_a_figure(visit, tmp_path):
    assert ElementTree.fromstring(downloaded(visit, "svg", tmp_path).read_text()).tag.endswith("svg")
    with Image.open(downloaded(visit, "png", tmp_path)) as picture:
        assert min(picture.size) > 600


def test_the_lines_follow_class_method_knobs_and_model(visit, tower):
    lines = "() => document.querySelector('#code-lines').innerText.includes({!r})"
    visit.page.locator("#bars button").nth(1).click()
    second = vizlib.load(RESNET).predict(tower)[1].label
    visit.until(lines.format(f'target="{second}"'))
    visit.tab("Why")
    visit.changes("#why-heat", lambda: visit.page.locator("#why-methods [data-key=saliency]").click())
    visit.changes("#why-heat", lambda: visit.page.locator("#why-knobs select").first.select_option(label="norm"))
    visit.tab(TAB)
    assert 'method="saliency"' in block(visit, "Python")
    assert 'channels="norm"' in block(visit, "Python")
    shell = shlex.split(block(visit, "Shell").replace("\\\n", " "))
    assert shell[shell.index("--knob") + 1] == "channels=norm"
    visit.choose("#model", VIT)
    visit.until(lines.format(f'model="{VIT}"'))
    visit.settle()
    assert f'vizlib.load("{VIT}")' in block(visit, "Python")


def test_what_is_copied_is_what_is_shown(visit):
    visit.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    for name in ("Python", "Shell", "API client"):
        button = visit.page.get_by_role("button", name=f"Copy the lines for {name}")
        before = list(visit.asked)
        button.click()
        visit.until("() => document.querySelector('#code-lines').innerText.includes('Copied')")
        copied = visit.page.evaluate("navigator.clipboard.readText()")
        assert copied.rstrip() == block(visit, name).rstrip()
        assert visit.asked == before
        visit.until("() => !document.querySelector('#code-lines').innerText.includes('Copied')")


def test_the_address_in_the_lines_is_the_pages_own(visit, address):
    assert re.search(r'Client\("(.+?)"\)', block(visit, "API client"))[1] == address


def test_what_cannot_be_saved_is_said_and_the_next_click_works(visit, tmp_path):
    visit.page.locator("#photo button[aria-label='Remove Image']").click()
    visit.settle()
    assert visit.page.locator("#code-lines pre").count() == 0
    visit.page.locator("#code-files [data-key=html]").click()
    visit.page.get_by_text("there is nothing to save yet: choose a photo first.", exact=True).first.wait_for()
    visit.settle()
    assert visit.said("#code-files .viz-told") == ""
    visit.page.locator("#examples button").nth(1).click()
    visit.page.locator("#code-lines pre").first.wait_for()
    visit.settle()
    for _ in range(2):  # the second file is called as the first
        name = downloaded(visit, "npz", tmp_path).name
        assert name.startswith(VIT)
        assert visit.said("#code-files .viz-told").startswith(f"{name}, ")


def test_export_in_the_header_leads_to_the_files(visit):
    visit.tab("Why")
    visit.page.get_by_role("button", name="Export").click()
    visit.page.locator("#code-files [data-key=html]").wait_for()
    assert "v=use-in-code" in visit.page.url


def test_a_link_opens_the_lines_of_the_same_view(fresh):
    one = fresh(f"?m={VIT}&img=ex:cheetah&c=church&vs=tench&v=use-in-code&w=grad-cam&k=layer:blocks.3")
    one.page.locator("#code-lines pre").first.wait_for()
    one.settle()
    text = block(one, "Python")
    for part in (VIT, "cheetah.jpg", 'target="church"', 'against="tench"', 'layer="blocks.3"'):
        assert part in text
