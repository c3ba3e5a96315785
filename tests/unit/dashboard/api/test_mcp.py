"""The endpoints as MCP tools, with the same names and numbers."""

from __future__ import annotations

import ast
import base64
from pathlib import Path
from typing import Any

import gradio.media
import numpy as np
import pytest

import vizlib
from dashboard import app
from dashboard.server import server
from dashboard.server.options import ServerOptions
from dashboard.services.analysis_service import AnalysisService

mcp = pytest.importorskip("mcp", reason="the extra for language models is not installed: pip install 'vizlib[mcp]'")
streamable_http = pytest.importorskip("mcp.client.streamable_http")

MODEL = "vit_tiny-imagenette"
TOWER = Path(gradio.media.get_image("tower.jpg"))


@pytest.fixture(scope="module")
def address():
    options = ServerOptions(mcp=True)
    service = AnalysisService(options.make_catalog())
    page = app.build_page(service, options)
    more: dict[str, Any] = {"prevent_thread_lock": True, "quiet": True, "mcp_server": True}
    _, local, _ = app.launch(page, port=None, app_kwargs=server.make_app_kwargs(service, options), **more)
    yield f"{local}gradio_api/mcp/"
    page.close(verbose=False)


def call_tools(run_coroutine, address: str, *calls: tuple[str, dict]) -> tuple[list, list]:
    """Return the tools that a client is offered, and the results of some calls."""

    async def ignore_progress(*_) -> None: ...

    async def run_session():
        async with (
            streamable_http.streamable_http_client(address) as (read, write, _),
            mcp.ClientSession(read, write) as session,
        ):
            await session.initialize()
            tools = (await session.list_tools()).tools
            # Gradio returns pictures as images only to a client that listens to progress, as most do.
            return tools, [
                await session.call_tool(name, arguments, progress_callback=ignore_progress) for name, arguments in calls
            ]

    return run_coroutine(run_session())


def test_mcp_tools_are_the_endpoints(run_coroutine, address):
    tools, _ = call_tools(run_coroutine, address)
    named = {fn.api_name for fn in app.build_app().fns.values() if fn.api_visibility == "public"}
    assert {tool.name for tool in tools} == named
    for tool in tools:
        assert len(tool.description) > 40
    (explain,) = (tool for tool in tools if tool.name == "explain")
    assert set(explain.inputSchema["properties"]) == {"photo", "model", "method", "target", "parameters"}


@pytest.mark.slow
def test_mcp_tool_returns_the_result_of_python(run_coroutine, address):
    url = "data:image/jpeg;base64," + base64.b64encode(TOWER.read_bytes()).decode()
    arguments = {"photo": url, "model": MODEL, "method": "legrad", "target": "church", "parameters": {}}
    _, (result,) = call_tools(run_coroutine, address, ("explain", arguments))
    assert not result.isError
    numbers = ast.literal_eval(result.content[0].text)  # gradio's own format
    theirs = vizlib.explain(vizlib.load(MODEL), TOWER, method="legrad", target="church")
    assert np.allclose(numbers["values"], theirs.heat.numpy(), rtol=1e-3, atol=1e-6)
    assert any(part.type == "image" for part in result.content)


def test_mcp_error_is_the_message_of_python(run_coroutine, address):
    url = "data:image/jpeg;base64," + base64.b64encode(TOWER.read_bytes()).decode()
    arguments = {"photo": url, "model": MODEL, "method": "gradcam", "target": "", "parameters": {}}
    _, (result,) = call_tools(run_coroutine, address, ("explain", arguments))
    assert result.isError
    assert "did you mean grad-cam" in result.content[0].text
