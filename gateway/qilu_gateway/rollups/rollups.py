"""Roll-ups of durable readings, so that no dashboard has to read every series: `fleet`, a class's key signals
per place, minute and hour (`class_rollups.py`), and `alarm`, a breach of a limit from begin to end
(`alarms.py`).

Minutes are minutes of event time. The rows of a minute are held until it closes: nothing has arrived for it
for HOLD_S, and its class is LATE_MINUTES past its end (or nothing has arrived for IDLE_S, as at the end of a
run, and the class is not about to reach it). Most units of a class determine its position, not the one whose
clock is furthest ahead. A closed minute is summed exactly (`sums.py`), each unit and time once however often
it arrived. Its points are written and added to those of its hour. Readings for a closed minute are counted as
late and not rolled up.

A clean stop writes the open minutes as they are and saves their rows, so that the next start continues them.
A crash loses the rows of the open minutes from the roll-ups and nothing else: readings are in the store
before they come here."""

from __future__ import annotations

import asyncio
import math
import sqlite3
import time
import zlib
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Protocol
from zipfile import BadZipFile

import msgspec
import numpy as np
import structlog
from numpy.typing import NDArray
from qilu_contract.catalogue.classes import CATALOGUE
from qilu_contract.catalogue.generic import GENERIC
from qilu_contract.columns import Columns, Rows, Series, grown
from qilu_contract.errors import Reason, Retryable
from qilu_contract.storage import Point
from qilu_contract.wire.clock import wall_ms
from qilu_stores.hours import Hours

from qilu_gateway.rollups import alarms
from qilu_gateway.rollups.alarms import Alarms, Heard
from qilu_gateway.rollups.class_rollups import ClassRollup, Cut
from qilu_gateway.statefile import StateFile
from qilu_gateway.write.store_gate import Refused

log = structlog.get_logger()

SCHEMA = "CREATE TABLE IF NOT EXISTS rollup (name TEXT PRIMARY KEY, body BLOB NOT NULL);" + alarms.SCHEMA

_UNREADABLE = (
    ValueError,
    KeyError,
    TypeError,
    EOFError,
    OSError,
    BadZipFile,
    zlib.error,
    msgspec.MsgspecError,
)
"""Exceptions raised by a damaged numpy archive or a damaged message."""
_HOURS = "hours/"
"""Key prefix of a class's hours."""
_WAITING = "waiting"
"""Key of the points that a stop left unwritten."""
SWEEP_S = 2.0
MAX_ROWS = 2_000_000
"""Maximum number of rows held, about 80 bytes each; beyond it, the oldest minutes close early."""
MAX_WAITING = 200_000
"""Maximum number of points that wait for an unavailable store; beyond it, the oldest are dropped and the loss
is logged."""
WRITE_POINTS = 5_000
FINISH_S = 6.0
"""Deadline of `finish`. An accelerated run ends with an hour of open minutes. Together with the drain before
it, this is less than the ten seconds after which containers are killed."""


@dataclass(slots=True)
class Tally:
    """Counts since the start: readings rolled up, late for their minute, and dropped at a bound."""

    rolled: int = 0
    late: int = 0
    left_out: int = 0
    points_dropped: int = 0


class Writer(Protocol):
    """The part of the store gate that roll-ups need."""

    async def write_good(self, points: Sequence[Point]) -> Sequence[Refused]:
        """Write points; returns those that the store rejects, with the reason. Raises Retryable."""


