"""The platform as a service: in a process of its own, or in the event loop of another."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from types import TracebackType
from typing import Self

import structlog
import uvicorn
from fastapi import FastAPI
from qilu_contract.errors import ConfigError
from qilu_contract.interpreter import serve_evenly
from qilu_contract.stores import Store

from qilu_platform.app import create_app
from qilu_platform.runtime import Runtime
from qilu_platform.settings import Settings

log = structlog.get_logger()

STOP_S = 1
"""Time that answers under way get when the service stops; event streams are ended before."""


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        # Signals belong to the process; who runs the service stops it by leaving its context.
        yield


class PlatformService:
    """`async with PlatformService(settings, store) as service`: serving inside, stopped (within about two
    seconds) after.

    `store` is an open store, or None: then the service opens what `settings.store_url` names, or has none.
    Entering raises ConfigError when it cannot start.
    """

    def __init__(self, settings: Settings, store: Store | None = None) -> None:
        self.settings = settings
        self._store = store
        self._stack = contextlib.AsyncExitStack()
        self._runtime: Runtime | None = None
        self._server: _Server | None = None
        self._serving: asyncio.Task[None] | None = None
        self._port = settings.port

    @property
    def url(self) -> str:
        """Where it is served, once it runs: also when the port was 0."""
        host = self.settings.host
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104
        return f"http://{host}:{self._port}"

    @property
    def first_admin_key(self) -> str | None:
        """The admin key that was made at this start because there was none: show it once, it is kept
        nowhere."""
        return None if self._runtime is None else self._runtime.first_admin_key

    async def __aenter__(self) -> Self:
        serve_evenly()
        async with self._stack as stack:
            listening = self._listen()
            stack.callback(listening.close)
            app = create_app(self.settings, self._store)
            await stack.enter_async_context(app.router.lifespan_context(app))
            self._runtime = app.state.runtime
            stack.push_async_callback(self._stop)
            await self._serve(app, listening)
            self._stack = stack.pop_all()
        log.info("platform serves", url=self.url)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return await self._stack.__aexit__(kind, error, trace)

    async def wait(self) -> None:
        """Until the server ends, which it does only by a fault of its own, or until cancelled."""
        assert self._serving is not None, "enter the service first"
        await asyncio.shield(self._serving)

    async def run(self) -> None:
        """Serve until cancelled."""
        async with self:
            await self.wait()

    def _listen(self) -> socket.socket:
        host, port = self.settings.host, self.settings.port
        try:
            family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            listening = socket.create_server(address[:2], family=family, backlog=512)
        except OSError as error:
            raise ConfigError(
                f"Nothing can listen on {host}:{port} ({error.strerror or error}): use another --port."
            ) from error
        # asyncio sets this itself only for sockets that were made with IPPROTO_TCP; accepted ones inherit it.
        # Without it an answer's second packet waits 40 ms for the first one's acknowledgement.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listening.setblocking(False)
        self._port = listening.getsockname()[1]
        return listening

    async def _serve(self, app: FastAPI, listening: socket.socket) -> None:
        config = uvicorn.Config(
            app,
            lifespan="off",  # entered above, where its errors can be told
            log_config=None,
            access_log=False,
            server_header=False,
            ws="none",
            # Longer than clients keep idle connections: they close them, and never write into a closed one.
            timeout_keep_alive=75,
            timeout_graceful_shutdown=STOP_S,
        )
        self._server = _Server(config)
        self._serving = asyncio.create_task(self._server.serve([listening]), name="platform server")
        # uvicorn offers nothing to wait for; it is a matter of one round of the loop.
        while not self._server.started and not self._serving.done():
            await asyncio.sleep(0.01)
        if self._serving.done():
            await self._serving

    async def _stop(self) -> None:
        if self._server is None or self._serving is None or self._runtime is None:
            return
        self._runtime.hub.close()
        self._server.should_exit = True
        await self._serving
