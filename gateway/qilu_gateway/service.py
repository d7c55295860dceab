"""The gateway service: runs in its own process, or in another process's event loop beside the platform."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from contextlib import AsyncExitStack, suppress
from types import TracebackType
from typing import Self

import structlog
from qilu_common.broker import BrokerAddress
from qilu_common.interpreter import serve_evenly
from qilu_common.secrets import secret
from qilu_contract.errors import ConfigError
from qilu_contract.store import Store
from starlette.types import ASGIApp

from qilu_gateway.health import Health, Stopped
from qilu_gateway.metrics import Counters, Rates
from qilu_gateway.settings import Settings
from qilu_gateway.settle import outbox
from qilu_gateway.wiring import STATE_SCHEMAS, Wired, put_together

__all__ = ["STATE_SCHEMAS", "GatewayService"]
log = structlog.get_logger()

HAND_OVER_S = 60.0
QUIET_S = 2.0
"""A shard is quiet when none of its edge nodes was heard for this time, after STATE was offline."""
_OF_BROKER = ("session", "history", "clock", "host-session", "host-state", "rebirths", "silence", "measure")
"""Tasks that do nothing for a spool."""
STOP_S = 3.0
"""Deadline of a stop; messages that are not durable by then stay unacknowledged and are redelivered."""


class GatewayService:
    """The gateway. Start and stop it with `async with`, or `await run()` and call `stop()`."""

    def __init__(
        self,
        settings: Settings,
        *,
        store: Store | None = None,
        api_key: str | None = None,
        inherited: bool = False,
    ) -> None:
        """A given `store` must be open, and is not closed; otherwise settings.store is opened. The API key is
        QILU_API_KEY(_FILE) unless given. `inherited`: another gateway has served this shard since the state
        directory was used, so the births in it are out of date. Raises ConfigError.
        """
        self._settings, self._store, self._inherited = settings, store, inherited
        self._api_key = api_key if api_key is not None else secret("QILU_API_KEY")
        self._broker = BrokerAddress.from_url(settings.broker)
        if store is None and not settings.store:
            raise ConfigError(
                "The gateway needs a store: give --store duckdb:///path or influxdb://host/database."
            )
        self._health = Health(settings.state)
        self._meter = self._health.meter
        self._running: asyncio.Task[None] | None = None
        self._wired: Wired | None = None

    @property
    def counters(self) -> Counters:
        """Live counters; see `metrics.py` for their meaning."""
        return self._meter.counters

    @property
    def rates(self) -> Rates:
        """Rates over the last two seconds."""
        return self._meter.rates

    @property
    def dead_lettered_by_reason(self) -> dict[str, int]:
        """Dead-lettered readings since the start, by reason."""
        return {str(reason): count for reason, count in self._meter.by_reason.items()}

    @property
    def online(self) -> bool:
        """Whether the host's STATE is online."""
        return self._wired is not None and self._wired.host.online

    @property
    def run_speed(self) -> float:
        """Simulated seconds per second of the current run, as last announced."""
        return 0.0 if self._wired is None else self._wired.control.clock.announced_speed

    async def unreported(self) -> int:
        """Number of first readings that the platform has not confirmed yet; at least one if it cannot be
        determined now."""
        parts = self._health.parts
        try:
            return 0 if parts is None else await parts.state.write(outbox.size)
        except (sqlite3.OperationalError, OSError):
            return 1

    @property
    def http_port(self) -> int:
        """Port of /metrics and /healthz; 0 before the start."""
        return self._health.server.port if self._health.server is not None else 0

    @property
    def endpoint(self) -> ASGIApp | None:
        """The application at `http_port`; None before the start."""
        return self._health.app

    def metrics(self) -> bytes:
        """The text of /metrics."""
        return self._health.meter.exposition()

    def troubles(self) -> list[str]:
        """Reasons why no data can be taken now, a word each; see `Health.troubles`."""
        return self._health.troubles()

    @property
    def store_trouble(self) -> str:
        """Why the store takes no writes now, in a sentence, also while readings are spooled; empty if it
        does."""
        return self._health.parts.gate.reason if self._health.parts is not None else ""

    async def __aenter__(self) -> Self:
        """Start the service in a separate task. Returns when everything is started, whether or not broker,
        store and platform are reachable; raises the error that prevents the start.
        """
        self._running = asyncio.create_task(self.run(), name="gateway")
        started = asyncio.create_task(self._health.started.wait(), name="gateway-started")
        await asyncio.wait([self._running, started], return_when=asyncio.FIRST_COMPLETED)
        started.cancel()
        if self._running.done():
            self._running.result()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        if self._running is not None:
            try:
                await self._running
            except Exception:
                if error is None:  # otherwise `wait` has raised it already
                    raise

    async def wait(self) -> None:
        """Wait until the service has ended; raises the error that ended it, if any."""
        assert self._running is not None, "not started"
        await asyncio.shield(self._running)

    def stop(self) -> None:
        """Stop intake, drain, publish STATE offline and disconnect, within STOP_S."""
        self._health.stopping.set()

    async def hand_over(self) -> bool:
        """Finish everything that another gateway could not continue without the state of this one: STATE goes
        offline, messages of edge nodes at the broker are stored, first readings are reported. Returns
        whether all of it was finished in HAND_OVER_S; `stop` comes next. Messages that arrive from now on
        stay with the broker."""
        self._health.leaving.set()
        wired, loop = self._wired, asyncio.get_running_loop()
        if wired is None:  # an earlier service may have left something
            return False
        deadline_s = loop.time() + HAND_OVER_S
        while wired.host.online and loop.time() < deadline_s:
            await asyncio.sleep(QUIET_S / 10)
        await asyncio.sleep(QUIET_S)
        while wired.heard_s() > time.monotonic() - QUIET_S and loop.time() < deadline_s:
            await asyncio.sleep(QUIET_S / 10)
        wired.connections.stop_intake()
        while loop.time() < deadline_s:
            await wired.intake.drain()
            if not await self._left(wired):
                return True
            await asyncio.sleep(QUIET_S / 10)
        return False

    async def run(self) -> None:
        """Serve until `stop`. Raises ConfigError, or the error of a part that failed: then nothing more is
        acknowledged, the broker publishes STATE offline, and the next start continues from there.
        """
        serve_evenly()
        with suppress(Stopped):
            async with AsyncExitStack() as stack:
                wired = await self._put_together(stack)
                await self._run(wired)

    async def empty(self) -> None:
        """Without the broker, ship the spool and report first readings that were left here when another
        gateway took the shard over. Returns when that is done, or on `stop`. Raises like `run`."""
        with suppress(Stopped):
            async with AsyncExitStack() as stack:
                wired = await self._put_together(stack)
                done = not await self._left(wired)
                for name in wired.tasks if done else _OF_BROKER:
                    if (task := wired.tasks.get(name)) is not None:
                        task.close()
                if not done:
                    log.info("shipping what is left of a shard", readings=wired.spool.readings)
                    tasks = {name: task for name, task in wired.tasks.items() if name not in _OF_BROKER}
                    await self._run(wired._replace(tasks=tasks | {"emptied": self._emptied(wired)}))

    async def _left(self, wired: Wired) -> bool:
        """Whether anything on disk waits for the store, Kafka or the platform."""
        unpublished = wired.publisher is not None and wired.publisher.waiting
        return bool(wired.spool.readings or unpublished or await self.unreported())

    async def _emptied(self, wired: Wired) -> None:
        while await self._left(wired):
            await asyncio.sleep(QUIET_S / 10)
        self.stop()

    async def _put_together(self, stack: AsyncExitStack) -> Wired:
        self._wired = await put_together(
            stack,
            self._settings,
            self._health,
            self._broker,
            store=self._store,
            api_key=self._api_key,
            inherited=self._inherited,
        )
        return self._wired

    async def _run(self, wired: Wired) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(task, name=f"gateway-{name}") for name, task in wired.tasks.items()
                ]
                self._health.started.set()
                await self._health.stopping.wait()
                await self._wind_down(wired)
                for task in tasks:
                    task.cancel()
        except* OSError as errors:
            raise ConfigError(f"The gateway cannot run: {errors.exceptions[0]}.") from errors
        if wired.connections.ousted is not None:
            raise wired.connections.ousted
        log.info("gateway stopped", accepted=self.counters.accepted, stored=self.counters.stored)

    async def _wind_down(self, wired: Wired) -> None:
        try:
            async with asyncio.timeout(STOP_S):
                wired.connections.stop_intake()
                if wired.connections.speaker.subscribed:
                    await wired.host.farewell()
                await wired.intake.drain()
        except TimeoutError:
            log.warning("stopped with readings in flight: they come again", in_flight=self.counters.in_flight)
        await wired.connections.close()
        await wired.rollups.finish()
