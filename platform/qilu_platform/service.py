"""The platform service: runs in its own process, or in the event loop of another."""

from __future__ import annotations

import contextlib
from types import TracebackType
from typing import Self

import structlog
from qilu_common.http_server import HttpServer
from qilu_common.interpreter import serve_evenly
from qilu_contract.store import PlatformStore

from qilu_platform.app import create_app
from qilu_platform.runtime import Runtime
from qilu_platform.settings import Settings

log = structlog.get_logger()

MAX_CONNECTIONS = 4096


class PlatformService:
    """`async with PlatformService(settings, store) as service`: serving inside, stopped (within about two
    seconds) after.

    `store` is an open store, or None: then the service opens what `settings.store_url` names, or has none.
    Entering raises ConfigError when it cannot start.
    """

    def __init__(self, settings: Settings, store: PlatformStore | None = None) -> None:
        self.settings = settings
        self._stack = contextlib.AsyncExitStack()
        self._runtime: Runtime | None = None
        self._app = create_app(settings, store)
        self._server = HttpServer(self._app, settings.host, settings.port, MAX_CONNECTIONS)

    @property
    def url(self) -> str:
        """URL of the running service, also if the port setting is 0."""
        return self._server.url

    @property
    def first_admin_key(self) -> str | None:
        """The admin key that was made at this start because there was none: show it once, it is kept
        nowhere."""
        return None if self._runtime is None else self._runtime.first_admin_key

    async def __aenter__(self) -> Self:
        serve_evenly()
        async with self._stack as stack:
            stack.callback(self._server.listen().close)
            # Entered here and not by the server, so that its errors reach the caller that starts the service.
            await stack.enter_async_context(self._app.router.lifespan_context(self._app))
            self._runtime = self._app.state.runtime
            await stack.enter_async_context(self._server)
            stack.callback(self._runtime.close_streams)
            self._stack = stack.pop_all()
        log.info("platform serves", url=self.url)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return await self._stack.__aexit__(kind, error, trace)

    def refused_certificates(self, count: int) -> None:
        """Add certificates that the broker has refused to the security events."""
        if self._runtime is not None:
            detail = "Revoked, expired or foreign: the broker's log says neither which nor whose."
            self._runtime.watch.see("refused_certificate", None, "broker", detail, count)

    async def wait(self) -> None:
        """Wait until the server ends, which it does only by a fault, or until cancelled."""
        await self._server.wait()

    async def run(self) -> None:
        """Serve until cancelled."""
        async with self:
            await self.wait()
