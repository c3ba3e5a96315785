"""The documentation site in a browser: accessibility, width, search, and no requests to other servers.

It tests the site that `mkdocs build` wrote, and is skipped where there is none; `.ci/run` builds it first.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from accessibility import find_violations

from vizlib.cli.docs import serve_documentation
from vizlib.core.documentation import BUILD_FOLDER

pytest.importorskip("axe_playwright_python.sync_playwright")

pytestmark = pytest.mark.slow
PAGES = (
    "index.html",
    "tutorials/explain-a-photo.html",
    "how-to/add-a-method.html",
    "reference/methods.html",
    "reference/metrics.html",
    "reference/api.html",
    "gallery.html",
)
VIEWS = ((1440, "light"), (390, "dark"))
SEARCHES = {"grad-cam": "methods.html", "head": "page.html", "my own model": "your-own-model.html"}
OPEN_SEARCH = """() => {
    document.querySelector("[data-md-toggle=search]").checked = true;
    document.querySelector("[data-md-component=search-query]").focus();
}"""
RESULT = ".md-search-result__link"
HAS_RESULT = f"expected => [...document.querySelectorAll('{RESULT}')].some(link => link.href.includes(expected))"
WIDER_THAN_PAGE = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    """Serve the built site and yield its address."""
    if not (BUILD_FOLDER / "index.html").is_file():
        pytest.skip("the documentation was not built: mkdocs build")
    with serve_documentation(BUILD_FOLDER, 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


@pytest.fixture(params=VIEWS, ids=[f"{width} {theme}" for width, theme in VIEWS])
def page(chromium, request):
    """Yield a page of the browser in one of the views; at its end check that there were only local requests."""
    width, theme = request.param
    context = chromium.new_context(
        viewport={"width": width, "height": 900}, color_scheme=theme, reduced_motion="reduce"
    )
    opened = context.new_page()
    requests: list[str] = []
    opened.on("request", lambda made: requests.append(made.url))
    yield opened
    assert {urlsplit(url).hostname for url in requests if url.startswith("http")} == {"127.0.0.1"}
    context.close()


@pytest.mark.parametrize("path", PAGES)
def test_page_is_accessible_and_fits_its_width(site, page, path):
    page.goto(site + path)
    page.wait_for_selector("article h1")
    assert page.evaluate(WIDER_THAN_PAGE) <= 0
    assert find_violations(page) == []


@pytest.mark.parametrize(("words", "expected"), SEARCHES.items())
def test_search_finds_methods_parts_and_tutorials(site, page, words, expected):
    page.goto(site)
    page.evaluate(OPEN_SEARCH)
    page.keyboard.type(words)
    page.wait_for_function(HAS_RESULT, arg=expected)


def test_tutorials_are_downloaded_as_notebooks(site, page):
    page.goto(site + "tutorials/explain-a-photo.html")
    with page.expect_download() as download:
        page.get_by_role("link", name="Download this tutorial as a notebook").click()
    cells = json.loads(download.value.path().read_text(encoding="utf-8"))["cells"]
    assert {cell["cell_type"] for cell in cells} == {"markdown", "code"}
    assert "# Explain a photo" in "".join(cells[0]["source"])


def test_tutorials_show_pictures_and_link_to_pages(site, page):
    page.goto(site + "tutorials/explain-a-photo.html")
    assert page.locator(".jp-OutputArea-output img").count() >= 5
    links = page.eval_on_selector_all("article a[href]", "links => links.map(link => link.getAttribute('href'))")
    assert [link for link in links if link.endswith((".md", ".py")) and "explain-a-photo" not in link] == []
