"""The HTTP server that platform and gateway run in their event loop: uvicorn, with limits on the resources
that a silent client can hold.

A connection waits for its client while a request is not complete, and between requests. It waits no longer
than the timeouts below; when connections run out, those that wait are closed first, the longest waiting
before the others, so that a flood of silent ones shuts nobody out.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
import socket
import time
from collections.abc import Iterator
from typing import Any, Self

import structlog
import uvicorn
from qilu_contract.errors import ConfigError
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

log = structlog.get_logger()

HEAD_S = 10.0
"""From the connection, or a later request's first byte, to the end of the request's head."""
BODY_S = 30.0
"""Between two pieces of a request's body."""
UNREAD_S = 60.0
"""How long a client may read so little that nothing more can be sent to it."""
KEEP_ALIVE_S = 75
"""Between requests. Longer than clients keep idle connections: they close them, and never write into a closed
one."""
STOP_S = 1
"""Time that answers under way get when the server stops."""
MAX_HEAD = 64 * 1024
"""Bytes that may come before a request's head, or what follows its body, is whole."""
MAX_PIPELINED = 16
"""Requests of a connection that may wait for the answer to the one before them."""
BACKLOG = 128
"""Connections accepted in one round of the event loop, before any of them can be closed again."""
ACCEPT_LOG_S = 60.0
_BUSY = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
)


class _Config(uvicorn.Config):
    """uvicorn's settings, and what the connections of one server share."""

    def __init__(self, app: ASGIApp, max_connections: int, **settings: Any) -> None:
        super().__init__(app, http=_Connection, **settings)
        self.max_connections = max_connections
        self.waiting: dict[_Connection, None] = {}
        """In the order in which they began to wait."""


class _Connection(HttpToolsProtocol):
    config: _Config

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._fruitless = 0
        """Bytes since the last that ended a head or a request, or were a part of a body: the parser, which
        has no bound for them, keeps them."""
        self._timer: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.config.max_connections:
            longest = next(iter(self.config.waiting), None)
            if longest is None:  # all of them are being answered
                transport.write(_BUSY)
                transport.close()
                return
            longest.give_up()
        self._wait(HEAD_S)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        self._stop_timer("_unread")
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._fruitless += len(data)
        super().data_received(data)
        if self._fruitless > MAX_HEAD and not self.transport.is_closing():
            self.send_400_response("The head of the request is too long.")
        cycle = self.cycle
        if cycle is None or cycle.response_complete:  # the head is not complete
            if self._timer is None and not self.transport.is_closing():
                self._wait(HEAD_S)
        elif cycle.more_body:
            self._wait(BODY_S)
        else:
            self._stop_waiting()

    def on_headers_complete(self) -> None:
        if len(self.pipeline) >= MAX_PIPELINED:
            raise ValueError("too many requests at once")  # answered 400
        super().on_headers_complete()
        self._fruitless = 0

    def on_body(self, body: bytes) -> None:
        super().on_body(body)
        self._fruitless = 0

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._fruitless = 0

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.cycle.response_complete and not self.transport.is_closing():
            self._stop_waiting()
            self.config.waiting[self] = None  # uvicorn's own timer ends it

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread = self.loop.call_later(UNREAD_S, self.give_up)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_timer("_unread")

    def give_up(self) -> None:
        """Close at once; an application that still works on a request sees its client gone."""
        if self.cycle is not None and self.flow.read_paused and self.cycle.more_body and self._unread is None:
            self._wait(BODY_S)  # it is the application that is slow
            return
        self._stop_waiting()
        self.connections.discard(self)
        self.transport.abort()

    def _wait(self, seconds: float) -> None:
        self._stop_waiting()
        self.config.waiting[self] = None
        self._timer = self.loop.call_later(seconds, self.give_up)

    def _stop_waiting(self) -> None:
        self.config.waiting.pop(self, None)
        self._stop_timer("_timer")

    def _stop_timer(self, name: str) -> None:
        timer: asyncio.TimerHandle | None = getattr(self, name)
        if timer is not None:
            timer.cancel()
            setattr(self, name, None)


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        # Signals belong to the process; who runs the service stops it by leaving its context.
        yield


