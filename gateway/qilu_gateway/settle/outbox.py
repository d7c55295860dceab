"""First readings that the platform does not know of yet: durable before their messages are acknowledged, and
gone only when the platform has confirmed them. Beside them, best effort, the reports that a unit is active.
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
"""The most units in one row: what a damaged page may cost."""
SCHEMA = """
CREATE TABLE IF NOT EXISTS first_readings
    (id INTEGER PRIMARY KEY, count INTEGER NOT NULL, units TEXT NOT NULL, ts_ms TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS outbox (unit TEXT PRIMARY KEY, ts_ms INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO first_readings (count, units, ts_ms)
    SELECT count(*), json_group_array(unit), json_group_array(ts_ms)
    FROM (SELECT unit, ts_ms, (row_number() OVER () - 1) / 5000 AS part FROM outbox) GROUP BY part;
DELETE FROM outbox;
"""
"""Rows of many units: ids and times as JSON arrays. Earlier versions had one for each unit, in `outbox`."""
ACTIVITY_EVERY_S = 2.0
MAX_ACTIVE_UNITS = 200_000
"""Units whose activity waits to be reported; above it new ones are forgotten until their next hour."""


_list_of_ids = msgspec.json.Decoder(list[str]).decode
_list_of_times = msgspec.json.Decoder(list[int]).decode


class _Waiting(NamedTuple):
    """The oldest rows, as many as one call may hold. `last`: the id of the last of them, 0 without any."""

    last: int
    units: list[str]
    ts_ms: list[int]


def add(connection: sqlite3.Connection, units: Sequence[str], ts_ms: Sequence[int]) -> None:
    """Units with the time of their first reading, in the caller's transaction; of a unit that is there twice
    the earliest one. Of one that is added again later the platform keeps the time that it hears first."""
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
    """How many reports wait."""
    [found] = connection.execute("SELECT coalesce(sum(count), 0) FROM first_readings").fetchone()
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
                if (
                    unknown
                ):  # registered when their readings came; a registry that lost them cannot count them
                    log.error("the platform does not know units that it admitted", units=unknown[:10])
                last = (waiting.last,)
                await self._state.hold(
                    lambda connection, last=last: connection.execute(  # type: ignore[misc]
                        "DELETE FROM first_readings WHERE id <= ?", last
                    )
                )
                self._confirmed(len(waiting.units) - len(unknown))

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
        except ValueError as error:  # saved from a damaged file; later readings report these units again
            log.error("first readings cannot be read", count=count, error=str(error))
            continue
        units += of_row
        times += times_of_row
    return _Waiting(last, units, times)
