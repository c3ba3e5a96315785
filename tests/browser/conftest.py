"""A served dashboard, a headless Chromium, and sessions of pages in it; nothing needs a network."""

from __future__ import annotations

import base64
import io
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import gradio.media
import pytest
from http_timeouts import TIMEOUT_SECONDS
from PIL import Image

import vizlib
from dashboard.app import build_app
from dashboard.server.server import launch
from dashboard.services.model_catalog import ModelCatalog

RESNET, VIT = "resnet18-imagenette", "vit_tiny-imagenette"
TRACK_PENDING = Path(__file__).with_name("track_pending.js")
READ_PIXELS = "selector => document.querySelector(selector + ' canvas')?.toDataURL()"
EMIT_CHOICE = """([queue, detail]) => document.querySelector(`#${queue} .viz-event_queue`)
    .dispatchEvent(new CustomEvent("viz-choose", { detail }))"""
CHROMIUM_FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)


@pytest.fixture(scope="session")
def address() -> Iterator[str]:
    """Serve a dashboard with the bundled models and yield its address."""
    bundled = {entry.name for entry in vizlib.list_models() if entry.bundled}
    if not {RESNET, VIT} <= bundled:
        pytest.skip(f"the bundled checkpoints {RESNET} and {VIT} are not in checkpoints/")
    resnet_first = sorted(
        vizlib.list_models(), key=lambda entry: (entry.name != RESNET, entry.name != VIT)
    )  # the default model
    page = build_app(ModelCatalog(resnet_first), auto_trust=False)
    _, local, _ = launch(page, port=None, prevent_thread_lock=True, quiet=True)
    yield local
    page.close(verbose=False)


@pytest.fixture(scope="session")
def chromium():
    """Launch a headless Chromium: the system's, or else playwright's."""
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        try:
            browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=CHROMIUM_FLAGS.split())
        except playwright.Error as error:
            pytest.skip(f"no Chromium found: {str(error).splitlines()[0]}")
        yield browser
        browser.close()


