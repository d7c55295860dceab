"""Outbox of first readings for the platform.

They are durable before their messages are acknowledged, and removed only when the platform has confirmed
them. Reports of active units are sent as well, best effort.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from itertools import islice
from typing import NamedTuple

import msgspec
import structlog
from qilu_common.backoff import Backoff

from qilu_gateway.admit.platform_api import MAX_COLUMN_IDS, MAX_IDS, PlatformApi, PlatformAway
from qilu_gateway.statefile import StateFile

log = structlog.get_logger()

ROW_UNITS = 5000
"""Maximum number of units per row: the most that a damaged page may lose."""
SCHEMA = """
CREATE TABLE IF NOT EXISTS first_readings
    (id INTEGER PRIMARY KEY, count INTEGER NOT NULL, units TEXT NOT NULL, ts_ms TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS outbox (unit TEXT PRIMARY KEY, ts_ms INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO first_readings (count, units, ts_ms)
    SELECT count(*), json_group_array(unit), json_group_array(ts_ms)
    FROM (SELECT unit, ts_ms, (row_number() OVER () - 1) / 5000 AS part FROM outbox) GROUP BY part;
DELETE FROM outbox;
"""
"""Each row holds many units: ids and times as JSON arrays. Earlier versions had one row per unit, in
`outbox`."""
ACTIVITY_EVERY_S = 2.0
MAX_ACTIVE_UNITS = 200_000
"""Maximum number of units whose activity waits to be reported; beyond it, new ones are dropped until their
next hour."""


_list_of_ids = msgspec.json.Decoder(list[str]).decode
_list_of_times = msgspec.json.Decoder(list[int]).decode


class _Waiting(NamedTuple):
    """The oldest rows, up to the maximum of one call. `last`: the id of the last row, 0 without rows."""

    last: int
    units: list[str]
    ts_ms: list[int]


def add(connection: sqlite3.Connection, units: Sequence[str], ts_ms: Sequence[int]) -> None:
    """Add units with the times of their first readings, in the caller's transaction. For duplicates the
    earliest time counts. If a unit is added again later, the platform keeps the time that it receives
    first."""
    if len(set(units)) != len(units):
        earliest: dict[str, int] = {}
        for unit, at_ms in zip(units, ts_ms, strict=True):
            earliest[unit] = min(at_ms, earliest.get(unit, at_ms))
        units, ts_ms = list(earliest), list(earliest.values())
    encode = msgspec.json.encode
    for at in range(0, len(units), ROW_UNITS):
        some, times = units[at : at + ROW_UNITS], ts_ms[at : at + ROW_UNITS]
        row = len(some), encode(some).decode(), encode(times).decode()
        connection.execute("INSERT INTO first_readings (count, units, ts_ms) VALUES (?, ?, ?)", row)


def size(connection: sqlite3.Connection) -> int:
    """Number of waiting reports."""
    [found] = connection.execute("SELECT coalesce(sum(count), 0) FROM first_readings").fetchone()
    return int(found)


class Outbox:
    """Sends the reports in the table. A report may be repeated after a crash; the platform counts a unit
    once."""

    def __init__(self, state: StateFile, platform: PlatformApi, confirmed: Callable[[int], None]) -> None:
        """`confirmed` is called with the number of first readings that the platform has just confirmed."""
        self._state, self._platform, self._confirmed = state, platform, confirmed
        self._filled = asyncio.Event()
        self._filled.set()  # an earlier process may have left some
        self._active: dict[str, int] = {}
        self._dead: dict[str, None] = {}

    def notice(self) -> None:
        """Wake `run`: reports were added."""
        self._filled.set()

    def active(self, units: Sequence[str], ts_ms: Sequence[int]) -> None:
        """Report that units were active at these times, with the next batch. Dropped if the platform is
        unavailable for too long."""
        active = self._active
        for unit, at_ms in zip(units, ts_ms, strict=True):
            if len(active) < MAX_ACTIVE_UNITS or unit in active:
                active[unit] = at_ms
                self._dead.pop(unit, None)

    def died(self, unit: str) -> None:
        """Report that the unit died; sent like activity."""
        if len(self._dead) < MAX_ACTIVE_UNITS:
            self._active.pop(unit, None)
            self._dead[unit] = None

    async def run(self) -> None:
        """Send first readings, until cancelled."""
        backoff = Backoff(most_s=15.0)
        away = False
        while True:
            await self._filled.wait()
            self._filled.clear()
            while (waiting := await self._state.hold(_oldest)).last:
                try:
                    unknown = await self._platform.first_readings(waiting.units, waiting.ts_ms)
                except PlatformAway as error:
                    if not away:
                        away = True
                        log.warning("first readings wait", error=str(error))
                    await asyncio.sleep(backoff.delay_s())
                    continue
                away = False
                backoff.reset()
                if unknown:  # registered when their readings came: the registry has lost them
                    log.error("the platform does not know units that it admitted", units=unknown[:10])
                last = (waiting.last,)
                await self._state.hold(
                    lambda connection, last=last: connection.execute(  # type: ignore[misc]
                        "DELETE FROM first_readings WHERE id <= ?", last
                    )
                )
                self._confirmed(len(waiting.units) - len(unknown))

    async def run_activity(self) -> None:
        """Send activity and deaths, until cancelled. Failed reports are retried, with newer times replacing
        older ones.
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
                batch = dict(islice(self._active.items(), MAX_COLUMN_IDS))
                try:
                    await self._platform.activity(list(batch), list(batch.values()))
                except PlatformAway:
                    break
                for unit, ts_ms in batch.items():
                    if self._active.get(unit) == ts_ms:
                        del self._active[unit]


def _oldest(connection: sqlite3.Connection) -> _Waiting:
    last, units, times = 0, list[str](), list[int]()
    for id_, count, ids, ts_ms in connection.execute("SELECT * FROM first_readings ORDER BY id"):
        if units and len(units) + count > MAX_COLUMN_IDS:
            break
        last = id_
        try:
            of_row, times_of_row = _list_of_ids(ids), _list_of_times(ts_ms)
            if len(of_row) != len(times_of_row):
                raise ValueError(f"{len(times_of_row)} times")
        except ValueError as error:  # salvaged from a damaged file; later readings report these units again
            log.error("first readings cannot be read", count=count, error=str(error))
            continue
        units += of_row
        times += times_of_row
    return _Waiting(last, units, times)
