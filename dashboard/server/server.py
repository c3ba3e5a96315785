"""A server's settings, what it tells those who watch over it, and the door that no giant body passes."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import logging
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import torch
from fastapi.routing import APIRoute
from gradio.utils import get_upload_folder
from huggingface_hub import constants as hub
from starlette.middleware import Middleware
from starlette.responses import JSONResponse, PlainTextResponse, Response

import vizlib
from dashboard.components.photo import MAX_UPLOAD_MB, get_photo_cache
from dashboard.server.temp_dirs import delete_stale_uploads
from dashboard.services.analysis_service import AnalysisService
from dashboard.services.metrics import LOG, RunMetrics, exposition, log_event
from dashboard.services.model_catalog import ModelCatalog
from vizlib import VizlibError

MAX_BODY_BYTES = MAX_UPLOAD_MB * 1_400_000 + 1_000_000  # bytes of a request: a photo as text within JSON, and all else
HOUR_SECONDS = 3600
M_ARENA_MAX = -8  # of malloc.h
UNWRITABLE_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.EACCES, errno.EPERM)
DISK_FULL_MESSAGE = (
    "The server cannot write files now, because its disk is full or closed to it; please try again later."
)


@dataclass(frozen=True)
class ServerOptions:
    """How to serve; the defaults suit one person on one machine."""

    host: str | None = "127.0.0.1"  # without one, GRADIO_SERVER_NAME is asked
    port: int | None = 7860  # without one, GRADIO_SERVER_PORT is asked
    browser: bool = False  # open the page
    checkpoints: str | os.PathLike[str] | None = None  # a folder of weight files to offer besides
    auth: str | None = None  # "user:password", or "@file" with one of these a line
    models: tuple[str, ...] = ()  # offer only these
    listed_only: bool = False  # take no name that is not in the menu, as it is wherever others reach the server
    allow_any_model: bool = False  # take any name or path `vizlib.load` takes: for a server of your own
    offline: bool = False  # offer only what is on this machine, and ask no other
    resident: int = 2  # models in memory at once
    idle_minutes: float = 30.0  # until a model that nobody asks leaves the memory
    max_queue: int = 64  # who may wait before others are turned away
    workers: int = 2  # questions to models answered at once
    delete_after: int = HOUR_SECONDS  # seconds until uploads and pictures are deleted
    mcp: bool = False  # offer the endpoints as tools to language models
    log: bool = False  # a line of JSON for each run of a model

    def __post_init__(self) -> None:
        """Raises: VizlibError for what cannot be meant."""
        for name in ("resident", "max_queue", "workers", "delete_after", "idle_minutes"):
            if getattr(self, name) <= 0:
                raise VizlibError(f"--{name.replace('_', '-')} is more than 0, not {getattr(self, name)}")
        if self.offline and self.allow_any_model:
            raise VizlibError("--offline and --allow-any-model do not go together: any model may need a download")
        if self.listed_only and self.allow_any_model:
            raise VizlibError("--listed-only and --allow-any-model do not go together")
        if self.mcp and self.auth is not None:
            raise VizlibError("--mcp and --auth do not go together: tools cannot log in")
        if self.mcp and find_spec("mcp") is None:
            raise VizlibError("--mcp needs an extra that is not installed: pip install 'vizlib[mcp]'")

    @property
    def is_local(self) -> bool:
        """Whether only this machine reaches the server, as far as it can tell; a proxy in front tells nothing."""
        host = self.host or os.environ.get("GRADIO_SERVER_NAME") or "127.0.0.1"
        others = self.auth is not None or "SPACE_ID" in os.environ or os.environ.get("GRADIO_ROOT_PATH")
        with contextlib.suppress(ValueError):
            return not others and (host == "localhost" or ip_address(host).is_loopback)
        return False

    def make_catalog(self) -> ModelCatalog:
        """The models to offer. Raises: VizlibError for a folder or a model that is not there."""
        return ModelCatalog(
            folder=self.checkpoints,
            only=self.models,
            any_timm=self.is_local and not (self.models or self.offline or self.listed_only),
            any_model=self.allow_any_model,
            offline=self.offline,
            resident=self.resident,
        )

    def parse_users(self) -> list[tuple[str, str]] | None:
        """Who may enter, or None for everybody. Raises: VizlibError for what names no user and password."""
        if self.auth is None:
            return None
        lines = [self.auth]
        if self.auth.startswith("@"):
            try:
                lines = Path(self.auth[1:]).expanduser().read_text(encoding="utf-8").split("\n")
            except (OSError, ValueError):
                raise VizlibError("the file of users given by --auth cannot be read") from None
        users = [line.strip().partition(":") for line in lines if line.strip()]
        if not users or not all(user and password for user, _, password in users):
            raise VizlibError("--auth is user:password, or @file with one user:password a line")
        return [(user, password) for user, _, password in users]


def configure_process(settings: ServerOptions) -> None:
    """Set what belongs to the whole process: threads, downloads, the log."""
    torch.set_num_threads(max(1, min(torch.get_num_threads(), _cores())))
    with _usual_c_library() as library:
        library.mallopt(M_ARENA_MAX, 2)  # else each thread that ever ran a model keeps what it has freed
    if settings.offline:
        os.environ["HF_HUB_OFFLINE"] = "1"
        hub.HF_HUB_OFFLINE = True  # it has read its environment by now
    if settings.log and not LOG.handlers:
        LOG.addHandler(logging.StreamHandler())
        LOG.setLevel(logging.INFO)


def make_app_kwargs(service: AnalysisService, settings: ServerOptions) -> dict[str, Any]:
    """What gradio's own server is given besides the page: two routes, the door, and the tidying up."""
    return {
        "routes": [APIRoute("/healthz", _health), APIRoute("/metrics", partial(_metrics, service))],
        "middleware": [Middleware(BodyLimitMiddleware, meter=service.metrics)],
        "lifespan": partial(_tidied, service.catalog, settings),
    }