def _no_cut_off_request(record: logging.LogRecord) -> bool:
    """A filter of uvicorn's log: a request that the server cuts off when it stops is no error."""
    error = record.exc_info[1] if record.exc_info else None
    return not (isinstance(error, asyncio.CancelledError) or "running task(s)" in str(record.msg))


class HttpServer:
    """Serves an ASGI application inside `async with`; stops within about two seconds. Entering raises
    ConfigError when nothing can listen there."""

    def __init__(self, app: ASGIApp, host: str, port: int, max_connections: int) -> None:
        """Port 0 takes any free one. No more than half of the files that this process may open become
        connections."""
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        bound = max_connections if files == resource.RLIM_INFINITY else min(max_connections, files // 2)
        self._host = host
        self.port = port
        """Where it listens, once entered."""
        self._config = _Config(
            app,
            bound,
            lifespan="off",
            log_config=None,
            log_level="error",
            access_log=False,
            server_header=False,
            ws="none",
            backlog=BACKLOG,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=STOP_S,
        )
        self._server = _Server(self._config)
        self._listening: socket.socket | None = None
        self._serving: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        """URL on this machine."""
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(self._host)  # noqa: S104
        host = host or (f"[{self._host}]" if ":" in self._host else self._host)
        return f"http://{host}:{self.port}"

    async def __aenter__(self) -> Self:
        listening = self._listening or self.listen()
        _tell_failed_accepts_seldom(asyncio.get_running_loop())
        logging.getLogger("uvicorn.error").addFilter(_no_cut_off_request)
        # Closes the socket when it ends.
        self._serving = asyncio.create_task(self._server.serve([listening]), name="HTTP server")
        # uvicorn offers nothing to wait for; it is a matter of one round of the loop.
        while not self._server.started and not self._serving.done():
            await asyncio.sleep(0.01)
        if self._serving.done():
            await self._serving
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._serving is not None, "not entered"
        self._server.should_exit = True
        await self._serving

    async def wait(self) -> None:
        """Wait until the server ends, which it does only by a fault, or until cancelled."""
        assert self._serving is not None, "enter the server first"
        await asyncio.shield(self._serving)

    def listen(self) -> socket.socket:
        """Bind the port before any other step that may fail; a caller that does not enter the server
        afterwards must close the socket. Raises ConfigError."""
        try:
            family, *_, address = socket.getaddrinfo(self._host, self.port, type=socket.SOCK_STREAM)[0]
            listening = socket.create_server(address[:2], family=family, backlog=BACKLOG)
        except OSError as error:
            raise ConfigError(
                f"Nothing can listen on {self._host}:{self.port} ({error.strerror or error}): "
                "use another --port."
            ) from error
        # asyncio sets this itself only for sockets that were made with IPPROTO_TCP; accepted ones inherit it.
        # Without it an answer's second packet waits 40 ms for the first one's acknowledgement.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listening.setblocking(False)
        self.port = listening.getsockname()[1]
        self._listening = listening
        return listening


class _SeldomAccepts:
    """An event loop's exception handler: asyncio calls it for each connection that cannot be accepted,
    hundreds of times a second when files run out."""

    def __init__(self) -> None:
        self._told_s = -ACCEPT_LOG_S

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        message = context.get("message", "")
        if "_start_serving" in message and isinstance(context.get("exception"), ValueError):
            return  # asyncio tries again to accept, once for each, after the server has been closed
        if message != "socket.accept() out of system resource":
            loop.default_exception_handler(context)
        elif time.monotonic() - self._told_s >= ACCEPT_LOG_S:
            self._told_s = time.monotonic()
            log.error("connections cannot be accepted", error=str(context.get("exception")))


def _tell_failed_accepts_seldom(loop: asyncio.AbstractEventLoop) -> None:
    if loop.get_exception_handler() is None:
        loop.set_exception_handler(_SeldomAccepts())
