"""First readings that the platform does not know of yet: durable before their messages are acknowledged, and
gone only when the platform has confirmed them. Beside them, best effort, the reports that a unit is active.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterable

import structlog

from qilu_gateway.backoff import Backoff
from qilu_gateway.platform_api import MAX_IDS, PlatformApi, PlatformAway
from qilu_gateway.statefile import StateFile

log = structlog.get_logger()

SCHEMA = """
CREATE TABLE IF NOT EXISTS outbox (unit TEXT PRIMARY KEY, ts_ms INTEGER NOT NULL) WITHOUT ROWID;
"""
ACTIVITY_EVERY_S = 2.0
MAX_ACTIVE_UNITS = 200_000
"""Units whose activity waits to be reported; above it new ones are forgotten until their next hour."""


def add(connection: sqlite3.Connection, firsts: Iterable[tuple[str, int]]) -> None:
    """Units with the time of their first reading, in the caller's transaction; the earliest time stays."""
    connection.executemany(
        "INSERT INTO outbox VALUES (?, ?) "
        "ON CONFLICT (unit) DO UPDATE SET ts_ms = min(ts_ms, excluded.ts_ms)",
        firsts,
    )


def size(connection: sqlite3.Connection) -> int:
    """How many reports wait."""
    [found] = connection.execute("SELECT count(*) FROM outbox").fetchone()
    return int(found)


class Outbox:
    """Ships what is in the table. A report may be repeated after a crash: the platform counts a unit once."""

    def __init__(self, state: StateFile, platform: PlatformApi, confirmed: Callable[[int], None]) -> None:
        """`confirmed` is called with how many first readings the platform has just confirmed."""
        self._state, self._platform, self._confirmed = state, platform, confirmed
        self._filled = asyncio.Event()
        self._filled.set()  # a run before this one may have left some
        self._active: dict[str, int] = {}
        self._dead: dict[str, None] = {}

    def notice(self) -> None:
        """Something was added."""
        self._filled.set()

    def active(self, unit: str, ts_ms: int) -> None:
        """The unit was active then: reported with the next batch, unless the platform stays away too long."""
        if len(self._active) < MAX_ACTIVE_UNITS or unit in self._active:
            self._active[unit] = ts_ms
            self._dead.pop(unit, None)

    def died(self, unit: str) -> None:
        """The unit is gone: reported like activity."""
        if len(self._dead) < MAX_ACTIVE_UNITS:
            self._active.pop(unit, None)
            self._dead[unit] = None

    async def run(self) -> None:
        """Ship first readings, for ever."""
        backoff = Backoff(most_s=15.0)
        away = False
        while True:
            await self._filled.wait()
            self._filled.clear()
            while batch := await self._state.hold(_oldest):
                try:
                    unknown = await self._platform.first_readings(batch)
                except PlatformAway as error:
                    if not away:
                        away = True
                        log.warning("first readings wait", error=str(error))
                    await asyncio.sleep(backoff.delay_s())
                    continue
                away = False
                backoff.reset()
                if (
                    unknown
                ):  # registered when their readings came; a registry that lost them cannot count them
                    log.error("the platform does not know units that it admitted", units=unknown[:10])
                units = [(unit,) for unit, _ in batch]
                await self._state.hold(
                    lambda connection, units=units: connection.executemany(  # type: ignore[misc]
                        "DELETE FROM outbox WHERE unit = ?", units
                    )
                )
                self._confirmed(len(batch) - len(unknown))

    async def run_activity(self) -> None:
        """Ship activity and deaths, for ever. What the platform does not take is tried again, newer times
        replacing older ones.
        """
        while True:
            await asyncio.sleep(ACTIVITY_EVERY_S)
            while self._dead:
                gone = list(self._dead)[:MAX_IDS]
                try:
                    await self._platform.deaths(gone)
                except PlatformAway:
                    break
                for unit in gone:
                    self._dead.pop(unit, None)
            while self._active:
                batch = [(unit, self._active[unit]) for unit in list(self._active)[:MAX_IDS]]
                try:
                    await self._platform.activity(batch)
                except PlatformAway:
                    break
                for unit, ts_ms in batch:
                    if self._active.get(unit) == ts_ms:
                        del self._active[unit]


def _oldest(connection: sqlite3.Connection) -> list[tuple[str, int]]:
    return connection.execute("SELECT unit, ts_ms FROM outbox LIMIT ?", (MAX_IDS,)).fetchall()
