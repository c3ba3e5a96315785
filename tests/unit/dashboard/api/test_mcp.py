"""The endpoints as a language model's client sees them: tools with the same names and the same numbers."""

from __future__ import annotations

import ast
import base64
from pathlib import Path

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
    settings = ServerOptions(mcp=True)
    service = AnalysisService(settings.make_catalog())
    page = app.build_page(service, settings)
    more = {"prevent_thread_lock": True, "quiet": True, "mcp_server": True}
    _, local, _ = app.launch(page, port=None, app_kwargs=server.make_app_kwargs(service, settings), **more)
    yield f"{local}gradio_api/mcp/"
    page.close(verbose=False)


def ask(finished, address: str, *calls: tuple[str, dict]) -> tuple[list, list]:
    """The tools a client is offered, and what it is answered."""

    async def heard(*_) -> None: ...

    async def talk():
        async with (
            streamable_http.streamable_http_client(address) as (read, write, _),
            mcp.ClientSession(read, write) as session,
        ):
            await session.initialize()
            offered = (await session.list_tools()).tools
            # Gradio hands out pictures as pictures only to a client that wants to hear of progress, as most do.
            return offered, [await session.call_tool(name, about, progress_callback=heard) for name, about in calls]

    return finished(talk())


def test_the_tools_are_the_endpoints(finished, address):
    offered, _ = ask(finished, address)
    named = {fn.api_name for fn in app.build_app().fns.values() if fn.api_visibility == "public"}
    assert {tool.name for tool in offered} == named
    for tool in offered:
        assert len(tool.description) > 40
    (explain,) = (tool for tool in offered if tool.name == "explain")
    assert set(explain.inputSchema["properties"]) == {"photo", "model", "method", "target", "parameters"}


def test_a_tool_answers_as_python_does(finished, address):
    url = "data:image/jpeg;base64," + base64.b64encode(TOWER.read_bytes()).decode()
    about = {"photo": url, "model": MODEL, "method": "legrad", "target": "church", "parameters": {}}
    _, (answer,) = ask(finished, address, ("explain", about))
    assert not answer.isError
    numbers = ast.literal_eval(answer.content[0].text)  # gradio writes it so
    theirs = vizlib.explain(vizlib.load(MODEL), TOWER, method="legrad", target="church")
    assert np.allclose(numbers["values"], theirs.heat.numpy(), rtol=1e-3, atol=1e-6)
    assert any(part.type == "image" for part in answer.content)


def test_a_mistake_reaches_the_client_as_its_sentence(finished, address):
    url = "data:image/jpeg;base64," + base64.b64encode(TOWER.read_bytes()).decode()
    about = {"photo": url, "model": MODEL, "method": "gradcam", "target": "", "parameters": {}}
    _, (answer,) = ask(finished, address, ("explain", about))
    assert answer.isError
    assert "did you mean grad-cam" in answer.content[0].text
