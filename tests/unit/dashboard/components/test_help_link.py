"""Question marks lead to the documentation where the server has it, and are left out where it has not."""

from __future__ import annotations

import re

import pytest
from http_timeouts import get

from dashboard import app
from dashboard.components import help_link
from dashboard.i18n.language import use_language
from dashboard.server import server as server_module
from dashboard.server.options import ServerOptions
from dashboard.tabs import why


@pytest.fixture
def docs(tmp_path, monkeypatch):
    """A folder of documentation, as if it had been built."""
    (tmp_path / "reference").mkdir()
    (tmp_path / "index.html").write_text("home")
    (tmp_path / "reference" / "page.html").write_text("the page")
    monkeypatch.setattr(help_link, "find_docs_folder", lambda: tmp_path)
    monkeypatch.setattr(server_module, "find_docs_folder", lambda: tmp_path)
    help_link.has_documentation.cache_clear()
    yield tmp_path
    help_link.has_documentation.cache_clear()


@pytest.fixture
def no_docs(monkeypatch):
    monkeypatch.setattr(help_link, "find_docs_folder", lambda: None)
    monkeypatch.setattr(server_module, "find_docs_folder", lambda: None)
    help_link.has_documentation.cache_clear()
    yield
    help_link.has_documentation.cache_clear()


def read_links(html: str) -> list[str]:
    return re.findall(r'class="viz-help" href="([^"]+)"', html)


def test_captions_and_tabs_lead_to_their_sections(docs, service, cheetah, selection):
    content = why.compute_content(service, cheetah, selection, "saliency", {})
    assert read_links(content.caption) == ["docs/reference/methods.html#saliency"]
    assert read_links(help_link.build_method_help("grad-cam++")) == ["docs/reference/methods.html#grad-cam-plus-plus"]
    page = app.build_page(service, ServerOptions())
    values = [
        str(vars(block)["value"]) for block in page.blocks.values() if "viz-tab-help" in (block.elem_classes or [])
    ]
    assert [read_links(value)[0].partition("#")[2] for value in values] == [
        "why", "attention", "inside", "compare", "learn", "model", "use-in-code",
    ]  # fmt: skip
    with use_language("ko"):
        assert "문서" in help_link.build_page_help("why", "x")


def test_without_documentation_there_are_no_links(no_docs, service, cheetah, selection):
    assert read_links(why.compute_content(service, cheetah, selection, "saliency", {}).caption) == []
    assert help_link.build_tab_help("why") == help_link.build_page_help("why", "x") == ""
    options = ServerOptions()
    paths = {route.path for route in server_module.make_app_kwargs(service, options)["routes"]}
    assert paths == {"/healthz", "/metrics"}


def test_server_delivers_the_documentation(docs, service):
    options = ServerOptions()
    page = app.build_page(service, options)
    _, address, _ = app.launch(
        page,
        port=None,
        app_kwargs=server_module.make_app_kwargs(service, options),
        prevent_thread_lock=True,
        quiet=True,
    )
    try:
        assert get(f"{address}docs/").text == "home"
        assert get(f"{address}docs/reference/page.html").text == "the page"
        assert get(f"{address}docs/..%2f..%2fetc/passwd").status_code == 404
    finally:
        page.close(verbose=False)
