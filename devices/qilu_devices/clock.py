"""The run's clock: wall time as an adapter to simulated time, and its announcement on the retained clock
topic."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable
from dataclasses import dataclass

import structlog
from qilu_contract import topics
from qilu_contract.clock import MAX_AHEAD_MS, RunClock, wall_ms
from qilu_contract.mqtt import MqttError

from qilu_devices.broker import Broker

ANNOUNCE_EVERY_S = 1.0
RETRY_S = 2.0
SHORTEST_SLEEP_S = 0.005  # a shorter wait costs more than it orders

_log = structlog.get_logger(__name__)


class Pace:
    """Maps simulated to wall time: `speed` simulated seconds a second, None for as fast as it goes. Starts
    when it is first asked. A run that cannot keep up falls behind; it never skips."""

    def __init__(self, start_ms: int, speed: float | None) -> None:
        self._start_ms, self._speed = start_ms, speed
        self._began_s: float | None = None

    async def reach(self, ts_ms: int, ending: asyncio.Event) -> None:
        """Returns when simulated time is at `ts_ms`, or at once when `ending` is set."""
        if self._speed is None:
            return
        now_s = asyncio.get_running_loop().time()
        if self._began_s is None:
            self._began_s = now_s
        wait_s = self._began_s + (ts_ms - self._start_ms) / 1000.0 / self._speed - now_s
        if wait_s > SHORTEST_SLEEP_S:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await ending.wait()


@dataclass(slots=True)
class Gate:
    """How far ahead readings may be published: a receiver judges the future by the later of wall and
    announced clock, so a reading waits until the broker has the announcement that makes it believable."""

    announced_ms: int = 0

    def limit_ms(self) -> int:
        # Half of what a receiver allows: the other half is for its own clock being late.
        return max(wall_ms(), self.announced_ms) + MAX_AHEAD_MS // 2


class Announcer:
    """Keeps the retained clock topic at `now_ms`: once a second, and at once when the gate is in the way.

    `advanced` is called when the gate has moved. Has a connection of its own and reconnects by itself.
    """

    def __init__(
        self, broker: Broker, client_id: str, speed: float | None, gate: Gate, advanced: Callable[[], None]
    ) -> None:
        self._broker, self._client_id = broker, client_id
        self._speed = speed
        self._gate, self._advanced = gate, advanced
        self._wanted = asyncio.Event()
        self._stopping = False
        self._now_ms = 0

    def made(self, ts_ms: int) -> None:
        """Simulated time has come to `ts_ms`."""
        self._now_ms = ts_ms
        if ts_ms > self._gate.limit_ms():
            self._wanted.set()

    def stop(self) -> None:
        """Announce once more that time stands still, then end `run`."""
        self._stopping = True
        self._wanted.set()

    async def run(self) -> None:
        reachable = True
        while True:
            try:
                await self._session()
                return
            except (MqttError, OSError, TimeoutError) as error:
                if self._stopping:
                    return
                if reachable:
                    _log.warning("broker_away", broker=str(self._broker), error=str(error))
                reachable = False
            await asyncio.sleep(random.uniform(0.5, 1.0) * RETRY_S)

    async def _session(self) -> None:
        connection = await self._broker.connect(self._client_id)
        try:
            _log.info("broker_connected", broker=str(self._broker))
            while True:
                self._wanted.clear()
                last, now_ms = self._stopping, self._now_ms
                # At full speed nobody can extrapolate, so the clock stands between announcements.
                speed = 0.0 if last or self._speed is None else self._speed
                if now_ms:
                    await connection.publish(topics.CLOCK, RunClock(now_ms, speed).encode(), retain=True)
                    self._gate.announced_ms = now_ms
                    self._advanced()
                if last:
                    return
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(ANNOUNCE_EVERY_S):
                        await self._wanted.wait()
        finally:
            await connection.disconnect()
