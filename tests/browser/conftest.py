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
from dashboard.services.model_catalog import Catalog

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
    page = build_app(Catalog(resnet_first))
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


class Visit:
    """One visitor's page, with all it asked for and complained about."""

    def __init__(self, page, address: str) -> None:
        self.page = page
        self.requests: list[str] = []
        self.asked: list[str] = []  # what was asked of the server: an event, or its end
        self.complaints: list[str] = []
        page.on("request", self._note)
        page.on("console", lambda said: said.type == "error" and self.complaints.append(said.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.set_default_timeout(1000 * PATIENCE)
        page.goto(address)
        page.wait_for_selector("#why-heat canvas[data-drawn]", state="attached")
        self.settle()

    def settle(self) -> None:
        """Wait until nothing was asked of the server for half a second, and no choice waits for its answer."""
        seen = -1
        while seen != len(self.requests):
            seen = len(self.requests)
            self.page.wait_for_timeout(500)
            self.until("() => !document.querySelector('.viz-event_queue[data-busy]')")

    def picture(self, selector: str = "#why-heat") -> Image.Image:
        address = self.page.evaluate(PIXELS, selector)
        return Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))).convert("RGB")

    def redraws(self, selector: str, act) -> None:
        """Do something, and wait until a picture's bytes are others than before."""
        before = self.page.evaluate(PIXELS, selector)
        act()
        self.page.wait_for_function(f"args => ({PIXELS})(args[0]) !== args[1]", arg=[selector, before])

    def changes(self, selector: str, act) -> None:
        """Do something, and wait until a picture is another and all that follows is there."""
        self.redraws(selector, act)
        self.settle()

    def tab(self, name: str) -> None:
        shown = self.page.get_by_role("tab", name=name)
        if not shown.is_visible():  # on a phone the last tabs are in a menu
            self.page.get_by_role("button", name="More tabs").click()
            shown = self.page.locator(".overflow-dropdown").get_by_text(name, exact=True)
        shown.click()
        self.settle()

    def choose(self, menu: str, option: str) -> None:
        self.page.locator(f"{menu} input").click()
        self.page.get_by_role("option", name=option).first.click()

    def chosen(self, desk: str, **choice) -> None:
        """A choice that reaches a desk while the mouse is elsewhere, as an answer on its way would."""
        self.page.evaluate(CHOICE, [desk, choice])

    def upload(self, path: Path) -> None:
        self.page.locator("#photo input[type=file]").set_input_files(str(path))

    def target(self) -> int:
        return int(self.page.locator("#bars [aria-pressed=true]").get_attribute("data-index"))

    def said(self, selector: str) -> str:
        return self.page.locator(selector).inner_text()

    def reads(self, selector: str, text: str) -> None:
        """Wait until a text can be read there."""
        self.page.locator(selector, has_text=text).wait_for()

    def until(self, script: str, *, seconds: float = PATIENCE) -> None:
        """Wait until something is so on the page."""
        self.page.wait_for_function(script, timeout=1000 * seconds)

    def goes_on(self, wanted: Callable[[], bool]) -> None:
        """Wait until something is so on the server, while the page lives on."""
        for _ in range(10 * PATIENCE):
            if wanted():
                return
            self.page.wait_for_timeout(100)
        raise AssertionError(f"nothing came of it in {PATIENCE} seconds")

    def _note(self, request) -> None:
        self.requests.append(request.url)
        if request.method == "POST":
            self.asked.append(request.url.partition("/gradio_api/")[2].partition("?")[0])


@pytest.fixture(scope="session")
def visiting(chromium, address):
    """Opens the page for one more visitor, with what follows its address."""

    def opened(query: str = "", width: int = 1440, height: int = 900, locale: str = "en-US") -> Visit:
        return Visit(chromium.new_page(viewport={"width": width, "height": height}, locale=locale), address + query)

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
def fresh(visiting):
    """Opens the page as often as asked; at the end nothing may have left the machine, and nothing complained."""
    yield from _watched(visiting)


@pytest.fixture
def visitors(chromium, address):
    """As `fresh`, but everyone comes with a browser profile of their own."""
    contexts = []

    def opened(query: str = "") -> Visit:
        contexts.append(chromium.new_context(viewport={"width": 1280, "height": 900}))
        return Visit(contexts[-1].new_page(), address + query)

    yield from _watched(opened)
    for context in contexts:
        context.close()


@pytest.fixture
def elsewhere(chromium):
    """As `fresh`, for a page at another address on this machine."""
    yield from _watched(lambda address: Visit(chromium.new_page(viewport={"width": 1280, "height": 900}), address))


def _watched(visiting):
    visits = []

    def opened(*what, **how) -> Visit:
        visits.append(visiting(*what, **how))
        return visits[-1]

    yield opened
    for visit in visits:
        hosts = {urlsplit(url).hostname for url in visit.requests if url.startswith(("http", "ws"))}
        assert (hosts, visit.complaints) == ({"127.0.0.1"}, [])
        visit.page.close()