class PageSession:
    """An open page with its requests and errors."""

    def __init__(self, page, address: str) -> None:
        self.page = page
        self.requests: list[str] = []
        self.calls: list[str] = []  # paths of the POST requests to gradio's API
        self.errors: list[str] = []
        page.on("request", self._record_request)
        page.on("console", lambda message: message.type == "error" and self.errors.append(message.text))
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.set_default_timeout(1000 * TIMEOUT_SECONDS)
        page.add_init_script(path=TRACK_PENDING)
        page.goto(address)
        page.wait_for_selector("#why-heatmap canvas[data-drawn]", state="attached")
        self.settle()

    def settle(self) -> None:
        """Wait until no request, event or image is pending for some frames, and no event queue has a pending choice."""
        try:
            self.page.evaluate("pageIsIdle({ restart: true })")
            self.wait_until("() => pageIsIdle()")
        except Exception as error:
            raise AssertionError(f"still pending: {self.page.evaluate('describePending()')}") from error

    def read_canvas(self, selector: str = "#why-heatmap") -> Image.Image:
        """Return the image of the first canvas in an element."""
        data_url = self.page.evaluate(READ_PIXELS, selector)
        return Image.open(io.BytesIO(base64.b64decode(data_url.partition(",")[2]))).convert("RGB")

    def wait_for_redraw(self, selector: str, act) -> None:
        """Call `act` and wait until the pixels of a canvas change."""
        before = self.page.evaluate(READ_PIXELS, selector)
        act()
        self.page.wait_for_function(f"args => ({READ_PIXELS})(args[0]) !== args[1]", arg=[selector, before])

    def wait_for_change(self, selector: str, act) -> None:
        """Call `act`, wait until the pixels of a canvas change, and until the page has settled."""
        self.wait_for_redraw(selector, act)
        self.settle()

    def open_tab(self, name: str) -> None:
        tab = self.page.get_by_role("tab", name=name)
        if not tab.is_visible():  # on a phone the last tabs are in a menu
            self.page.get_by_role("button", name="More tabs").click()
            tab = self.page.locator(".overflow-dropdown").get_by_text(name, exact=True)
        tab.click()
        self.settle()

    def choose_option(self, menu: str, option: str) -> None:
        self.page.locator(f"{menu} input").click()
        self.page.get_by_role("option", name=option).first.click()

    def emit_choice(self, queue: str, **choice) -> None:
        """Add a choice to an event queue without moving the pointer."""
        self.page.evaluate(EMIT_CHOICE, [queue, choice])

    def upload(self, path: Path) -> None:
        self.page.locator("#photo input[type=file]").set_input_files(str(path))

    def get_target(self) -> int:
        return int(self.page.locator("#bars [aria-pressed=true]").get_attribute("data-index"))

    def get_text(self, selector: str) -> str:
        return self.page.locator(selector).inner_text()

    def wait_for_text(self, selector: str, text: str) -> None:
        """Wait until an element contains a text."""
        self.page.locator(selector, has_text=text).wait_for()

    def wait_until(self, script: str, *, seconds: float = TIMEOUT_SECONDS) -> None:
        """Wait until a JavaScript expression or function, evaluated once per animation frame, is true."""
        self.page.bring_to_front()  # a page behind another one may have no animation frames
        self.page.wait_for_function(script, timeout=1000 * seconds)

    def wait_on_server(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition on the server is true, while the page keeps running."""
        for _ in range(10 * TIMEOUT_SECONDS):
            if condition():
                return
            self.page.wait_for_timeout(100)
        raise AssertionError(f"the condition was not true within {TIMEOUT_SECONDS} seconds")

    def _record_request(self, request) -> None:
        self.requests.append(request.url)
        if request.method == "POST":
            self.calls.append(request.url.partition("/gradio_api/")[2].partition("?")[0])


@pytest.fixture(scope="session")
def open_session(chromium, address):
    """Return a function that opens the page with a query string in a new browser context."""

    def open_page(query: str = "", width: int = 1440, height: int = 900, locale: str = "en-US") -> PageSession:
        return PageSession(
            chromium.new_page(viewport={"width": width, "height": height}, locale=locale), address + query
        )

    return open_page


@pytest.fixture(scope="session")
def photo(tmp_path_factory) -> Path:
    """Return the file of a real photo, the Eiffel tower, in the size at which the page draws it."""
    path = tmp_path_factory.mktemp("uploads") / "my tower.png"
    image = Image.open(gradio.media.get_image("tower.jpg")).convert("RGB")
    image.thumbnail((840, 840))
    image.resize((round(image.width * 840 / image.height), 840)).save(path)
    return path


@pytest.fixture
def open_checked_session(open_session):
    """As `open_session`; at the end of the test checks that there were only local requests and no errors."""
    yield from _check_sessions(open_session)


@pytest.fixture
def open_isolated_session(chromium, address):
    """As `open_checked_session`, but each session has its own browser profile."""
    contexts = []

    def open_page(query: str = "") -> PageSession:
        contexts.append(chromium.new_context(viewport={"width": 1280, "height": 900}))
        return PageSession(contexts[-1].new_page(), address + query)

    yield from _check_sessions(open_page)
    for context in contexts:
        context.close()


@pytest.fixture
def open_session_at(chromium):
    """As `open_checked_session`, for a page at another local address."""
    yield from _check_sessions(
        lambda address: PageSession(chromium.new_page(viewport={"width": 1280, "height": 900}), address)
    )


def _check_sessions(open_session):
    sessions = []

    def open_recorded(*args, **kwargs) -> PageSession:
        sessions.append(open_session(*args, **kwargs))
        return sessions[-1]

    yield open_recorded
    for session in sessions:
        hosts = {urlsplit(url).hostname for url in session.requests if url.startswith(("http", "ws"))}
        assert (hosts, session.errors) == ({"127.0.0.1"}, [])
        session.page.close()
