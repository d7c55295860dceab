"""Middleware around every request: its id, the prefix of a reverse proxy, the limit of its body, its metrics,
and the response to internal errors."""

from __future__ import annotations

import re
import time
import uuid

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from qilu_platform.api.problems import Problem, problem_response
from qilu_platform.metrics import Metrics

log = structlog.get_logger()

MAX_BODY = 1024 * 1024
MAX_BULK_BODY = 8 * 1024 * 1024
_PREFIX = re.compile(r"(?:/[A-Za-z0-9._~-]+)+", re.ASCII)
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)


def _max_body(path: str) -> int | None:
    """Bytes; None for files, which are read as they come and are never in memory as a whole."""
    if path.startswith("/v1/imports"):
        return None
    return MAX_BULK_BODY if path.endswith("/bulk") else MAX_BODY


def _path(scope: Scope) -> str:
    """The path without the proxy's prefix, as our routes use it."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


class Edge:
    """ASGI middleware. Streams pass through untouched."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        request_id = headers.get("x-request-id", "")
        if not _REQUEST_ID.fullmatch(request_id):
            request_id = uuid.uuid4().hex
        # Changes nothing but the addresses in this one answer, so anybody may say it.
        prefix = headers.get("x-forwarded-prefix", "").rstrip("/")
        if _PREFIX.fullmatch(prefix):
            scope["root_path"] = prefix
            if not scope["path"].startswith(prefix + "/"):  # the proxy has taken it away
                scope["path"] = prefix + scope["path"]
        else:
            prefix = ""
        begun, status, streams = time.perf_counter(), 0, False

        async def answer(message: Message) -> None:
            nonlocal status, streams
            if message["type"] == "http.response.start":
                status = message["status"]
                out = MutableHeaders(scope=message)
                out["X-Request-Id"] = request_id
                out["X-Content-Type-Options"] = "nosniff"
                if prefix and out.get("location", "").startswith("/"):
                    out["Location"] = prefix + out["location"]
                streams = out.get("content-type", "").startswith("text/event-stream")
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                await self._run(scope, headers, receive, answer)
            except ClientDisconnect:
                status = 499  # as proxies call it: nobody is left to answer
            except Exception:
                # The last place that can answer: log the error once, count it below as a 500, and send no
                # traceback.
                log.exception("request failed", method=scope["method"], path=scope["path"])
                if not status:
                    detail = f"The platform failed; its log says why under request {request_id}."
                    await problem_response(500, detail)(scope, receive, answer)
        # Only known routes become labels: paths that nobody serves are without number.
        route = getattr(scope.get("route"), "path", None) or "unmatched"
        self.metrics.requests.labels(route, scope["method"], str(status)).inc()
        if not streams:
            self.metrics.seconds.labels(route).observe(time.perf_counter() - begun)

    async def _run(self, scope: Scope, headers: Headers, receive: Receive, answer: Send) -> None:
        most = _max_body(_path(scope))
        if most is None:
            await self.app(scope, receive, answer)
            return
        too_large = f"The body is larger than {most} bytes: send less at a time."
        declared = headers.get("content-length", "0")
        if declared.isascii() and declared.isdigit() and int(declared) > most:
            await problem_response(413, too_large, headers={"Connection": "close"})(scope, receive, answer)
            return
        seen = 0

        async def bounded() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > most:
                raise Problem(413, too_large, headers={"Connection": "close"})
            return message

        await self.app(scope, bounded, answer)
