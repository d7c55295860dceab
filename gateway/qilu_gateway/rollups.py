"""Roll-ups of what the gateway has made durable, so that no dashboard has to read every series: `fleet`, a
minute of a class's key signals in a place, and `alarm`, a breach of a limit from its begin to its end.

A minute is one of event time. Its rows are held until it closes: nothing has come for it for HOLD_S, and the
class's newest reading is LATE_MS past its end (or nothing has come for IDLE_S, as at the end of a run).
Then it is summed up exactly, each unit and time once however often they came, and its points are written.
What comes for a closed minute is counted as late and rolled up no more. A clean stop writes the open
minutes as they stand and keeps their rows, so that the next start goes on with them; a crash loses the rows
of the open minutes from the roll-ups, and nothing else: readings themselves are in the store before they
come here."""

from __future__ import annotations

import asyncio
import io
import sqlite3
import time
from array import array
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec
import numpy as np
import structlog
from numpy.typing import NDArray
from qilu_contract.catalogue import CATALOGUE
from qilu_contract.clock import wall_ms
from qilu_contract.errors import Reason, Retryable, StoreError
from qilu_contract.limits import Limit, alarm_limits
from qilu_contract.places import PROVINCE, city_of
from qilu_contract.rollups import BIN_FIELDS, BINS, KEY_SIGNALS, LEVELS, MINUTE_MS, is_cumulative
from qilu_contract.storage import Point

from qilu_gateway.statefile import StateFile

log = structlog.get_logger()

SCHEMA = """
CREATE TABLE IF NOT EXISTS rollup (name TEXT PRIMARY KEY, body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS alarm (unit TEXT, signal TEXT, body BLOB NOT NULL, PRIMARY KEY (unit, signal))
    WITHOUT ROWID;
"""

LATE_MS = 2 * MINUTE_MS
"""So far behind the newest reading of its class a reading may come and be rolled up."""
HOLD_S = 30.0
"""A minute that something came for so lately stays open: a simulation at speed passes LATE_MS in no time."""
IDLE_S = 120.0
SWEEP_S = 2.0
MAX_ROWS = 2_000_000
"""Rows held, about 80 bytes each; beyond, the oldest minutes close early."""
MAX_UNITS = 4_000_000
"""Units told apart, about 150 bytes each; beyond, new ones are not rolled up."""
MAX_CLOSED = 10_080
"""Closed minutes remembered for each class (a week); everything before the oldest counts as closed."""
MAX_ALARMS = 200_000
MAX_WAITING = 200_000
"""Points that wait for a store that is away; beyond, the oldest are dropped, and said so."""
WRITE_POINTS = 5_000
FINISH_S = 3.0
MAX_RATIO = 100.0

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


class Alarm(msgspec.Struct):
    """An open alarm, as it is kept in the state file too."""

    class_name: str
    tags: tuple[str, ...]
    signal: str
    since_ms: int
    value: float
    worst: float


@dataclass(slots=True)
class Tally:
    """Since the start: readings rolled up, late for their minute, left out at a bound."""

    rolled: int = 0
    late: int = 0
    left_out: int = 0
    points_dropped: int = 0


@dataclass(frozen=True, slots=True)
class Cut:
    """Rows to be summed up, with what is needed for it: a thread can work on it while units are added."""

    units: Ints
    times: Ints
    values: Floats
    codes: dict[str, list[str]]
    places: dict[str, Ints]
    """For each level the place of every unit, as an index into its codes."""
    known: int
    """Units."""


