"""The server around the page: process settings, body limit, health, metrics and periodic cleanup."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import logging
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
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
from dashboard.server.options import ServerOptions
from dashboard.server.temp_dirs import delete_stale_uploads
from dashboard.services.analysis_service import AnalysisService
from dashboard.services.metrics import LOG, RunMetrics, log_event, make_counter, make_gauge, render_metrics
from dashboard.services.model_catalog import ModelCatalog

MAX_BODY_BYTES = MAX_UPLOAD_MB * 1_400_000 + 1_000_000  # of a request: a photo as base64 within JSON, and the rest
M_ARENA_MAX = -8  # of malloc.h
MAX_CLEANUP_INTERVAL_SECONDS = 60
UNWRITABLE_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.EACCES, errno.EPERM)
DISK_FULL_MESSAGE = (
    "The server cannot write files now, because its disk is full or closed to it; please try again later."
)


def configure_process(options: ServerOptions) -> None:
    """Apply the options that concern the whole process: threads, memory allocator, downloads and log."""
    torch.set_num_threads(max(1, min(torch.get_num_threads(), _count_cores())))
    with _open_c_library() as library:
        library.mallopt(M_ARENA_MAX, 2)  # else each thread that ran a model keeps the memory it has freed
    if options.offline:
        os.environ["HF_HUB_OFFLINE"] = "1"
        hub.HF_HUB_OFFLINE = True  # read from the environment at import
    if options.log and not LOG.handlers:
        LOG.addHandler(logging.StreamHandler())
        LOG.setLevel(logging.INFO)


def make_app_kwargs(service: AnalysisService, options: ServerOptions) -> dict[str, Any]:
    """Return what gradio's FastAPI application is given besides the page: two routes, a middleware, the cleanup."""
    return {
        "routes": [APIRoute("/healthz", _report_health), APIRoute("/metrics", partial(_report_metrics, service))],
        "middleware": [Middleware(BodyLimitMiddleware, metrics=service.metrics)],
        "lifespan": partial(_clean_up_periodically, service.catalog, options),
    }


class BodyLimitMiddleware:
    """ASGI middleware that refuses a request whose body is too large before it is read whole, and counts requests."""

    def __init__(self, app: Callable, metrics: RunMetrics, max_bytes: int = MAX_BODY_BYTES) -> None:
        self.app, self.metrics, self.max_bytes = app, metrics, max_bytes

    async def __call__(self, scope: dict[str, Any], receive: Callable, send: Callable) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        length = dict(scope["headers"]).get(b"content-length", b"")
        size, status, started = int(length) if length.isdigit() else 0, 500, False

        async def receive_counted() -> dict[str, Any]:
            nonlocal size
            message = await receive()
            if not length:  # a chunked body
                size += len(message.get("body", b""))
                if size > self.max_bytes:
                    raise _TooLargeError
            return message

        async def send_noted(message: dict[str, Any]) -> None:
            nonlocal status, started
            if size > self.max_bytes:
                return  # the response of the application to an incomplete body
            status, started = message.get("status", status), True
            await send(message)

        try:
            if size <= self.max_bytes:
                await self.app(scope, receive_counted, send_noted)
        except _TooLargeError:
            pass
        except OSError as error:  # of an upload
            if started or error.errno not in UNWRITABLE_ERRNOS:
                raise
            status = 507
            await JSONResponse({"detail": DISK_FULL_MESSAGE}, status)(scope, receive, send)
        if size > self.max_bytes:
            status = 413
            detail = f"a photo may have at most {MAX_UPLOAD_MB} MB"
            await JSONResponse({"detail": detail}, status)(scope, receive, send)
            log_event(event="too large")
        route = scope.get("route")  # the matched route, never the path itself, which may hold the name of a file
        self.metrics.count_request(getattr(route, "path", "") or "other", status)


class _TooLargeError(Exception):
    """A chunked body exceeds the limit."""


async def _report_health() -> Response:
    return JSONResponse({"status": "ok", "version": vizlib.__version__})


async def _report_metrics(service: AnalysisService) -> Response:
    metrics, cache, passes, photos = service.metrics, service.cache, service.pass_cache, get_photo_cache()
    resident = service.catalog.count_bytes()
    seconds = {method: round(value, 6) for method, value in list(metrics.seconds.items())}
    text = render_metrics(
        [
            make_counter("vizlib_http_requests_total", "HTTP requests.", ("route", "status"), dict(metrics.requests)),
            make_counter("vizlib_runs_total", "Runs of models.", ("method", "end"), dict(metrics.runs)),
            make_counter("vizlib_run_seconds_total", "Seconds that runs of models took.", ("method",), seconds),
            make_counter("vizlib_cache_hits_total", "Results found in the cache.", (), {(): cache.hits}),
            make_counter("vizlib_cache_misses_total", "Results not found in the cache.", (), {(): cache.misses}),
            make_gauge("vizlib_cache_bytes", "Bytes of cached results.", cache.held_bytes),
            make_gauge("vizlib_cache_budget_bytes", "Maximum bytes of cached results.", cache.max_bytes),
            make_gauge("vizlib_pass_cache_bytes", "Bytes of cached forward passes.", passes.held_bytes),
            make_gauge("vizlib_pass_cache_budget_bytes", "Maximum bytes of cached passes.", passes.max_bytes),
            make_gauge("vizlib_photo_cache_bytes", "Bytes of decoded photos.", photos.held_bytes),
            make_gauge("vizlib_photo_cache_budget_bytes", "Maximum bytes of decoded photos.", photos.max_bytes),
            make_gauge("vizlib_resident_models", "Models in memory.", len(resident)),
            make_gauge("vizlib_resident_model_bytes", "Bytes of the weights in memory.", sum(resident.values())),
        ]
    )
    return PlainTextResponse(text, media_type="text/plain; version=0.0.4")


@asynccontextmanager
async def _clean_up_periodically(catalog: ModelCatalog, options: ServerOptions, _: Any) -> AsyncIterator[None]:
    """While the server runs, unload idle models, delete incomplete uploads and return freed memory to the system.

    Complete uploads are deleted by gradio.
    """
    idle_seconds, max_age = options.idle_minutes * 60, options.delete_after

    async def clean_up() -> None:
        while True:
            await asyncio.sleep(min(idle_seconds / 2, max_age, MAX_CLEANUP_INTERVAL_SECONDS))
            catalog.unload_idle(idle_seconds)
            await asyncio.to_thread(delete_stale_uploads, Path(get_upload_folder()), max_age)
            await asyncio.to_thread(_return_free_memory)

    task = asyncio.create_task(clean_up())
    try:
        yield
    finally:
        task.cancel()


@contextlib.contextmanager
def _open_c_library() -> Iterator[ctypes.CDLL]:
    """Yield the C library; functions that another library than glibc lacks are skipped without an error."""
    with contextlib.suppress(OSError, AttributeError, TypeError):
        yield ctypes.CDLL(None)


def _return_free_memory() -> None:
    """Return freed memory to the system; glibc keeps it in fragments, about as much as is in use."""
    with _open_c_library() as library:
        library.malloc_trim(0)


def _count_cores() -> int:
    """Return the cores this process may use; a Space states its share of the machine in CPU_CORES."""
    cores = os.environ.get("CPU_CORES", "")
    return int(cores) if cores.isdigit() and int(cores) else os.cpu_count() or 1
