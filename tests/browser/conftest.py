"""The dashboard as it is served, and a Chromium to visit it with; neither needs a network."""

from __future__ import annotations

import base64
import io
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import gradio.media
import pytest
from http_timeouts import PATIENCE
from PIL import Image

import vizlib
from dashboard.app import build_app, launch
from dashboard.services.model_catalog import ModelCatalog

RESNET, VIT = "resnet18-imagenette", "vit_tiny-imagenette"
PIXELS = "selector => document.querySelector(selector + ' canvas')?.toDataURL()"
CHOICE = """([desk, detail]) => document.querySelector(`#${desk} .viz-event_queue`)
    .dispatchEvent(new CustomEvent("viz-choose", { detail }))"""
QUIET = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)


@pytest.fixture(scope="session")
def address() -> Iterator[str]:
    """The address of a running dashboard with the bundled models."""
    have = {entry.name for entry in vizlib.list_models() if entry.bundled}
    if not {RESNET, VIT} <= have:
        pytest.skip(f"the bundled checkpoints {RESNET} and {VIT} are not in checkpoints/")
    resnet_first = sorted(vizlib.list_models(), key=lambda entry: entry.name != RESNET)  # what most tests begin with
    page = build_app(ModelCatalog(resnet_first))
    _, local, _ = launch(page, port=None, prevent_thread_lock=True, quiet=True)
    yield local
    page.close(verbose=False)


@pytest.fixture(scope="session")
def chromium():
    """A headless Chromium: the machine's own where it has one, else playwright's."""
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        try:
            browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=QUIET.split())
        except playwright.Error as error:
            pytest.skip(f"there is no Chromium here: {str(error).splitlines()[0]}")
        yield browser
        browser.close()


class PageSession:
    """One visitor's page, with all it asked for and complained about."""

    def __init__(self, page, address: str) -> None:
        self.page = page
        self.requests: list[str] = []
        self.calls: list[str] = []  # what was asked of the server: an event, or its end
        self.errors: list[str] = []
        page.on("request", self._note)
        page.on("console", lambda said: said.type == "error" and self.errors.append(said.text))
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.set_default_timeout(1000 * PATIENCE)
        page.goto(address)
        page.wait_for_selector("#why-heatmap canvas[data-drawn]", state="attached")
        self.settle()

    def settle(self) -> None:
        """Wait until nothing was asked of the server for half a second, and no choice waits for its answer."""
        seen = -1
        while seen != len(self.requests):
            seen = len(self.requests)
            self.page.wait_for_timeout(500)
            self.wait_until("() => !document.querySelector('.viz-event_queue[data-busy]')")

    def read_canvas(self, selector: str = "#why-heatmap") -> Image.Image:
        address = self.page.evaluate(PIXELS, selector)
        return Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))).convert("RGB")

    def wait_for_redraw(self, selector: str, act) -> None:
        """Do something, and wait until a picture's bytes are others than before."""
        before = self.page.evaluate(PIXELS, selector)
        act()
        self.page.wait_for_function(f"args => ({PIXELS})(args[0]) !== args[1]", arg=[selector, before])

    def wait_for_change(self, selector: str, act) -> None:
        """Do something, and wait until a picture is another and all that follows is there."""
        self.wait_for_redraw(selector, act)
        self.settle()

    def open_tab(self, name: str) -> None:
        shown = self.page.get_by_role("tab", name=name)
        if not shown.is_visible():  # on a phone the last tabs are in a menu
            self.page.get_by_role("button", name="More tabs").click()
            shown = self.page.locator(".overflow-dropdown").get_by_text(name, exact=True)
        shown.click()
        self.settle()

    def choose_option(self, menu: str, option: str) -> None:
        self.page.locator(f"{menu} input").click()
        self.page.get_by_role("option", name=option).first.click()

    def emit_choice(self, desk: str, **choice) -> None:
        """A choice that reaches a desk while the mouse is elsewhere, as an answer on its way would."""
        self.page.evaluate(CHOICE, [desk, choice])

    def upload(self, path: Path) -> None:
        self.page.locator("#photo input[type=file]").set_input_files(str(path))

    def get_target(self) -> int:
        return int(self.page.locator("#bars [aria-pressed=true]").get_attribute("data-index"))

    def get_text(self, selector: str) -> str:
        return self.page.locator(selector).inner_text()

    def wait_for_text(self, selector: str, text: str) -> None:
        """Wait until a text can be read there."""
        self.page.locator(selector, has_text=text).wait_for()

    def wait_until(self, script: str, *, seconds: float = PATIENCE) -> None:
        """Wait until something is so on the page."""
        self.page.wait_for_function(script, timeout=1000 * seconds)

    def wait_on_server(self, wanted: Callable[[], bool]) -> None:
        """Wait until something is so on the server, while the page lives on."""
        for _ in range(10 * PATIENCE):
            if wanted():
                return
            self.page.wait_for_timeout(100)
        raise AssertionError(f"nothing came of it in {PATIENCE} seconds")

    def _note(self, request) -> None:
        self.requests.append(request.url)
        if request.method == "POST":
            self.calls.append(request.url.partition("/gradio_api/")[2].partition("?")[0])


@pytest.fixture(scope="session")
def open_session(chromium, address):
    """Opens the page for one more visitor, with what follows its address."""

    def opened(query: str = "", width: int = 1440, height: int = 900, locale: str = "en-US") -> PageSession:
        return PageSession(
            chromium.new_page(viewport={"width": width, "height": height}, locale=locale), address + query
        )

    return opened


@pytest.fixture(scope="session")
def photo(tmp_path_factory) -> Path:
    """A real photo as a person uploads it, of the size the page draws on: the Eiffel tower."""
    path = tmp_path_factory.mktemp("uploads") / "my tower.png"
    image = Image.open(gradio.media.get_image("tower.jpg")).convert("RGB")
    image.thumbnail((840, 840))
    image.resize((round(image.width * 840 / image.height), 840)).save(path)
    return path


@pytest.fixture
def open_checked_session(open_session):
    """Opens the page as often as asked; at the end nothing may have left the machine, and nothing complained."""
    yield from _watched(open_session)


@pytest.fixture
def open_isolated_session(chromium, address):
    """As `fresh`, but everyone comes with a browser profile of their own."""
    contexts = []

    def opened(query: str = "") -> PageSession:
        contexts.append(chromium.new_context(viewport={"width": 1280, "height": 900}))
        return PageSession(contexts[-1].new_page(), address + query)

    yield from _watched(opened)
    for context in contexts:
        context.close()


@pytest.fixture
def open_session_at(chromium):
    """As `fresh`, for a page at another address on this machine."""
    yield from _watched(
        lambda address: PageSession(chromium.new_page(viewport={"width": 1280, "height": 900}), address)
    )


def _watched(open_session):
    sessions = []

    def opened(*what, **how) -> PageSession:
        sessions.append(open_session(*what, **how))
        return sessions[-1]

    yield opened
    for session in sessions:
        hosts = {urlsplit(url).hostname for url in session.requests if url.startswith(("http", "ws"))}
        assert (hosts, session.errors) == ({"127.0.0.1"}, [])
        session.page.close()