class Fleet:
    """The rows of one class. `add` runs in the event loop; `close` may run in a thread, one call at a
    time."""

    def __init__(self, class_name: str) -> None:
        self.class_name = class_name
        self.signals = KEY_SIGNALS[class_name]
        self.names = tuple(signal.name for signal in self.signals)
        self.units: dict[str, int] = {}
        self.last_ms = array("q")
        self._places: dict[str, dict[str, int]] = {level: {} for level in LEVELS}
        self._place_of: dict[str, array[int]] = {level: array("q") for level in LEVELS}
        self._new_units: list[int] = []
        self._new_times: list[int] = []
        self._new_values: list[list[float]] = []
        width = len(self.signals)
        self._held: tuple[Ints, Ints, Floats] = (_no_ints(), _no_ints(), np.empty((0, width)))
        self._touched: dict[int, float] = {}
        """When something came for each open minute."""
        self._closed: set[int] = set()
        self._floor = -1
        """Minutes up to this one are closed."""
        self._newest_ms = 0
        self._registers: dict[int, tuple[Ints, Floats]] = {}
        """For each cumulative signal (by its place): time and value of every unit's last reading."""

    @property
    def rows(self) -> int:
        return len(self._held[0]) + len(self._new_units)

    def unit(self, tags: tuple[str, ...]) -> int | None:
        """The unit's number, given at first sight; None beyond MAX_UNITS."""
        number = self.units.get(tags[4])
        if number is None:
            number = len(self.units)
            if number >= MAX_UNITS:
                return None
            self.units[tags[4]] = number
            self.last_ms.append(0)
            city, county, industry = tags[:3]
            for level, code in zip(LEVELS, (PROVINCE, city, county, industry), strict=True):
                known = self._places[level]
                self._place_of[level].append(known.setdefault(code, len(known)))
        return number

    def is_closed(self, minute: int) -> bool:
        return minute <= self._floor or minute in self._closed

    def add(self, unit: int, ts_ms: int, values: list[float], now_s: float) -> None:
        """A row of a minute that is not closed."""
        self._new_units.append(unit)
        self._new_times.append(ts_ms)
        self._new_values.append(values)
        self._touched[ts_ms // MINUTE_MS] = now_s
        self._newest_ms = max(self._newest_ms, ts_ms)

    def closable(self, now_s: float) -> list[int]:
        """Minutes to be closed now, oldest first."""
        passed = (self._newest_ms - LATE_MS) // MINUTE_MS
        return sorted(
            minute
            for minute, touched_s in self._touched.items()
            if (minute < passed and now_s - touched_s >= HOLD_S) or now_s - touched_s >= IDLE_S
        )

    def open_minutes(self) -> list[int]:
        return sorted(self._touched)

    def take_in(self) -> None:
        """Make columns of the rows that came."""
        if not self._new_units:
            return
        units, times, values = self._held
        self._held = (
            np.concatenate((units, np.array(self._new_units, dtype=np.int64))),
            np.concatenate((times, np.array(self._new_times, dtype=np.int64))),
            np.concatenate((values, np.array(self._new_values, dtype=np.float64))),
        )
        self._new_units, self._new_times, self._new_values = [], [], []

    def cut(self, minutes: list[int], keep: bool = False) -> Cut:
        """The rows of some minutes, which are closed by it, unless `keep`."""
        self.take_in()
        units, times, values = self._held
        mine = np.isin(times // MINUTE_MS, np.array(minutes, dtype=np.int64))
        if not keep:
            self._held = (units[~mine], times[~mine], values[~mine])
            for minute in minutes:
                del self._touched[minute]
            self._closed.update(minutes)
            if len(self._closed) > MAX_CLOSED:
                oldest = sorted(self._closed)[: len(self._closed) - MAX_CLOSED]
                self._floor = max(self._floor, oldest[-1])
                self._closed.difference_update(oldest)
        return Cut(
            units[mine],
            times[mine],
            values[mine],
            {level: list(codes) for level, codes in self._places.items()},
            {level: np.array(places, dtype=np.int64) for level, places in self._place_of.items()},
            len(self.units),
        )

    def sum_up(self, cut: Cut, gateway: str, remember: bool = True) -> list[Point]:
        """The points of the rows' minutes. `remember` keeps the meters' last values for the minutes to
        come."""
        units, times, values = _once(cut.units, cut.times, cut.values)
        if not len(units):
            return []
        minutes = times // MINUTE_MS
        columns = [
            self._added(place, units, times, values[:, place], cut.known, remember)
            if is_cumulative(signal)
            else values[:, place]
            for place, signal in enumerate(self.signals)
        ]
        points: list[Point] = []
        for level in LEVELS:
            codes, places = cut.codes[level], cut.places[level][units]
            # The industries' rows say only how many units there are: a whole set would cost as much as
            # counties.
            wanted = 1 if level == "industry" else len(self.signals)
            keys, which = np.unique(minutes * len(codes) + places, return_inverse=True)
            for place in range(wanted):
                column = columns[place]
                points += self._rows(level, codes, keys, which, units, cut.known, column, place, gateway)
        return points

    def _rows(
        self,
        level: str,
        codes: list[str],
        keys: Ints,
        which: Ints,
        units: Ints,
        known: int,
        column: Floats,
        place: int,
        gateway: str,
    ) -> Iterator[Point]:
        there = ~np.isnan(column)
        column, which, units = column[there], which[there], units[there]
        if not len(column):
            return
        size = len(keys)
        counts = np.bincount(which, minlength=size)
        sums = np.bincount(which, weights=column, minlength=size)
        order = np.argsort(which, kind="stable")
        starts = np.flatnonzero(np.diff(which[order], prepend=-1))
        lows = dict(
            zip(
                which[order][starts].tolist(),
                np.minimum.reduceat(column[order], starts).tolist(),
                strict=True,
            )
        )
        highs = np.maximum.reduceat(column[order], starts).tolist()
        seen = np.unique(which * known + units) // known
        different = np.bincount(seen, minlength=size)
        signal = self.signals[place]
        bins = None
        if not is_cumulative(signal):
            scaled = (column - signal.low) / (signal.high - signal.low) * BINS
            steps = np.clip(scaled, 0, BINS - 1).astype(np.int64)
            bins = np.bincount(which * BINS + steps, minlength=size * BINS).reshape(size, BINS)
        for (row, low), high in zip(lows.items(), highs, strict=True):
            minute, code = divmod(int(keys[row]), len(codes))
            fields: dict[str, float | int] = {
                "units": int(different[row]),
                "n": int(counts[row]),
                "sum": round(float(sums[row]), 6),
                "min": low,
                "max": high,
            }
            if bins is not None:
                fields.update(zip(BIN_FIELDS, bins[row].tolist(), strict=True))
            place_code = codes[code]
            city = city_of(place_code) if level in ("city", "county") else PROVINCE
            tags = (level, place_code, city, self.class_name, signal.name, gateway)
            yield Point("fleet", tags, minute * MINUTE_MS, fields)

    def _added(
        self, place: int, units: Ints, times: Ints, column: Floats, known_units: int, remember: bool
    ) -> Floats:
        """What a meter added since the unit's reading before; NaN where that is not known, or the meter began
        anew. Rows are ordered by unit and time."""
        then, register = self._registers.get(place, (_no_ints(), np.empty(0)))
        more = known_units - len(then)
        then = np.concatenate((then, np.full(more, -1, dtype=np.int64)))
        register = np.concatenate((register, np.full(more, np.nan)))
        added = np.full(len(column), np.nan)
        rows = np.flatnonzero(~np.isnan(column))
        if len(rows):
            unit, value = units[rows], column[rows]
            first = np.diff(unit, prepend=-1) != 0
            before = np.where(first, register[unit], np.roll(value, 1))
            known = ~first | ((then[unit] >= 0) & (then[unit] < times[rows]))
            step = value - before
            good = known & (step >= 0)
            added[rows[good]] = step[good]
            last = np.append(np.flatnonzero(first)[1:] - 1, len(rows) - 1)
            newer = times[rows[last]] > then[unit[last]]
            then[unit[last][newer]] = times[rows[last]][newer]
            register[unit[last][newer]] = value[last][newer]
        if remember:
            self._registers[place] = (then, register)
        return added

    def dump(self) -> bytes:
        """Everything that a new start needs: the open minutes' rows, which minutes are closed, the meters."""
        self.take_in()
        units, times, values = self._held
        arrays: dict[str, NDArray[np.generic]] = {
            "names": np.array(self.names),
            "known": np.array(list(self.units)),
            "units": units,
            "times": times,
            "values": values,
            "closed": np.array(sorted(self._closed), dtype=np.int64),
            "heads": np.array([self._floor, self._newest_ms], dtype=np.int64),
            "last_ms": np.array(self.last_ms, dtype=np.int64),
        }
        for level in LEVELS:
            arrays[f"codes_{level}"] = np.array(list(self._places[level]))
            arrays[f"places_{level}"] = np.array(self._place_of[level], dtype=np.int64)
        for place, (then, register) in self._registers.items():
            arrays[f"then_{place}"], arrays[f"register_{place}"] = then, register
        body = io.BytesIO()
        np.savez(body, **arrays)  # type: ignore[arg-type]  # the stub takes the flag allow_pickle for a name
        return body.getvalue()

    def load(self, body: bytes, now_s: float) -> None:
        """Go on where `dump` was; a dump of another catalogue is left alone."""
        with np.load(io.BytesIO(body), allow_pickle=False) as arrays:
            if tuple(arrays["names"].tolist()) != self.names:
                return
            self.units = {unit: number for number, unit in enumerate(arrays["known"].tolist())}
            self._held = (arrays["units"], arrays["times"], arrays["values"])
            self._closed = set(arrays["closed"].tolist())
            self._floor, self._newest_ms = arrays["heads"].tolist()
            self.last_ms = array("q", arrays["last_ms"].tolist())
            for level in LEVELS:
                codes = arrays[f"codes_{level}"].tolist()
                self._places[level] = {code: number for number, code in enumerate(codes)}
                self._place_of[level] = array("q", arrays[f"places_{level}"].tolist())
            for place in range(len(self.signals)):
                if f"then_{place}" in arrays:
                    self._registers[place] = (arrays[f"then_{place}"], arrays[f"register_{place}"])
            self._touched = dict.fromkeys((self._held[1] // MINUTE_MS).tolist(), now_s)


class Writer(Protocol):
    """Whatever takes points: a store, or the gate before it."""

    async def write(self, points: Sequence[Point]) -> None:
        """Raises Retryable, or another StoreError when it refuses them."""


class Rollups:
    """`add` is called with the points of each batch once they are durable; `run` writes what is summed up."""

    def __init__(self, gateway: str, state: StateFile, store: Writer) -> None:
        self._gateway, self._state, self._store = gateway, state, store
        self._fleets = {name: Fleet(name) for name in CATALOGUE}
        self._limits: dict[str, list[tuple[str, Limit]]] = {
            name: list(alarm_limits(name).items()) for name in CATALOGUE
        }
        self._alarms: dict[tuple[str, str], Alarm] = {}
        self._changed: dict[tuple[str, str], Alarm] = {}
        """Open alarms whose worst value the store does not have yet."""
        self._to_keep: dict[tuple[str, str], Alarm | None] = {}
        """Alarms that have begun or ended (None) since the state file was told."""
        self._waiting: deque[Point] = deque()
        self.tally = Tally()

    def add(self, points: Iterable[Point]) -> None:
        """Never waits. Costs some two microseconds a point."""
        now_s = time.monotonic()
        nan = float("nan")
        tally = self.tally
        for class_name, tags, ts_ms, values in points:
            fleet = self._fleets.get(class_name)
            unit = None if fleet is None else fleet.unit(tags)
            if fleet is None or unit is None:
                tally.left_out += 1
                continue
            # A unit's readings come in order, or are repeated: only what is new can begin or end an alarm.
            if ts_ms > fleet.last_ms[unit]:
                fleet.last_ms[unit] = ts_ms
                for signal, limit in self._limits[class_name]:
                    value = values.get(signal)
                    if value is not None:
                        holds = not limit.while_above_0 or values.get(limit.while_above_0, 0) > 0
                        self._judge(class_name, tags, signal, limit, ts_ms, float(value), holds)
            if fleet.is_closed(ts_ms // MINUTE_MS):
                tally.late += 1
                continue
            tally.rolled += 1
            fleet.add(unit, ts_ms, [float(values.get(name, nan)) for name in fleet.names], now_s)

    def _judge(
        self,
        class_name: str,
        tags: tuple[str, ...],
        signal: str,
        limit: Limit,
        ts_ms: int,
        value: float,
        holds: bool,
    ) -> None:
        key = (tags[4], signal)
        alarm = self._alarms.get(key)
        if alarm is None:
            if not holds or not limit.breached(value):
                return
            if len(self._alarms) >= MAX_ALARMS:
                self.tally.left_out += 1
                return
            alarm = self._alarms[key] = Alarm(class_name, tags, signal, ts_ms, value, value)
            self._changed[key] = self._to_keep[key] = alarm
            return
        if not holds or limit.kept(value):
            del self._alarms[key]
            self._changed.pop(key, None)
            self._to_keep[key] = None
            self._wait(self._alarm_point(alarm, ended_ms=ts_ms))
        elif value > alarm.worst if limit.kind == "above" else value < alarm.worst:
            alarm.worst = value
            self._changed[key] = alarm

    def _alarm_point(self, alarm: Alarm, ended_ms: int | None = None) -> Point:
        limit = alarm_limits(alarm.class_name)[alarm.signal]
        over, under = (alarm.worst, limit.limit) if limit.kind == "above" else (limit.limit, alarm.worst)
        ratio = min(over / under, MAX_RATIO) if over > 0 and under > 0 else 1.0
        fields = {
            "open": 1 if ended_ms is None else 0,
            "value": alarm.value,
            "limit": limit.limit,
            "worst": alarm.worst,
            "ratio": round(ratio, 4),
            "duration_s": 0.0 if ended_ms is None else (ended_ms - alarm.since_ms) / 1000,
        }
        return Point("alarm", (PROVINCE, *alarm.tags, alarm.class_name, alarm.signal), alarm.since_ms, fields)

    @property
    def open_alarms(self) -> int:
        return len(self._alarms)

    async def open(self) -> None:
        """Go on where the last clean stop was. Before the first `add`."""

        def read(connection: sqlite3.Connection) -> tuple[list[tuple[str, bytes]], list[tuple[bytes]]]:
            fleets = connection.execute("SELECT name, body FROM rollup").fetchall()
            # Rows are good for one start: after a crash they would be old. Open alarms stay.
            connection.execute("DELETE FROM rollup")
            return fleets, connection.execute("SELECT body FROM alarm").fetchall()

        fleets, alarms = await self._state.write(read)
        for name, body in fleets:
            if name in self._fleets:
                self._fleets[name].load(body, time.monotonic())
        for (body,) in alarms:
            alarm = msgspec.msgpack.decode(body, type=Alarm)
            if alarm.signal in alarm_limits(alarm.class_name):
                self._alarms[alarm.tags[4], alarm.signal] = alarm

    async def run(self) -> None:
        """Close minutes and write points, for ever."""
        while True:
            await asyncio.sleep(SWEEP_S)
            await self.sweep()

    async def sweep(self, now_s: float | None = None) -> None:
        """One round: what can be closed is summed up and written; a store that is away is tried again
        later."""
        now_s = time.monotonic() if now_s is None else now_s
        for fleet in self._fleets.values():
            minutes = fleet.closable(now_s)
            if minutes:
                rows = fleet.cut(minutes)
                for point in await asyncio.to_thread(fleet.sum_up, rows, self._gateway):
                    self._wait(point)
            fleet.take_in()
        await self._make_room()
        for alarm in self._changed.values():
            self._wait(self._alarm_point(alarm))
        self._changed = {}
        self._wait(self._own_point())
        await self._flush()
        await self._keep_alarms()

    async def _make_room(self) -> None:
        """Close the oldest minutes when too many rows are held."""
        while sum(fleet.rows for fleet in self._fleets.values()) > MAX_ROWS:
            fleet = max(self._fleets.values(), key=lambda fleet: fleet.rows)
            rows = fleet.cut(fleet.open_minutes()[:1])
            for point in await asyncio.to_thread(fleet.sum_up, rows, self._gateway):
                self._wait(point)

    def _own_point(self) -> Point:
        tally = self.tally
        fields = {
            "rolled": tally.rolled,
            "late": tally.late,
            "left_out": tally.left_out,
            "held": sum(fleet.rows for fleet in self._fleets.values()),
            "alarms_open": self.open_alarms,
        }
        return Point("rollup", (self._gateway,), wall_ms(), fields)

    def _wait(self, point: Point) -> None:
        if len(self._waiting) >= MAX_WAITING:
            self._waiting.popleft()
            if not self.tally.points_dropped:
                log.error("roll-up points are dropped: the store has been away for too long")
            self.tally.points_dropped += 1
        self._waiting.append(point)

    async def _flush(self) -> None:
        while self._waiting:
            batch = [self._waiting[place] for place in range(min(WRITE_POINTS, len(self._waiting)))]
            try:
                await self._store.write(batch)
            except Retryable:
                return  # the pipeline says so; the points wait
            except StoreError as error:
                log.error("the store refuses roll-ups", error=str(error))
            for point in batch:
                if self._waiting and self._waiting[0] is point:
                    self._waiting.popleft()

    async def _keep_alarms(self) -> None:
        if not self._to_keep:
            return
        changes, self._to_keep = self._to_keep, {}
        begun = [(*key, msgspec.msgpack.encode(alarm)) for key, alarm in changes.items() if alarm is not None]
        ended = [key for key, alarm in changes.items() if alarm is None]

        def work(connection: sqlite3.Connection) -> None:
            connection.executemany("REPLACE INTO alarm VALUES (?, ?, ?)", begun)
            connection.executemany("DELETE FROM alarm WHERE unit = ? AND signal = ?", ended)

        try:
            await self._state.write(work)
        except sqlite3.OperationalError:  # the disk is full, or away: the pipeline says so
            self._to_keep = changes | self._to_keep

    async def finish(self) -> None:
        """Write the open minutes as they stand, and keep their rows for the next start; within FINISH_S."""
        try:
            async with asyncio.timeout(FINISH_S):
                await self.sweep()
                for fleet in self._fleets.values():
                    rows = fleet.cut(fleet.open_minutes(), keep=True)
                    for point in fleet.sum_up(rows, self._gateway, remember=False):
                        self._wait(point)
                await self._flush()
                bodies = [(name, fleet.dump()) for name, fleet in self._fleets.items() if fleet.units]
                await self._state.write(
                    lambda connection: connection.executemany("REPLACE INTO rollup VALUES (?, ?)", bodies)
                )
        except (TimeoutError, sqlite3.OperationalError) as error:
            log.warning("the open minutes are not in the roll-ups", error=repr(error))


def dead_letter_points(gateway: str, by_reason: Counter[Reason], ts_ms: int) -> list[Point]:
    """Refused readings since the start, for every reason: after no zero a first refusal would be no
    growth."""
    return [
        Point("dead_letter", (gateway, str(reason)), ts_ms, {"readings": by_reason[reason]})
        for reason in Reason
    ]


def _no_ints() -> Ints:
    return np.empty(0, dtype=np.int64)


def _once(units: Ints, times: Ints, values: Floats) -> tuple[Ints, Ints, Floats]:
    """Rows by unit and time, each pair once: as in the store, a later row's values replace an earlier one's,
    and what it does not hold stays."""
    order = np.lexsort((times, units))  # stable: what came later stands later
    units, times, values = units[order], times[order], values[order]
    again = np.zeros(len(units), dtype=np.bool_)
    again[1:] = (units[1:] == units[:-1]) & (times[1:] == times[:-1])
    for row in np.flatnonzero(again):  # few: rebirths, and what the broker delivered twice
        gaps = np.isnan(values[row])
        values[row][gaps] = values[row - 1][gaps]
    last = np.ones(len(units), dtype=np.bool_)
    last[:-1] = ~again[1:]
    return units[last], times[last], values[last]
