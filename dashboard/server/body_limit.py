"""The limit on the body of a request."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from starlette.responses import JSONResponse

from dashboard.components.error_messages import DISK_FULL_MESSAGE, UNWRITABLE_ERRNOS
from dashboard.components.photo import MAX_UPLOAD_MB
from dashboard.services.metrics import RunMetrics, log_event

MAX_BODY_BYTES = MAX_UPLOAD_MB * 1_400_000 + 1_000_000  # of a request: a photo as base64 within JSON, and the rest


class BodyLimitMiddleware:
    """ASGI middleware that refuses a request whose body is too large before it is read whole, and counts requests."""

    def __init__(self, app: Callable, metrics: RunMetrics, max_bytes: int = MAX_BODY_BYTES) -> None:
        self.app, self.metrics, self.max_bytes = app, metrics, max_bytes

    async def __call__(self, scope: dict[str, Any], receive: Callable, send: Callable) -> None:
        """Handle one request, unless its body exceeds the limit."""
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
