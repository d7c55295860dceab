"""The run's clock: maps simulated time to wall time, and announces it on the retained clock topic."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from functools import partial

import structlog
from qilu_common.broker import BrokerAddress
from qilu_common.mqtt.codec import ConnectOptions
from qilu_common.mqtt.connection import connect
from qilu_common.mqtt.reconnecting import keep_connected
from qilu_contract.wire import topics
from qilu_contract.wire.clock import MAX_AHEAD_MS, RunClock, wall_ms

ANNOUNCE_EVERY_S = 1.0
SHORTEST_SLEEP_S = 0.005  # a shorter wait costs more than it orders

_log = structlog.get_logger(__name__)


class Pace:
    """Maps simulated time to wall time: `speed` simulated seconds per second, None for full speed. Starts
    with `begin`, or at its first use. A run that cannot keep up falls behind; it never skips."""

    def __init__(self, start_ms: int, speed: float | None) -> None:
        self._start_ms, self._speed = start_ms, speed
        self._began_s: float | None = None
        self._due_s = float("inf")  # when the last requested moment is due
        self._last_speed = (float("-inf"), 0.0)  # when it was computed, and how late the run was then

    def begin(self) -> None:
        self._began_s = asyncio.get_running_loop().time()

    @property
    def late_s(self) -> float:
        """How far the run is behind the wall clock, because readings could not be made in time."""
        return max(0.0, asyncio.get_running_loop().time() - self._due_s)

    def speed_now(self) -> float:
        """Simulated seconds per second since the last call; 0 at full speed, which cannot be extrapolated."""
        if self._speed is None:
            return 0.0
        now_s, late_s = asyncio.get_running_loop().time(), self.late_s
        (then_s, before_s), self._last_speed = self._last_speed, (now_s, late_s)
        return self._speed * max(0.0, 1.0 - (late_s - before_s) / max(now_s - then_s, SHORTEST_SLEEP_S))

    async def reach(self, ts_ms: int, ending: asyncio.Event) -> None:
        """Returns when simulated time is at `ts_ms`, or at once when `ending` is set."""
        if self._speed is None:
            return
        now_s = asyncio.get_running_loop().time()
        if self._began_s is None:
            self._began_s = now_s
        self._due_s = self._began_s + (ts_ms - self._start_ms) / 1000.0 / self._speed
        wait_s = self._due_s - now_s
        if wait_s > SHORTEST_SLEEP_S:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await ending.wait()


class Announcer:
    """Publishes the run's time on the retained clock topic: once per second, and at once when readings wait
    for it.

    `speed` returns the present simulated seconds per second; `announced` is called with the time that the
    broker has. It has a separate connection and reconnects automatically.
    """

    def __init__(
        self,
        broker: BrokerAddress,
        client_id: str,
        speed: Callable[[], float],
        announced: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._broker, self._client_id = broker, client_id
        self._speed, self._announced = speed, announced
        self._announced_ms = 0
        self._wanted = asyncio.Event()
        self._stopping = False
        self._ended = asyncio.Event()
        self._now_ms = 0

    def made(self, ts_ms: int) -> None:
        """Record that simulated time has reached `ts_ms`."""
        self._now_ms = ts_ms
        if ts_ms > max(wall_ms(), self._announced_ms) + MAX_AHEAD_MS // 2:
            self._wanted.set()

    def stop(self) -> None:
        """Announce a last time that the clock has stopped, then end `run`."""
        self._stopping = True
        self._wanted.set()

    async def run(self) -> None:
        """Announce until `stop`, then once more, so that no receiver extrapolates the clock of a run that has
        ended."""
        await keep_connected(self._broker, self._announce, self._ended, failed=self._on_failure)

    def _on_failure(self, _: Exception) -> None:
        if self._stopping:
            self._ended.set()

    async def _announce(self) -> None:
        async with await connect(self._broker, ConnectOptions(self._client_id)) as connection:
            _log.info("broker connected", broker=str(self._broker))
            while True:
                self._wanted.clear()
                last, now_ms = self._stopping, self._now_ms
                speed = 0.0 if last else self._speed()
                if now_ms:
                    await connection.publish(topics.CLOCK, RunClock(now_ms, speed).encode(), retain=True)
                    self._announced_ms = now_ms
                    self._announced(now_ms)
                if last:
                    self._ended.set()
                    return
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(ANNOUNCE_EVERY_S):
                        await self._wanted.wait()


class Announcers:
    """An `Announcer` at each broker of a run. `announced` is called with a broker and the time it has."""

    def __init__(
        self,
        brokers: Sequence[BrokerAddress],
        client_id: str,
        speed: Callable[[], float],
        announced: Callable[[BrokerAddress, int], None] = lambda _broker, _ms: None,
    ) -> None:
        self._each = [Announcer(broker, client_id, speed, partial(announced, broker)) for broker in brokers]

    def made(self, ts_ms: int) -> None:
        """Record that simulated time has reached `ts_ms`."""
        for announcer in self._each:
            announcer.made(ts_ms)

    def stop(self) -> None:
        """Announce a last time that the clock has stopped, then end `run`."""
        for announcer in self._each:
            announcer.stop()

    async def run(self) -> None:
        """Announce until `stop`."""
        await asyncio.gather(*(announcer.run() for announcer in self._each))
