"""`vizlib docs` serves the built documentation, builds it in a checkout, and says what is missing elsewhere."""

from __future__ import annotations

import subprocess
import threading

import pytest
from http_timeouts import get
from typer.testing import CliRunner

import vizlib
from vizlib.cli import app, docs


def test_files_are_served_to_this_machine(tmp_path):
    (tmp_path / "index.html").write_text("home")
    with docs.serve_documentation(tmp_path, 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            assert server.server_address[0] == "127.0.0.1"
            assert get(f"http://127.0.0.1:{server.server_port}/").text == "home"
            with pytest.raises(vizlib.VizlibError, match=f"port {server.server_port} cannot be used"):
                docs.serve_documentation(tmp_path, server.server_port)
        finally:
            server.shutdown()
            thread.join()


def test_installation_without_documentation_is_told_as_that(tmp_path, monkeypatch):
    monkeypatch.setattr(docs, "find_docs_folder", lambda: None)
    monkeypatch.setattr(docs, "CHECKOUT", tmp_path)
    result = CliRunner().invoke(app, ["docs", "--no-browser"])
    assert result.exit_code == 2
    assert "this installation has no documentation" in result.output
    (tmp_path / "mkdocs.yml").touch()
    monkeypatch.setattr(docs, "find_spec", lambda name: None)
    assert 'pip install -e ".[docs]"' in CliRunner().invoke(app, ["docs"]).output


def test_failed_build_is_told_as_that(monkeypatch):
    monkeypatch.setattr(docs.subprocess, "run", lambda *args, **kwargs: subprocess.CompletedProcess(args, 1))
    with pytest.raises(vizlib.VizlibError, match="could not be built"):
        docs.build_documentation()
