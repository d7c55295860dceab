"""Alarms: detects breaches of limits, tracks open ones, and makes their points."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import msgspec
import numpy as np
import structlog
from numpy.typing import NDArray
from qilu_contract.catalogue.classes import CATALOGUE
from qilu_contract.catalogue.limits import Limit, alarm_limits
from qilu_contract.catalogue.places import PROVINCE
from qilu_contract.columns import Columns, Floats, Ints, Rows, grown
from qilu_contract.storage import Point

from qilu_gateway.admit.units import Tags
from qilu_gateway.statefile import StateFile

log = structlog.get_logger()

SCHEMA = """
CREATE TABLE IF NOT EXISTS alarm (unit TEXT, signal TEXT, body BLOB NOT NULL, PRIMARY KEY (unit, signal))
    WITHOUT ROWID;
"""
MAX_ALARMS = 200_000
MAX_RATIO = 100.0
WHILE_MS = 10 * 60_000
"""Validity of the last value of a limit's `while` signal (assumed)."""

Key = tuple[str, str]
"""Unit id and signal name."""


class Alarm(msgspec.Struct):
    """An open alarm; also its form in the state file."""

    class_name: str
    tags: tuple[str, ...]
    signal: str
    since_ms: int
    value: float
    worst: float

    @property
    def unit(self) -> str:
        return Tags(*self.tags).unit


class Watch:
    """The limits of one class, and the state of its units, by their numbers in the class."""

    def __init__(self, class_name: str) -> None:
        self.limits = list(alarm_limits(class_name).items())
        self.gates = {limit.while_above_0: Gate() for _, limit in self.limits if limit.while_above_0}
        self._names = {signal for signal, _ in self.limits} | self.gates.keys()
        self.alarmed = np.zeros(1, dtype=np.bool_)
        """Units with an open alarm, or with a breach whose delay has not passed."""

    def make_room(self, units: int) -> None:
        self.alarmed = grown(self.alarmed, units + 1)
        for gate in self.gates.values():
            gate.make_room(units)

    def suspects(self, columns: Columns, units: Rows) -> NDArray[np.bool_] | None:
        """Mask of the points that may begin or end an alarm; None if there are none."""
        found = self.alarmed[units]
        for signal, limit in self.limits:
            if signal in columns.names:
                column = columns.column(signal)
                breached = column > limit.limit if limit.kind == "above" else column < limit.limit
                if limit.while_above_0 in columns.names:
                    gate = columns.column(limit.while_above_0)
                    breached &= ~(gate <= 0)
                found |= breached
        return found if found.any() else None

    def readings(self, columns: Columns, units: Rows, rows: NDArray[np.intp]) -> Iterator[_Reading]:
        """Iterate over some of the points, with the signals that have limits."""
        names = [name for name in columns.names if name in self._names]
        values = columns.values[rows][:, [columns.names.index(name) for name in names]]
        for ts_ms, unit, number, found, row in zip(
            columns.ts_ms[rows].tolist(),
            columns.series.tag("unit", columns.rows[rows]).tolist(),
            units[rows].tolist(),
            values.tolist(),
            rows.tolist(),
            strict=True,
        ):
            there = {name: value for name, value in zip(names, found, strict=True) if value == value}
            yield _Reading(ts_ms, unit, number, there, columns, row)


class Gate:
    """The `while` signal of a limit: for each unit the time of its last value, and whether it was above 0."""

    def __init__(self) -> None:
        self._at_ms: Ints = np.zeros(1, dtype=np.int64)
        """Times (ms, UTC); 0: never."""
        self._open = np.zeros(1, dtype=np.bool_)

    def make_room(self, units: int) -> None:
        self._at_ms, self._open = grown(self._at_ms, units + 1), grown(self._open, units + 1)

    def hear(self, units: Rows, times: Ints, values: Floats) -> None:
        """Take values; for equal unit and time the last one wins."""
        there = ~np.isnan(values)
        units, times, values = units[there], times[there], values[there]
        order = np.argsort(times, kind="stable")
        order = order[times[order] >= self._at_ms[units[order]]]
        units = units[order]
        self._at_ms[units], self._open[units] = times[order], values[order] > 0

    def set(self, unit: int, ts_ms: int, value: float) -> None:
        self._at_ms[unit], self._open[unit] = ts_ms, value > 0

    def is_open(self, unit: int, ts_ms: int) -> bool | None:
        """Whether the signal was above 0; None if unknown."""
        return bool(self._open[unit]) if ts_ms - int(self._at_ms[unit]) < WHILE_MS else None