class BodyLimitMiddleware:
    """Refuses a request whose body is too large before anything reads it whole, and counts all others."""

    def __init__(self, app: Callable, meter: RunMetrics, largest: int = MAX_BODY_BYTES) -> None:
        self.app, self.meter, self.largest = app, meter, largest

    async def __call__(self, scope: dict[str, Any], receive: Callable, send: Callable) -> None:
        """Pass one request on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        said = dict(scope["headers"]).get(b"content-length", b"")
        got, status, begun = int(said) if said.isdigit() else 0, 500, False

        async def counted() -> dict[str, Any]:
            nonlocal got
            message = await receive()
            if not said:  # the length is not told beforehand
                got += len(message.get("body", b""))
                if got > self.largest:
                    raise _TooLargeError
            return message

        async def noted(message: dict[str, Any]) -> None:
            nonlocal status, begun
            if got > self.largest:
                return  # whatever the application makes of the broken body
            status, begun = message.get("status", status), True
            await send(message)

        try:
            if got <= self.largest:
                await self.app(scope, counted, noted)
        except _TooLargeError:
            pass
        except OSError as error:  # of an upload
            if begun or error.errno not in UNWRITABLE_ERRNOS:
                raise
            status = 507
            await JSONResponse({"detail": DISK_FULL_MESSAGE}, status)(scope, receive, send)
        if got > self.largest:
            status = 413
            words = f"a photo may have at most {MAX_UPLOAD_MB} MB"
            await JSONResponse({"detail": words}, status)(scope, receive, send)
            log_event(event="too large")
        route = scope.get("route")  # what matched, never the address itself: that may hold a file's name
        self.meter.count_request(getattr(route, "path", "") or "other", status)


class _TooLargeError(Exception):
    pass


async def _health() -> Response:
    return JSONResponse({"status": "ok", "version": vizlib.__version__})


async def _metrics(service: AnalysisService) -> Response:
    meter, cache, passes, resident = service.metrics, service.cache, service.pass_cache, service.catalog.count_bytes()

    def one(value: float) -> dict[tuple[str, ...], float]:
        return {(): value}

    seconds = {(what,): round(spent, 6) for what, spent in list(meter.seconds.items())}
    rows = (
        ("vizlib_http_requests_total", "counter", "Requests answered.", dict(meter.requests), ("route", "status")),
        ("vizlib_runs_total", "counter", "Times a model was asked.", dict(meter.runs), ("method", "end")),
        ("vizlib_run_seconds_total", "counter", "Seconds models took.", seconds, ("method",)),
        ("vizlib_cache_hits_total", "counter", "Answers that were remembered.", one(cache.hits), ()),
        ("vizlib_cache_misses_total", "counter", "Answers that were not.", one(cache.misses), ()),
        ("vizlib_cache_bytes", "gauge", "Bytes of remembered answers.", one(cache.held_bytes), ()),
        ("vizlib_cache_budget_bytes", "gauge", "The most it may remember.", one(cache.max_bytes), ()),
        ("vizlib_pass_cache_bytes", "gauge", "Bytes of remembered passes through a model.", one(passes.held_bytes), ()),
        ("vizlib_pass_cache_budget_bytes", "gauge", "The most of them it may remember.", one(passes.max_bytes), ()),
        ("vizlib_photo_cache_bytes", "gauge", "Bytes of decoded photos.", one(get_photo_cache().held_bytes), ()),
        ("vizlib_photo_cache_budget_bytes", "gauge", "The most of them it may keep.", one(get_photo_cache().max_bytes), ()),
        ("vizlib_resident_models", "gauge", "Models in memory.", one(len(resident)), ()),
        ("vizlib_resident_model_bytes", "gauge", "Bytes of their weights.", one(sum(resident.values())), ()),
    )
    return PlainTextResponse(exposition(rows), media_type="text/plain; version=0.0.4")


@asynccontextmanager
async def _tidied(catalog: ModelCatalog, settings: ServerOptions, _: Any) -> AsyncIterator[None]:
    """While the server runs, models that nobody asks leave the memory, and uploads that broke off the disk.

    What was freed goes back to the machine. Whole files are gradio's to delete.
    """
    idle, age = settings.idle_minutes * 60, settings.delete_after

    async def tidy() -> None:
        while True:
            await asyncio.sleep(min(idle / 2, age, 60))
            catalog.unload_idle(idle)
            await asyncio.to_thread(delete_stale_uploads, Path(get_upload_folder()), age)
            await asyncio.to_thread(_return_free_memory)

    task = asyncio.create_task(tidy())
    try:
        yield
    finally:
        task.cancel()


@contextlib.contextmanager
def _usual_c_library() -> Iterator[ctypes.CDLL]:
    """Linux's usual C library, for what no other has: there nothing is done."""
    with contextlib.suppress(OSError, AttributeError, TypeError):
        yield ctypes.CDLL(None)


def _return_free_memory() -> None:
    """Give the machine back what answers have freed: the library keeps it, scattered, about as much as is in use."""
    with _usual_c_library() as library:
        library.malloc_trim(0)


def _cores() -> int:
    """Cores this process may use; a Space says how many of the machine's are its own."""
    said = os.environ.get("CPU_CORES", "")
    return int(said) if said.isdigit() and int(said) else os.cpu_count() or 1
