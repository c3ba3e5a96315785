"""The server around the page: its launch, the routes for health and metrics, and the periodic cleanup."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr
from fastapi.routing import APIRoute
from gradio.utils import get_upload_folder
from starlette.middleware import Middleware
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Mount
from starlette.staticfiles import StaticFiles

import vizlib
from dashboard.components.help_link import DOCS_ROUTE
from dashboard.components.photo import MAX_UPLOAD_MB, get_photo_cache
from dashboard.components.theme import build_theme, read_css
from dashboard.i18n.translate import (
    build_browser_translations,
)
from dashboard.server.body_limit import BodyLimitMiddleware
from dashboard.server.options import ServerOptions
from dashboard.server.process import return_free_memory
from dashboard.server.temp_dirs import delete_stale_uploads
from dashboard.services.analysis_service import AnalysisService
from dashboard.services.metrics import make_counter, make_gauge, render_metrics
from dashboard.services.model_catalog import ModelCatalog
from vizlib import VizlibError
from vizlib.core.documentation import find_docs_folder

MAX_CLEANUP_INTERVAL_SECONDS = 60


def launch(page: gr.Blocks, host: str | None = "127.0.0.1", port: int | None = 7860, **more) -> tuple:
    """Start the server of a page without anything that would reveal its visitors to others.

    Args:
        page: The page.
        host: Address to listen on; by default of GRADIO_SERVER_NAME.
        port: Port to listen on; by default of GRADIO_SERVER_PORT.
        more: Further arguments of gradio's `launch`.

    Returns:
        The result of gradio's `launch`: application, local URL and share URL.

    Raises:
        VizlibError: If the server cannot listen on this address and port.
    """
    try:
        return page.launch(
            server_name=host,
            server_port=port or None,
            theme=build_theme(),
            css=read_css(),
            max_file_size=f"{MAX_UPLOAD_MB}mb",
            state_session_capacity=200,
            run_history=False,
            enable_monitoring=False,
            footer_links=["api"],
            pwa=False,
            share=False,
            ssr_mode=False,  # enabled by default on a Space; the page was never tested with it
            i18n=build_browser_translations(),
            **more,
        )
    except (OSError, OverflowError) as error:
        if isinstance(error, OSError) and "empty port" not in str(error):  # gradio's message for every reason
            raise
        raise VizlibError(_explain_port_error(host, port)) from error


def make_app_kwargs(service: AnalysisService, options: ServerOptions) -> dict[str, Any]:
    """Return what the server gives gradio's FastAPI application: its routes, a middleware, the periodic cleanup."""
    routes: list[BaseRoute] = [
        APIRoute("/healthz", _report_health),
        APIRoute("/metrics", partial(_report_metrics, service)),
    ]
    if (docs := find_docs_folder()) is not None:
        routes.append(Mount(DOCS_ROUTE, StaticFiles(directory=docs, html=True)))
    return {
        "routes": routes,
        "middleware": [Middleware(BodyLimitMiddleware, metrics=service.metrics)],
        "lifespan": partial(_clean_up_periodically, service.catalog, options),
    }


async def _report_health() -> Response:
    """Return the response of the server's route /healthz."""
    return JSONResponse({"status": "ok", "version": vizlib.__version__})


async def _report_metrics(service: AnalysisService) -> Response:
    """Return the response of the server's route /metrics."""
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
            await asyncio.to_thread(return_free_memory)

    task = asyncio.create_task(clean_up())
    try:
        yield
    finally:
        task.cancel()


def _explain_port_error(host: str | None, port: int | None) -> str:
    """Return why the server cannot listen on an address and port, from a second try."""
    if not port:
        return "no port from 7860 on is free; give one with --port"
    if not 0 < port < 65536:
        return f"a port is a number from 0 to 65535, not {port}"
    try:
        with socket.create_server((host, port)):
            pass
    except PermissionError:
        return f"port {port} may not be used by this user; give one above 1023 with --port"
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            return f"nothing can listen at {host}: {error.strerror or error}; give this machine's address with --host"
    return f"port {port} is taken; give another with --port, or 0 for any free one"