class Heard(NamedTuple):
    """Points of a class in the order of arrival, with their units' numbers in the class, and the time of the
    latest earlier reading of each unit (ms; 0: none)."""

    columns: Columns
    units: Rows
    before_ms: Ints


class _Reading(NamedTuple):
    ts_ms: int
    unit: str
    number: int
    """The unit's number in the class."""
    values: dict[str, float]
    columns: Columns
    row: int
    """Row of the columns."""


class Alarms:
    """Alarms of all classes. `look` is called with new readings; `write` receives the points."""

    def __init__(self, state: StateFile, write: Callable[[Point], None]) -> None:
        self._state, self._write = state, write
        self.watches = {name: Watch(name) for name in CATALOGUE}
        self._open: dict[Key, Alarm] = {}
        self._since: dict[Key, tuple[int, float]] = {}
        """For limits with a delay: since when (ms) the value has been past the limit without an open alarm,
        with the worst value since; or inside the limit with an open alarm. Lost on a restart."""
        self._units: dict[str, int] = {}
        """Number of open alarms, by unit."""
        self._breached: Counter[str] = Counter()
        """Number of breaches whose delay has not passed, by unit."""
        self._changed: dict[Key, Alarm] = {}
        """Open alarms whose worst value is not written to the store yet."""
        self._to_keep: dict[Key, Alarm | None] = {}
        """Alarms that began or ended (None) since the last save to the state file."""
        self.left_out = 0
        """Breaches dropped beyond MAX_ALARMS."""

    def __len__(self) -> int:
        return len(self._open)

    def number(self, class_name: str, ids: Sequence[str], units: Rows, size: int) -> None:
        """Register the numbers of units, given by id; `size` is the highest number of all."""
        watch = self.watches[class_name]
        watch.make_room(size)
        if self._units or self._breached:
            watch.alarmed[units] = [unit in self._units or unit in self._breached for unit in ids]

    def look(self, heard: Sequence[Heard]) -> None:
        """Begin and end alarms from readings. Readings of a unit arrive in order or repeated: those older
        than its latest are ignored. Readings of a unit in several columns are processed in the order of their
        times."""
        suspects: dict[str, NDArray[np.bool_]] = {}
        """By class and unit, whether one of these points may begin or end an alarm."""
        for columns, units, _ in heard:
            found = self.watches[columns.measurement].suspects(columns, units)
            if found is not None:
                watch = self.watches[columns.measurement]
                of_class = suspects.setdefault(columns.measurement, np.zeros_like(watch.alarmed))
                of_class[units[found]] = True
        to_judge: list[_Reading] = []
        for columns, units, before_ms in heard:
            watch = self.watches[columns.measurement]
            new = columns.ts_ms >= before_ms
            if columns.measurement in suspects:
                suspected = suspects[columns.measurement][units]
                to_judge += _newer(watch.readings(columns, units, np.flatnonzero(suspected & new)))
                new &= ~suspected
            for name, gate in watch.gates.items():
                if name in columns.names:
                    gate.hear(units[new], columns.ts_ms[new], columns.column(name)[new])
        for reading in sorted(to_judge, key=lambda each: each.ts_ms):
            self._judge(reading)

    def _judge(self, reading: _Reading) -> None:
        """Begin or end alarms from one reading."""
        ts_ms, unit, number, values, columns, row = reading
        watch = self.watches[columns.measurement]
        for name, gate in watch.gates.items():
            if name in values:
                gate.set(number, ts_ms, values[name])
        for signal, limit in watch.limits:
            value = values.get(signal)
            on = watch.gates.get(limit.while_above_0)
            holds = on is None or on.is_open(number, ts_ms)
            key = (unit, signal)
            alarm = self._open.get(key)
            if alarm is not None:
                if holds is False:
                    self._end(alarm, ts_ms)
                elif value is not None:
                    self._judge_open(alarm, limit, ts_ms, value)
            elif holds is False or (value is not None and not limit.breached(value)):
                self._forget_breach(key)
            elif holds and value is not None:
                since_ms, worst = self._since.get(key, (ts_ms, value))
                worst = max(worst, value) if limit.kind == "above" else min(worst, value)
                if ts_ms - since_ms >= limit.delay_s * 1000:
                    self._forget_breach(key)
                    tags = columns.series.tags(int(columns.rows[row]))
                    self._begin(Alarm(columns.measurement, tags, signal, since_ms, value, worst))
                else:
                    self._remember_breach(key, since_ms, worst)
        watch.alarmed[number] = unit in self._units or unit in self._breached

    def _judge_open(self, alarm: Alarm, limit: Limit, ts_ms: int, value: float) -> None:
        key = (alarm.unit, alarm.signal)
        if limit.kept(value):
            since_ms, _ = self._since.setdefault(key, (ts_ms, value))
            if ts_ms - since_ms >= limit.delay_s * 1000:
                self._end(alarm, since_ms)
            return
        self._since.pop(key, None)
        if value > alarm.worst if limit.kind == "above" else value < alarm.worst:
            alarm.worst = value
            self._changed[key] = alarm

    def _remember_breach(self, key: Key, since_ms: int, worst: float) -> None:
        """Record a breach that may become an alarm."""
        if key not in self._since:
            self._breached[key[0]] += 1
        self._since[key] = (since_ms, worst)

    def _forget_breach(self, key: Key) -> None:
        if self._since.pop(key, None) is not None:
            self._breached[key[0]] -= 1
            if not self._breached[key[0]]:
                del self._breached[key[0]]

    def _begin(self, alarm: Alarm) -> None:
        if len(self._open) >= MAX_ALARMS:
            self.left_out += 1
            return
        unit = alarm.unit
        key = (unit, alarm.signal)
        self._open[key] = self._changed[key] = self._to_keep[key] = alarm
        self._units[unit] = self._units.get(unit, 0) + 1

    def _end(self, alarm: Alarm, ended_ms: int) -> None:
        unit = alarm.unit
        key = (unit, alarm.signal)
        del self._open[key]
        self._since.pop(key, None)
        self._changed.pop(key, None)
        self._to_keep[key] = None
        self._forget_unit(unit)
        self._write(self._point(alarm, ended_ms=ended_ms))

    def _point(self, alarm: Alarm, ended_ms: int | None = None) -> Point:
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

    def _forget_unit(self, unit: str) -> None:
        """Decrement the number of open alarms of the unit."""
        self._units[unit] -= 1
        if not self._units[unit]:
            del self._units[unit]

    def write_changes(self) -> None:
        """Write points of the open alarms that began or became worse."""
        for alarm in self._changed.values():
            self._write(self._point(alarm))
        self._changed = {}

    async def load(self) -> None:
        """Load the alarms that were open when the previous process ended. To be called before the first
        `look`."""
        bodies = await self._state.write(
            lambda connection: connection.execute("SELECT body FROM alarm").fetchall()
        )
        for (body,) in bodies:
            try:
                alarm = msgspec.msgpack.decode(body, type=Alarm)
            except msgspec.DecodeError as error:  # damaged: the alarm opens again with the next breach
                log.error("an alarm in the state file cannot be read", error=str(error))
                continue
            if alarm.signal in alarm_limits(alarm.class_name):
                unit = alarm.unit
                self._open[unit, alarm.signal] = alarm
                self._units[unit] = self._units.get(unit, 0) + 1

    async def keep(self) -> None:
        """Save begun and ended alarms to the state file."""
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
        except (sqlite3.OperationalError, OSError):  # the pipeline reports a full or missing disk
            self._to_keep = changes | self._to_keep


def _newer(readings: Iterable[_Reading]) -> Iterator[_Reading]:
    """Skip readings that are older than an earlier one of the same unit."""
    latest_ms: dict[int, int] = {}
    for reading in readings:
        if reading.ts_ms >= latest_ms.get(reading.number, 0):
            latest_ms[reading.number] = reading.ts_ms
            yield reading