class Rollups:
    """Roll-ups of all classes. `add_columns` is called with each durable batch; `run` writes the sums."""

    def __init__(self, gateway: str, state: StateFile, store: Writer) -> None:
        self._gateway, self._state, self._store = gateway, state, store
        self._by_class = {name: ClassRollup(name) for name in CATALOGUE}
        self._alarms = Alarms(state, lambda point: self._wait([point]))
        self._waiting: OrderedDict[tuple[object, ...], Point] = OrderedDict()
        """Points that wait, by identity in the store: a newer point replaces one that still waits."""
        self._hours: defaultdict[str, Hours] = defaultdict(Hours)
        """By class, because each class reaches an hour at a different time."""
        self._series: Series | None = None
        """The series that numbers the units."""
        self._number_of: Rows = np.zeros(1, dtype=np.int32)
        """Each unit's number in its class, by its number in the series; 0: none yet."""
        self._summing = asyncio.Lock()
        self._finished = False
        self._refusal = ""
        """Reason of the store's last rejection."""
        self.tally = Tally()

    def add_columns(
        self, columns: Sequence[Columns], repeats: Sequence[NDArray[np.bool_] | None] | None = None
    ) -> None:
        """Add durable points. All columns share one series, in this call and in every other. `repeats`: for
        each of the columns, the mask of points that may repeat earlier ones, as those of a birth or a
        retained message do; of these, points not later than the unit's latest reading before this call are
        skipped.

        Never blocks. Costs about 0.1 microseconds per point."""
        now_s = time.monotonic()
        heard: list[Heard] = []
        for each, repeated in zip(columns, repeats or [None] * len(columns), strict=True):
            if each.measurement == GENERIC:  # nobody knows its ranges and limits
                continue
            rollup = self._by_class.get(each.measurement)
            if rollup is None:
                self.tally.left_out += len(each)
                continue
            units = self._numbers(rollup, each)
            before_ms = rollup.last_ms[units]
            if repeated is not None:
                new = ~repeated | (each.ts_ms > before_ms)
                each, units, before_ms = each.take(new), units[new], before_ms[new]
            heard.append(Heard(each, units, before_ms))
        self._alarms.look(heard)
        self.tally.left_out += self._alarms.left_out
        self._alarms.left_out = 0
        for each, units, _ in heard:
            rollup = self._by_class[each.measurement]
            late = rollup.add(units, each.ts_ms, each.names, each.values, now_s)
            self.tally.late += late
            self.tally.rolled += len(units) - late

    def _numbers(self, rollup: ClassRollup, columns: Columns) -> Rows:
        """The points' units, by their numbers in the class."""
        series, rows = columns.series, columns.rows
        if self._series is None:
            self._series = series
        if series is not self._series:
            raise ValueError("units are numbered by two series")
        self._number_of = grown(self._number_of, len(series))
        units = self._number_of[rows]
        if len(units) and not units.all():
            new = np.unique(rows[units == 0])
            self._number_of[new] = numbers = rollup.number(series, new)
            self._alarms.number(rollup.class_name, series.tag("unit", new).tolist(), numbers, rollup.known)
            units = self._number_of[rows]
        return units

    @property
    def open_alarms(self) -> int:
        return len(self._alarms)

    async def open(self) -> None:
        """Restore the state of the last clean stop. To be called before the first `add_columns`."""

        def read(connection: sqlite3.Connection) -> list[tuple[str, bytes]]:
            found = connection.execute("SELECT name, body FROM rollup").fetchall()
            # Rows are valid for one start only: after a crash they would be stale.
            connection.execute("DELETE FROM rollup")
            return found

        for name, body in await self._state.write(read):
            try:
                if name in self._by_class:
                    self._by_class[name].load(body, time.monotonic())
                elif name.startswith(_HOURS):
                    self._hours[name.removeprefix(_HOURS)].load(body)
                elif name == _WAITING:
                    self._wait(msgspec.msgpack.decode(body, type=list[Point]))
            except _UNREADABLE as error:
                log.error("open minutes in the state file cannot be read", of=name, error=repr(error))
                if name in self._by_class:
                    self._by_class[name] = ClassRollup(name)
        await self._alarms.load()

    async def run(self) -> None:
        """Close minutes and write points until `finish`."""
        while not self._finished:
            await asyncio.sleep(SWEEP_S)
            await self.sweep()

    async def sweep(self, now_s: float | None = None) -> None:
        """Close, sum and write the minutes that are due; an unavailable store is retried later."""
        now_s = time.monotonic() if now_s is None else now_s
        async with self._summing:
            if self._finished:
                return
            await self._close(now_s)
        await self._flush()
        await self._alarms.keep()

    async def _close(self, now_s: float) -> None:
        for rollup in self._by_class.values():
            minutes = rollup.closable(now_s)
            if minutes:
                rows = rollup.cut(minutes)
                self._wait(await asyncio.to_thread(self._sum_up, rollup, rows))
            rollup.merge()
        await self._make_room()
        self._alarms.write_changes()
        own = self._own_point()
        self._wait([own, *self._hours["rollup"].fold([own])])

    async def _make_room(self) -> None:
        """Close the oldest minutes when too many rows are held."""
        while sum(rollup.rows for rollup in self._by_class.values()) > MAX_ROWS:
            rollup = max(self._by_class.values(), key=lambda rollup: rollup.rows)
            rows = rollup.cut(rollup.open_minutes()[:1])
            self._wait(await asyncio.to_thread(self._sum_up, rollup, rows))

    def _sum_up(self, rollup: ClassRollup, cut: Cut, remember: bool = True) -> list[Point]:
        """The points of minutes and of their hours. `remember` is for minutes that are closed for good, so
        that each counts once."""
        minutes = rollup.sum_up(cut, self._gateway, remember)
        # Hourly rows of every enterprise would be written again each minute, and be as many.
        kept = [point for point in minutes if point.tags[0] != "enterprise"]
        return [*minutes, *self._hours[rollup.class_name].fold(kept, remember=remember)]

    def _own_point(self) -> Point:
        tally = self.tally
        fields = {
            "rolled": tally.rolled,
            "late": tally.late,
            "left_out": tally.left_out,
            "held": sum(rollup.rows for rollup in self._by_class.values()),
            "dropped": tally.points_dropped,
            "alarms_open": self.open_alarms,
        }
        return Point("rollup", (self._gateway,), wall_ms(), fields)

    def _wait(self, points: Iterable[Point]) -> None:
        for point in points:
            self._waiting[point[:3]] = _finite(point)
        while len(self._waiting) > MAX_WAITING:
            self._waiting.popitem(last=False)
            if not self.tally.points_dropped:
                log.error("roll-up points are dropped: the store has been unavailable for too long")
            self.tally.points_dropped += 1

    async def _flush(self) -> None:
        while self._waiting:
            batch = list(islice(self._waiting.values(), WRITE_POINTS))
            try:
                refused = await self._store.write_good(batch)
            except Retryable:
                return  # the pipeline reports it; the points wait
            if refused:
                self.tally.points_dropped += len(refused)
                reason = refused[0][1]
                if reason != self._refusal:  # each minute's rows may be rejected for the same reason
                    log.error("the store refuses roll-ups", points=len(refused), error=reason)
                self._refusal = reason
            for point in batch:
                if self._waiting.get(point[:3]) is point:
                    del self._waiting[point[:3]]

    async def finish(self) -> None:
        """Write the open minutes as they are, and save their rows for the next start, within FINISH_S."""
        try:
            async with asyncio.timeout(FINISH_S):
                async with self._summing:
                    await self._close(time.monotonic())
                    for rollup in self._by_class.values():
                        rows = rollup.cut(rollup.open_minutes(), keep=True)
                        self._wait(await asyncio.to_thread(self._sum_up, rollup, rows, False))
                    # Nothing changes from here on, so that the next start continues from the saved state.
                    self._finished = True
                # Save first, so that the next start counts nothing twice, whatever the store does.
                series = self._series or Series()
                self._number_of = grown(self._number_of, len(series))
                bodies = [
                    (name, rollup.dump(series, self._number_of))
                    for name, rollup in self._by_class.items()
                    if rollup.known
                ]
                bodies += [(_HOURS + name, hours.dump()) for name, hours in self._hours.items()]
                bodies.append((_WAITING, msgspec.msgpack.encode(list(self._waiting.values()))))
                await self._state.write(
                    lambda connection: connection.executemany("REPLACE INTO rollup VALUES (?, ?)", bodies)
                )
                await self._alarms.keep()
                await self._flush()
        except (sqlite3.OperationalError, OSError) as error:
            log.warning("the open minutes are not in the roll-ups", error=repr(error))


def _finite(point: Point) -> Point:
    """The point without sums that overflow a float, because no store accepts infinity."""
    if all(map(math.isfinite, point.fields.values())):
        return point
    return point._replace(fields={name: each for name, each in point.fields.items() if math.isfinite(each)})


def dead_letter_points(gateway: str, by_reason: Counter[Reason], ts_ms: int) -> list[Point]:
    """Points of refused readings since the start, for every reason including those with 0: otherwise the
    first refusal would not show as an increase."""
    return [
        Point("dead_letter", (gateway, str(reason)), ts_ms, {"readings": by_reason[reason]})
        for reason in Reason
    ]
